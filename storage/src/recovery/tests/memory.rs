//! What a process held when it ended, the next one holds as well, and serves at once (A3, B1).

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;

use crate::deployment::{Storage, World};
use crate::disk::LocalDisk;
use crate::fixture::{DAY_NS, LATE_NS, count, rows, run, table};
use crate::latency::{Measurement, Recorder};
use crate::memory::Pool;
use crate::options::Options;
use crate::record::{Clean, Dataset, Draft, Field, Kind, TableId, Value};

/// The least that a process does its work with.
const MEMORY_MAX: u64 = 128 << 20;

fn measure(_: Kind, _: &RecordBatch) -> Measurement {
    let mut recorder = Recorder::default();
    recorder.record("s", "o", false, 0, 5);
    recorder.take()
}

/// A deployment in which nothing happens by itself. Each life needs a runtime of its own: a lane that is left behind
/// would write its marks into the next one's log.
async fn open(data: &Path, memory_max: u64) -> Arc<Storage> {
    let options = Options {
        data: data.to_owned(),
        memory_max,
        wal_segment_bytes: 1 << 20,
        disk_free_bytes_min: 1,
        disk_reserve_bytes: 0,
        ..Options::default()
    };
    let store = crate::store::open(&options).unwrap();
    let world = World { disk: Arc::new(LocalDisk), store, now: || LATE_NS };
    Storage::recover(options, world, None, measure, |_| ()).await.unwrap()
}

fn of_many_dates() -> Clean {
    rows(&(0..500).map(|day| day * DAY_NS).collect::<Vec<_>>())
}

fn found(storage: &Storage, table: &TableId) -> u64 {
    let (files, hot) = count(&storage.snapshot(table).unwrap());
    files + hot as u64
}

/// Each date is a file: sealing thousands of them before anything is served takes minutes.
#[test]
fn what_fitted_the_memory_is_read_back_and_sealed_only_later() {
    let folder = tempfile::tempdir().unwrap();
    let appended = Cell::new(500);
    run(async || {
        let storage = open(folder.path(), MEMORY_MAX).await;
        let writer = storage.writer(0).unwrap();
        writer.append(&table(), of_many_dates(), None).await.unwrap();
        // Until the tenant has its share: with one tenant that is the most.
        while writer.append(&table(), rows(&vec![5; 20_000]), None).await.is_ok() {
            appended.set(appended.get() + 20_000);
        }
        assert!(storage.memory().used(Pool::Hot) > storage.memory().max(Pool::Hot) / 2);
    });
    run(async || {
        let storage = open(folder.path(), MEMORY_MAX).await;
        assert_eq!(storage.stats().seals.load(Ordering::Relaxed), 0);
        assert_eq!(count(&storage.snapshot(&table()).unwrap()), (0, appended.get()));
        let writer = storage.writer(0).unwrap();
        assert!(writer.pressure(&table().tenant).is_none());
        writer.append(&table(), rows(&[5]), None).await.unwrap();
        assert_eq!(found(&storage, &table()), appended.get() as u64 + 1);
        storage.flush().await.unwrap();
        assert_eq!(count(&storage.snapshot(&table()).unwrap()), (appended.get() as u64 + 1, 0));
        assert_eq!(storage.memory().used(Pool::Hot), 0);
    });
}

fn small(n: i64) -> Clean {
    let mut draft = Draft::new(Kind::Events);
    draft.begin_row();
    draft.set_int(Field::TimeNs, n * DAY_NS);
    draft.set_int(Field::ObservedNs, n);
    draft.set_text(Field::Source, "shop");
    draft.set_text(Field::EventType, "order");
    draft.set_text(Field::Message, "an order was paid");
    for key in ["region", "user", "carrier", "plan"] {
        let _ = draft.attribute(key, Value::Text("north"));
    }
    let _ = draft.attribute("paid", Value::Bool(true));
    let _ = draft.attribute("items", Value::Int(n));
    draft.end_row();
    let clean = Clean::attest(&mut draft, 1);
    let measurement = measure(Kind::Events, clean.batch());
    clean.with_measurement(measurement)
}

#[test]
fn small_chunks_hold_no_more_than_before() {
    let folder = tempfile::tempdir().unwrap();
    let held = Cell::new(0);
    run(async || {
        let storage = open(folder.path(), MEMORY_MAX).await;
        let writer = storage.writer(0).unwrap();
        for n in 0..200 {
            writer.append(&table(), small(n), None).await.unwrap();
        }
        held.set(storage.memory().used(Pool::Hot));
    });
    run(async || {
        let storage = open(folder.path(), MEMORY_MAX).await;
        let again = storage.memory().used(Pool::Hot);
        assert!(again <= held.get(), "{again} bytes of what took {}", held.get());
        assert_eq!(count(&storage.snapshot(&table()).unwrap()), (0, 200));
    });
}

/// With less memory than before something has to be sealed: what gives the most memory for a file.
#[test]
fn what_does_not_fit_is_sealed_and_many_dates_last() {
    let folder = tempfile::tempdir().unwrap();
    let dates = TableId::new(table().tenant, Dataset::parse("dates").unwrap());
    let appended = Cell::new(0);
    run(async || {
        let storage = open(folder.path(), 4 * MEMORY_MAX).await;
        let writer = storage.writer(0).unwrap();
        writer.append(&dates, of_many_dates(), None).await.unwrap();
        let hot_max = crate::memory::Memory::new(MEMORY_MAX, crate::memory::BASE_BYTES).max(Pool::Hot);
        while storage.memory().used(Pool::Hot) <= hot_max * 5 / 4 {
            writer.append(&table(), rows(&vec![5; 20_000]), None).await.unwrap();
            appended.set(appended.get() + 20_000);
        }
    });
    run(async || {
        let storage = open(folder.path(), MEMORY_MAX).await;
        assert!(storage.memory().used(Pool::Hot) <= storage.memory().max(Pool::Hot) / 2);
        let (sealed, hot) = count(&storage.snapshot(&table()).unwrap());
        assert!(sealed > 0 && sealed + hot as u64 == appended.get(), "{sealed} and {hot}");
        assert_eq!(count(&storage.snapshot(&dates).unwrap()), (0, 500));
        let writer = storage.writer(0).unwrap();
        assert!(writer.pressure(&table().tenant).is_none());
        writer.append(&dates, rows(&[5]), None).await.unwrap();
        assert_eq!(found(&storage, &dates), 501);
    });
}
