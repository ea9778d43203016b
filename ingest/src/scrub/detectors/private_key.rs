//! Private keys in PEM and PGP armour, whole or cut off.

use memchr::memmem;

use super::{Input, Span, push};
use crate::cut;

/// From `-----BEGIN` to the label's end: `-----BEGIN ENCRYPTED PRIVATE KEY`.
const LABEL_BYTES_MAX: usize = 48;

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let bytes = input.text.as_bytes();
    // Asked once: looking for it anew behind every opening line would cost the square of a hostile text.
    let last_end = memmem::rfind(bytes, b"-----END ").unwrap_or(0);
    let mut from = 0;
    while let Some(at) = memmem::find(cut::tail(bytes, from), b"-----BEGIN ") {
        let start = from + at;
        from = start + 11;
        let label = cut::bytes(bytes, from, from + LABEL_BYTES_MAX);
        let Some(named) = memmem::find(label, b"PRIVATE KEY") else { continue };
        if cut::head(label, named).contains(&b'-') {
            continue;
        }
        let body = from + named + b"PRIVATE KEY".len();
        let end = armour_end(bytes, body, last_end);
        push(out, start, end, "[private_key]");
        from = end;
    }
}

/// Where the block that opened before `body` ends; without an end line, where its base64 does.
fn armour_end(bytes: &[u8], body: usize, last_end: usize) -> usize {
    if body <= last_end
        && let Some(at) = memmem::find(cut::tail(bytes, body), b"-----END ")
    {
        let line = body + at + 9;
        let tail = cut::bytes(bytes, line, line + LABEL_BYTES_MAX);
        let dashes = memmem::find(tail, b"-----").map_or(tail.len(), |at| at + 5);
        let mut end = line + dashes;
        while !is_boundary(bytes, end) {
            end += 1;
        }
        return end;
    }
    let is_armour = |b: &u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'+' | b'/' | b'=' | b'-' | b'\\' | b':' | b',')
            || b.is_ascii_whitespace()
    };
    body + cut::tail(bytes, body).iter().take_while(|b| is_armour(b)).count()
}

fn is_boundary(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_none_or(|byte| byte & 0xC0 != 0x80)
}
