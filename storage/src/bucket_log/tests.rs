//! What is gathered for the bucket has an end (B1).

use object_store::memory::InMemory;

use super::*;
use crate::commit::{State, TableLog};
use crate::fixture::{LATE_NS, rows, table};
use crate::memory::{Memory, Pool};
use crate::record::{Clean, Draft, Field, Kind};
use crate::wal::bucket::keys::KeyFiles;

fn log() -> BucketLog {
    let (store, writer): (_, Arc<str>) = (Arc::new(InMemory::new()), "w".into());
    let putter = Putter::new(Arc::clone(&store) as _, "f".into(), Arc::clone(&writer), 0, 1);
    let ledger = BucketLedger::new(store, "f".into(), writer, Arc::default(), KeyFiles::default());
    BucketLog::new(Arc::new(ledger), putter, 0, HashMap::new())
}

/// Gathers a chunk that is charged so many bytes, whatever it holds.
fn gather(log: &BucketLog, batch: &RecordBatch, bytes: u64) -> Result<u64> {
    let log_of_table = TableLog::new(Arc::new(InMemory::new()), table().prefix());
    let of = Table::new(table(), Kind::Events, log_of_table, State::empty(), &Memory::new(1 << 30, 0))?;
    let meta = Meta {
        table: table(),
        kind: Kind::Events,
        first_seq: 0,
        row_count: batch.num_rows() as u64,
        scrub_version: 1,
        appended_ns: LATE_NS,
        idempotency: None,
    };
    let memory = Memory::new(1 << 30, 0);
    let charges = [bytes, 0].map(|bytes| memory.count(Pool::Hot, None, bytes));
    log.gather(Arc::new(of), meta, batch.clone(), Measurement::default(), charges).map(|(first, _)| first)
}

#[test]
fn chunks_that_wait_for_the_bucket_have_a_bound() {
    let (log, one) = (log(), rows(&[LATE_NS]));
    for (row, bytes) in [(0, 32 << 20), (1, 32 << 20), (2, 1)] {
        assert_eq!(gather(&log, one.batch(), bytes).unwrap(), row);
    }
    let error = gather(&log, one.batch(), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy { retry_after: RETRY_AFTER });
    log.take(1).unwrap();
    assert_eq!(gather(&log, one.batch(), 1).unwrap(), 3, "what is taken makes room");
}

#[test]
fn a_chunk_that_no_frame_holds_is_not_gathered() {
    let (log, one) = (log(), rows(&[LATE_NS]));
    assert_eq!(gather(&log, one.batch(), (256 << 20) + 1).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(gather(&log, one.batch(), 256 << 20).unwrap(), 0);
}

#[test]
fn an_object_takes_no_frame_beyond_its_bytes() {
    let mut draft = Draft::new(Kind::Events);
    for at in 0..5 {
        draft.begin_row();
        draft.set_int(Field::TimeNs, LATE_NS + at);
        draft.set_int(Field::ObservedNs, LATE_NS);
        draft.set_text(Field::Source, "s");
        draft.set_text(Field::Message, &"m".repeat(900_000));
        draft.end_row();
    }
    let (log, long) = (log(), Clean::attest(&mut draft, 1));
    for row in [0, 5, 10] {
        assert_eq!(gather(&log, long.batch(), 1).unwrap(), row);
    }
    for expected in [2, 1, 0] {
        assert_eq!(log.take(1).unwrap().2.len(), expected);
    }
}
