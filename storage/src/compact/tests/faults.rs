//! What goes wrong around a merge or a seal leaves every row where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use super::rig::{Rig, START_NS, chunk, column, run, start_ns};
use crate::compact::run::compact;
use crate::error::Kind as ErrorKind;
use crate::memory::Pool;
use crate::segment::{self, Fingerprint};

fn failures(rig: &Rig) -> (u64, u64, u64) {
    let stats = &rig.shared.stats;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    (load(&stats.compaction_failures), load(&stats.damaged_files), load(&stats.segment_mismatches))
}

#[test]
fn files_are_merged_and_every_row_stays() {
    run(async {
        let rig = Rig::sealed(7).await;
        let before = rig.found().await;
        assert_eq!(before.0, (0..70).collect::<Vec<_>>());
        assert_eq!(rig.files().len(), 14, "two dates");
        rig.compact().await;
        assert_eq!(rig.found().await, before);
        assert!(rig.files().len() <= 6, "at most two of a tier and date");
        assert!(rig.shared.stats.compactions.load(Ordering::Relaxed) >= 2);
        assert!(rig.shared.stats.compacted_files.load(Ordering::Relaxed) >= 10);
        assert!((1.1..3.0).contains(&rig.shared.stats.write_amplification()));
        assert_eq!(failures(&rig), (0, 0, 0));
        let again = Rig::on(rig.folder.clone(), start_ns).await;
        assert_eq!(again.found().await, before, "a start reads the same table");
    });
}

/// A table of thousands of files pays for a commit with a look at all of them: merges of several dates share one. Where
/// one of them fails, those before it are in.
#[test]
fn merges_of_several_dates_are_one_commit() {
    run(async {
        let rig = Rig::sealed(3).await;
        let before = rig.found().await;
        let version = || rig.table().version().unwrap();
        let sealed = version();
        assert!(compact(&rig.shared, || true).await);
        assert_eq!((rig.files().len(), version()), (2, sealed + 1));
        assert_eq!(rig.shared.stats.compactions.load(Ordering::Relaxed), 2);
        assert_eq!(rig.shared.stats.compacted_files.load(Ordering::Relaxed), 6);
        assert_eq!(rig.found().await, before);

        let rig = Rig::sealed(3).await;
        let files = rig.files();
        assert_eq!(files[3].path.split('/').next(), files[5].path.split('/').next(), "of the second date");
        std::fs::remove_file(rig.on_disk(&files[4])).unwrap();
        assert!(compact(&rig.shared, || true).await);
        assert_eq!(rig.files().len(), 4, "the first date is merged");
        assert_eq!(rig.shared.stats.compactions.load(Ordering::Relaxed), 1);
        assert_eq!(failures(&rig), (1, 1, 0));
        assert!(rig.files().contains(&files[4]), "still the table's, and named");
    });
}

/// A snapshot that was taken before a merge still reads the files that the merge took out.
#[test]
fn an_open_snapshot_reads_on() {
    run(async {
        let rig = Rig::sealed(3).await;
        let snapshot = rig.table().snapshot();
        rig.compact().await;
        assert_eq!(rig.files().len(), 2);
        let mut rows = 0;
        for file in &snapshot.files {
            rows += rig.rows(file).await.num_rows();
        }
        assert_eq!(rows, 30);
    });
}

/// F22: a segment that does not hold what went in is no segment.
#[test]
fn what_does_not_read_back_is_refused() {
    run(async {
        let rig = Rig::sealed(1).await;
        let rows = rig.rows(&rig.files()[0]).await;
        let schema = rows.schema();
        let mismatches = AtomicU64::new(0);
        let mut written = segment::write(crate::record::Kind::Events, &rows, 50).unwrap();
        let expected = Fingerprint::of(&rows);
        assert!(segment::check("good", &written, &schema, expected, &mismatches).is_ok());
        let less = Fingerprint::of(&rows.slice(1, rows.num_rows() - 1));
        let error = segment::check("lost", &written, &schema, less, &mismatches).unwrap_err();
        assert_eq!((error.kind(), error.context().contains("lost")), (ErrorKind::Bug, true));
        // Statistics that leave rows out would make pruning hide them.
        let other = segment::write(crate::record::Kind::Events, &rows.slice(0, 1), 50).unwrap();
        let statistics = std::mem::replace(&mut written.statistics, other.statistics);
        assert!(segment::check("stats", &written, &schema, expected, &mismatches).is_err());
        written.statistics = statistics;
        let mut bytes = written.bytes.to_vec();
        for at in (4..bytes.len()).step_by(bytes.len() / 40) {
            bytes[at] ^= 0x55;
        }
        written.bytes = bytes.into();
        assert!(segment::check("damaged", &written, &schema, expected, &mismatches).is_err());
        assert_eq!(mismatches.load(Ordering::Relaxed), 3);
    });
}

