//! One file of the log: preallocated, written at an offset, synced with `fdatasync`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::store::sync_folder;

/// The file being written.
#[derive(Debug)]
pub struct Segment {
    file: File,
    number: u64,
    at: u64,
    bytes: u64,
}

impl Segment {
    /// Creates segment `number` in `folder`, preallocated to `bytes`, and syncs the folder.
    ///
    /// # Errors
    /// As the file system says; a full disk shows here and not at a write.
    pub fn create(folder: &Path, number: u64, bytes: u64) -> io::Result<Self> {
        let path = path(folder, number);
        let file = File::options().write(true).create_new(true).open(&path)?;
        let made =
            preallocate(&file, bytes).and_then(|()| file.sync_all()).and_then(|()| sync_folder(folder));
        if let Err(error) = made {
            // Its number is tried again: what is left of it must not be in the way.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self { file, number, at: 0, bytes })
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
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Makes everything written durable. After an error the descriptor must not be used again (W3).
    ///
    /// # Errors
    /// As the file system says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes).map_err(io::Error::from)
    {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}

/// The path of segment `number`.
pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.wal"))
}

/// The numbers of the segments in a log's folder, rising.
///
/// # Errors
/// As reading a folder.
pub fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(number) =
            name.to_str().and_then(|name| name.strip_suffix(".wal")).and_then(|number| number.parse().ok())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads a whole segment.
///
/// # Errors
/// As reading a file.
pub fn read(folder: &Path, number: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path(folder, number))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
