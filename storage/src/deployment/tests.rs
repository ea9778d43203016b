//! The whole of storage on a real folder: append, read, seal, crash, replay.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::Storage;
use crate::latency::{Measurement, Recorder};
use crate::options::Options;
use crate::record::{Clean, Dataset, Draft, Field, Kind, TableId, Tenant, Value};
use crate::writer::{Idempotency, Known};

fn now() -> i64 {
    1_700_000_000_000_000_000
}

fn measure(_: Kind, batch: &arrow::array::RecordBatch) -> Measurement {
    let mut recorder = Recorder::default();
    for time in batch.column_by_name("time_ns").unwrap().as_primitive::<Int64Type>().values() {
        recorder.record("s", "op", false, *time, 1_000);
    }
    recorder.take()
}

fn table() -> TableId {
    TableId::new(Tenant::parse("acme").unwrap(), Dataset::parse("events").unwrap())
}

/// Rows that are half a day apart.
fn chunk(numbers: std::ops::Range<i64>) -> Clean {
    chunk_by(numbers, 50_000_000_000_000)
}

fn chunk_by(numbers: std::ops::Range<i64>, step_ns: i64) -> Clean {
    let mut draft = Draft::new(Kind::Events);
    for n in numbers {
        draft.begin_row();
        draft.set_int(Field::TimeNs, now() + n * step_ns);
        draft.set_int(Field::ObservedNs, now());
        draft.set_text(Field::Source, "s");
        let _ = draft.attribute("n", Value::Int(n));
        draft.end_row();
    }
    let clean = Clean::attest(&mut draft, 1);
    let measurement = measure(Kind::Events, clean.batch());
    clean.with_measurement(measurement)
}

fn options(data: &std::path::Path) -> Options {
    Options {
        data: data.to_owned(),
        seal_age_ms: 3_600_000,
        wal_segment_bytes: 1 << 20,
        checkpoint_commits: 3,
        ..Options::default()
    }
}

async fn open(data: &std::path::Path) -> Arc<Storage> {
    Storage::open(options(data), measure, now, |_| ()).await.unwrap()
}

/// Rows of files (by the log's statistics) and of the hot buffer, and durations counted.
fn counts(storage: &Storage) -> (u64, u64, u64) {
    let snapshot = storage.snapshot(&table()).unwrap();
    let files = snapshot.files.iter().map(|file| file.rows).sum();
    let hot: usize = snapshot.hot.iter().map(|batch| batch.num_rows()).sum();
    let latency = storage.latency(&table().tenant);
    let hot_durations: u64 =
        latency.hot.iter().flat_map(|m| &m.series).flat_map(|s| &s.buckets).map(|(_, n)| u64::from(*n)).sum();
    let stored: u64 = latency.stored.iter().flat_map(|s| &s.files).map(|file| file.rows).sum();
    (files, hot as u64, hot_durations + stored)
}

fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(async { test().await }));
}

/// A3: an acknowledged row is in the hot buffer or in a file, never in both, never in neither; over seals and
/// restarts. Latency likewise: here every row is its own window, so stored rows count durations.
#[test]
fn an_acknowledged_row_is_found_exactly_once() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path()).await;
        let writer = storage.writer(0).unwrap();
        let receipt = writer.append(&table(), chunk(0..3), None).await.unwrap();
        assert_eq!((receipt.first_seq, receipt.row_count), (0, 3));
        assert_eq!(counts(&storage), (0, 3, 3));
        assert_eq!(storage.flush().await.unwrap(), 3);
        assert_eq!(counts(&storage), (3, 0, 3));
        let receipt = writer.append(&table(), chunk(3..5), None).await.unwrap();
        assert_eq!(receipt.first_seq, 3);
        assert_eq!(counts(&storage), (3, 2, 5));
        storage.close().await;
        drop((writer, storage));

        let storage = open(folder.path()).await;
        assert_eq!(counts(&storage), (3, 2, 5), "a restart replays what no table holds");
        let writer = storage.writer(0).unwrap();
        let receipt = writer.append(&table(), chunk(5..6), None).await.unwrap();
        assert_eq!(receipt.first_seq, 5, "row numbers go on without a gap");
        for n in 6..12 {
            writer.append(&table(), chunk(n..n + 1), None).await.unwrap();
            storage.flush().await.unwrap();
        }
        assert_eq!(counts(&storage), (12, 0, 12));
        storage.close().await;
        drop((writer, storage));

        let storage = open(folder.path()).await;
        assert_eq!(counts(&storage), (12, 0, 12), "a table opens from its checkpoint");
        let columns = storage.snapshot(&table()).unwrap().schema;
        assert!(columns.field_with_name("n").is_ok());
        storage.close().await;
    });
}

