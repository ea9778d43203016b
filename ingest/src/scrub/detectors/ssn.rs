//! United States social security numbers: `123-45-6789`, and other spellings beside the word.

use std::sync::LazyLock;

use regex::Regex;

use super::{Input, Span, is_in_hex_run, push};
use crate::cut;
use crate::scrub::pattern::Pattern;

pub(super) static DASHED: LazyLock<Pattern<Regex>> =
    LazyLock::new(|| Pattern::constant(r"[0-9]{3} ?- ?[0-9]{2} ?- ?[0-9]{4}"));

pub(super) static NAMED: LazyLock<Pattern<Regex>> = LazyLock::new(|| {
    Pattern::constant(
        r#"(?i-u:\b(?:ssn|social[ _-]security(?:[ _-](?:number|no|num))?)\b)["' :=#-]{1,6}(?:is )?([0-9]{3}[ .]?[0-9]{2}[ .]?[0-9]{4})"#,
    )
});

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let bytes = input.text.as_bytes();
    for found in DASHED.get().find_iter(input.text) {
        let (start, end) = (found.start(), found.end());
        let goes_on =
            |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let is_cut = goes_on(cut::before(bytes, start).as_ref()) || goes_on(bytes.get(end));
        if !is_cut && is_issued(found.as_str()) && !is_in_hex_run(bytes, start, end) {
            push(out, start, end, "[ssn]");
        }
    }
    for found in NAMED.get().captures_iter(input.text) {
        let Some(number) = found.get(1) else { continue };
        if is_issued(number.as_str()) && !bytes.get(number.end()).is_some_and(u8::is_ascii_alphanumeric) {
            push(out, number.start(), number.end(), "[ssn]");
        }
    }
}

/// Areas 000 and 666, group 00 and serial 0000 were never given out.
fn is_issued(text: &str) -> bool {
    let mut digits = [0u8; 9];
    for (place, digit) in digits.iter_mut().zip(text.bytes().filter(u8::is_ascii_digit)) {
        *place = digit;
    }
    let (area, rest) = digits.split_at(3);
    let (group, serial) = rest.split_at(2);
    area != b"000" && area != b"666" && group != b"00" && serial != b"0000"
}
