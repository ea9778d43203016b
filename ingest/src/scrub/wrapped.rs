//! Text in base64, base32 and hex, in UTF-8 and UTF-16: there is no mark, so every long run of their alphabets is
//! tried, and given up at the first byte that is no text.

use std::ops::Range;

use crate::cut;

/// The shortest run of an alphabet that is tried: twelve bytes of text, `a.b@c.example` in base64.
const RUN_BYTES_MIN: usize = 16;
/// Decoded bytes that must be text before the run is decoded whole.
const HEAD_BYTES: usize = 6;

/// Stands in a table for a byte that is not in the alphabet.
const NONE: u8 = 0xFF;
const SEXTETS: [u8; 256] =
    values(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", &[(b'-', 62), (b'_', 63)]);
const QUINTETS: [u8; 256] = values(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", &[]);
const NIBBLES: [u8; 256] = values(b"0123456789ABCDEF", &[]);

/// What each byte stands for. An alphabet without small letters takes them for its capitals.
#[expect(clippy::indexing_slicing, reason = "the compiler runs it: an index out of bounds does not build")]
const fn values(alphabet: &[u8], more: &[(u8, u8)]) -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut at = 0;
    while at < alphabet.len() {
        if alphabet.len() < 64 {
            table[alphabet[at].to_ascii_lowercase() as usize] = at as u8;
        }
        table[alphabet[at] as usize] = at as u8;
        at += 1;
    }
    let mut at = 0;
    while at < more.len() {
        table[more[at].0 as usize] = more[at].1;
        at += 1;
    }
    table
}

#[expect(clippy::indexing_slicing, reason = "a byte is always within a table of 256")]
fn value(table: &[u8; 256], byte: u8) -> u8 {
    table[usize::from(byte)]
}

/// How a run is written.
#[derive(Clone, Copy)]
enum Alphabet {
    Hex,
    Base64,
    Base32,
}

/// How the bytes behind it spell text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    /// A byte a character, or UTF-8.
    Narrow,
    /// Two bytes a character; the one at this parity holds it, the other is zero.
    Wide { parity: usize },
}

/// Whether some run decodes to text, as far as its head tells.
pub(super) fn has_wrapped_text(bytes: &[u8]) -> bool {
    let mut is_found = false;
    for_each_run(bytes, |run| {
        is_found |= form(cut::bytes(bytes, run.start, run.end)).is_some();
        if is_found { run.end } else { run.start }
    });
    is_found
}

/// Shows `each` the text in every run that holds text, and where the run stands.
pub(super) fn wrapped(text: &str, mut each: impl FnMut(Range<usize>, &str)) {
    let bytes = text.as_bytes();
    let mut decoded = Vec::new();
    for_each_run(bytes, |run| {
        let value = cut::bytes(bytes, run.start, run.end);
        let Some((alphabet, width)) = form(value) else { return run.start };
        decoded.clear();
        let len = decode(alphabet, width, value, &mut decoded);
        if let Width::Wide { .. } = width {
            // The zeros, and the mark of the order of bytes.
            decoded.retain(|byte| !matches!(byte, 0 | 0xFE | 0xFF));
        }
        let mut end = run.start + len;
        if let Some(chunk) = decoded.utf8_chunks().next() {
            while end >= run.end && bytes.get(end) == Some(&b'=') {
                end += 1;
            }
            each(run.start..end, chunk.valid());
        }
        run.start + len
    });
}

/// Calls `each` with every run of the alphabets, and with its rest from each place where a run may begin:
/// behind a separator (`/files/<base64>`) and behind `0x`. `each` says up to where it took the run.
fn for_each_run(bytes: &[u8], mut each: impl FnMut(Range<usize>) -> usize) {
    let is_outside = |b: &u8| value(&SEXTETS, *b) == NONE;
    let mut at = 0;
    while let Some(window) = bytes.get(at..at + RUN_BYTES_MIN) {
        // From the window's end: in text of short words one look passes over many bytes.
        if let Some(outside) = window.iter().rposition(is_outside) {
            at += outside + 1;
            continue;
        }
        let end = cut::tail(bytes, at).iter().position(is_outside).map_or(bytes.len(), |len| at + len);
        let mut start = at;
        while end.saturating_sub(start) >= RUN_BYTES_MIN {
            if let [b'0', b'x' | b'X', ..] = cut::tail(bytes, start) {
                start += 2;
            }
            // What was taken is not tried again: all tries together stay linear.
            let taken = each(start..end).max(start);
            let rest = cut::bytes(bytes, taken, end);
            match rest.iter().position(|b| !b.is_ascii_alphanumeric()) {
                Some(separator) => start = taken + separator + 1,
                None => break,
            }
        }
        at = end;
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7E | b'\t' | b'\n' | b'\r')
}

