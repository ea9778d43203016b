//! Retention on a real folder: what a dry run tells is what goes, and what must stay stays.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Instant;

use super::run::{Ended, Refused};
use crate::fixture::{DAY_NS, HOUR, HOUR_NS, LATE_NS, count, on_disk, open, rule, run, seal, table};

const YEAR_NS: i64 = 365 * DAY_NS;

/// R1, E2: whole files go, rows at the edge go, hot rows are sealed first; the dry run told exactly that, the report
/// stands in the store, and a restart finds the same.
#[test]
fn a_dry_run_tells_what_the_run_removes() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), || LATE_NS).await;
        let cutoff = LATE_NS - 7 * DAY_NS;
        // A date wholly past, a date across the cutoff, and a date that stays; the last rows stay hot.
        seal(&storage, &[cutoff - 3 * DAY_NS, cutoff - 3 * DAY_NS + 1]).await;
        seal(&storage, &[cutoff - 2, cutoff - 1, cutoff, cutoff + 1]).await;
        seal(&storage, &[LATE_NS]).await;
        let writer = storage.writer(0).unwrap();
        writer.append(&table(), crate::fixture::rows(&[cutoff - 5, LATE_NS]), None).await.unwrap();

        let at = Instant::now();
        let refused = storage.expire(&table(), true, at).await.unwrap();
        assert_eq!(refused, Err(Refused::NoPolicy), "kept for ever unless somebody says otherwise");
        storage.set_policies(rule(Some(7), false));
        let dry = storage.expire(&table(), true, at).await.unwrap().unwrap();
        assert_eq!((dry.rows, dry.files), (5, 3));
        assert_eq!(count(&storage.snapshot(&table()).unwrap()), (9, 0), "a dry run removes nothing");
        let mut real = storage.expire(&table(), false, at).await.unwrap().unwrap();
        let report = real.report.take().expect("what went is written down");
        assert_eq!(real, dry);
        let snapshot = storage.snapshot(&table()).unwrap();
        assert_eq!(count(&snapshot), (4, 0));
        assert!(snapshot.files.iter().all(|file| file.time_ns.0 >= cutoff), "nothing older is left");
        let text = std::fs::read_to_string(folder.path().join("store").join(&report)).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["rows"], 5);
        assert_eq!(report["leaving"].as_array().unwrap().len(), 3);
        let again = storage.expire(&table(), false, at).await.unwrap().unwrap();
        assert_eq!((again.rows, again.report), (0, None), "there is nothing left to remove");
        storage.close().await;
        drop((writer, storage));
        let storage = open(folder.path(), || LATE_NS).await;
        assert_eq!(count(&storage.snapshot(&table()).unwrap()), (4, 0));
        storage.close().await;
    });
}

/// R1: a hold wins, whoever asks; so does one that nobody has told yet.
#[test]
fn a_hold_wins_over_retention() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), || LATE_NS).await;
        seal(&storage, &[0, LATE_NS]).await;
        let at = Instant::now();
        storage.set_policies(rule(Some(1), true));
        for is_dry in [true, false] {
            assert_eq!(storage.expire(&table(), is_dry, at).await.unwrap(), Err(Refused::Held));
        }
        let ended = storage.expire_all(None, true, at + HOUR).await;
        assert!(matches!(ended[0].1, Ended::Refused(Refused::Held)), "{ended:?}");
        assert_eq!(count(&storage.snapshot(&table()).unwrap()), (2, 0));
        storage.set_policies(rule(Some(1), false));
        assert_eq!(storage.expire(&table(), false, at).await.unwrap().unwrap().rows, 1);
        storage.close().await;
    });
}

/// F27: a clock that jumps ten years, either way, expires nothing; by the schedule or by name.
#[test]
fn a_clock_that_jumps_expires_nothing() {
    static AT_NS: AtomicI64 = AtomicI64::new(LATE_NS);
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), || AT_NS.load(Relaxed)).await;
        let start = Instant::now();
        seal(&storage, &[LATE_NS - DAY_NS, LATE_NS, LATE_NS + HOUR_NS]).await;
        storage.set_policies(rule(Some(365), false));
        for (hours, jump_ns) in
            [(1, 10 * YEAR_NS), (30, 10 * YEAR_NS), (31, -10 * YEAR_NS), (99, -10 * YEAR_NS)]
        {
            AT_NS.store(LATE_NS + i64::from(hours) * HOUR_NS + jump_ns, Relaxed);
            let at = start + HOUR * hours;
            assert_eq!(storage.expire(&table(), false, at).await.unwrap(), Err(Refused::Clock));
            for is_asked in [false, true] {
                let ended = storage.expire_all(None, is_asked, at).await;
                assert!(matches!(ended[0].1, Ended::Refused(Refused::Clock)), "{ended:?}");
            }
        }
        assert_eq!(count(&storage.snapshot(&table()).unwrap()), (3, 0));
        storage.close().await;
    });
}

/// F27: the scheduled run needs an hour of clocks in step, and stops short of more than twice what is usual.
#[test]
fn the_scheduled_run_looks_twice_and_minds_the_volume() {
    static AT_NS: AtomicI64 = AtomicI64::new(LATE_NS);
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), || AT_NS.load(Relaxed)).await;
        let start = Instant::now();
        storage.set_policies(rule(Some(1), false));
        let daily = async |hours: u32| {
            AT_NS.store(LATE_NS + i64::from(hours) * HOUR_NS, Relaxed);
            let mut ended = storage.expire_all(None, false, start + HOUR * hours).await;
            ended.remove(0).1
        };
        let old = |rows: usize| vec![LATE_NS - 3 * DAY_NS; rows];
        seal(&storage, &old(2)).await;
        assert!(matches!(daily(0).await, Ended::Refused(Refused::Clock)), "one look is not enough");
        assert!(matches!(daily(2).await, Ended::Done(expiry) if expiry.rows == 2), "nothing to compare with");
        seal(&storage, &old(4)).await;
        assert!(matches!(daily(26).await, Ended::Done(expiry) if expiry.rows == 4));
        seal(&storage, &old(9)).await;
        let refused = daily(50).await;
        assert!(matches!(refused, Ended::Refused(Refused::Unusual { rows: 9, usual: 4 })), "{refused:?}");
        let at = start + HOUR * 50;
        assert_eq!(storage.expire(&table(), false, at).await.unwrap().unwrap().rows, 9, "by name it goes");
        seal(&storage, &old(8)).await;
        assert!(matches!(daily(74).await, Ended::Done(expiry) if expiry.rows == 8), "by name is not usual");
        storage.close().await;
    });
}

/// A damaged file is named and stays; nothing of its table goes.
#[test]
fn a_damaged_file_is_not_rewritten() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), || LATE_NS).await;
        let cutoff = LATE_NS - DAY_NS;
        seal(&storage, &[cutoff - 1, cutoff]).await;
        seal(&storage, &[cutoff - 9 * DAY_NS]).await;
        storage.set_policies(rule(Some(1), false));
        let snapshot = storage.snapshot(&table()).unwrap();
        let edge = snapshot.files.iter().find(|file| file.rows == 2).unwrap();
        let path = on_disk(folder.path(), &edge.path);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = storage.expire(&table(), false, Instant::now()).await.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
        assert!(error.context().contains(&edge.path), "{error}");
        assert_eq!(count(&storage.snapshot(&table()).unwrap()), (3, 0));
        storage.close().await;
    });
}
