//! Where the next record begins behind a bad one.
//!
//! At the next physical line, with one exception: a newline inside a string that is properly closed does not
//! end the bad record. Otherwise the rest of somebody's text would be read as records of its own, which is
//! both noise and a way to forge events. A quote that nothing legal follows closes nothing, so a string
//! that was never closed costs its own line only.
//!
//! Cost: linear over a whole body. A search for a closing quote ends at the next string's opening quote.

use memchr::memchr;

use super::scan;

/// The position behind the bad record that begins at `start`.
pub(super) fn after(body: &[u8], start: usize) -> usize {
    let mut at = start;
    let mut in_fields = false;
    while let Some(byte) = body.get(at) {
        match byte {
            b'\n' => return at + 1,
            b'\\' if matches!(body.get(at + 1), Some(b',' | b'=' | b' ')) => at += 1,
            b' ' => in_fields = true,
            b'=' if in_fields && body.get(at + 1) == Some(&b'"') => match scan::string_end(body, at + 2) {
                Some((end, _)) if closes(body, end) => at = end,
                _ => return next_line(body, at),
            },
            _ => {}
        }
        at += 1;
    }
    body.len()
}

/// Whether a field may end with the quote at `quote`: a comma, a space or the line's end follows.
///
/// Telling a good timestamp behind the space would save a neighbour now and then, but a record with a bad
/// timestamp would then give up its text.
fn closes(body: &[u8], quote: usize) -> bool {
    matches!(body.get(quote + 1), None | Some(b',' | b' ' | b'\n' | b'\r'))
}

fn next_line(body: &[u8], at: usize) -> usize {
    memchr(b'\n', &body[at..]).map_or(body.len(), |newline| at + newline + 1)
}
