//! A turn is bounded, whoever asks for more waits alone, and every row is read once meanwhile (A3, B1, X2).

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;

use super::dates::SEAL_DATES_MAX;
use super::files::{Sizes, lend};
use super::plan::Budget;
use super::share::{Share, Turn};
use crate::commit::State;
use crate::deployment::{Storage, World};
use crate::disk::LocalDisk;
use crate::error::Kind as ErrorKind;
use crate::fixture::{DAY_NS, LATE_NS, rows, run};
use crate::hot::HotChunk;
use crate::keeper::{self, BLOCKING_THREADS, TURN_TABLES_MAX};
use crate::latency::{Measurement, Recorder};
use crate::memory::{Memory, Pool};
use crate::options::Options;
use crate::record::{Clean, Dataset, Draft, Field, Kind, TableId, Tenant, Value};
use crate::table::Published;

fn id(tenant: &str, dataset: &str) -> TableId {
    TableId::new(Tenant::parse(tenant).unwrap(), Dataset::parse(dataset).unwrap())
}

/// One duration a row: what a replay measures is what ingest did.
fn measure(_: Kind, batch: &RecordBatch) -> Measurement {
    let mut recorder = Recorder::default();
    let times = batch.column_by_name("time_ns").unwrap().as_primitive::<Int64Type>();
    times.values().iter().for_each(|time_ns| recorder.record("s", "o", false, *time_ns, 5));
    recorder.take()
}

fn measured(times_ns: &[i64]) -> Clean {
    let clean = rows(times_ns);
    let measurement = measure(clean.kind(), clean.batch());
    clean.with_measurement(measurement)
}

/// A deployment in which nothing happens by itself.
async fn open(data: &std::path::Path, change: impl FnOnce(&mut Options)) -> Arc<Storage> {
    let mut options = Options {
        data: data.to_owned(),
        wal_segment_bytes: 1 << 20,
        seal_age_ms: 0,
        disk_free_bytes_min: 1,
        disk_reserve_bytes: 0,
        ..Options::default()
    };
    change(&mut options);
    let store = crate::store::open(&options).unwrap();
    let world = World { disk: Arc::new(LocalDisk), store, now: || LATE_NS };
    Storage::recover(options, world, None, measure, |_| ()).await.unwrap()
}

/// Rows and durations that are found, in files and hot; each row has one of each.
async fn found(storage: &Storage, table: &TableId) -> (u64, u64) {
    let snapshot = storage.snapshot(table).unwrap();
    let files: u64 = snapshot.files.iter().map(|file| file.rows).sum();
    let hot: u64 = snapshot.hot.iter().map(|rows| rows.num_rows() as u64).sum();
    let latency = storage.latency(&table.tenant);
    let counts = latency.hot.iter().flat_map(|measurement| &measurement.series).flat_map(|one| &one.buckets);
    let mut durations: u64 = counts.map(|(_, count)| u64::from(*count)).sum();
    if let Some(stored) = latency.stored {
        for file in &stored.files {
            let path = object_store::path::Path::from(format!("{}/{}", stored.table.prefix(), file.path));
            let bytes =
                storage.object_store().get_opts(&path, Default::default()).await.unwrap().bytes().await;
            for batch in crate::segment::read(file, bytes.unwrap(), &stored.schema, 1_000).unwrap() {
                let batch = batch.unwrap();
                let counts = batch.column_by_name("count").unwrap().as_primitive::<Int64Type>();
                durations += counts.values().iter().sum::<i64>().cast_unsigned();
            }
        }
    }
    (files + hot, durations)
}

fn days(count: i64) -> Vec<i64> {
    (0..count).map(|day| LATE_NS - 1 - day * DAY_NS).collect()
}

