//! A secret on the lines below its name, as YAML and pretty-printed JSON write it.

use super::{Span, password::is_secret, push};
use crate::cut;

/// Lines of a value that are looked at. Chosen: a private key of 8,192 bits in base64 has some 110.
const LINES_MAX: usize = 128;

/// Bytes between a name's colon and its line's end: a mark and a comment. The bound keeps the search linear.
const MARK_BYTES_MAX: usize = 128;

/// Masks what stands below the name that ends its line with the colon at `colon`; returns where that ends.
///
/// Without a block mark (`|`, `>`) it is one word, or a list of them: a sentence below `password:` is no secret.
pub(super) fn find(
    text: &str,
    name_start: usize,
    colon: usize,
    label: &'static str,
    out: &mut Vec<Span>,
) -> Option<usize> {
    let bytes = text.as_bytes();
    let first = line(cut::head(bytes, colon + 1 + MARK_BYTES_MAX), colon + 1);
    let is_block = mark(cut::bytes(bytes, first.start, first.end))?;
    let mut next = first.next?;
    let before = cut::head(bytes, name_start);
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let parent = indent(cut::tail(bytes, line_start));
    let mut last = None;
    for _ in 0..LINES_MAX {
        let Line { end, next: after, .. } = line(bytes, next);
        let row = cut::bytes(bytes, next, end);
        let depth = indent(row);
        if depth < row.len() {
            let item = cut::tail(row, depth).starts_with(b"- ");
            if depth < parent || (depth == parent && !item) {
                break;
            }
            let mut start = next + depth;
            if item {
                start += 2 + indent(cut::tail(bytes, start + 2));
            }
            let (start, end) = unquoted(bytes, start, end);
            if !is_block && !is_word(cut::text(text, start, end)) {
                break;
            }
            push(out, start, end, label);
            last = Some(end);
            if !is_block && !item {
                break;
            }
        }
        match after {
            Some(after) => next = after,
            None => break,
        }
    }
    last
}

struct Line {
    start: usize,
    /// Before the line's end, whichever it has.
    end: usize,
    next: Option<usize>,
}

fn line(bytes: &[u8], start: usize) -> Line {
    let rest = cut::tail(bytes, start);
    let len = rest.iter().position(|b| *b == b'\n');
    let row = cut::head(rest, len.unwrap_or(rest.len()));
    let end = start + row.strip_suffix(b"\r").unwrap_or(row).len();
    Line { start, end, next: len.map(|len| start + len + 1) }
}

/// Whether the rest of the name's line leaves the value to the next, and as a block of lines; `None` where it does not.
fn mark(rest: &[u8]) -> Option<bool> {
    match rest.trim_ascii() {
        [] => Some(false),
        [b'|' | b'>', more @ ..] if more.len() <= 2 => Some(true),
        [b'#' | b'!', ..] if rest.starts_with(b" ") => Some(false),
        _ => None,
    }
}

fn indent(row: &[u8]) -> usize {
    row.iter().take_while(|b| matches!(b, b' ' | b'\t')).count()
}

/// A value without its quotes and the comma behind it.
fn unquoted(bytes: &[u8], start: usize, end: usize) -> (usize, usize) {
    match bytes.get(start) {
        Some(quote @ (b'"' | b'\'')) => {
            let inner = cut::bytes(bytes, start + 1, end);
            let len = inner.iter().rposition(|b| b == quote).unwrap_or(inner.len());
            (start + 1, start + 1 + len)
        }
        _ => (start, start + cut::bytes(bytes, start, end).trim_ascii_end().len()),
    }
}

/// Whether a line is one word that is a secret, and no name of something below it.
fn is_word(value: &str) -> bool {
    !value.contains([' ', '\t', '{', '[', '<']) && !value.ends_with(':') && is_secret(value, true, "")
}
