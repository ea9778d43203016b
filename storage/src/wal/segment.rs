//! One file of the log: preallocated, written at an offset, synced with `fdatasync`.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, is_odd};
use crate::faults::{self, Bug};

/// How far ahead of small groups a segment is written with zeros. Chosen: dozens of them, and a write that costs a disk
/// little more than one.
const ZEROS: &[u8] = &[0; 256 << 10];

/// Bytes of a group up to which it is small. Chosen: the zeros of all of them are no more than they are themselves.
const SMALL_BYTES: usize = 16 << 10;

/// The file being written.
#[derive(Debug)]
pub struct Segment {
    file: Box<dyn DiskFile>,
    number: u64,
    at: u64,
    /// Up to here it was written, with frames or with zeros.
    zeroed: u64,
    bytes: u64,
}

impl Segment {
    /// Creates segment `number` in `folder`, preallocated to `bytes`, and syncs the folder.
    ///
    /// # Errors
    /// As the file system says; a full disk shows here and not at a write.
    pub fn create(disk: &dyn Disk, folder: &Path, number: u64, bytes: u64) -> io::Result<Self> {
        let path = path(folder, number);
        faults::io("wal.create")?;
        let file = disk.create(&path)?;
        let made = (|| {
            faults::io("wal.allocate")?;
            match file.allocate(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                allocated => allocated?,
            }
            faults::io("wal.create.sync")?;
            file.sync_all()?;
            faults::io("wal.create.folder")?;
            if faults::has(Bug::SegmentWithoutFolderSync) {
                return Ok(());
            }
            disk.sync_folder(folder)
        })();
        match made {
            Ok(()) => Ok(Self { file, number, at: 0, zeroed: 0, bytes }),
            Err(error) => {
                // Nothing was written to it: the next attempt makes it anew.
                let _ = disk.remove(&path);
                Err(error)
            }
        }
    }

    /// The segment's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether `len` more bytes fit; a first write always does, however large.
    pub fn fits(&self, len: usize) -> bool {
        self.at == 0 || self.at + len as u64 <= self.bytes
    }

    /// Writes behind what is written; not yet durable.
    ///
    /// A file system notes in its journal which of the preallocated blocks were written, and a sync of the first write to
    /// some waits for that journal, which everybody's writes go through. So a small group that comes to unwritten blocks
    /// has zeros written behind it: those that follow overwrite them, and their syncs wait for their own bytes alone.
    ///
    /// # Errors
    /// As the file system says; what is behind the last good write is undefined then.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        if self.at > self.zeroed {
            let ahead = self.bytes.saturating_sub(self.at).min(ZEROS.len() as u64);
            let is_small = bytes.len() <= SMALL_BYTES;
            let zeros = &ZEROS[..if is_small { usize::try_from(ahead).unwrap_or(0) } else { 0 }];
            if !zeros.is_empty() {
                self.file.write_at(zeros, self.at)?;
            }
            self.zeroed = self.at + zeros.len() as u64;
        }
        Ok(())
    }

    /// Makes everything written durable. After an error the descriptor must not be used again (W3).
    ///
    /// # Errors
    /// As the file system says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// The path of segment `number`.
pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.wal"))
}

/// The numbers of the segments in a log's folder, rising. What has another name, or is no file, is none of them.
///
/// # Errors
/// As reading a folder.
pub fn list(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for name in disk.names(folder)? {
        let Some(digits) = name.strip_suffix(".wal") else { continue };
        let number = digits.parse().ok().filter(|number| i64::try_from(*number).is_ok());
        let is_file = || match disk.len(&folder.join(&name)) {
            Ok(_) => Ok(true),
            Err(error) if is_odd(&error) => Ok(false),
            Err(error) => Err(error),
        };
        match number.filter(|number| path(folder, *number) == folder.join(&name)) {
            Some(number) if is_file()? => numbers.push(number),
            _ => {
                tracing::warn!(path = %folder.join(&name).display(), "what is no segment of ours is left alone");
            }
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Segment, ZEROS, list, path};
    use crate::disk::LocalDisk;

    /// What a read of the file gives does not change; that blocks are written ahead is seen in what was written.
    #[test]
    fn small_groups_are_written_over_zeros_and_large_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let written = || {
            let file = fs::File::open(path(folder.path(), 1)).unwrap();
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap()
        };
        let mut segment = Segment::create(&LocalDisk, folder.path(), 1, 2 << 20).unwrap();
        segment.write(b"small").unwrap();
        let ahead = segment.zeroed;
        assert_eq!(ahead, 5 + ZEROS.len() as u64);
        assert!(written() >= ahead, "{}", written());
        segment.write(b"another").unwrap();
        assert_eq!(segment.zeroed, ahead, "zeros are there");
        let large = vec![1; ZEROS.len()];
        segment.write(&large).unwrap();
        assert_eq!(segment.zeroed, 12 + ZEROS.len() as u64, "no zeros behind a large one");
        // Never behind the end of what is allocated.
        segment.write(&vec![1; (2 << 20) - 12 - ZEROS.len() - 50]).unwrap();
        segment.write(b"last").unwrap();
        assert_eq!(segment.zeroed, 2 << 20);
        let bytes = fs::read(path(folder.path(), 1)).unwrap();
        assert_eq!(bytes.len(), 2 << 20);
        assert_eq!(
            (&bytes[..12], &bytes[(2 << 20) - 50..(2 << 20) - 46]),
            (&b"smallanother"[..], &b"last"[..])
        );
        assert!(bytes[(2 << 20) - 46..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_has_another_name_or_is_no_file_is_no_segment() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(path(folder.path(), 7), b"").unwrap();
        for name in ["8.wal", "+000000000000009.wal", "x.wal", "18446744073709551615.wal", "notes.txt"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        fs::create_dir(path(folder.path(), 9)).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path(folder.path(), 10)).unwrap();
        assert_eq!(list(&LocalDisk, folder.path()).unwrap(), [7]);
    }
}