/// What a run is, as far as its head tells; `None` for what decodes to no text.
fn form(run: &[u8]) -> Option<(Alphabet, Width)> {
    if run.len() < RUN_BYTES_MIN {
        return None;
    }
    // Most runs are no text, and their first two bytes say so.
    let first = run.first_chunk::<4>()?;
    [Alphabet::Hex, Alphabet::Base64, Alphabet::Base32]
        .into_iter()
        .filter(|alphabet| alphabet.first(*first).is_some_and(|[first, second]| may_begin(first, second)))
        .find_map(|alphabet| Some((alphabet, width(head(alphabet, run)?)?)))
}

/// Whether text may begin with these bytes: in one byte a character, in two, or with the mark of their order.
fn may_begin(first: u8, second: u8) -> bool {
    match (first, second) {
        (0, other) | (other, 0) => is_plain(other),
        (0xFF, 0xFE) | (0xFE, 0xFF) => true,
        _ => is_plain(first) && is_plain(second),
    }
}

/// The first bytes behind a run.
fn head(alphabet: Alphabet, run: &[u8]) -> Option<[u8; HEAD_BYTES]> {
    let mut head = [0; HEAD_BYTES];
    let mut filled = 0;
    for group in run.chunks_exact(alphabet.chars()) {
        let (bytes, count) = alphabet.group(group)?;
        for (slot, byte) in head.iter_mut().skip(filled).zip(bytes.into_iter().take(count)) {
            *slot = byte;
        }
        filled += count;
        if filled >= HEAD_BYTES {
            return Some(head);
        }
    }
    None
}

fn width(head: [u8; HEAD_BYTES]) -> Option<Width> {
    let wide = |from: usize, parity: usize| {
        head.iter().enumerate().skip(from).all(|(at, byte)| match at % 2 == parity {
            true => is_plain(*byte),
            false => *byte == 0,
        })
    };
    let marked = match head {
        [0xFF, 0xFE, ..] => Some(0),
        [0xFE, 0xFF, ..] => Some(1),
        _ => None,
    };
    if head.iter().all(|byte| is_plain(*byte)) {
        return Some(Width::Narrow);
    }
    let parity = match marked {
        Some(parity) => wide(2, parity).then_some(parity),
        None => [0, 1].into_iter().find(|parity| wide(0, *parity)),
    };
    parity.map(|parity| Width::Wide { parity })
}

impl Alphabet {
    /// Characters of a group, which decodes to whole bytes.
    fn chars(self) -> usize {
        match self {
            Self::Hex => 2,
            Self::Base64 => 4,
            Self::Base32 => 8,
        }
    }

    fn table(self) -> &'static [u8; 256] {
        match self {
            Self::Hex => &NIBBLES,
            Self::Base64 => &SEXTETS,
            Self::Base32 => &QUINTETS,
        }
    }

    /// Bits of a character.
    fn bits(self) -> usize {
        match self {
            Self::Hex => 4,
            Self::Base64 => 6,
            Self::Base32 => 5,
        }
    }

    /// The first two bytes behind four characters; `None` where one is not in the alphabet.
    fn first(self, chars: [u8; 4]) -> Option<[u8; 2]> {
        let mut bits = 0u32;
        for char in chars {
            let value = value(self.table(), char);
            if value == NONE {
                return None;
            }
            bits = bits << self.bits() | u32::from(value);
        }
        let [_, _, first, second] = (bits >> (4 * self.bits() - 16)).to_be_bytes();
        Some([first, second])
    }

    /// Decodes a group, or what stands in place of the last one: bytes, and how many count.
    fn group(self, group: &[u8]) -> Option<([u8; 5], usize)> {
        let mut bits = 0u64;
        for char in group {
            let value = value(self.table(), *char);
            if value == NONE {
                return None;
            }
            bits = bits << self.bits() | u64::from(value);
        }
        let bit_count = group.len() * self.bits();
        let [_, _, _, bytes @ ..] = (bits << (40 - bit_count)).to_be_bytes();
        Some((bytes, bit_count / 8))
    }
}

/// Decodes as long as text comes out; returns how much of the run that took.
fn decode(alphabet: Alphabet, width: Width, run: &[u8], out: &mut Vec<u8>) -> usize {
    let mut taken = 0;
    for group in run.chunks(alphabet.chars()) {
        let Some((bytes, count)) = alphabet.group(group) else { break };
        let is_text = |at: usize, byte: u8| match width {
            Width::Narrow => is_plain(byte) || byte >= 0x80,
            Width::Wide { .. } if at < 2 => true,
            Width::Wide { parity } if at % 2 == parity => is_plain(byte),
            Width::Wide { .. } => byte == 0,
        };
        let from = out.len();
        if !bytes.iter().take(count).enumerate().all(|(at, byte)| is_text(from + at, *byte)) {
            break;
        }
        out.extend(bytes.iter().take(count));
        taken += group.len();
    }
    taken
}
