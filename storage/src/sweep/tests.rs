//! Sweeps on a real folder: what is named stays, what is not goes once it is old beyond doubt (R1).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Instant;

use crate::commit::{Change, Operation, TableLog};
use crate::deployment::Storage;
use crate::fixture::{DAY_NS, HOUR, HOUR_NS, LATE_NS, count, on_disk, open, rule, run, seal, table};
use crate::record::Kind;
use crate::record::fit::Columns;

/// A file of the events that a version removed: sealed, and past its retention.
async fn tombstoned(storage: &Arc<Storage>, at: Instant) -> String {
    seal(storage, &[LATE_NS - 9 * DAY_NS]).await;
    let path = storage.snapshot(&table()).unwrap().files.last().unwrap().path.clone();
    storage.set_policies(rule(Some(7), false));
    assert_eq!(storage.expire(&table(), false, at).await.unwrap().unwrap().files, 1);
    path
}

/// R1: a file that a version removed goes after its grace, not before, and not while a reader has it.
#[test]
fn a_reader_keeps_its_files_from_the_sweep() {
    static AT_NS: AtomicI64 = AtomicI64::new(LATE_NS);
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), || AT_NS.load(Relaxed)).await;
        let start = Instant::now();
        seal(&storage, &[LATE_NS - 9 * DAY_NS]).await;
        let reader = storage.snapshot(&table()).unwrap();
        let path = on_disk(folder.path(), &reader.files[0].path);
        storage.set_policies(rule(Some(7), false));
        assert_eq!(storage.expire(&table(), false, start).await.unwrap().unwrap().rows, 1);
        assert_eq!(count(&storage.snapshot(&table()).unwrap()), (0, 0));
        let sweep = async |hours: u32| {
            AT_NS.store(LATE_NS + i64::from(hours) * HOUR_NS, Relaxed);
            storage.sweep(None, start + HOUR * hours).await
        };
        for hours in [0, 2, 23, 30] {
            assert_eq!(sweep(hours).await.files, 0, "after {hours} h");
            assert!(path.exists(), "a reader has it, {hours} h later");
        }
        drop(reader);
        let swept = sweep(31).await;
        assert_eq!((swept.files, swept.failed), (1, 0));
        assert!(swept.bytes > 0 && !path.exists());
        assert_eq!(sweep(32).await.files, 0);
        storage.close().await;
    });
}

/// F27: what a jumping clock calls old stays; what was watched for the whole grace goes, whatever it says.
#[test]
fn a_clock_that_jumps_sweeps_nothing() {
    static AT_NS: AtomicI64 = AtomicI64::new(LATE_NS);
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), || AT_NS.load(Relaxed)).await;
        let start = Instant::now();
        let path = tombstoned(&storage, start).await;
        let orphan = on_disk(folder.path(), "date=2026-01-01/never-committed.parquet");
        std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
        std::fs::write(&orphan, b"rows").unwrap();
        for (hours, years) in [(0, 0), (2, 10), (9, 10), (10, -10), (23, -10)] {
            AT_NS.store(LATE_NS + i64::from(hours) * HOUR_NS + years * 365 * DAY_NS, Relaxed);
            let swept = storage.sweep(None, start + HOUR * u32::try_from(hours).unwrap()).await;
            assert_eq!((swept.files, swept.orphans, swept.log_objects), (0, 0, 0), "{years} years");
        }
        let swept = storage.sweep(None, start + HOUR * 24).await;
        assert_eq!((swept.files, swept.orphans), (1, 1), "watched for 24 h by a clock that never jumps");
        assert!(!on_disk(folder.path(), &path).exists() && !orphan.exists());
        storage.close().await;
    });
}

