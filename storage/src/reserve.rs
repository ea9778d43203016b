//! Disk that is kept back, so that a full disk does not stop what makes room.
//!
//! A seal writes files before the log can be trimmed: on a disk that is full to the last byte neither would ever happen.
//! `DIR/reserve` takes `disk_reserve_bytes` while there is room. When sealing or trimming meets a full disk, the file is
//! given back, and ingest is refused until it is there again (F16).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Kind, Result};
use crate::store::sync_folder;

/// The file that holds disk back.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    bytes_max: u64,
    is_held: AtomicBool,
}

impl Reserve {
    /// The reserve of a data folder, as the last process left it; `bytes_max` 0 is none, and removes one.
    ///
    /// # Errors
    /// `Kind::Corrupt` naming it where something else than a file has its name: a link is not followed.
    pub fn open(data: &Path, bytes_max: u64) -> Result<Self> {
        let path = data.join("reserve");
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            let text = format!("{} is no regular file: a link is not followed; move it away", path.display());
            return Err(Error::new(Kind::Corrupt, text));
        }
        if bytes_max == 0 {
            // At worst it goes on holding disk that nobody counts on.
            let _ = fs::remove_file(&path);
        }
        Ok(Self { path, bytes_max, is_held: AtomicBool::new(bytes_max == 0) })
    }

    /// Whether it is there; always, where none is asked for.
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Makes sure of it, where there is room for it above `floor`, the free bytes at which ingest is refused anyway.
    ///
    /// It is at most a twentieth of the disk, as `floor` is.
    pub fn keep(&self, free: u64, disk: u64, floor: u64) {
        let bytes = self.bytes_max.min(disk / 20);
        if self.is_held() {
            return;
        }
        // As an earlier process left it.
        let is_there = fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.len() >= bytes);
        if !is_there && free < bytes.saturating_add(floor) {
            return;
        }
        match if is_there { Ok(()) } else { self.make(bytes) } {
            Ok(()) => self.is_held.store(true, Ordering::Relaxed),
            // Others took the room meanwhile: the next look tries again.
            Err(error) if is_full(&error) => {
                let _ = fs::remove_file(&self.path);
            }
            Err(error) => {
                tracing::warn!(%error, "no disk can be kept back here: a full disk may stop sealing");
                self.is_held.store(true, Ordering::Relaxed);
            }
        }
    }

    fn make(&self, bytes: u64) -> io::Result<()> {
        // Made anew: what has this name may be another's file too, by a link, and is not written to.
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().create_new(true).write(true).mode(0o600).open(&self.path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        file.sync_all()?;
        self.path.parent().map_or(Ok(()), sync_folder)
    }

    /// Gives the room back if `error` is of a full disk; returns whether there is more room now.
    pub fn give_back(&self, error: &Error) -> bool {
        if self.bytes_max == 0 || !is_full(error) || !self.path.exists() {
            return false;
        }
        self.is_held.store(false, Ordering::Relaxed);
        let is_given = fs::remove_file(&self.path).is_ok();
        tracing::warn!(is_given, "the disk is full: the reserve is given back to sealing, ingest waits");
        is_given
    }
}

/// Whether something failed because the disk is full.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_one = error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    });
    is_one || error.source().is_some_and(is_full)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Reserve;
    use crate::error::{Error, Kind};

    fn full() -> Error {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let source = object_store::Error::Generic { store: "folder", source: full.into() };
        Error::new(Kind::Unavailable, "object store does not take a segment").with_source(source)
    }

    /// F16: it is given back to a full disk alone, and made again above the floor alone.
    #[test]
    fn it_is_given_back_when_the_disk_is_full_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reserve");
        let reserve = Reserve::open(folder.path(), 1 << 20).unwrap();
        assert!(!reserve.is_held() && !reserve.give_back(&full()));
        reserve.keep((1 << 20) + 99, 100 << 20, 100);
        assert!(!reserve.is_held());
        reserve.keep((1 << 20) + 100, 100 << 20, 100);
        assert!(reserve.is_held());
        assert_eq!(path.metadata().unwrap().len(), 1 << 20);
        let next = Reserve::open(folder.path(), 1 << 20).unwrap();
        next.keep(0, 100 << 20, 100);
        assert!(next.is_held(), "the one before left it");
        assert!(!reserve.give_back(&Error::new(Kind::Unavailable, "object store does not answer")));
        assert!(reserve.give_back(&full()));
        assert!(!reserve.is_held() && !path.exists());
        reserve.keep(u64::MAX, 10 << 20, 100);
        assert_eq!(path.metadata().unwrap().len(), (10 << 20) / 20, "a twentieth of a small disk");
        assert!(Reserve::open(folder.path(), 0).unwrap().is_held() && !path.exists(), "none is asked for");
    }

    #[test]
    fn no_link_in_its_place_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("reserve"), folder.path().join("other"));
        std::fs::write(&other, b"theirs").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        for bytes_max in [0, 1 << 20] {
            let error = Reserve::open(folder.path(), bytes_max).unwrap_err();
            assert!(error.kind() == Kind::Corrupt && error.to_string().contains("reserve"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&other, &path).unwrap();
        let reserve = Reserve::open(folder.path(), 1 << 20).unwrap();
        reserve.keep(u64::MAX, 100 << 20, 100);
        assert!(reserve.is_held() && path.metadata().unwrap().len() == 1 << 20);
        assert_eq!(std::fs::read(&other).unwrap(), b"theirs");
    }
}
