//! Where a body inflates to.

use crate::cut;

/// Room up to which its addresses are moved when it grows. Chosen: moving costs little, and most bodies end before.
const MOVED_BYTES_MAX: usize = 4 << 20;

/// The bytes that came out so far, and room behind them.
///
/// Memory is what was ever written to, [`Self::held`]. A body that outgrows [`MOVED_BYTES_MAX`] gets the addresses of the
/// largest one that is taken, once; pages come as they are written. Growing step by step moved it each time, and left
/// behind it four times its size that nobody used.
#[derive(Default)]
pub(super) struct Room {
    /// Everything before its length was written to, and stays so from one body to the next.
    bytes: Vec<u8>,
    filled: usize,
}

impl Room {
    /// What came out.
    pub(super) fn bytes(&self) -> &[u8] {
        cut::head(&self.bytes, self.filled)
    }

    pub(super) fn len(&self) -> usize {
        self.filled
    }

    /// Bytes of memory that it has.
    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets what came out and keeps the room.
    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Gives the room back where it is more than so many bytes.
    pub(super) fn keep(&mut self, most: usize) {
        self.clear();
        if self.bytes.capacity() > most {
            self.bytes = Vec::new();
        }
    }

    /// Makes room for `by` bytes more, of a body that has `most` at most.
    pub(super) fn grow(&mut self, by: usize, most: usize) {
        let len = self.bytes.len() + by;
        if len > self.bytes.capacity() {
            let capacity = if len > MOVED_BYTES_MAX { most.max(len) } else { len };
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.resize(len, 0);
    }

    /// Where the next bytes go.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    /// So many bytes were written to [`Self::spare`]; gives them.
    pub(super) fn fill(&mut self, count: usize) -> &[u8] {
        let start = self.filled;
        self.filled = (start + count).min(self.bytes.len());
        cut::bytes(&self.bytes, start, self.filled)
    }
}

#[cfg(test)]
mod tests {
    use super::Room;

    #[test]
    fn a_large_body_moves_once_more_and_takes_what_it_writes() {
        let most = 64 << 20;
        let mut room = Room::default();
        let mut moves = Vec::new();
        while room.len() < 40 << 20 {
            let by = room.len().clamp(64 << 10, 2 << 20);
            room.grow(by, most);
            room.spare().fill(7);
            assert_eq!(room.fill(by).len(), by);
            assert_eq!(room.held(), room.len());
            if moves.last() != Some(&room.bytes.capacity()) {
                moves.push(room.bytes.capacity());
            }
        }
        let doubled: Vec<usize> = (16..=22).map(|log| 1 << log).chain([most]).collect();
        assert_eq!(moves, doubled);
        assert!(room.bytes().iter().all(|byte| *byte == 7));
        room.keep(1 << 20);
        assert_eq!((room.len(), room.held(), room.bytes.capacity()), (0, 0, 0));
    }
}
