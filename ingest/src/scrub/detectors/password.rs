//! Secrets that a name in front gives away: `password=…`, `api_key: "…"`, `--token …`, `<secret>…`,
//! `Cookie: …`, `?sig=…`.
//!
//! The names are those of the field rules ([`Fields`]), so text, attributes and JSON agree on what a
//! secret's name is, and a name added by configuration counts here too.

use memchr::memchr3_iter;

use super::{Input, STAND_IN_BYTES_MAX, Span, is_placeholder, push};
use crate::scrub::fields::{Action, Fields, Verdict};

/// Bytes of a name that are looked at, backwards from its separator.
const NAME_BYTES_MAX: usize = 64;

/// Parameters that carry a signature or a key, in the query of a URL only.
const QUERY_NAMES: [&str; 9] = [
    "sig",
    "signature",
    "x-amz-signature",
    "x-amz-credential",
    "x-goog-signature",
    "x-amz-security-token",
    "auth",
    "key",
    "code_verifier",
];

/// What follows `password:` in a sentence.
const PROSE: [&str; 52] = [
    "a",
    "an",
    "and",
    "are",
    "authentication",
    "bad",
    "cannot",
    "changed",
    "correct",
    "does",
    "empty",
    "error",
    "expired",
    "failed",
    "failure",
    "field",
    "for",
    "found",
    "from",
    "has",
    "id",
    "if",
    "in",
    "incorrect",
    "invalid",
    "is",
    "length",
    "mismatch",
    "missing",
    "must",
    "no",
    "not",
    "of",
    "ok",
    "or",
    "required",
    "reset",
    "revoked",
    "rotated",
    "should",
    "success",
    "the",
    "too",
    "unset",
    "updated",
    "used",
    "user",
    "valid",
    "verification",
    "was",
    "with",
    "wrong",
];

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let (text, bytes) = (input.text, input.text.as_bytes());
    // Where the last value ended: a `=` within it is part of it.
    let mut covered = 0;
    for at in memchr3_iter(b'=', b':', b'>', bytes) {
        if at < covered {
            continue;
        }
        let Some(name) = name_before(bytes, at) else { continue };
        let verdict = input.fields.verdict(&text[name.start..name.end]);
        let in_query = name.start > 0 && matches!(bytes[name.start - 1], b'?' | b'&');
        let value = match verdict {
            Some(verdict) => value_behind(text, at, verdict, &text[name.start..name.end]),
            None if in_query && is_query_name(&text[name.start..name.end]) => query_value(bytes, at + 1),
            None => None,
        };
        if let Some((start, end)) = value {
            push(out, start, end, verdict.map_or("[key]", |verdict| verdict.label));
            covered = end;
        }
    }
    flags(input.text, input.fields, out);
}

struct Name {
    start: usize,
    end: usize,
}