/// X2: whoever comes next waits for one group at most, however much one tenant sends at once; and its chunk is in the next
/// one, however much of that tenant's waits.
#[test]
fn a_flood_is_written_in_groups() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { wal_segment_bytes: 64 << 20, ..options(folder.path()) };
        let storage = Storage::open(options, measure, now, |_| ()).await.unwrap();
        let writer = storage.writer(0).unwrap();
        let own = table();
        let flood: Vec<_> =
            (0..32).map(|n| writer.append(&own, chunk_by(n * 20_000..(n + 1) * 20_000, 0), None)).collect();
        let other = TableId::new(Tenant::parse("zebra").unwrap(), table().dataset);
        let groups = || storage.stats().syncs.load(std::sync::atomic::Ordering::Relaxed);
        let groups_before_other = async {
            // The flood is queued by now.
            tokio::task::yield_now().await;
            writer.append(&other, chunk(0..1), None).await.unwrap();
            groups()
        };
        let (flooded, groups_before_other) =
            futures::join!(futures::future::join_all(flood), groups_before_other);
        let first_rows: Vec<_> = flooded.into_iter().map(|receipt| receipt.unwrap().first_seq).collect();
        assert_eq!(first_rows, (0..32).map(|n| n * 20_000).collect::<Vec<_>>(), "in order");
        // 32 chunks of 20,000 rows and 24 bytes a row are some 15 MB.
        assert!(groups() >= 8, "{} groups", groups());
        assert!(groups_before_other <= 2, "{groups_before_other} groups");
        storage.close().await;
    });
}

#[test]
fn a_declared_key_survives_seal_trim_and_restart() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let key = Idempotency { key: "k".into(), fingerprint: [1; 16], status: 200, reply: (*b"{}").into() };
        let storage = open(folder.path()).await;
        let writer = storage.writer(0).unwrap();
        assert_eq!(writer.reserve(&table().tenant, "k", [1; 16]), Known::New);
        writer.append(&table(), chunk(0..1), Some(key.clone())).await.unwrap();
        assert_eq!(writer.reserve(&table().tenant, "k", [2; 16]), Known::Mismatch);
        storage.flush().await.unwrap();
        storage.close().await;
        drop((writer, storage));
        for _ in 0..3 {
            let storage = open(folder.path()).await;
            let writer = storage.writer(0).unwrap();
            let known = writer.reserve(&table().tenant, "k", [1; 16]);
            assert_eq!(known, Known::Replayed(Arc::new(key.clone())));
            writer.append(&table(), chunk(1..2), None).await.unwrap();
            storage.flush().await.unwrap();
            storage.close().await;
        }
    });
}

