//! JSON web tokens, signed (two dots), unsigned (one) and encrypted (four).

use std::sync::LazyLock;

use memchr::memmem;
use regex::Regex;

use super::{Input, Span, distinct_bytes, follows_word, push};
use crate::scrub::pattern::Pattern;

pub(super) static TOKEN: LazyLock<Pattern<Regex>> = LazyLock::new(|| {
    // `eyJ` is the base64 of `{"`, `ewo` of a brace and a line end.
    Pattern::constant(r"(?:eyJ|ewo)[A-Za-z0-9_=-]{8,}\.[A-Za-z0-9_=-]{8,}(?:\.[A-Za-z0-9_=/+-]*){0,3}")
});

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let bytes = input.text.as_bytes();
    if memmem::find(bytes, b"eyJ").is_none() && memmem::find(bytes, b"ewo").is_none() {
        return;
    }
    for found in TOKEN.get().find_iter(input.text) {
        if !follows_word(bytes, found.start()) && distinct_bytes(found.as_str().as_bytes()) > 8 {
            push(out, found.start(), found.end(), "[jwt]");
        }
    }
}
