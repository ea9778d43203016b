//! Strings: found eight bytes at a time, borrowed as they stand, unescaped on demand.

use std::borrow::Cow;

use super::{Error, ErrorKind, find};

/// A string of a JSON text, checked but not unescaped. It borrows from the text alone, so it can be kept
/// while the parser goes on.
#[derive(Clone, Copy, Debug)]
pub struct Text<'t> {
    raw: &'t str,
    escaped: bool,
}

impl<'t> Text<'t> {
    /// A string that needs no unescaping.
    #[must_use]
    pub fn plain(raw: &'t str) -> Self {
        Self { raw, escaped: false }
    }

    /// What it says; `scratch` is overwritten only where there are escapes.
    #[must_use]
    pub fn text<'s>(&self, scratch: &'s mut String) -> &'s str
    where
        't: 's,
    {
        if !self.escaped {
            return self.raw;
        }
        scratch.clear();
        self.push_to(scratch);
        scratch
    }

    /// What it says, owned only where there are escapes.
    #[must_use]
    pub fn to_cow(&self) -> Cow<'t, str> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut out = String::with_capacity(self.raw.len());
        self.push_to(&mut out);
        Cow::Owned(out)
    }

    /// What stands between the quotes, escapes included. No shorter than what it says.
    #[must_use]
    pub fn raw(&self) -> &'t str {
        self.raw
    }

    /// Appends what it says.
    pub fn push_to(&self, out: &mut String) {
        let mut rest = self.raw;
        if self.escaped {
            while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
                out.push_str(&rest[..at]);
                let (char, len) = unescape(&rest.as_bytes()[at..]).expect("the escape was checked by `scan`");
                out.push(char);
                rest = &rest[at + len..];
            }
        }
        out.push_str(rest);
    }
}

/// Scans the string whose first byte after the quote is at `start`; returns it and the offset behind its
/// closing quote.
pub(super) fn scan(text: &str, start: usize) -> Result<(Text<'_>, usize), Error> {
    let bytes = text.as_bytes();
    let invalid = |offset, why| Error { kind: ErrorKind::Invalid, offset, why };
    let mut at = start;
    let mut escaped = false;
    loop {
        at = find::special(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return Ok((Text { raw: &text[start..at], escaped }, at + 1)),
            Some(b'\\') => {
                escaped = true;
                let (_, len) = unescape(&bytes[at..]).map_err(|why| invalid(at, why))?;
                at += len;
            }
            Some(_) => return Err(invalid(at, "a control character in a string")),
            None => return Err(invalid(bytes.len(), "the text ends within a string")),
        }
    }
}

/// Reads the escape that `bytes` begins with: the character and how many bytes spell it.
fn unescape(bytes: &[u8]) -> Result<(char, usize), &'static str> {
    let char = match bytes.get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unescape_unit(bytes),
        _ => return Err("an unknown escape"),
    };
    Ok((char, 2))
}

fn unescape_unit(bytes: &[u8]) -> Result<(char, usize), &'static str> {
    const LONE: &str = "a lone surrogate";
    let unit = hex4(bytes, 2).ok_or("an escape without four hex digits")?;
    if let Some(char) = char::from_u32(unit) {
        return Ok((char, 6));
    }
    if unit >= 0xdc00 || bytes.get(6..8) != Some(br"\u") {
        return Err(LONE);
    }
    let low = hex4(bytes, 8).ok_or("an escape without four hex digits")?;
    if !(0xdc00..0xe000).contains(&low) {
        return Err(LONE);
    }
    let char = char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
    Ok((char.expect("a surrogate pair spells a character"), 12))
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |unit, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some(unit << 4 | digit)
    })
}
