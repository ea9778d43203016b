//! Folders that objects need: made before the object is written, durable when its put returns.
//!
//! The parents of a new folder are synced after the object's own bytes: a file system with a journal has their entries
//! there by then, and each sync before would be one more turn of the journal, which the log's syncs wait for as well.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::sync_folder;

/// The folders below a root.
#[derive(Debug)]
pub struct Folders {
    root: PathBuf,
    /// Made, while their parents may not be synced: whoever puts into one syncs them too.
    unsynced: Mutex<HashSet<PathBuf>>,
}

impl Folders {
    pub fn below(root: PathBuf) -> Self {
        Self { root, unsynced: Mutex::default() }
    }

    fn unsynced(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a folder below the root, and those between.
    ///
    /// # Errors
    /// As the file system says.
    pub fn make(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() || folder == self.root {
            return Ok(());
        }
        self.make(folder.parent().expect("the root stops the climb"))?;
        let mut unsynced = self.unsynced();
        match fs::create_dir(folder) {
            Ok(()) => drop(unsynced.insert(folder.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Makes durable what is in a folder, and the folder with every one above that is new.
    ///
    /// # Errors
    /// As the file system says; whoever puts there next tries again.
    pub fn sync(&self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)?;
        for made in folder.ancestors().take_while(|made| *made != self.root) {
            // Not locked while a disk works.
            let is_new = self.unsynced().contains(made);
            if is_new {
                sync_folder(made.parent().expect("it lies below the root"))?;
                self.unsynced().remove(made);
            }
        }
        Ok(())
    }

    /// Notes that a folder is durable, with every one above.
    pub fn are_synced(&self, folder: &Path) {
        let mut unsynced = self.unsynced();
        if !unsynced.is_empty() {
            for made in folder.ancestors().take_while(|made| *made != self.root) {
                unsynced.remove(made);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Folders;

    #[test]
    fn a_new_folder_is_durable_by_whoever_puts_first() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::below(root.path().to_owned());
        let deep = root.path().join("a/b/c");
        folders.make(&deep).unwrap();
        assert_eq!(folders.unsynced().len(), 3);
        // Another put finds the folder there, and its parents are not synced: it does that.
        folders.make(&deep).unwrap();
        folders.sync(&deep).unwrap();
        assert!(folders.unsynced().is_empty());
        // Where syncing fails, it stays to be done.
        let lost = root.path().join("a/lost");
        folders.make(&lost).unwrap();
        std::fs::remove_dir(&lost).unwrap();
        assert!(folders.sync(&lost).is_err());
        assert_eq!(folders.unsynced().len(), 1);
        folders.make(&lost).unwrap();
        folders.sync(&lost).unwrap();
        assert!(folders.unsynced().is_empty());
        folders.make(&root.path().join("b/c")).unwrap();
        folders.are_synced(&root.path().join("b/c"));
        assert!(folders.unsynced().is_empty());
    }
}
