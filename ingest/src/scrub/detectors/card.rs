//! Payment card numbers: an issuer's prefix and length, the Luhn digit, and nothing that goes on.
//!
//! The prefix is what makes this safe in telemetry: times in milli-, micro- and nanoseconds and most
//! sequence numbers begin with 1, which no issuer uses at these lengths (but one old 15-digit range).

use super::{Input, Span, follows_word, is_in_hex_run, is_word_at, push};
use crate::cut;

const DIGITS_MIN: usize = 13;
const DIGITS_MAX: usize = 19;

/// Separators between two groups of digits, at most: ` - ` has three.
const SEPARATORS_MAX: usize = 3;

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let bytes = input.text.as_bytes();
    let mut at = 0;
    while let Some(skipped) = cut::tail(bytes, at).iter().position(u8::is_ascii_digit) {
        at += skipped;
        let run = Run::read(bytes, at);
        if let Some(end) = run.card_end() {
            if !is_cut(bytes, at, end) {
                push(out, at, end, "[card]");
            }
            at = end;
        } else {
            // The next try starts behind this group: a card never starts within digits.
            at = run.first_group_end;
        }
    }
}

/// Digits from some place on, over separators, up to one more than a card has.
struct Run {
    digits: [u8; DIGITS_MAX + 1],
    ends: [usize; DIGITS_MAX + 1],
    len: usize,
    /// Bit n: separators stand behind digit n.
    breaks: u32,
    first_group_end: usize,
}

impl Run {
    fn read(bytes: &[u8], start: usize) -> Self {
        let group = cut::tail(bytes, start).iter().take_while(|b| b.is_ascii_digit()).count();
        let mut run = Self {
            digits: [0; DIGITS_MAX + 1],
            ends: [0; DIGITS_MAX + 1],
            len: 0,
            breaks: 0,
            first_group_end: start + group,
        };
        let (mut at, mut separator) = (start, None);
        for (digit, end) in run.digits.iter_mut().zip(run.ends.iter_mut()) {
            let mut byte = bytes.get(at).copied().unwrap_or_default();
            if !byte.is_ascii_digit() {
                let Some((sign, len)) = gap(cut::tail(bytes, at)) else { break };
                if *separator.get_or_insert(sign) != sign {
                    break;
                }
                run.breaks |= 1 << (run.len - 1);
                at += len;
                byte = bytes.get(at).copied().unwrap_or_default();
            }
            *digit = byte.wrapping_sub(b'0');
            at += 1;
            *end = at;
            run.len += 1;
        }
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
                    && is_valid(cut::head(&self.digits, *len))
            })
            .and_then(|len| self.ends.get(len - 1).copied())
    }
}

/// What stands between two digits, if it may separate groups of one number: its sign, a blank where it has none, and
/// its length. Blanks around the sign, and the sign repeated, change nothing.
fn gap(bytes: &[u8]) -> Option<(u8, usize)> {
    let is_separator = |b: &&u8| matches!(b, b' ' | b'-' | b'.' | b'_' | b'+' | b'/');
    let len = bytes.iter().take(SEPARATORS_MAX + 1).take_while(is_separator).count();
    if !(1..=SEPARATORS_MAX).contains(&len) || !bytes.get(len).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let mut signs = bytes.iter().take(len).copied().filter(|b| *b != b' ');
    let sign = signs.next().unwrap_or(b' ');
    signs.all(|other| other == sign).then_some((sign, len))
}

/// Whether separators stand where people put them: nowhere, every four digits, or 4-6-rest.
fn is_grouped_as_cards(breaks: u32, len: usize) -> bool {
    let every_four = (3..len - 1).step_by(4).fold(0, |bits, at| bits | 1 << at);
    breaks == 0 || breaks == every_four || breaks == (1 << 3 | 1 << 9)
}

/// Whether the digits are cut out of something longer: a word, a decimal number, a version, a UUID.
fn is_cut(bytes: &[u8], start: usize, end: usize) -> bool {
    let number_before = matches!(cut::head(bytes, start), [.., b'0'..=b'9', b'.' | b',']);
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
    let (mut rest, mut first) = (number, digits.len());
    for digit in digits.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        first -= 1;
    }
    is_valid(cut::tail(&digits, first))
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
    let prefix =
        |count: usize| digits.iter().take(count).fold(0u32, |sum, digit| sum * 10 + u32::from(*digit));
    let len = digits.len();
    if !(DIGITS_MIN..=DIGITS_MAX).contains(&len) {
        return false;
    }
    let issued = match digits.first().copied().unwrap_or_default() {
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
    issued && has_luhn_digit(digits) && digits.iter().any(|digit| digits.get(len - 2) != Some(digit))
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