/// A key may be a person's address: no file of the log holds it, and what an older build kept as it came still counts.
#[test]
fn a_declared_key_is_kept_as_its_hash_and_one_kept_in_clear_still_counts() {
    fn files(folder: &std::path::Path, all: &mut Vec<u8>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, all);
            } else {
                all.extend(std::fs::read(path).unwrap_or_default());
            }
        }
    }
    let key = |name: &str| Idempotency {
        key: name.into(),
        fingerprint: [1; 16],
        status: 200,
        reply: (*b"{}").into(),
    };
    let folder = tempfile::tempdir().unwrap();
    let tenant = &table().tenant;
    let old = ["old@example.com", "older@example.com"];
    // A runtime of its own for every process: a log's task ends with it.
    run(async || {
        let storage = open(folder.path()).await;
        let writer = storage.writer(0).unwrap();
        writer.append(&table(), chunk(0..1), Some(key(old[0]))).await.unwrap();
        storage.flush().await.unwrap();
        // This one stays in its frame.
        writer.append(&table(), chunk(1..2), Some(key(old[1]))).await.unwrap();
        storage.close().await;
    });
    for round in 0..3 {
        run(async || {
            let secret = crate::DeclaredKeySecret::new([7; 32]);
            let options = Options { declared_key_secret: secret, ..options(folder.path()) };
            let storage = Storage::open(options, measure, now, |_| ()).await.unwrap();
            let writer = storage.writer(0).unwrap();
            for name in old {
                let known = writer.reserve(tenant, name, [1; 16]);
                let Known::Replayed(record) = known else { panic!("{known:?} in round {round}") };
                assert!(record.reply == key(name).reply && !record.key.contains("example"), "{record:?}");
                assert_eq!(writer.reserve(tenant, name, [2; 16]), Known::Mismatch);
            }
            let known = writer.reserve(tenant, "jane@example.com", [1; 16]);
            if round == 0 {
                assert_eq!(known, Known::New);
                assert_eq!(writer.reserve(tenant, "jane@example.com", [1; 16]), Known::InFlight);
                writer.release(tenant, "jane@example.com");
                assert_eq!(writer.reserve(tenant, "jane@example.com", [1; 16]), Known::New);
                writer.append(&table(), chunk(9..10), Some(key("jane@example.com"))).await.unwrap();
            } else {
                assert!(matches!(known, Known::Replayed(_)), "{known:?} in round {round}");
            }
            let mut all = Vec::new();
            files(folder.path(), &mut all);
            assert!(!all.windows(5).any(|window| window == b"jane@"), "in round {round}");
            if round == 1 {
                storage.flush().await.unwrap();
            }
            storage.close().await;
        });
    }
}

#[test]
fn a_data_folder_has_one_process() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path()).await;
        let second = Storage::open(options(folder.path()), measure, now, |_| ()).await;
        assert_eq!(second.unwrap_err().kind(), crate::ErrorKind::Conflict);
        storage.close().await;
    });
}

#[test]
fn a_dataset_holds_one_kind() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path()).await;
        storage.ensure_dataset(&table(), Kind::Events).unwrap();
        let clash = storage.ensure_dataset(&table(), Kind::Spans);
        assert_eq!(clash.unwrap_err().kind(), crate::ErrorKind::Conflict);
        storage.close().await;
    });
}

/// F37: a row's number and place come from its log, never from a clock, whichever way that jumps.
#[test]
fn a_clock_that_jumps_changes_no_number() {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    use crate::fixture::{self, DAY_NS, LATE_NS};
    static AT_NS: AtomicI64 = AtomicI64::new(LATE_NS);
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let mut storage = fixture::open(folder.path(), || AT_NS.load(Relaxed)).await;
        let mut writer = storage.writer(0).unwrap();
        for (n, years) in [0, -10, 10, -20, 0, 10].into_iter().enumerate() {
            AT_NS.store(LATE_NS + years * 365 * DAY_NS, Relaxed);
            if n % 2 == 0 {
                storage.flush().await.unwrap();
                storage.close().await;
                drop((writer, storage));
                storage = fixture::open(folder.path(), || AT_NS.load(Relaxed)).await;
                writer = storage.writer(0).unwrap();
            }
            let receipt = writer.append(&table(), fixture::rows(&[LATE_NS]), None).await.unwrap();
            assert_eq!((receipt.first_seq, receipt.row_count), (n as u64, 1), "{years} years");
        }
        assert_eq!(fixture::count(&storage.snapshot(&table()).unwrap()), (4, 2));
        storage.close().await;
    });
}
