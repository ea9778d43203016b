//! Phone numbers: international ones with `+`, North American ones in their usual dress, and what stands
//! beside a word for phone. Bare digits are left alone: telemetry is full of them.

use std::sync::LazyLock;

use regex::Regex;

use super::{Input, Span, is_in_hex_run, push};
use crate::cut;
use crate::scrub::pattern::Pattern;

pub(super) static INTERNATIONAL: LazyLock<Pattern<Regex>> =
    LazyLock::new(|| Pattern::constant(r"\+[1-9][0-9]{0,3}(?:[ .-]?\(?[0-9]{1,5}\)?){1,7}"));

pub(super) static NATIONAL: LazyLock<Pattern<Regex>> = LazyLock::new(|| {
    Pattern::constant(
        r"\([2-9][0-9]{2}\) ?[0-9]{3}[ .-][0-9]{4}|[2-9][0-9]{2}(?:-[0-9]{3}-|\.[0-9]{3}\.)[0-9]{4}",
    )
});

pub(super) static NAMED: LazyLock<Pattern<Regex>> = LazyLock::new(|| {
    Pattern::constant(
        r#"(?i-u:(?:phone|mobile|telephone|msisdn|fax)(?:[_ -]?(?:number|no))?)["']?[:=]\s?["']?(\(?[0-9](?:[ ().-]{0,2}[0-9]){6,14})"#,
    )
});

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let bytes = input.text.as_bytes();
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
    if memchr::memchr(b'+', bytes).is_some() {
        for found in INTERNATIONAL.get().find_iter(input.text) {
            let is_number = (9..=15).contains(&digits(found.as_str()));
            if is_number && !is_cut(bytes, found.start(), found.end()) {
                push(out, found.start(), found.end(), "[phone]");
            }
        }
    }
    for found in NATIONAL.get().find_iter(input.text) {
        if !is_cut(bytes, found.start(), found.end()) && !is_in_hex_run(bytes, found.start(), found.end()) {
            push(out, found.start(), found.end(), "[phone]");
        }
    }
    for found in NAMED.get().captures_iter(input.text) {
        let Some(number) = found.get(1) else { continue };
        if !bytes.get(number.end()).is_some_and(u8::is_ascii_alphanumeric) {
            push(out, number.start(), number.end(), "[phone]");
        }
    }
}

fn is_cut(bytes: &[u8], start: usize, end: usize) -> bool {
    let goes_on = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+');
    cut::before(bytes, start).is_some_and(|b| goes_on(&b) || matches!(b, b'-' | b'.'))
        || bytes.get(end).is_some_and(goes_on)
        || (matches!(bytes.get(end), Some(b'-' | b'.' | b':'))
            && bytes.get(end + 1).is_some_and(u8::is_ascii_digit))
}