/// The name that ends before the separator at `at`, over a quote and blanks.
fn name_before(bytes: &[u8], at: usize) -> Option<Name> {
    let mut end = at;
    if bytes[at] == b'>' {
        // `<password>`, not `a -> b`.
        let start = name_start(bytes, end);
        return (start > 0 && bytes[start - 1] == b'<' && start < end).then_some(Name { start, end });
    }
    // `:=`, `?=`, `==`, `::=`.
    while end > 0 && at - end < 4 && matches!(bytes[end - 1], b':' | b'=' | b'?') {
        end -= 1;
    }
    while end > 0 && at - end < 8 && matches!(bytes[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    if end > 0 && matches!(bytes[end - 1], b'"' | b'\'' | b'`' | b']') {
        end -= 1;
        if end > 0 && matches!(bytes[end - 1], b'"' | b'\'') {
            end -= 1;
        }
    }
    let start = name_start(bytes, end);
    (start < end).then_some(Name { start, end })
}

fn name_start(bytes: &[u8], end: usize) -> usize {
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    end - bytes[..end].iter().rev().take(NAME_BYTES_MAX).take_while(|b| is_name(b)).count()
}

fn is_query_name(name: &str) -> bool {
    QUERY_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn query_value(bytes: &[u8], start: usize) -> Option<(usize, usize)> {
    let ends =
        |b: &u8| b.is_ascii_whitespace() || matches!(b, b'&' | b'"' | b'\'' | b'#' | b'<' | b'>' | b'\\');
    let end = start + bytes[start..].iter().position(ends).unwrap_or(bytes.len() - start);
    // Short ones are no signatures: `?key=42` is an item.
    (end - start >= 8).then_some((start, end))
}

/// The value behind the separator at `at`, if it is a secret and not prose or a stand-in.
fn value_behind(text: &str, at: usize, verdict: Verdict, name: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    if matches!(verdict.action, Action::Keep) {
        return None;
    }
    let mut start = at + 1;
    while matches!(bytes.get(start), Some(b'=' | b':' | b'>')) && start - at < 4 {
        start += 1;
    }
    let tight = start;
    while matches!(bytes.get(start), Some(b' ' | b'\t')) {
        start += 1;
    }
    let whole_line = verdict.is_header && bytes[at] == b':';
    match bytes.get(start)? {
        quote @ (b'"' | b'\'' | b'`') => {
            let inner = start + 1;
            let end = quoted_end(bytes, inner, *quote);
            let value = &text[inner..end];
            (!is_placeholder(value)).then_some((inner, end))
        }
        b'{' | b'(' | b'\\' | b'\r' | b'\n' => None,
        _ if whole_line => {
            let start = after_scheme(text, start);
            let end = start
                + bytes[start..]
                    .iter()
                    .position(|b| matches!(b, b'\n' | b'\r' | b'"' | b'\''))
                    .unwrap_or(bytes.len() - start);
            let end = if name.to_ascii_lowercase().ends_with("cookie") {
                end
            } else {
                word_end(bytes, start, true)
            };
            (end > start && !is_placeholder(&text[start..end])).then_some((start, end))
        }
        _ => {
            let is_tag = bytes[at] == b'>';
            let end = if is_tag {
                start + bytes[start..].iter().position(|b| *b == b'<').unwrap_or(bytes.len() - start)
            } else {
                word_end(bytes, start, false)
            };
            let value = &text[start..end];
            let is_sentence = bytes[at] == b':' && start > tight;
            (is_secret(value, is_sentence, name)).then_some((start, end))
        }
    }
}

/// Where `Bearer `, `Basic ` and the like end.
fn after_scheme(text: &str, start: usize) -> usize {
    for scheme in ["bearer ", "basic ", "digest ", "token ", "apikey ", "aws4-hmac-sha256 ", "negotiate "] {
        if text.get(start..start + scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)) {
            return start + scheme.len();
        }
    }
    start
}

fn is_secret(value: &str, is_sentence: bool, name: &str) -> bool {
    let trimmed = value.trim_end_matches(['.', ',', ';', '!']);
    if trimmed.is_empty() || is_placeholder(trimmed) {
        return false;
    }
    if trimmed.len() > STAND_IN_BYTES_MAX {
        return true;
    }
    // The shell's working directory.
    if name.eq_ignore_ascii_case("pwd")
        && (trimmed.starts_with('/') || trimmed.as_bytes().get(1) == Some(&b':'))
    {
        return false;
    }
    // A call or a template in source text, no literal.
    if trimmed.starts_with('$') && trimmed.as_bytes().get(1).is_some_and(|b| matches!(b, b'{' | b'(')) {
        return false;
    }
    !(is_sentence && PROSE.iter().any(|word| word.eq_ignore_ascii_case(trimmed)))
}

/// The end of a quoted value: its quote, not one behind a backslash.
fn quoted_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    // Two steps over a backslash may pass the end or land within a character: the closing quote did not come.
    let mut end = at.min(bytes.len());
    while end < bytes.len() && bytes[end] & 0xC0 == 0x80 {
        end += 1;
    }
    end
}

fn word_end(bytes: &[u8], start: usize, is_header: bool) -> usize {
    let ends = |b: &u8| {
        b.is_ascii_whitespace()
            || matches!(b, b'"' | b'\'' | b'<' | b'>' | b'`')
            || (!is_header && matches!(b, b'&' | b',' | b';' | b')' | b'}' | b'|' | b'\\'))
    };
    let end = start + bytes[start..].iter().position(ends).unwrap_or(bytes.len() - start);
    // `<redacted>` is one word although it begins as a tag does.
    if end == start && bytes.get(start) == Some(&b'<') { start } else { end }
}

/// `--password hunter2`: a flag and a blank.
fn flags(text: &str, fields: &Fields, out: &mut Vec<Span>) {
    let bytes = text.as_bytes();
    for at in memchr::memmem::find_iter(bytes, b"--") {
        if at > 0 && !bytes[at - 1].is_ascii_whitespace() {
            continue;
        }
        let name = at + 2;
        let end = name
            + bytes[name..]
                .iter()
                .take(NAME_BYTES_MAX)
                .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                .count();
        if bytes.get(end) != Some(&b' ') {
            continue;
        }
        let Some(verdict) = fields.verdict(&text[name..end]) else { continue };
        let stop = word_end(bytes, end + 1, false);
        let value = &text[end + 1..stop];
        if !value.starts_with('-') && !matches!(verdict.action, Action::Keep) && is_secret(value, true, "") {
            push(out, end + 1, stop, verdict.label);
        }
    }
}
