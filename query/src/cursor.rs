//! Where a page ended: an opaque text for the client, a key for the next query.
//!
//! Rows are ordered by (`time_ns`, `writer`, `seq`), which no two rows of a dataset share, so pages neither
//! skip nor repeat rows while new ones arrive.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The key of the last row of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Its time, nanoseconds since 1970 UTC.
    pub time_ns: i64,
    /// Its log, or for lists of other things their name.
    pub key: String,
    /// Its number in that log; 0 for lists of other things.
    pub seq: i64,
}

/// Bytes of a cursor's key at most.
const KEY_BYTES_MAX: usize = 1_024;

impl Cursor {
    /// The cursor as the client sees it.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("1 {} {} {}", self.time_ns, self.seq, self.key))
    }

    /// Reads a cursor that [`Self::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        if text.len() > KEY_BYTES_MAX * 2 {
            return None;
        }
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = text.splitn(4, ' ');
        if parts.next() != Some("1") {
            return None;
        }
        Some(Self {
            time_ns: parts.next()?.parse().ok()?,
            seq: parts.next()?.parse().ok()?,
            key: parts.next()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Cursor;

    #[test]
    fn cursors_round_trip_and_others_are_refused() {
        for key in ["w0", "", "a b c", "ä/+="] {
            let cursor = Cursor { time_ns: i64::MIN, key: key.into(), seq: 7 };
            assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
        for bad in ["", "x", "MSAx", "MiAxIDIgYQ", "%%%", &"A".repeat(10_000)] {
            assert_eq!(Cursor::decode(bad), None, "{bad}");
        }
    }

    // B1: a cursor is the client's text, however it looks.
    #[test]
    fn a_cursor_of_any_length_is_not_decoded() {
        let of = |bytes: usize| Cursor { time_ns: 1, key: "k".repeat(bytes), seq: 2 }.encode();
        assert!(Cursor::decode(&of(1_024)).is_some());
        assert_eq!(Cursor::decode(&of(2_048)), None);
    }
}
