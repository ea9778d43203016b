//! Numbers: checked by the grammar, kept as text, turned into a type when one is asked for.

use super::{Error, ErrorKind};

/// A number of a JSON text.
#[derive(Clone, Copy, Debug)]
pub struct Number<'t> {
    text: &'t str,
    integer: bool,
}

impl<'t> Number<'t> {
    /// The number as sent.
    #[must_use]
    pub fn as_str(&self) -> &'t str {
        self.text
    }

    /// Whether it is spelt as an integer: no point, no exponent.
    #[must_use]
    pub fn is_integer(&self) -> bool {
        self.integer
    }

    /// Its value, where it is spelt as an integer and fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        if self.integer { self.text.parse().ok() } else { None }
    }

    /// Its value, where it is spelt as an integer and fits.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        if self.integer { self.text.parse().ok() } else { None }
    }

    /// The nearest double; always finite, for what no double can hold is refused when it is read.
    #[must_use]
    pub fn as_f64(&self) -> f64 {
        self.text.parse().expect("the grammar of JSON numbers is a part of Rust's")
    }
}

/// Scans the number that begins at `start`; returns it and the offset behind it.
pub(super) fn scan(text: &str, start: usize) -> Result<(Number<'_>, usize), Error> {
    let bytes = text.as_bytes();
    let invalid = |offset, why| Err(Error { kind: ErrorKind::Invalid, offset, why });
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = start;
    if bytes.get(at) == Some(&b'-') {
        at += 1;
    }
    let whole = digits(at);
    if whole == 0 {
        return invalid(at, "a digit is due here");
    }
    if whole > 1 && bytes[at] == b'0' {
        return invalid(at, "a number begins with a zero");
    }
    at += whole;
    let mut integer = true;
    let mut has_exponent = false;
    if bytes.get(at) == Some(&b'.') {
        integer = false;
        let fraction = digits(at + 1);
        if fraction == 0 {
            return invalid(at + 1, "a digit is due here");
        }
        at += 1 + fraction;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        integer = false;
        has_exponent = true;
        at += 1;
        if matches!(bytes.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
        let exponent = digits(at);
        if exponent == 0 {
            return invalid(at, "a digit is due here");
        }
        at += exponent;
    }
    let number = Number { text: &text[start..at], integer };
    // Without an exponent, 308 digits before the point are the most that any double has.
    if (has_exponent || whole > 308) && !number.as_f64().is_finite() {
        return invalid(start, "a number that no double can hold");
    }
    Ok((number, at))
}
