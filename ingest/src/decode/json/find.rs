//! Eight bytes at a time to the next byte that means something.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The first quote, backslash or control character from `at` on, or the end.
pub(super) fn special(bytes: &[u8], at: usize) -> usize {
    let words = |word: u64| {
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        control | equal(word, b'"') | equal(word, b'\\')
    };
    find(bytes, at, words, |byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))
}

/// The first quote or backslash from `at` on, or the end.
pub(super) fn quote_or_escape(bytes: &[u8], at: usize) -> usize {
    let words = |word: u64| equal(word, b'"') | equal(word, b'\\');
    find(bytes, at, words, |byte| matches!(byte, b'"' | b'\\'))
}

/// The first quote or bracket of either kind from `at` on, or the end.
pub(super) fn quote_or_bracket(bytes: &[u8], at: usize) -> usize {
    // One bit is all that tells a square bracket from a curly one.
    let words = |word: u64| {
        let curly = word | (ONES * 0x20);
        equal(word, b'"') | equal(curly, b'{') | equal(curly, b'}')
    };
    find(bytes, at, words, |byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']'))
}

/// The high bit of each byte of `word` that is `byte`.
///
/// A borrow can set it wrongly, but only above a byte where it is set rightly, and the lowest is all that counts.
fn equal(word: u64, byte: u8) -> u64 {
    let zero_where_equal = word ^ (ONES * u64::from(byte));
    zero_where_equal.wrapping_sub(ONES) & !zero_where_equal & HIGHS
}

#[inline(always)]
fn find(bytes: &[u8], mut at: usize, words: impl Fn(u64) -> u64, one: impl Fn(u8) -> bool) -> usize {
    while let Some(chunk) = bytes.get(at..at + 8) {
        let hits = words(u64::from_le_bytes(chunk.try_into().expect("the slice is 8 bytes long")));
        if hits != 0 {
            return at + (hits.trailing_zeros() >> 3) as usize;
        }
        at += 8;
    }
    let tail = bytes.get(at..).unwrap_or_default();
    at + tail.iter().position(|byte| one(*byte)).unwrap_or(tail.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_found_at_each_place_and_no_other_is() {
        type Find = fn(&[u8], usize) -> usize;
        let cases: [(Find, &dyn Fn(u8) -> bool); 3] = [
            (special, &|byte| byte < 0x20 || b"\"\\".contains(&byte)),
            (quote_or_escape, &|byte| b"\"\\".contains(&byte)),
            (quote_or_bracket, &|byte| b"\"{}[]".contains(&byte)),
        ];
        for (number, (find, means_something)) in cases.into_iter().enumerate() {
            for byte in 0..=u8::MAX {
                for place in 0..20 {
                    let mut bytes = [b'x'; 20];
                    bytes[place] = byte;
                    let expected = if means_something(byte) { place } else { bytes.len() };
                    assert_eq!(find(&bytes, 0), expected, "finder {number}, byte {byte}, place {place}");
                }
            }
        }
    }
}
