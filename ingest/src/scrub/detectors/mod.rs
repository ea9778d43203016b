//! What is looked for in text: one detector a file, one visible list.
//!
//! A detector gets one value as text and pushes the spans it would mask. It looks for its own trigger
//! first (`@`, a run of digits, a prefix) and leaves at once where there is none, so that a value costs
//! only what it holds. All patterns are linear-time. Encodings are not a detector's business: the caller
//! shows it the decoded text as well ([`super::decoded`]).
//!
//! To add one: a file with a `find`, and a line in [`ALL`]. Its trigger must be in [`super::prefilter`].

mod authorization;
mod block;
mod card;
pub(super) mod command;
mod email;
mod iban;
mod ip;
mod jwt;
mod key;
mod password;
mod phone;
mod private_key;
mod ssn;
mod url;

use std::sync::LazyLock;

pub(super) use card::{is_card, is_card_double};
use regex::Regex;

use super::fields::Fields;
use super::pattern::Pattern;
use crate::cut;

/// A value as a detector sees it.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    /// The text.
    pub(super) text: &'a str,
    /// The names whose values are secret.
    pub(super) fields: &'a Fields,
}

/// Bytes to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte.
    pub(super) start: usize,
    /// Past the last byte.
    pub(super) end: usize,
    /// What stands in their place: never a quote, a backslash or a control character.
    pub(super) label: &'static str,
    /// The detector's place in [`ALL`]; the caller writes it.
    pub(super) detector: usize,
}

/// One thing to look for.
pub(super) struct Detector {
    /// Its name in configuration, counters and reports.
    pub(super) name: &'static str,
    /// Whether it is on where nothing else is said.
    pub(super) is_on: bool,
    /// Pushes what it finds.
    pub(super) find: fn(Input<'_>, &mut Vec<Span>),
    /// What it looks by. Compiled with a profile, not by the first text that needs it: that one would wait for it, and
    /// thousands of small pieces that stay would lie between those of a body.
    pub(super) patterns: &'static [&'static LazyLock<Pattern<Regex>>],
}

/// Every detector, in the order of the report's counters. The last counter, after these, is `field`.
///
/// `ip` is off: addresses are what operators search by, and many deployments need them. `phone` is on:
/// on the labelled lines it finds every number without a false one, and it leaves the real lines alone.
pub(super) const ALL: [Detector; 12] = [
    Detector { name: "email", is_on: true, find: email::find, patterns: &[&email::ADDRESS] },
    Detector { name: "card", is_on: true, find: card::find, patterns: &[] },
    Detector { name: "jwt", is_on: true, find: jwt::find, patterns: &[&jwt::TOKEN] },
    Detector {
        name: "authorization",
        is_on: true,
        find: authorization::find,
        patterns: &[&authorization::SCHEME],
    },
    Detector { name: "key", is_on: true, find: key::find, patterns: &[&key::DOTTED, &key::FORM] },
    Detector { name: "private_key", is_on: true, find: private_key::find, patterns: &[] },
    Detector { name: "password", is_on: true, find: password::find, patterns: &[&command::COMMAND] },
    Detector { name: "url", is_on: true, find: url::find, patterns: &[] },
    Detector { name: "iban", is_on: true, find: iban::find, patterns: &[] },
    Detector { name: "ssn", is_on: true, find: ssn::find, patterns: &[&ssn::DASHED, &ssn::NAMED] },
    Detector {
        name: "phone",
        is_on: true,
        find: phone::find,
        patterns: &[&phone::INTERNATIONAL, &phone::NATIONAL, &phone::NAMED],
    },
    Detector { name: "ip", is_on: false, find: ip::find, patterns: &[&ip::V4, &ip::V6] },
];

/// The counter of card numbers found in numbers.
pub(super) const CARD: usize = 1;

fn push(out: &mut Vec<Span>, start: usize, end: usize, label: &'static str) {
    if start < end {
        out.push(Span { start, end, label, detector: 0 });
    }
}

/// Whether the byte before `at` belongs to a word or number, so that what begins at `at` is part of it.
fn follows_word(bytes: &[u8], at: usize) -> bool {
    cut::before(bytes, at).is_some_and(|before| before.is_ascii_alphanumeric())
}

/// Whether the byte at `at` goes on with a word or number.
fn is_word_at(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(u8::is_ascii_alphanumeric)
}

/// Whether the digits at `start..end` are part of a UUID or a longer run of hex and dashes.
fn is_in_hex_run(bytes: &[u8], start: usize, end: usize) -> bool {
    let part = |b: &u8| b.is_ascii_hexdigit() || *b == b'-';
    // A UUID has 36 characters: nothing is gained by looking further.
    let before = cut::head(bytes, start).iter().rev().take(36).take_while(|b| part(b));
    let after = cut::tail(bytes, end).iter().take(36).take_while(|b| part(b));
    let (mut len, mut has_letter) = (end - start, false);
    for byte in before.chain(after) {
        len += 1;
        has_letter |= byte.is_ascii_alphabetic();
    }
    has_letter && len >= 32
}

/// Longer values are no stand-ins. The bound also keeps the search linear: what is passed over as a stand-in
/// is looked at again from within.
const STAND_IN_BYTES_MAX: usize = 256;

/// Whether a value is a stand-in and no secret: masked already, a variable, a run of one character.
fn is_placeholder(value: &str) -> bool {
    if value.len() > STAND_IN_BYTES_MAX {
        return false;
    }
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return true };
    let wrapped = bytes.len() >= 2
        && matches!((first, last), (b'[', b']') | (b'<', b'>') | (b'{', b'}') | (b'%', b'%'));
    let name = |b: &u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b'-' | b' ' | b'.');
    (wrapped
        && cut::bytes(bytes, 1, bytes.len() - 1).iter().all(|b| name(b) || matches!(b, b'{' | b'}' | b'%')))
        || value.starts_with("${")
        || value.starts_with("{{")
        || value.starts_with("$(")
        || (*first == b'$'
            && bytes.len() > 1
            && bytes.iter().skip(1).all(|b| b.is_ascii_uppercase() || *b == b'_'))
        || matches!(value, "%s" | "%v" | "%q" | "{}" | "%d")
        || has_stand_in(value)
        || bytes.iter().all(|b| matches!(b, b'*' | b'.' | b'-' | b'#'))
        || (bytes.len() > 2 && bytes.iter().all(|b| matches!(b, b'x' | b'X' | b'-')))
        || ["null", "none", "nil", "true", "false", "undefined", "redacted", "masked", "hidden", "filtered"]
            .iter()
            .any(|word| value.eq_ignore_ascii_case(word))
}

/// Whether a run of `x` says that this is an example.
fn has_stand_in(value: &str) -> bool {
    ["xxxxxxxx", "XXXXXXXX", "********"].iter().any(|run| value.contains(run))
}

/// Different bytes in a token; a real one has many, a stand-in (`xxxx…`) few.
fn distinct_bytes(token: &[u8]) -> usize {
    let mut seen = [0u64; 4];
    for byte in token {
        if let Some(word) = seen.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }
    seen.iter().map(|word| word.count_ones() as usize).sum()
}
