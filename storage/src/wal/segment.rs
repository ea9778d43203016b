//! One file of the log: preallocated, written at an offset, synced with `fdatasync`.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, is_odd};
use crate::faults::{self, Bug};

/// The file being written.
#[derive(Debug)]
pub struct Segment {
    file: Box<dyn DiskFile>,
    number: u64,
    at: u64,
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
            Ok(()) => Ok(Self { file, number, at: 0, bytes }),
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
    /// # Errors
    /// As the file system says; what is behind the last good write is undefined then.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
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

    use super::{list, path};
    use crate::disk::LocalDisk;

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