#[test]
fn a_chunk_of_many_dates_is_sealed_in_turns_and_others_do_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (heavy, light) = (id("heavy", "events"), id("light", "events"));
    let count = 3 * 64 + 5;
    run(async || {
        let storage = open(folder.path(), |_| ()).await;
        let writer = storage.writer(0).unwrap();
        writer.append(&heavy, measured(&days(count)), None).await.unwrap();
        writer.append(&light, measured(&[5]), None).await.unwrap();
        let shared = storage.shared();
        let mut budget = Budget::full(600);
        assert!(keeper::round(&shared, &mut budget).await, "more waits");
        // X2: a turn is over after so many dates, and the other tenant had its own.
        assert_eq!(storage.snapshot(&heavy).unwrap().files.len(), 64);
        assert_eq!(storage.snapshot(&light).unwrap().files.len(), 1);
        // A3: what is in files is not hot any more, durations as well.
        assert_eq!(found(&storage, &heavy).await, (count as u64, count as u64));
        assert_eq!(found(&storage, &light).await, (1, 1));
        // The rest is the heavy one's to hold.
        let tenant = &heavy.tenant;
        assert!(storage.memory().used_by(Pool::Hot, tenant) > 0);
    });
    // A crash in the middle: the log has the chunk still, and half of it is in files.
    run(async || {
        let storage = open(folder.path(), |_| ()).await;
        assert_eq!(found(&storage, &heavy).await, (count as u64, count as u64));
        let shared = storage.shared();
        keeper::round(&shared, &mut Budget::full(600)).await;
        assert_eq!(storage.snapshot(&heavy).unwrap().files.len(), 128);
        assert_eq!(found(&storage, &heavy).await, (count as u64, count as u64));
        // What comes behind it is not mixed up with it.
        let writer = storage.writer(0).unwrap();
        let receipt = writer.append(&heavy, measured(&days(2)), None).await.unwrap();
        assert_eq!(receipt.first_seq, count as u64);
        assert_eq!(storage.flush().await.unwrap(), count as u64 - 126);
        assert_eq!(found(&storage, &heavy).await, (count as u64 + 2, count as u64 + 2));
        assert_eq!((storage.levels().hot_rows, storage.levels().hot_bytes), (0, 0));
        assert_eq!(shared.tables.days_waiting(&heavy.tenant), 0);
    });
}

#[test]
fn small_files_of_one_seal_hold_the_attributes_that_their_rows_have_and_read_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let table = id("acme", "events");
    let count = 20_usize;
    let mut draft = Draft::new(Kind::Events);
    for (at, time_ns) in days(count as i64).into_iter().enumerate() {
        draft.begin_row();
        draft.set_int(Field::TimeNs, time_ns);
        draft.set_int(Field::ObservedNs, time_ns);
        draft.set_text(Field::Source, "s");
        let _ = draft.attribute(if at % 2 == 0 { "even" } else { "odd" }, Value::Int(at as i64));
        draft.end_row();
    }
    let clean = Clean::attest(&mut draft, 1);
    run(async || {
        let storage = open(folder.path(), |_| ()).await;
        storage.writer(0).unwrap().append(&table, clean, None).await.unwrap();
        assert_eq!(storage.flush().await.unwrap(), count as u64);
        let snapshot = storage.snapshot(&table).unwrap();
        assert_eq!(snapshot.files.len(), count);
        let mut seen = Vec::new();
        for file in &snapshot.files {
            let path = object_store::path::Path::from(format!("{}/{}", table.prefix(), file.path));
            let got = storage.object_store().get_opts(&path, Default::default()).await.unwrap();
            let bytes = got.bytes().await.unwrap();
            let own = parquet::arrow::arrow_reader::ArrowReaderMetadata::load(&bytes, Default::default());
            let own = Arc::clone(own.unwrap().schema());
            let has = |name: &str| own.column_with_name(name).is_some();
            assert!(has("even") != has("odd") && has("message"), "{own}");
            for batch in crate::segment::read(file, bytes, &snapshot.schema, 1_000).unwrap() {
                let batch = batch.unwrap();
                for name in ["even", "odd"] {
                    let values = batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
                    seen.extend(values.iter().flatten());
                }
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..count as i64).collect::<Vec<_>>());
    });
}

// B1: threads that encode hold what they freed until they are told, and they do not park while there is work.
#[test]
fn a_thread_that_encoded_a_file_gives_back_what_it_freed() {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    let folder = tempfile::tempdir().unwrap();
    let table = id("acme", "events");
    run(async || {
        let told = || {
            TOLD.fetch_add(1, Ordering::Relaxed);
        };
        let storage = open(folder.path(), |options| options.at_rest = told).await;
        storage.writer(0).unwrap().append(&table, rows(&days(20)), None).await.unwrap();
        let before = TOLD.load(Ordering::Relaxed);
        assert_eq!(storage.flush().await.unwrap(), 20);
        assert!(TOLD.load(Ordering::Relaxed) >= before + 20);
    });
}

