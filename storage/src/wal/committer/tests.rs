//! A lane beside a disk that takes its time, or panics.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use futures::{FutureExt, poll};

use super::super::log::tests::group;
use super::super::log::{Failure, Ledger, Log};
use super::{Committer, Place};
use crate::fixture::OddDisk;

/// A committer, and what happens before each of its syncs.
fn committer(folder: &Path, before_sync: impl Fn() + Send + Sync + 'static) -> Committer {
    let ledger = Ledger::new(
        Arc::new(OddDisk { before_sync: Some(Arc::new(before_sync)), ..OddDisk::default() }),
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
    let mut committer = committer(folder.path(), move || {
        shut.wait();
    });
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
    let mut committer = committer(folder.path(), || panic!("a disk of a test"));
    run(async || {
        assert!(matches!(committer.commit(group(0..1)).await, Err(Failure::Poisoned(_))));
        assert!(matches!(committer.commit(group(1..2)).await, Err(Failure::Poisoned(_))));
        assert!(committer.heartbeat().await.is_err());
    });
}

/// W2: the mark is written once after a group, and a lane at rest wakes no thread for it.
#[test]
fn a_group_is_marked_once() {
    let folder = tempfile::tempdir().unwrap();
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&syncs);
    let mut committer = committer(folder.path(), move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
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
