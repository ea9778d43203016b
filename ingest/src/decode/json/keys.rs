//! Which keys the open objects have named: for callers who must refuse duplicates.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Keys that an object's frame searches one by one; beyond, it hashes. Chosen: a row of 32 hashes is four
/// cache lines, and hardly a record has more.
const SEARCHED_MAX: usize = 32;

/// The keys of the open objects, innermost last. Only keyed 64-bit hashes are kept: nothing is copied, and
/// a sender cannot aim for a collision.
#[derive(Debug, Default)]
pub struct KeySet {
    state: RandomState,
    hashes: Vec<u64>,
    frames: Vec<usize>,
    spilled: HashSet<u64>,
    serial: u64,
    serials: Vec<u64>,
    duplicates: usize,
}

impl KeySet {
    /// Forgets everything, ready for the next record.
    pub fn clear(&mut self) {
        self.hashes.clear();
        self.frames.clear();
        self.serials.clear();
        self.spilled.clear();
        self.serial = 0;
        self.duplicates = 0;
    }

    /// An object opens.
    pub fn enter(&mut self) {
        self.serial += 1;
        self.serials.push(self.serial);
        self.frames.push(self.hashes.len());
    }

    /// Notes a key of the innermost object; false where that object has named it already.
    pub fn insert(&mut self, key: &str) -> bool {
        let (Some(start), Some(serial)) = (self.frames.last().copied(), self.serials.last().copied()) else {
            debug_assert!(false, "an object is open");
            return true;
        };
        let mut hasher = self.state.build_hasher();
        hasher.write_u64(serial);
        hasher.write(key.as_bytes());
        let hash = hasher.finish();
        let frame = &self.hashes[start..];
        let is_new = if frame.contains(&hash) {
            false
        } else if frame.len() < SEARCHED_MAX {
            self.hashes.push(hash);
            true
        } else {
            self.spilled.insert(hash)
        };
        self.duplicates += usize::from(!is_new);
        is_new
    }

    /// The innermost object closes.
    pub fn leave(&mut self) {
        self.serials.pop();
        if let Some(start) = self.frames.pop() {
            self.hashes.truncate(start);
        }
    }

    /// How many keys were named again since [`Self::clear`].
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.duplicates
    }
}
