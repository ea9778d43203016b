//! International bank account numbers: a country, its length, and the check digits (ISO 13616, mod 97).

use super::{Input, Span, follows_word, is_word_at, push};
use crate::cut;

/// Separators between two characters, at most.
const SEPARATORS_MAX: usize = 3;

/// Countries and their lengths, from the registry of ISO 13616, in order.
#[rustfmt::skip]
const LENGTHS: [(&[u8; 2], u8); 84] = [
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16), (b"BG", 22),
    (b"BH", 22), (b"BI", 27), (b"BR", 29), (b"BY", 28), (b"CH", 21), (b"CR", 22), (b"CY", 28), (b"CZ", 24),
    (b"DE", 22), (b"DJ", 27), (b"DK", 18), (b"DO", 28), (b"EE", 20), (b"EG", 29), (b"ES", 24), (b"FI", 18),
    (b"FK", 18), (b"FO", 18), (b"FR", 27), (b"GB", 22), (b"GE", 22), (b"GI", 23), (b"GL", 18), (b"GR", 27),
    (b"GT", 28), (b"HR", 21), (b"HU", 28), (b"IE", 22), (b"IL", 23), (b"IQ", 23), (b"IS", 26), (b"IT", 27),
    (b"JO", 30), (b"KW", 30), (b"KZ", 20), (b"LB", 28), (b"LC", 32), (b"LI", 21), (b"LT", 20), (b"LU", 20),
    (b"LV", 21), (b"LY", 25), (b"MC", 27), (b"MD", 24), (b"ME", 22), (b"MK", 19), (b"MN", 20), (b"MR", 27),
    (b"MT", 31), (b"MU", 30), (b"NI", 28), (b"NL", 18), (b"NO", 15), (b"OM", 23), (b"PK", 24), (b"PL", 28),
    (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22), (b"RU", 33), (b"SA", 24), (b"SC", 31),
    (b"SD", 18), (b"SE", 24), (b"SI", 19), (b"SK", 24), (b"SM", 27), (b"SO", 23), (b"ST", 25), (b"SV", 28),
    (b"TL", 23), (b"TN", 24), (b"TR", 26), (b"UA", 29),
];
const MORE: [(&[u8; 2], u8); 4] = [(b"VA", 22), (b"VG", 24), (b"XK", 20), (b"YE", 30)];

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let bytes = input.text.as_bytes();
    // In small letters many an id would begin as one does: those need the word beside them.
    let takes_small = is_named(bytes);
    let mut at = 0;
    while let Some([first, second, third, fourth]) = bytes.get(at..at + 4) {
        let is_letter = |b: &u8| b.is_ascii_uppercase() || (takes_small && b.is_ascii_lowercase());
        let is_head =
            is_letter(first) && is_letter(second) && third.is_ascii_digit() && fourth.is_ascii_digit();
        match is_head.then(|| end_of(bytes, at, [*first, *second])).flatten() {
            Some(end) if !follows_word(bytes, at) => {
                push(out, at, end, "[iban]");
                at = end;
            }
            _ => at += 1,
        }
    }
}

fn is_named(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|word| word.eq_ignore_ascii_case(b"iban"))
}

fn end_of(bytes: &[u8], start: usize, country: [u8; 2]) -> Option<usize> {
    let country = country.map(|letter| letter.to_ascii_uppercase());
    let len =
        LENGTHS.iter().chain(&MORE).find(|(name, _)| **name == country).map(|(_, len)| usize::from(*len))?;
    let mut text = [0u8; 34];
    let (mut at, mut separators) = (start, 0);
    for slot in text.iter_mut().take(len) {
        loop {
            let byte = *bytes.get(at)?;
            at += 1;
            if byte.is_ascii_alphanumeric() {
                *slot = byte.to_ascii_uppercase();
                separators = 0;
                break;
            }
            separators += 1;
            if separators > SEPARATORS_MAX || !matches!(byte, b' ' | b'-' | b'.' | b'+' | b'/') {
                return None;
            }
        }
    }
    (!is_word_at(bytes, at) && has_check_digits(cut::head(&text, len))).then_some(at)
}

fn has_check_digits(text: &[u8]) -> bool {
    let rest = cut::tail(text, 4).iter().chain(cut::head(text, 4)).fold(0u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    rest == 1
}