/// F23: a segment of which the store kept a part is not committed; the next attempt takes another name.
#[test]
fn a_cut_upload_is_not_committed() {
    run(async {
        let rig = Rig::new().await;
        rig.push(1, 0, chunk(0..10, 0));
        rig.store.cuts_segments.store(true, Ordering::Relaxed);
        assert_eq!(rig.seal().await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(rig.files().is_empty());
        assert_eq!(rig.found().await.0, (0..10).collect::<Vec<_>>(), "hot as before");
        rig.store.cuts_segments.store(false, Ordering::Relaxed);
        assert_eq!(rig.seal().await.unwrap(), 10);
        assert_eq!(rig.found().await.0, (0..10).collect::<Vec<_>>());
        assert_eq!(failures(&rig), (0, 0, 1));
    });
}

static RESTED_NS: AtomicI64 = AtomicI64::new(START_NS + 86_400_000_000_000);

fn a_day_later_ns() -> i64 {
    RESTED_NS.load(Ordering::Relaxed)
}

#[test]
fn a_damaged_file_is_set_aside_and_the_others_are_merged() {
    run(async {
        let rig = Rig::sealed(6).await;
        let before = rig.found().await;
        let files = rig.files();
        let damage = |at: usize| {
            let path = rig.on_disk(&files[at]);
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        };
        damage(0);
        std::fs::remove_file(rig.on_disk(&files[7])).unwrap();
        rig.compact().await;
        assert_eq!(failures(&rig), (2, 2, 0));
        let live = rig.files();
        assert!(live.contains(&files[0]) && live.contains(&files[7]), "they are still the table's");
        assert!(live.len() < files.len());
        // Whole again, and after a start a day later: merged like any other, once the table has rested. The other one stays
        // missing, and named.
        damage(0);
        let again = Rig::on(rig.folder.clone(), a_day_later_ns).await;
        again.compact().await;
        assert!(again.files().contains(&files[0]));
        RESTED_NS.fetch_add(600_000_000_000, Ordering::Relaxed);
        again.compact().await;
        assert_eq!(failures(&again), (1, 1, 0));
        assert!(!again.files().contains(&files[0]));
        let lost = files[7].rows;
        let rows: u64 = again.files().iter().filter(|file| **file != files[7]).map(|file| file.rows).sum();
        assert_eq!(rows + lost, before.0.len() as u64);
    });
}

/// A merge that ends between its put and its commit leaves a file that no version names, and nothing else.
#[test]
fn a_crash_before_the_commit_changes_nothing() {
    run(async {
        let rig = Rig::sealed(3).await;
        let (before, files) = (rig.found().await, rig.files());
        rig.store.refuses_commits.store(true, Ordering::Relaxed);
        assert!(!compact(&rig.shared, || true).await);
        assert_eq!(failures(&rig), (1, 0, 0));
        assert_eq!(rig.files(), files);
        assert!(!compact(&rig.shared, || true).await, "it waits before it tries again");
        assert_eq!(failures(&rig), (1, 0, 0));
        let rig = Rig::on(rig.folder.clone(), start_ns).await;
        assert_eq!(rig.found().await, before);
        rig.compact().await;
        assert_eq!(rig.found().await, before);
        assert_eq!(rig.files().len(), 2);
    });
}

/// Rows that another process removed while a merge of them was under way do not come back.
#[test]
fn a_removal_under_a_merge_wins() {
    run(async {
        let rig = Rig::sealed(3).await;
        let removed = rig.files()[0].clone();
        let gone = column(&rig.rows(&removed).await);
        let is_done = AtomicBool::new(false);
        let remove_once = || {
            if !is_done.swap(true, Ordering::Relaxed) {
                futures::executor::block_on(rig.remove_elsewhere(&removed.path));
            }
            true
        };
        assert!(compact(&rig.shared, remove_once).await);
        let left: Vec<i64> = (0..30).filter(|n| !gone.contains(n)).collect();
        assert_eq!(rig.found().await.0, left);
        rig.compact().await;
        assert_eq!(rig.found().await.0, left);
    });
}

/// A seal in the middle of a merge waits for nothing, and both get in.
#[test]
fn a_seal_under_a_merge_goes_first() {
    run(async {
        let rig = Rig::sealed(3).await;
        let is_done = AtomicBool::new(false);
        let seal_once = || {
            if !is_done.swap(true, Ordering::Relaxed) {
                rig.push(4, 30, chunk(30..40, 2));
                // Never returns if the merge holds the table's log.
                assert_eq!(futures::executor::block_on(rig.seal()).unwrap(), 10);
            }
            true
        };
        assert!(compact(&rig.shared, seal_once).await);
        assert_eq!(rig.shared.stats.compactions.load(Ordering::Relaxed), 2, "of two dates");
        assert_eq!(rig.found().await.0, (0..40).collect::<Vec<_>>());
        assert_eq!(rig.table().published().state.last_seq("w-0"), 4);
    });
}

#[test]
fn nothing_is_merged_while_ingest_needs_the_memory() {
    run(async {
        let rig = Rig::sealed(3).await;
        let memory = &rig.shared.memory;
        let hot = memory.count(Pool::Hot, None, memory.max(Pool::Hot) / 4 * 3);
        assert!(!compact(&rig.shared, || true).await);
        assert_eq!(rig.files().len(), 6);
        assert_eq!(rig.shared.compaction.files_waiting.load(Ordering::Relaxed), 6, "the lag shows");
        assert_eq!(rig.shared.compaction.partition_files_max.load(Ordering::Relaxed), 3);
        drop(hot);
        rig.compact().await;
        assert_eq!(rig.files().len(), 2);
        assert_eq!(rig.shared.compaction.files_waiting.load(Ordering::Relaxed), 0);
    });
}

// B1: what a merge reads and writes is taken from the memory for merges before.
#[test]
fn a_merge_waits_for_its_memory() {
    run(async {
        let rig = Rig::sealed(3).await;
        tokio::time::pause();
        let memory = &rig.shared.memory;
        let lent = memory.take(Pool::Merge, None, memory.max(Pool::Merge)).unwrap();
        assert!(!compact(&rig.shared, || true).await);
        assert_eq!(rig.files().len(), 6);
        assert_eq!(rig.shared.stats.damaged_files.load(Ordering::Relaxed), 0);
        drop(lent);
        tokio::time::resume();
        let again = Rig::on(Arc::clone(&rig.folder), start_ns).await;
        again.compact().await;
        assert_eq!(again.files().len(), 2);
        assert_eq!(again.shared.memory.used(Pool::Merge), 0);
    });
}
