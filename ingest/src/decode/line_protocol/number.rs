//! Numbers of fields: `1i` is an integer, `1u` an unsigned one, all else a double.

use super::Fault;
use super::scan::Scanned;

/// Reads a number; `NaN`, infinities and what does not fit 64 bits are none.
pub(super) fn parse(token: &[u8]) -> Result<Scanned, Fault> {
    let is_decimal = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    let (digits, suffix) = match token {
        [digits @ .., suffix @ (b'i' | b'u')] => (digits, Some(*suffix)),
        _ => (token, None),
    };
    let invalid = || Fault::new("value_invalid", "a field's value is no number, boolean or string");
    if !digits.iter().all(is_decimal) {
        return Err(invalid());
    }
    let digits = std::str::from_utf8(digits).map_err(|_| invalid())?;
    let scanned = match suffix {
        Some(b'i') => digits.parse().ok().map(Scanned::Int),
        Some(_) => digits.parse().ok().map(Scanned::Uint),
        None => digits.parse().ok().filter(|double: &f64| double.is_finite()).map(Scanned::Double),
    };
    scanned.ok_or_else(|| {
        let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
        let is_number = match suffix {
            Some(_) => !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()),
            None => digits.parse::<f64>().is_ok(),
        };
        if is_number {
            Fault::new("number_out_of_range", "a number does not fit its 64 bits")
        } else {
            invalid()
        }
    })
}