// B1: each of them keeps freed pieces for itself.
#[test]
fn background_work_has_so_many_threads_for_blocking_calls() {
    let runtime = keeper::runtime(&Options::default()).unwrap();
    let together = Arc::new(std::sync::Barrier::new(BLOCKING_THREADS));
    let threads = runtime.block_on(async {
        let calls = (0..4 * BLOCKING_THREADS).map(|_| {
            let together = Arc::clone(&together);
            tokio::task::spawn_blocking(move || {
                together.wait();
                std::thread::current().id()
            })
        });
        let calls: Vec<_> = calls.collect();
        futures::future::try_join_all(calls).await.unwrap()
    });
    assert_eq!(threads.into_iter().collect::<HashSet<_>>().len(), BLOCKING_THREADS);
}

// X2, B1: what one tenant has sealed file by file stays within some seconds of work.
#[test]
fn past_so_many_unsealed_days_a_tenants_rows_of_one_day_alone_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (heavy, other, light) = (id("heavy", "events"), id("heavy", "others"), id("light", "events"));
    run(async || {
        let storage = open(folder.path(), |_| ()).await;
        let writer = storage.writer(0).unwrap();
        let half = 1_025;
        writer.append(&heavy, rows(&days(half)), None).await.unwrap();
        writer.append(&heavy, rows(&days(half)), None).await.unwrap();
        assert_eq!(storage.shared().tables.days_waiting(&heavy.tenant), half as usize, "a day counts once");
        writer.append(&other, rows(&days(half)), None).await.unwrap();
        let refused = writer.append(&heavy, rows(&days(2)), None).await.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Share { .. }), "{refused}");
        assert!(refused.to_string().contains("2048 days"), "{refused}");
        writer.append(&heavy, rows(&[5]), None).await.unwrap();
        writer.append(&light, rows(&days(2)), None).await.unwrap();
    });
}

#[test]
fn a_log_that_is_lost_with_half_a_chunk_sealed_does_not_hide_new_rows() {
    let folder = tempfile::tempdir().unwrap();
    let table = id("acme", "events");
    let count = 2 * SEAL_DATES_MAX as i64;
    run(async || {
        let storage = open(folder.path(), |_| ()).await;
        storage.writer(0).unwrap().append(&table, measured(&days(count)), None).await.unwrap();
        keeper::round(&storage.shared(), &mut Budget::full(600)).await;
    });
    std::fs::remove_dir_all(folder.path().join("wal/0")).unwrap();
    run(async || {
        let storage = open(folder.path(), |_| ()).await;
        let receipt = storage.writer(0).unwrap().append(&table, measured(&days(count)), None).await.unwrap();
        assert_eq!(receipt.first_seq, count as u64, "no row's number is used twice");
        let expected = SEAL_DATES_MAX as u64 + count as u64;
        assert_eq!(found(&storage, &table).await, (expected, expected));
        storage.flush().await.unwrap();
        assert_eq!(found(&storage, &table).await, (expected, expected));
    });
}

#[test]
fn a_turn_has_so_many_tables_and_then_it_is_another_tenants() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), |_| ()).await;
        let writer = storage.writer(0).unwrap();
        let tables: Vec<TableId> =
            (0..TURN_TABLES_MAX + 4).map(|n| id("heavy", &format!("d{n:02}"))).collect();
        for table in &tables {
            storage.ensure_dataset(table, Kind::Events).unwrap();
            writer.append(table, measured(&[5]), None).await.unwrap();
        }
        writer.append(&id("light", "events"), measured(&[5]), None).await.unwrap();
        let sealed =
            || tables.iter().filter(|table| !storage.snapshot(table).unwrap().files.is_empty()).count();
        let mut budget = Budget::full(600);
        keeper::round(&storage.shared(), &mut budget).await;
        assert_eq!(sealed(), TURN_TABLES_MAX);
        assert_eq!(storage.snapshot(&id("light", "events")).unwrap().files.len(), 1);
        keeper::round(&storage.shared(), &mut budget).await;
        assert_eq!(sealed(), tables.len());
    });
}

/// Chunks of so many bytes, series and dates, by what they say of themselves.
fn chunks(memory: &Arc<Memory>, of: &[(u64, usize, i64)]) -> Vec<Arc<HotChunk>> {
    let chunk = |(at, (bytes, series, dates)): (usize, &(u64, usize, i64))| {
        let mut recorder = Recorder::default();
        (0..*series).for_each(|n| recorder.record("s", &n.to_string(), false, 0, 1));
        Arc::new(HotChunk {
            writer: "w-0".into(),
            seq: at as u64 + 1,
            first_seq: 0,
            batch: rows(&days(*dates)).batch().clone(),
            measurement: Arc::new(recorder.take()),
            appended_ns: 0,
            charge: memory.count(Pool::Hot, None, *bytes),
        })
    };
    of.iter().enumerate().map(chunk).collect()
}

