//! The file system as the log uses it: few calls, each with one effect.
//!
//! The log never touches the file system but through [`Disk`], so that a simulated one can lose what was not
//! synced, tear writes and fail (RELIABILITY, "local disk"). What a call makes durable is part of its contract:
//! nothing but [`DiskFile::sync`], [`DiskFile::sync_all`] and [`Disk::sync_folder`] makes anything durable.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, SeekFrom};

use crate::faults;

/// A file system below a data folder.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Whether a call may take as long as a disk does: who must not wait makes it on another thread.
    fn may_block(&self) -> bool {
        true
    }

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

    /// Reads a whole file: for those that are small. [`read_small`] makes sure of it.
    ///
    /// # Errors
    /// As the file system says; [`is_odd`] where there is no regular file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Reads what a file holds from an offset on, as much as `bytes` takes or the file has; returns how much that is.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_at(&self, path: &Path, bytes: &mut [u8], at: u64) -> io::Result<usize>;

    /// Where the next byte of a file stands, at `from` or behind it, that was ever written; `None` where nothing but
    /// zeros follows. A file system may not know, and say `from`.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn next_data(&self, path: &Path, from: u64) -> io::Result<Option<u64>> {
        Ok((from < self.len(path)?).then_some(from))
    }

    /// A file's length in bytes.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Names in a folder of files and folders, in no order. What is neither (a pipe, a socket, a link to a file) is left
    /// out, and named in the log.
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

    /// What names the time since the machine started: as long as it is the same, what a process wrote is what the next one
    /// reads, synced or not. `None` where that is not known.
    fn boot(&self) -> Option<String> {
        None
    }
}

/// Whether `error` says that there is something else than a regular file.
pub fn is_odd(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")
}

/// Opens a file and nothing else: no link is followed, and no pipe waits for its other end.
///
/// # Errors
/// [`is_odd`] where there is no regular file; as the file system says.
pub fn open_regular(path: &Path, options: &mut fs::OpenOptions) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(odd()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // Whoever asks for it makes one.
        _ => {}
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(odd()) }
}

/// Reads a whole file of at most `bytes_max`.
///
/// # Errors
/// `FileTooLarge` above that; as [`Disk::read`].
pub fn read_small(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let bytes = disk.len(path)?;
    if bytes > bytes_max {
        let text = format!("it has {bytes} bytes, and {bytes_max} are the most");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    disk.read(path)
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
        Ok(Box::new(LocalFile(open_regular(path, File::options().write(true))?)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open_regular(path, File::options().read(true))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_at(&self, path: &Path, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let file = open_regular(path, File::options().read(true))?;
        let mut done = 0;
        while done < bytes.len() {
            match file.read_at(&mut bytes[done..], at + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn next_data(&self, path: &Path, from: u64) -> io::Result<Option<u64>> {
        let file = open_regular(path, File::options().read(true))?;
        if from >= file.metadata()?.len() {
            return Ok(None);
        }
        match rustix::fs::seek(&file, SeekFrom::Data(from)) {
            Ok(at) => Ok(Some(at)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A file system that does not know of holes.
            Err(_) => Ok(Some(from)),
        }
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let metadata = fs::symlink_metadata(path)?;
        if metadata.is_file() { Ok(metadata.len()) } else { Err(odd()) }
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            // An operator may have moved a lane's folder to another disk.
            let is_known = kind.is_file() || kind.is_dir() || entry.path().is_dir();
            match entry.file_name().into_string() {
                Ok(name) if is_known => names.push(name),
                _ => tracing::warn!(path = %entry.path().display(), "what is no file of ours is left alone"),
            }
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

    fn boot(&self) -> Option<String> {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
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

#[cfg(test)]
mod tests;
