//! IP addresses, both versions. Off unless switched on: operators search by them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

use super::{Input, Span, push};
use crate::cut;
use crate::scrub::pattern::Pattern;

pub(super) static V4: LazyLock<Pattern<Regex>> =
    LazyLock::new(|| Pattern::constant(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"));

pub(super) static V6: LazyLock<Pattern<Regex>> =
    LazyLock::new(|| Pattern::constant(r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\.[0-9]{1,3}){0,3}"));

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let bytes = input.text.as_bytes();
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let goes_on = |at: usize| bytes.get(at).is_some_and(is_part);
    for found in V6.get().find_iter(input.text) {
        let (start, end) = (found.start(), found.end());
        // `a::b` is a path in several languages; an address has a digit.
        let is_address = found.as_str().parse::<Ipv6Addr>().is_ok_and(|ip| !ip.is_unspecified());
        let has_digit = found.as_str().bytes().any(|b| b.is_ascii_digit());
        let is_cut = cut::before(bytes, start).is_some_and(|b| b == b':' || is_part(&b)) || goes_on(end);
        if is_address && has_digit && !is_cut && found.as_str().len() > 4 {
            push(out, start, end, "[ip]");
        }
    }
    for found in V4.get().find_iter(input.text) {
        let (start, end) = (found.start(), found.end());
        let dotted =
            |at: usize| bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        let is_cut = cut::before(bytes, start).is_some_and(|b| matches!(b, b'.' | b'-') || is_part(&b))
            || goes_on(end)
            || bytes.get(end) == Some(&b'-')
            || dotted(end);
        if !is_cut && found.as_str().parse::<Ipv4Addr>().is_ok() {
            push(out, start, end, "[ip]");
        }
    }
}