#[test]
fn a_commit_takes_what_fits_in_bytes_series_and_dates() {
    let memory = Memory::new(1 << 30, 0);
    let published = Published::new(State::empty());
    let check = |of: &[(u64, usize, i64)], expected: usize| {
        let found = Turn::default().share(&chunks(&memory, of), &published);
        assert_eq!(found, Share { chunks: expected, last_day: None }, "{of:?}");
    };
    check(&[], 0);
    check(&[(1, 0, 1), (2, 0, 1), (3, 0, 1)], 3);
    let half = 16 << 20;
    check(&[(half, 0, 1), (half, 0, 1), (1, 0, 1)], 2);
    // A chunk that is larger alone is taken alone.
    check(&[(64 << 20, 0, 1), (1, 0, 1)], 1);
    let quarter = 4_096;
    check(&[(1, quarter, 1), (1, quarter, 1), (1, quarter, 1), (1, quarter, 1), (1, 1, 1)], 4);
    let dates = SEAL_DATES_MAX as i64;
    check(&[(1, 0, dates), (1, 0, dates), (1, 0, dates + 1)], 2);
    let found = Turn::default().share(&chunks(&memory, &[(1, 0, dates + 1)]), &published);
    assert_eq!((found.chunks, found.last_day.is_some()), (1, true));
    // Tables of one turn share it.
    let mut turn = Turn::default();
    assert_eq!(turn.share(&chunks(&memory, &[(half, 0, 1)]), &published).chunks, 1);
    assert_eq!(turn.share(&chunks(&memory, &[(half + 1, 0, 1)]), &published).chunks, 0);
    assert_eq!(turn.share(&chunks(&memory, &[(half, 0, 1), (1, 0, 1)]), &published).chunks, 1);
}

// B1: without its memory a seal does not begin, and nothing is lost by that.
#[test]
fn a_seal_waits_for_its_memory() {
    run(async || {
        tokio::time::pause();
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), |_| ()).await;
        let table = id("acme", "events");
        storage.writer(0).unwrap().append(&table, measured(&[5, 6]), None).await.unwrap();
        let memory = Arc::clone(storage.memory());
        let lent = lend(&memory, Pool::Seal, u64::MAX).await.unwrap();
        assert_eq!(lent.bytes(), memory.max(Pool::Seal), "what is larger than the pool gets all of it");
        assert_eq!(storage.flush().await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(found(&storage, &table).await, (2, 2));
        drop(lent);
        assert_eq!(storage.flush().await.unwrap(), 2);
        assert_eq!(memory.used(Pool::Seal), 0);
    });
}

// B1: by a clock that stands still but for what is waited for.
#[tokio::test(start_paused = true)]
async fn memory_that_stays_lent_is_waited_for_so_long() {
    let memory = Memory::new(128 << 20, 0);
    let _lent = lend(&memory, Pool::Seal, u64::MAX).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(11), lend(&memory, Pool::Seal, 1)).await;
    let error = waited.expect("it is waited for no longer").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

// B1: one file at a time, and none larger than its part of the pool.
#[test]
fn a_large_chunk_becomes_files_of_bounded_size() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), |options| options.memory_max = 128 << 20).await;
        let table = id("acme", "events");
        let mut draft = Draft::new(Kind::Events);
        let text = "x".repeat(1_000);
        for n in 0..4_000 {
            draft.begin_row();
            draft.set_int(Field::TimeNs, n);
            draft.set_int(Field::ObservedNs, n);
            draft.set_text(Field::Source, "s");
            draft.set_text(Field::Id, &format!("{n}{text}"));
            draft.end_row();
        }
        let clean = Clean::attest(&mut draft, 1);
        storage.writer(0).unwrap().append(&table, clean, None).await.unwrap();
        storage.flush().await.unwrap();
        let files = storage.snapshot(&table).unwrap().files;
        let rows_max = Sizes::of(storage.memory()).file_bytes / 1_000;
        assert!(files.len() >= 3, "{} files", files.len());
        assert!(files.iter().all(|file| file.rows <= rows_max));
        assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), 4_000);
    });
}

