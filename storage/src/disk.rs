//! The file system as the log uses it: few calls, each with one effect.
//!
//! The log never touches the file system but through [`Disk`], so that a simulated one can lose what was not
//! synced, tear writes and fail (RELIABILITY, "local disk"). What a call makes durable is part of its contract:
//! nothing but [`DiskFile::sync`], [`DiskFile::sync_all`] and [`Disk::sync_folder`] makes anything durable.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::faults;

/// A file system below a data folder.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Creates a file that must not be there yet, open for writing.
    ///
    /// # Errors
    /// `AlreadyExists`, or as the file system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for writing.
    ///
    /// # Errors
    /// As the file system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Reads a whole file.
    ///
    /// # Errors
    /// As the file system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// A file's length in bytes.
    ///
    /// # Errors
    /// As the file system says.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Names in a folder, in no order.
    ///
    /// # Errors
    /// As the file system says.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Makes a folder unless it is there; its parents must be.
    ///
    /// # Errors
    /// As the file system says.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;

    /// Renames a file, over another where one is there.
    ///
    /// # Errors
    /// As the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the entries of a folder durable.
    ///
    /// # Errors
    /// As the file system says.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Free bytes and all bytes of the file system that `folder` lies on.
    ///
    /// # Errors
    /// As the file system says.
    fn space(&self, folder: &Path) -> io::Result<(u64, u64)>;
}

/// A file open for writing.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reserves `bytes` from the start, read as zeros until written.
    ///
    /// # Errors
    /// `StorageFull`; `Unsupported` where the file system reserves nothing.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Writes all of `bytes` at an offset.
    ///
    /// # Errors
    /// As the file system says; any part may have been written then.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Sets the file's length.
    ///
    /// # Errors
    /// As the file system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes content, length and everything else about the file durable. After an error the file must not be used
    /// again (W3).
    ///
    /// # Errors
    /// As the file system says.
    fn sync_all(&self) -> io::Result<()>;

    /// Makes content and length durable. After an error the file must not be used again (W3).
    ///
    /// # Errors
    /// As the file system says.
    fn sync(&self) -> io::Result<()>;
}

/// Writes a small file so that it is there whole or not at all, durably.
///
/// # Errors
/// As the file system says; the old content stands then, or the new.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let aside = Path::new(&aside);
    match disk.remove(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(aside)?;
    file.write_at(bytes, 0)?;
    faults::io("replace.before_sync")?;
    file.sync_all()?;
    faults::io("replace.before_rename")?;
    disk.rename(aside, path)?;
    faults::io("replace.before_folder_sync")?;
    disk.sync_folder(path.parent().expect("a file lies in a folder"))
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LocalFile(File::options().write(true).create_new(true).open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LocalFile(File::options().write(true).open(path)?)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn space(&self, folder: &Path) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(folder)?;
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
    }
}

#[derive(Debug)]
struct LocalFile(File);

impl DiskFile for LocalFile {
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
