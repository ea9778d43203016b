//! A lane beside a disk that takes its time, or panics.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use futures::{FutureExt, poll};

use super::super::log::tests::group;
use super::super::log::{Failure, Ledger, Log};
use super::{Committer, Place};
use crate::disk::{Disk, DiskFile, LocalDisk};

/// What the file does when it is synced.
type Sync = Arc<dyn Fn() + Send + std::marker::Sync>;

struct SlowDisk(Sync);
struct SlowFile(Box<dyn DiskFile>, Sync);

impl std::fmt::Debug for SlowDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SlowDisk")
    }
}

impl std::fmt::Debug for SlowFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SlowFile")
    }
}

impl DiskFile for SlowFile {
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_at(bytes, at)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
    fn sync(&self) -> io::Result<()> {
        (self.1)();
        self.0.sync()
    }
}

impl Disk for SlowDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SlowFile(LocalDisk.create(path)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        LocalDisk.open(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        LocalDisk.read(path)
    }
    fn read_at(&self, path: &Path, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        LocalDisk.read_at(path, bytes, at)
    }
    fn len(&self, path: &Path) -> io::Result<u64> {
        LocalDisk.len(path)
    }
    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        LocalDisk.names(folder)
    }
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        LocalDisk.make_folder(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        LocalDisk.sync_folder(folder)
    }
    fn space(&self, folder: &Path) -> io::Result<(u64, u64)> {
        LocalDisk.space(folder)
    }
}

fn committer(folder: &Path, sync: Sync) -> Committer {
    let ledger = Ledger::new(
        Arc::new(SlowDisk(sync)),
        folder.to_owned(),
        "w".into(),
        HashMap::new(),
        Arc::new(AtomicU64::new(0)),
        1 << 20,
    );
    let committer = Committer::start(Log::new(Arc::new(ledger), 0, 0, 1, 1 << 20), || ()).unwrap();
    assert!(matches!(committer.place, Place::Thread(_)));
    committer
}

fn run(test: impl AsyncFnOnce()) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test());
}

/// X2: a lane that waited for its disk would answer nobody meanwhile.
#[test]
fn a_lane_goes_on_while_its_log_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(Barrier::new(2));
    let shut = Arc::clone(&gate);
    let mut committer = committer(
        folder.path(),
        Arc::new(move || {
            shut.wait();
        }),
    );
    run(async || {
        let mut committing = Box::pin(committer.commit(group(0..3)));
        // The sync begins and does not end before somebody comes to the gate: this thread, which it does not hold.
        assert!(poll!(&mut committing).is_pending());
        gate.wait();
        assert_eq!(committing.await.unwrap(), [Some(1), Some(2), Some(3)]);
    });
}

/// W3: what a panic left of the log nobody knows.
#[test]
fn a_log_whose_thread_panicked_is_poisoned() {
    let folder = tempfile::tempdir().unwrap();
    let mut committer = committer(folder.path(), Arc::new(|| panic!("a disk of a test")));
    run(async || {
        assert!(matches!(committer.commit(group(0..1)).await, Err(Failure::Poisoned(_))));
        assert!(matches!(committer.commit(group(1..2)).await, Err(Failure::Poisoned(_))));
        assert!(committer.heartbeat().await.is_err());
    });
}

/// F13: the mark is written once after a group, and a lane at rest wakes no thread for it.
#[test]
fn a_group_is_marked_once() {
    let folder = tempfile::tempdir().unwrap();
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&syncs);
    let mut committer = committer(
        folder.path(),
        Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }),
    );
    run(async || {
        committer.heartbeat().now_or_never().expect("nothing is to be marked").unwrap();
        committer.commit(group(0..1)).await.unwrap();
        committer.heartbeat().await.unwrap();
        committer.heartbeat().now_or_never().expect("it is marked").unwrap();
        // The heartbeat took a number and no sync.
        assert_eq!(committer.commit(group(1..2)).await.unwrap(), [Some(3)]);
    });
    assert_eq!(syncs.load(Ordering::Relaxed), 2);
}