// X2: the heavy one is refused, by name, and before its body is read; the other one is served.
#[test]
fn a_tenant_that_fills_the_memory_is_refused_alone() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), |options| options.memory_max = 128 << 20).await;
        let (heavy, light) = (id("heavy", "events"), id("light", "events"));
        let writer = storage.writer(0).unwrap();
        let refused = loop {
            assert!(storage.memory().used(Pool::Hot) <= storage.memory().max(Pool::Hot));
            if let Err(error) = writer.append(&heavy, rows(&vec![5; 20_000]), None).await {
                break error;
            }
        };
        assert!(matches!(refused.kind(), ErrorKind::Share { .. }), "{refused}");
        while writer.append(&heavy, rows(&[5]), None).await.is_ok() {}
        assert!(matches!(writer.pressure(&heavy.tenant).unwrap().kind(), ErrorKind::Share { .. }));
        assert!(writer.pressure(&light.tenant).is_none());
        writer.append(&light, rows(&[5]), None).await.unwrap();
        // What alone is more than one tenant may ever hold is refused for good.
        let huge = writer.append(&light, rows(&vec![5; 800_000]), None).await.unwrap_err();
        assert_eq!(huge.kind(), ErrorKind::TooLarge, "{huge}");
        // Counted is what is held, and all of it is given back.
        assert_eq!(
            storage.levels().hot_bytes,
            storage.memory().used_by(Pool::Hot, &heavy.tenant)
                + storage.memory().used_by(Pool::Hot, &light.tenant)
        );
        storage.flush().await.unwrap();
        assert_eq!(storage.memory().used(Pool::Hot), 0);
        assert!(writer.pressure(&heavy.tenant).is_none());
        assert_eq!(storage.stats().seal_failures.load(Ordering::Relaxed), 0);
    });
}

/// Each life has a runtime of its own: a lane that is left behind would write its marks into the next one's log.
#[test]
fn a_start_counts_what_it_replays_by_what_it_holds_and_takes_ingest() {
    let folder = tempfile::tempdir().unwrap();
    let table = id("acme", "events");
    let held = Cell::new(0);
    run(async || {
        let storage = open(folder.path(), |_| ()).await;
        let writer = storage.writer(0).unwrap();
        for _ in 0..45 {
            writer.append(&table, rows(&vec![5; 20_000]), None).await.unwrap();
        }
        held.set(storage.memory().used(Pool::Hot));
    });
    run(async || {
        let storage = open(folder.path(), |_| ()).await;
        let again = storage.memory().used(Pool::Hot);
        assert!(again >= held.get() / 2 && again <= held.get() * 3 / 2, "{again} after {}", held.get());
        held.set(again);
        storage.writer(0).unwrap().append(&table, rows(&[5]), None).await.unwrap();
        assert_eq!(found(&storage, &table).await.0, 900_001);
    });
    // The same log with less memory than it holds: a part of it is in the table when the start is over.
    run(async || {
        let storage = open(folder.path(), |options| options.memory_max = 128 << 20).await;
        let memory = storage.memory();
        assert!(held.get() > memory.max(Pool::Hot), "{} of {}", held.get(), memory.max(Pool::Hot));
        assert!(memory.used(Pool::Hot) <= memory.max(Pool::Hot));
        assert!(!storage.snapshot(&table).unwrap().files.is_empty());
        assert_eq!(found(&storage, &table).await.0, 900_001);
        let writer = storage.writer(0).unwrap();
        assert!(writer.pressure(&Tenant::parse("other").unwrap()).is_none());
        // A tenant that had its share before the crash has it now, until a turn of the keeper.
        keeper::round(&storage.shared(), &mut Budget::full(600)).await;
        assert!(writer.pressure(&table.tenant).is_none());
        writer.append(&table, rows(&[5]), None).await.unwrap();
        assert_eq!(found(&storage, &table).await.0, 900_002);
    });
}

#[test]
fn times_before_the_floor_are_not_taken_whatever_the_retention_says() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path(), |options| options.past_days_max = 30).await;
        let writer = storage.writer(0).unwrap();
        let (table, now_ns) = (id("acme", "events"), 100 * DAY_NS);
        assert_eq!(writer.oldest_ns(&table, now_ns), Some(70 * DAY_NS));
        storage.shared().policies.replace(crate::fixture::rule(Some(40), false));
        assert_eq!(writer.oldest_ns(&table, now_ns), Some(70 * DAY_NS));
        storage.shared().policies.replace(crate::fixture::rule(Some(7), false));
        assert_eq!(writer.oldest_ns(&table, now_ns), Some(93 * DAY_NS));
    });
}
