//! Text behind an encoding: what a detector must see beside the bytes as they stand.
//!
//! A [`View`] undoes percent, backslash and HTML escapes and folds characters to their ASCII look ([`super::fold`]) in
//! one pass, and remembers where each byte came from, so that what is found in the view is replaced in the original.
//! Decoding a view again undoes a second layer. Base64 and hex are in [`super::wrapped`].

use std::ops::Range;

use super::fold::fold;
use crate::cut;

/// Decoded text and where it came from.
#[derive(Default)]
pub(super) struct View {
    /// The text.
    pub(super) text: String,
    /// Where in the original each byte of the text begins and ends.
    from: Vec<(u32, u32)>,
}

impl View {
    /// The bytes of the original that `span` of the text was made from; all of them for a span that is none.
    pub(super) fn original(&self, span: Range<usize>) -> Range<usize> {
        let last = span.end.checked_sub(1).and_then(|last| self.from.get(last)).or(self.from.last());
        let (start, end) =
            (self.from.get(span.start).map_or(0, |from| from.0), last.map_or(0, |from| from.1));
        long(start)..long(end)
    }

    /// The text before `end` as it stands.
    fn unchanged(text: &str, end: usize) -> Self {
        let text = cut::text(text, 0, end);
        let from = (0..text.len()).map(|at| (short(at), short(at + 1))).collect();
        Self { text: text.to_owned(), from }
    }

    fn push(&mut self, c: char, from: (u32, u32)) {
        self.text.push(c);
        self.from.extend(std::iter::repeat_n(from, c.len_utf8()));
    }

    /// One more layer undone; `None` where there is none.
    pub(super) fn decoded(&self) -> Option<Self> {
        let mut next = decode(&self.text)?;
        for from in &mut next.from {
            let original = self.original(long(from.0)..long(from.1));
            *from = (short(original.start), short(original.end));
        }
        Some(next)
    }
}

/// Values are far below 4 GiB: bodies are capped at some MiB.
fn short(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn long(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// Undoes one layer of escapes; `None` where the text has none.
pub(super) fn decode(text: &str) -> Option<View> {
    let bytes = text.as_bytes();
    let is_marked = |b: &u8| matches!(b, b'%' | b'\\' | b'&') || *b >= 0x80;
    let first = bytes.iter().position(is_marked)?;
    let mut view: Option<View> = None;
    let mut next = first;
    for (at, c) in cut::text(text, first, text.len()).char_indices() {
        let at = first + at;
        if at < next {
            continue;
        }
        let escaped = match c {
            '%' => percent(cut::tail(bytes, at)),
            '\\' => backslash(cut::tail(bytes, at)),
            '&' => entity(cut::tail(bytes, at)),
            _ => None,
        };
        let (decoded, len) = escaped.unwrap_or((c, c.len_utf8()));
        let folded = fold(decoded);
        if escaped.is_some() || folded != Some(c) {
            view.get_or_insert_with(|| View::unchanged(text, at));
        }
        if let (Some(view), Some(folded)) = (&mut view, folded) {
            view.push(folded, (short(at), short(at + len)));
        }
        next = at + len;
    }
    view
}

/// The value of hex digits and nothing else; `None` for none of them, or more than fit.
pub(super) fn hex(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0u32, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | digit)
    })
}

/// `%40`, several of them where a character needs them, and `%u0040`.
fn percent(bytes: &[u8]) -> Option<(char, usize)> {
    if let Some(b'u' | b'U') = bytes.get(1) {
        return Some((char::from_u32(hex(bytes.get(2..6)?)?)?, 6));
    }
    let byte_at = |at: usize| match bytes.get(at * 3..at * 3 + 3)? {
        [b'%', digits @ ..] => hex(digits).and_then(|byte| u8::try_from(byte).ok()),
        _ => None,
    };
    let len = match byte_at(0)? {
        0..=0x7F => 1,
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => return None,
    };
    let mut character = [0u8; 4];
    for (at, byte) in character.iter_mut().take(len).enumerate() {
        *byte = byte_at(at)?;
    }
    let c = std::str::from_utf8(cut::head(&character, len)).ok()?.chars().next()?;
    Some((c, len * 3))
}

/// `\n`, `\u0040`, `\u{40}`, `\U00000040`, `\x40`, `\x{40}`, `\100`, and what a backslash makes plain.
fn backslash(bytes: &[u8]) -> Option<(char, usize)> {
    Some(match bytes.get(1)? {
        c @ (b'"' | b'\'' | b'/' | b'\\' | b'@' | b'=' | b'&') => (char::from(*c), 2),
        b'n' | b'r' => ('\n', 2),
        b't' => ('\t', 2),
        b'u' | b'x' if bytes.get(2) == Some(&b'{') => {
            // The largest code point has six digits; some write zeros before it.
            let len = bytes.iter().skip(3).take(9).position(|b| *b == b'}')?;
            (char::from_u32(hex(bytes.get(3..3 + len)?)?)?, len + 4)
        }
        b'u' => (char::from_u32(hex(bytes.get(2..6)?)?)?, 6),
        b'U' => (char::from_u32(hex(bytes.get(2..10)?)?)?, 10),
        b'x' => (char::from_u32(hex(bytes.get(2..4)?)?)?, 4),
        b'0'..=b'1' => {
            let digits = bytes.get(1..4)?;
            if !digits.iter().all(|b| matches!(b, b'0'..=b'7')) {
                return None;
            }
            let code = digits.iter().fold(0, |sum, digit| sum * 8 + u32::from(digit - b'0'));
            (char::from_u32(code)?, 4)
        }
        _ => return None,
    })
}

fn entity(bytes: &[u8]) -> Option<(char, usize)> {
    const NAMES: [(&[u8], char); 11] = [
        (b"&amp;", '&'),
        (b"&quot;", '"'),
        (b"&apos;", '\''),
        (b"&lt;", '<'),
        (b"&gt;", '>'),
        (b"&commat;", '@'),
        (b"&equals;", '='),
        (b"&colon;", ':'),
        (b"&period;", '.'),
        (b"&plus;", '+'),
        (b"&nbsp;", ' '),
    ];
    if let Some(rest) = bytes.strip_prefix(b"&#") {
        // The largest code point has seven digits.
        let end = rest.iter().take(9).position(|b| *b == b';')?;
        let code = match cut::head(rest, end) {
            [b'x' | b'X', digits @ ..] => hex(digits)?,
            digits => std::str::from_utf8(digits).ok()?.parse().ok()?,
        };
        return Some((char::from_u32(code)?, 3 + end));
    }
    NAMES.iter().find(|(name, _)| bytes.starts_with(name)).map(|(name, c)| (*c, name.len()))
}
