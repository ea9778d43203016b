//! Files that the server has lent a worker: read and proved where the query runs, without another copy of their bytes.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};
use storage::reader::Blocks;

/// Files of one query that are open at once: half of a worker's descriptors.
const OPEN_MAX: usize = 32;

/// A file that is open.
pub struct Near {
    file: File,
    bytes: u64,
    blocks: Option<Blocks>,
}

impl Near {
    /// A file of so many bytes; `sums` as a commit keeps them. Nothing where they are not this file's.
    #[must_use]
    pub fn new(file: File, bytes: u64, sums: Option<&str>) -> Option<Self> {
        let blocks = match sums {
            Some(sums) => Some(Blocks::decode(sums, bytes)?),
            None => None,
        };
        Some(Self { file, bytes, blocks })
    }

    /// A range of it, proved. Nothing where that fails: the server knows what is said of a damaged file.
    #[must_use]
    pub fn read(&self, range: &Range<u64>) -> Option<Bytes> {
        let around = match &self.blocks {
            Some(blocks) => blocks.around(range, self.bytes),
            None => range.clone(),
        };
        let length = usize::try_from(around.end.checked_sub(around.start)?).ok()?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).ok()?;
        while bytes.len() < length {
            let at = around.start + bytes.len() as u64;
            match pread(&self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => return None,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        bytes.truncate(length);
        if self.blocks.as_ref().is_some_and(|blocks| !blocks.prove(around.start, &bytes)) {
            return None;
        }
        let from = usize::try_from(range.start - around.start).ok()?;
        let to = usize::try_from(range.end - around.start).ok()?;
        (from <= to && to <= length).then(|| Bytes::from(bytes).slice(from..to))
    }
}

/// The files of one query that are open, by path.
#[derive(Default)]
pub struct Open(Mutex<VecDeque<(String, Arc<Near>)>>);

impl Open {
    fn files(&self) -> MutexGuard<'_, VecDeque<(String, Arc<Near>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is open.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Arc<Near>> {
        self.files().iter().find(|(open, _)| open == path).map(|(_, file)| Arc::clone(file))
    }

    /// Keeps one open; where there are as many as there may be, the one that was opened first is closed.
    pub fn keep(&self, path: &str, file: Near) -> Arc<Near> {
        let file = Arc::new(file);
        let mut files = self.files();
        if files.len() >= OPEN_MAX {
            files.pop_front();
        }
        files.push_back((path.to_owned(), Arc::clone(&file)));
        file
    }
}

impl fmt::Debug for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Near").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rustix::fs::{MemfdFlags, memfd_create};
    use storage::reader::Blocks;

    use super::{Near, Open};

    fn file(bytes: &[u8]) -> std::fs::File {
        let mut file = std::fs::File::from(memfd_create("near", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(bytes).unwrap();
        file
    }

    // What does not prove is never given out, whatever is wrong with it.
    #[test]
    fn what_is_read_is_proved_and_nothing_else_is_given() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at / 7 % 251) as u8).collect();
        let len = bytes.len() as u64;
        let sums = Blocks::of(&bytes).encode();
        let near = Near::new(file(&bytes), len, Some(&sums)).unwrap();
        let unproved = Near::new(file(&bytes), len, None).unwrap();
        for range in [0..len, 0..0, 65_535..65_537, len - 8..len] {
            let expected = &bytes[range.start as usize..range.end as usize];
            assert_eq!(near.read(&range).unwrap(), expected, "{range:?}");
            assert_eq!(unproved.read(&range).unwrap(), expected, "{range:?}");
        }
        for range in [0..len + 1, len..len + 9, u64::MAX - 1..u64::MAX] {
            assert!(near.read(&range).is_none() && unproved.read(&range).is_none(), "{range:?}");
        }
        assert!(Near::new(file(&bytes), len, Some("65536:")).is_none(), "sums of another file");
        let mut damaged = bytes;
        damaged[70_000] ^= 4;
        let near = Near::new(file(&damaged), len, Some(&sums)).unwrap();
        assert!(near.read(&(65_536..65_537)).is_none(), "a bit of the same block");
        assert!(near.read(&(0..9)).is_some());
        let short = Near::new(file(&damaged[..100]), len, Some(&sums)).unwrap();
        assert!(short.read(&(0..9)).is_none());
    }

    // B1
    #[test]
    fn few_files_are_open_at_once() {
        let open = Open::default();
        for at in 0..33 {
            open.keep(&at.to_string(), Near::new(file(b"x"), 1, None).unwrap());
        }
        assert_eq!(open.files().len(), 32);
        assert!(open.get("0").is_none() && open.get("1").is_some() && open.get("32").is_some());
    }
}
