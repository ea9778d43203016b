//! Payment card numbers: an issuer's prefix and length, the Luhn digit, and nothing that goes on.
//!
//! The prefix is what makes this safe in telemetry: times in milli-, micro- and nanoseconds and most
//! sequence numbers begin with 1, which no issuer uses at these lengths (but one old 15-digit range).

use super::{CARD, Input, Span, follows_word, is_in_hex_run, is_word_at, push};

const DIGITS_MIN: usize = 13;
const DIGITS_MAX: usize = 19;

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let bytes = input.text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let run = Run::read(bytes, at);
        if let Some(end) = run.card_end() {
            if !is_cut(bytes, at, end) {
                push(out, at, end, "[card]");
                debug_assert_eq!(super::ALL[CARD].name, "card");
            }
            at = end;
        } else {
            // The next try starts behind this group: a card never starts within digits.
            at = run.first_group_end;
        }
    }
}

/// Digits from some place on, over single separators, up to one more than a card has.
struct Run {
    digits: [u8; DIGITS_MAX + 1],
    ends: [usize; DIGITS_MAX + 1],
    len: usize,
    /// Bit n: a separator stands behind digit n.
    breaks: u32,
    first_group_end: usize,
}

impl Run {
    fn read(bytes: &[u8], start: usize) -> Self {
        let mut run = Self { digits: [0; 20], ends: [0; 20], len: 0, breaks: 0, first_group_end: 0 };
        let (mut at, mut separator) = (start, None);
        while at < bytes.len() && run.len < run.digits.len() {
            let byte = bytes[at];
            if byte.is_ascii_digit() {
                run.digits[run.len] = byte - b'0';
                run.ends[run.len] = at + 1;
                run.len += 1;
                at += 1;
            } else if matches!(byte, b' ' | b'-' | b'.' | b'_' | b'+')
                && *separator.get_or_insert(byte) == byte
                && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
            {
                run.breaks |= 1 << (run.len - 1);
                at += 1;
            } else {
                break;
            }
        }
        let mut end = start;
        while bytes.get(end).is_some_and(u8::is_ascii_digit) {
            end += 1;
        }
        run.first_group_end = end;
        run
    }

    /// Where the card at the run's start ends, the longest that fits.
    fn card_end(&self) -> Option<usize> {
        (DIGITS_MIN..=self.len.min(DIGITS_MAX))
            .rev()
            .find(|len| {
                let ends_here = *len == self.len || self.breaks & (1 << (len - 1)) != 0;
                ends_here
                    && is_grouped_as_cards(self.breaks & ((1 << (len - 1)) - 1), *len)
                    && is_valid(&self.digits[..*len])
            })
            .map(|len| self.ends[len - 1])
    }
}

/// Whether separators stand where people put them: nowhere, every four digits, or 4-6-rest.
fn is_grouped_as_cards(breaks: u32, len: usize) -> bool {
    let every_four = (3..len - 1).step_by(4).fold(0, |bits, at| bits | 1 << at);
    breaks == 0 || breaks == every_four || breaks == (1 << 3 | 1 << 9)
}

/// Whether the digits are cut out of something longer: a word, a decimal number, a version, a UUID.
fn is_cut(bytes: &[u8], start: usize, end: usize) -> bool {
    let number_before =
        start >= 2 && matches!(bytes[start - 1], b'.' | b',') && bytes[start - 2].is_ascii_digit();
    let number_after = bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
    follows_word(bytes, start)
        || is_word_at(bytes, end)
        || number_before
        || number_after
        || is_in_hex_run(bytes, start, end)
}

/// Whether a number is a card's.
pub(in crate::scrub) fn is_card(number: u64) -> bool {
    let mut digits = [0u8; 20];
    let (mut rest, mut len) = (number, 0);
    while rest > 0 {
        digits[len] = u8::try_from(rest % 10).expect("a remainder below ten");
        rest /= 10;
        len += 1;
    }
    digits[..len].reverse();
    is_valid(&digits[..len])
}

/// Whether a double is a whole number that is a card's.
pub(in crate::scrub) fn is_card_double(number: f64) -> bool {
    let number = number.abs();
    // Above 2^63 no card is left, below 10^12 none begins.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and in range"
    )]
    let whole = (1e12..9e18).contains(&number).then_some(number as u64);
    number.fract() == 0.0 && whole.is_some_and(is_card)
}

fn is_valid(digits: &[u8]) -> bool {
    let prefix = |count: usize| digits[..count].iter().fold(0u32, |sum, digit| sum * 10 + u32::from(*digit));
    let len = digits.len();
    if !(DIGITS_MIN..=DIGITS_MAX).contains(&len) {
        return false;
    }
    let issued = match digits[0] {
        4 => matches!(len, 13 | 16 | 19),
        5 => len == 16 && matches!(prefix(2), 50..=58),
        2 => {
            (len == 16 && matches!(prefix(4), 2221..=2720 | 2200..=2204)) || (len == 15 && prefix(4) == 2131)
        }
        3 => {
            (len == 15 && matches!(prefix(2), 34 | 37))
                || (matches!(len, 14 | 16) && matches!(prefix(3), 300..=305 | 309 | 360..=369 | 380..=399))
                || (len == 16 && matches!(prefix(4), 3500..=3599))
        }
        6 => {
            len >= 16 && matches!(prefix(2), 60 | 62 | 64 | 65)
                || matches!(prefix(4), 6304 | 6759 | 6761..=6763)
        }
        1 => len == 15 && prefix(4) == 1800,
        _ => false,
    };
    // One digit repeated passes Luhn and is nobody's card.
    issued && has_luhn_digit(digits) && digits.iter().any(|digit| *digit != digits[len - 2])
}

fn has_luhn_digit(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}
