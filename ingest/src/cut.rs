//! Pieces of bytes and of text by position, without a way to panic.
//!
//! Positions come out of input. One that lies past the end or within a character is moved to the nearest place that
//! exists, outwards: a piece is rather too large than missing, for what is masked must not get smaller.

/// The bytes from `start` on; none where it lies past the end.
pub(crate) fn tail(bytes: &[u8], start: usize) -> &[u8] {
    bytes.get(start..).unwrap_or_default()
}

/// The bytes before `end`; all where it lies past the end.
pub(crate) fn head(bytes: &[u8], end: usize) -> &[u8] {
    bytes.get(..end).unwrap_or(bytes)
}

/// The bytes from `start` to `end`, as far as they exist.
pub(crate) fn bytes(all: &[u8], start: usize, end: usize) -> &[u8] {
    tail(head(all, end), start)
}

/// The text from `start` to `end`, whole characters, as far as it exists.
pub(crate) fn text(all: &str, start: usize, end: usize) -> &str {
    match all.get(start..end) {
        Some(piece) => piece,
        None => all.get(all.floor_char_boundary(start)..all.ceil_char_boundary(end)).unwrap_or_default(),
    }
}

/// The byte before `at`.
pub(crate) fn before(bytes: &[u8], at: usize) -> Option<u8> {
    at.checked_sub(1).and_then(|at| bytes.get(at)).copied()
}

#[cfg(test)]
mod tests {
    use super::{before, bytes, head, tail, text};

    #[test]
    fn no_position_panics_and_a_piece_is_rather_too_large() {
        let all = "a\u{e9}\u{20ac}b";
        for start in 0..12 {
            for end in 0..12 {
                let piece = text(all, start, end);
                assert!(
                    start >= end
                        || end > all.len()
                        || piece.len() >= end.min(all.len()).saturating_sub(start)
                );
                assert_eq!(bytes(all.as_bytes(), start, end).len(), end.min(7).saturating_sub(start));
            }
            assert_eq!(
                (tail(b"abc", start).len(), head(b"abc", start).len()),
                (3_usize.saturating_sub(start), start.min(3))
            );
        }
        assert_eq!(
            (text(all, 2, 4), before(b"ab", 0), before(b"ab", 2), before(b"ab", 9)),
            ("\u{e9}\u{20ac}", None, Some(b'b'), None)
        );
    }
}
