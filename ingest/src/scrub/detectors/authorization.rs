//! `Bearer …` and `Basic …` values, wherever they stand.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

use super::{Input, Span, distinct_bytes, push};
use crate::scrub::pattern::Pattern;

pub(super) static SCHEME: LazyLock<Pattern<Regex>> =
    LazyLock::new(|| Pattern::constant(r"(?i-u:\b(bearer|basic)(?:[ :=]|%20){1,3})([A-Za-z0-9._~+/=-]{8,})"));

/// From this length on a bearer value need hold no digit: no word is that long.
const WORD_BYTES_MAX: usize = 24;

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    for found in SCHEME.get().captures_iter(input.text) {
        let (Some(scheme), Some(value)) = (found.get(1), found.get(2)) else { continue };
        if scheme.as_str().eq_ignore_ascii_case("basic") {
            let decoded = STANDARD.decode(value.as_str().trim_end_matches('.')).unwrap_or_default();
            if decoded.contains(&b':') {
                push(out, value.start(), value.end(), "[password]");
            }
        } else {
            let bytes = value.as_str().trim_end_matches('.').as_bytes();
            let is_token = bytes.iter().any(u8::is_ascii_digit) || bytes.len() > WORD_BYTES_MAX;
            if is_token && distinct_bytes(bytes) > 4 {
                push(out, value.start(), value.start() + bytes.len(), "[key]");
            }
        }
    }
}