/// R1, C1: a file that is put and not committed yet is no orphan, though it look like one to many sweeps.
#[test]
fn a_commit_in_flight_is_no_orphan() {
    static AT_NS: AtomicI64 = AtomicI64::new(LATE_NS);
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), || AT_NS.load(Relaxed)).await;
        let start = Instant::now();
        seal(&storage, &[LATE_NS]).await;
        storage.set_policies(rule(None, false));
        let mut file = (*storage.snapshot(&table()).unwrap().files[0]).clone();
        let bytes = std::fs::read(on_disk(folder.path(), &file.path)).unwrap();
        file.path = file.path.replace(".parquet", "-other.parquet");
        let path = on_disk(folder.path(), &file.path);
        std::fs::write(&path, bytes).unwrap();
        let sweep = async |hours: u32| {
            AT_NS.store(LATE_NS + i64::from(hours) * HOUR_NS, Relaxed);
            storage.sweep(None, start + HOUR * hours).await.orphans
        };
        assert_eq!(sweep(0).await, 0, "one look is not enough, however old it is");
        // Another process commits it: this one has not heard of that.
        let log = TableLog::new(Arc::clone(&storage.shared.store), table().prefix());
        let change = Change {
            operation: Operation::Append,
            kind: Kind::Events,
            columns: Columns::new(Kind::Events),
            adds: vec![file],
            removes: Vec::new(),
            txns: Vec::new(),
            guards: Vec::new(),
            now_ms: LATE_NS / 1_000_000,
        };
        assert!(log.commit(log.load().await.unwrap(), &change).await.unwrap().is_in);
        assert_eq!(sweep(25).await, 0);
        assert!(path.exists());
        assert_eq!(count(&storage.snapshot(&table()).unwrap()), (2, 0), "the sweep heard of the commit");
        std::fs::write(path.with_file_name("orphan.parquet"), b"rows").unwrap();
        assert_eq!((sweep(26).await, sweep(28).await), (0, 1), "nobody commits this one");
        storage.close().await;
    });
}

/// R1: nothing of a held dataset goes, whether a version removed it before the hold or not.
#[test]
fn a_hold_pins_what_is_tombstoned() {
    static AT_NS: AtomicI64 = AtomicI64::new(LATE_NS);
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), || AT_NS.load(Relaxed)).await;
        let start = Instant::now();
        let path = on_disk(folder.path(), &tombstoned(&storage, start).await);
        storage.set_policies(rule(Some(7), true));
        storage.settle(&table()).await;
        for hours in [0, 25, 50] {
            AT_NS.store(LATE_NS + i64::from(hours) * HOUR_NS, Relaxed);
            let swept = storage.sweep(None, start + HOUR * hours).await;
            assert_eq!((swept.files, swept.held), (0, 1));
            assert!(path.exists());
        }
        storage.set_policies(rule(Some(7), false));
        AT_NS.store(LATE_NS + 51 * HOUR_NS, Relaxed);
        assert_eq!(storage.sweep(None, start + HOUR * 51).await.files, 0, "its grace is watched from now on");
        AT_NS.store(LATE_NS + 53 * HOUR_NS, Relaxed);
        assert_eq!(storage.sweep(None, start + HOUR * 53).await.files, 1);
        assert!(!path.exists());
        storage.close().await;
    });
}

/// A crash between a deletion and its being noted is made good by the next sweep, in this life or the next.
#[test]
fn a_file_that_is_gone_already_is_swept() {
    static AT_NS: AtomicI64 = AtomicI64::new(LATE_NS);
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), || AT_NS.load(Relaxed)).await;
        let path = tombstoned(&storage, Instant::now()).await;
        std::fs::remove_file(on_disk(folder.path(), &path)).unwrap();
        storage.close().await;
        drop(storage);
        let storage = open(folder.path(), || AT_NS.load(Relaxed)).await;
        storage.set_policies(rule(None, false));
        let tombstones = || storage.shared.tables.get(&table()).unwrap().published().state.tombstones.len();
        assert_eq!(tombstones(), 1, "the log says that it may be there");
        let start = Instant::now();
        storage.sweep(None, start).await;
        assert_eq!(storage.sweep(None, start + HOUR * 25).await.files, 1);
        assert_eq!(tombstones(), 0);
        assert_eq!(storage.checkpoint(None).await.unwrap(), 1);
        storage.close().await;
        drop(storage);
        let storage = open(folder.path(), || AT_NS.load(Relaxed)).await;
        let table = storage.shared.tables.get(&table()).unwrap();
        assert_eq!(table.published().state.tombstones.len(), 0, "a checkpoint forgets what is gone");
        storage.close().await;
    });
}

#[test]
fn what_half_written_puts_left_goes() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), || LATE_NS).await;
        storage.set_policies(rule(None, false));
        seal(&storage, &[LATE_NS]).await;
        let aside = on_disk(folder.path(), &format!("date=2096-10-02/a.parquet#{}", "10".repeat(16)));
        let other = aside.with_file_name("notes#1.txt");
        for path in [&aside, &other] {
            std::fs::write(path, b"half").unwrap();
        }
        let start = Instant::now();
        assert_eq!(storage.sweep(None, start).await.asides, 0, "a put may be under way");
        assert_eq!(storage.sweep(None, start + HOUR).await.asides, 1);
        assert!(!aside.exists() && other.exists(), "what is not ours stays");
        storage.close().await;
    });
}
