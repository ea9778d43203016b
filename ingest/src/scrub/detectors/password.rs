//! Secrets that a name in front gives away: `password=…`, `api_key: "…"`, `<secret>…`, `Cookie: …`,
//! `?sig=…`; below it ([`super::block`]), and on a command line ([`super::command`]).
//!
//! The names are those of the field rules ([`Fields`]), so text, attributes and JSON agree on what a
//! secret's name is, and a name added by configuration counts here too.

use memchr::memchr3_iter;

use super::{Input, STAND_IN_BYTES_MAX, Span, block, command, is_placeholder, push};
use crate::cut;
use crate::scrub::fields::{Action, Verdict};

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
        let called = cut::text(text, name.start, name.end);
        let verdict = input.fields.verdict(called).filter(|verdict| verdict.action != Action::Keep);
        if let Some(verdict) = verdict
            && bytes.get(at) == Some(&b':')
            && let Some(end) = block::find(text, name.start, at, verdict.label, out)
        {
            covered = end;
            continue;
        }
        let in_query = matches!(cut::before(bytes, name.start), Some(b'?' | b'&'));
        let value = match verdict {
            Some(verdict) => value_behind(text, at, verdict, called),
            None if in_query && is_query_name(called) => query_value(bytes, at + 1),
            None => None,
        };
        if let Some((start, end)) = value {
            push(out, start, end, verdict.map_or("[key]", |verdict| verdict.label));
            covered = end;
        }
    }
    command::find(input, out);
}

struct Name {
    start: usize,
    end: usize,
}

/// The name that ends before the separator at `at`, over a quote and blanks.
fn name_before(bytes: &[u8], at: usize) -> Option<Name> {
    let is_before = |end: usize, is_it: fn(u8) -> bool| cut::before(bytes, end).is_some_and(is_it);
    let mut end = at;
    if bytes.get(at) == Some(&b'>') {
        // `<password>`, not `a -> b`.
        let start = name_start(bytes, end);
        return (cut::before(bytes, start) == Some(b'<') && start < end).then_some(Name { start, end });
    }
    // `:=`, `?=`, `==`, `::=`.
    while at - end < 4 && is_before(end, |b| matches!(b, b':' | b'=' | b'?')) {
        end -= 1;
    }
    while at - end < 8 && is_before(end, |b| matches!(b, b' ' | b'\t')) {
        end -= 1;
    }
    if is_before(end, |b| matches!(b, b'"' | b'\'' | b'`' | b']')) {
        end -= 1;
        if is_before(end, |b| matches!(b, b'"' | b'\'')) {
            end -= 1;
        }
    }
    let start = name_start(bytes, end);
    (start < end).then_some(Name { start, end })
}

fn name_start(bytes: &[u8], end: usize) -> usize {
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    end - cut::head(bytes, end).iter().rev().take(NAME_BYTES_MAX).take_while(|b| is_name(b)).count()
}

fn is_query_name(name: &str) -> bool {
    QUERY_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn query_value(bytes: &[u8], start: usize) -> Option<(usize, usize)> {
    let ends =
        |b: &u8| b.is_ascii_whitespace() || matches!(b, b'&' | b'"' | b'\'' | b'#' | b'<' | b'>' | b'\\');
    let end = until(bytes, start, ends);
    // Short ones are no signatures: `?key=42` is an item.
    (end - start >= 8).then_some((start, end))
}

/// Where the first byte from `start` on stands that ends a value; the text's end where there is none.
fn until(bytes: &[u8], start: usize, ends: impl Fn(&u8) -> bool) -> usize {
    cut::tail(bytes, start).iter().position(ends).map_or(bytes.len().max(start), |len| start + len)
}

/// The value behind the separator at `at`, if it is a secret and not prose or a stand-in.
fn value_behind(text: &str, at: usize, verdict: Verdict, name: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let separator = bytes.get(at).copied()?;
    let mut start = at + 1;
    while matches!(bytes.get(start), Some(b'=' | b':' | b'>')) && start - at < 4 {
        start += 1;
    }
    let tight = start;
    while matches!(bytes.get(start), Some(b' ' | b'\t')) {
        start += 1;
    }
    let whole_line = verdict.is_header && separator == b':';
    match bytes.get(start)? {
        quote @ (b'"' | b'\'' | b'`') => {
            let inner = start + 1;
            let end = quoted_end(bytes, inner, *quote);
            (!is_placeholder(cut::text(text, inner, end))).then_some((inner, end))
        }
        b'{' | b'(' | b'\\' | b'\r' | b'\n' => None,
        _ if whole_line => {
            let start = after_scheme(text, start);
            let end = if name.to_ascii_lowercase().ends_with("cookie") {
                until(bytes, start, |b| matches!(b, b'\n' | b'\r' | b'"' | b'\''))
            } else {
                word_end(bytes, start, true)
            };
            (end > start && !is_placeholder(cut::text(text, start, end))).then_some((start, end))
        }
        _ => {
            let end = match separator {
                b'>' => until(bytes, start, |b| *b == b'<'),
                _ => word_end(bytes, start, false),
            };
            let is_sentence = separator == b':' && start > tight;
            is_secret(cut::text(text, start, end), is_sentence, name).then_some((start, end))
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

/// Whether a value is a secret rather than a stand-in, a template or, in a sentence, prose.
pub(super) fn is_secret(value: &str, is_sentence: bool, name: &str) -> bool {
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
    while let Some(byte) = bytes.get(at).filter(|byte| **byte != quote) {
        at += if *byte == b'\\' { 2 } else { 1 };
    }
    // Two steps over a backslash may pass the end or land within a character: the closing quote did not come.
    let mut end = at.min(bytes.len());
    while bytes.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) {
        end += 1;
    }
    end
}

fn word_end(bytes: &[u8], start: usize, is_header: bool) -> usize {
    // `<redacted>` is no word: it begins as a tag does.
    until(bytes, start, |b| {
        b.is_ascii_whitespace()
            || matches!(b, b'"' | b'\'' | b'<' | b'>' | b'`')
            || (!is_header && matches!(b, b'&' | b',' | b';' | b')' | b'}' | b'|' | b'\\'))
    })
}
