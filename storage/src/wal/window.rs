//! A segment as a start reads it: through a window, so that its length is no matter to memory.
//!
//! A segment that nobody of ours wrote may be of any length, most of it holes. Holes are stepped over.

use std::io;
use std::path::PathBuf;

use super::frame::{HEADER_BYTES, Header, MARK};
use crate::disk::Disk;

/// Bytes that are read at once; a frame that is larger is read whole. Chosen: few calls, little memory.
pub const WINDOW_BYTES: usize = 1 << 20;

/// The last place in a file that the system knows.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// One segment.
pub struct Window<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    /// Where in the segment `bytes` begins.
    from: u64,
    /// Room for what is read; what was read is the first `held` of it.
    bytes: Vec<u8>,
    held: usize,
    /// Whether the segment ends where what is held does.
    is_end: bool,
}

impl<'a> Window<'a> {
    /// Of the segment at `path`, of which nothing is read yet.
    pub fn new(disk: &'a dyn Disk, path: PathBuf) -> Self {
        Self { disk, path, from: 0, bytes: Vec::new(), held: 0, is_end: false }
    }

    /// The bytes from `at` on: `count`, or those that there are.
    ///
    /// # Errors
    /// As reading a file.
    pub fn get(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        if at > FILE_BYTES_MAX {
            // No file is that long: a gap whose end nobody knows ends here.
            return Ok(&[]);
        }
        let end = at.saturating_add(count as u64);
        let held = self.from + self.held as u64;
        let is_held = at >= self.from && (end <= held || (self.is_end && at <= held));
        if !is_held {
            let room = WINDOW_BYTES.max(count);
            if self.bytes.len() != room {
                // Made anew, as zeros that the system gives: nothing is written but what is read. And a frame of
                // hundreds of megabytes is not held longer than it takes.
                self.bytes = Vec::new();
                self.bytes = vec![0; room];
            }
            (self.held, self.is_end) = (0, false);
            let read = self.disk.read_at(&self.path, &mut self.bytes, at)?;
            self.is_end = read < self.bytes.len();
            self.held = read;
            self.from = at;
        }
        let start = usize::try_from(at - self.from).expect("it lies within the window");
        Ok(&self.bytes[start..self.held.min(start + count)])
    }

    /// The frame at `at`, header and payload checked; `None` where there is none.
    ///
    /// # Errors
    /// As reading a file.
    pub fn frame(&mut self, at: u64) -> io::Result<Option<(Header, &[u8])>> {
        let Some(header) = Header::decode(self.get(at, HEADER_BYTES)?) else { return Ok(None) };
        let bytes = self.get(at, HEADER_BYTES + header.payload_len as usize)?;
        Ok(Header::frame(bytes))
    }

    /// Whether anything but zeros stands at `at` or behind it.
    ///
    /// # Errors
    /// As reading a file.
    pub fn has_more(&mut self, at: u64) -> io::Result<bool> {
        let mut at = at;
        while at <= FILE_BYTES_MAX
            && let Some(next) = self.disk.next_data(&self.path, at)?
        {
            let bytes = self.get(next, WINDOW_BYTES)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            if bytes.is_empty() {
                break;
            }
            at = next + bytes.len() as u64;
        }
        Ok(false)
    }

    /// Where the next frame may begin, at `at` or behind it.
    ///
    /// # Errors
    /// As reading a file.
    pub fn next_mark(&mut self, at: u64) -> io::Result<Option<u64>> {
        let mut at = at;
        while at <= FILE_BYTES_MAX
            && let Some(next) = self.disk.next_data(&self.path, at)?
        {
            let bytes = self.get(next, WINDOW_BYTES)?;
            if let Some(found) = memchr::memmem::find(bytes, &MARK) {
                return Ok(Some(next + found as u64));
            }
            if bytes.len() < MARK.len() {
                break;
            }
            at = next + (bytes.len() - (MARK.len() - 1)) as u64;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::{WINDOW_BYTES, Window};
    use crate::disk::LocalDisk;

    #[test]
    fn a_mark_is_found_wherever_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        for at in [0, 1, WINDOW_BYTES - 3, WINDOW_BYTES - 2, WINDOW_BYTES - 1, WINDOW_BYTES, 3 << 20, 5 << 30]
        {
            let path = folder.path().join(format!("{at}"));
            let file = File::create(&path).unwrap();
            file.write_all_at(b"FMW1", at as u64).unwrap();
            file.set_len(8 << 30).unwrap();
            let mut window = Window::new(&LocalDisk, path);
            assert_eq!(window.next_mark(0).unwrap(), Some(at as u64));
            assert_eq!(window.next_mark(at as u64 + 1).unwrap(), None);
            assert!(window.has_more(0).unwrap() && window.has_more(at as u64 + 3).unwrap());
            assert!(!window.has_more(at as u64 + 4).unwrap());
            assert!(window.bytes.capacity() <= 2 * WINDOW_BYTES);
        }
    }
}
