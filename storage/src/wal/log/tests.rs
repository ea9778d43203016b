//! The log against crash images: cut and flipped at every byte, a prefix or a named place comes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{Entry, FRAMES_KEPT_BYTES, Failure, Ledger, Log};
use crate::disk::LocalDisk;
use crate::error::Kind as ErrorKind;
use crate::record::fit::{Columns, Coordinates, to_rows};
use crate::record::{Clean, Dataset, Draft, Field, Kind, TableId, Tenant, Value};
use crate::wal::frame::{self, Header, Meta, Read};
use crate::wal::replay::replay;
use crate::wal::segment;

pub fn meta(first_seq: u64) -> Meta {
    Meta {
        table: TableId::new(Tenant::parse("acme").unwrap(), Dataset::parse("events").unwrap()),
        kind: Kind::Events,
        first_seq,
        row_count: 1,
        scrub_version: 1,
        appended_ns: 5,
        idempotency: None,
    }
}

pub fn batch(n: i64) -> arrow::array::RecordBatch {
    let mut draft = Draft::new(Kind::Events);
    draft.begin_row();
    draft.set_int(Field::TimeNs, n);
    draft.set_int(Field::ObservedNs, n);
    draft.end_row();
    Clean::attest(&mut draft, 1).batch().clone()
}

pub fn entry(meta: Meta, batch: arrow::array::RecordBatch) -> Entry {
    let frame_bytes = crate::hot::frame_bytes(&batch, 0);
    Entry { meta, batch, frame_bytes }
}

/// Chunks of one row, of which each row's time is its number.
pub fn group(numbers: std::ops::Range<u64>) -> Vec<Entry> {
    numbers.map(|n| entry(meta(n), batch(n as i64))).collect()
}

pub fn log(folder: &std::path::Path, last_segment: u64, last_seq: u64, segment_bytes: u64) -> Log {
    let bytes = Arc::new(AtomicU64::new(0));
    let ledger =
        Ledger::new(Arc::new(LocalDisk), folder.to_owned(), "w".into(), HashMap::new(), bytes, segment_bytes);
    Log::new(Arc::new(ledger), last_segment, last_seq, 1, segment_bytes)
}

/// Frame numbers and their chunk's times, as a replay gives them.
fn read(folder: &std::path::Path) -> Result<Vec<u64>, ErrorKind> {
    let mut seqs = Vec::new();
    replay(&LocalDisk, folder, &[], |place, header, payload| {
        if header.payload_len > 0 {
            let Read::Known(_, batch) = super::super::replay::decode(place, header, payload)? else {
                panic!("a frame of this build");
            };
            assert_eq!(batch.num_rows(), 1);
            seqs.push(header.seq);
        }
        Ok(())
    })
    .map_err(|error| error.kind())?;
    Ok(seqs)
}

#[test]
fn frames_come_back_in_order_across_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 0, 0, 4 << 10);
    for n in (0..20).step_by(3) {
        let seqs = log.write(&group(n..20.min(n + 3))).unwrap();
        assert_eq!(seqs, (n + 1..=20.min(n + 3)).map(Some).collect::<Vec<_>>());
    }
    log.heartbeat().unwrap();
    log.heartbeat().unwrap();
    assert_eq!(log.next_seq, 22, "what is marked is not marked again");
    assert_eq!(read(folder.path()).unwrap(), (1..=20).collect::<Vec<_>>());
    assert!(segment::list(&LocalDisk, folder.path()).unwrap().len() > 2, "small segments rotate");
}

/// W2, C3: what a table holds early is not trimmed from behind what another does not hold yet. Found by the kill loop: a
/// start took the gap for damage.
#[test]
fn a_log_is_trimmed_from_its_beginning_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 0, 0, 4 << 10);
    let late = TableId::new(Tenant::parse("acme").unwrap(), Dataset::parse("late").unwrap());
    for n in 0..20 {
        let table = if n == 4 { late.clone() } else { meta(n).table };
        log.write(&[entry(Meta { table, ..meta(n) }, batch(n as i64))]).unwrap();
    }
    let ledger = Arc::clone(&log.ledger);
    let before = segment::list(&LocalDisk, folder.path()).unwrap();
    let trimmed = ledger.trim(|table| if *table == late { 0 } else { u64::MAX }).unwrap();
    let after = segment::list(&LocalDisk, folder.path()).unwrap();
    assert_eq!(after, before[trimmed..]);
    let seqs = read(folder.path()).unwrap();
    assert!(seqs.contains(&5) && seqs.last() == Some(&20), "{seqs:?}");
    assert!(ledger.trim(|_| u64::MAX).unwrap() > 0);
    assert_eq!(
        segment::list(&LocalDisk, folder.path()).unwrap(),
        before[before.len() - 1..],
        "the open one stays"
    );
}

/// A1: what found no room is as if it never came.
#[test]
fn a_group_that_found_no_room_uses_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 0, 0, 4 << 10);
    log.write(&group(0..2)).unwrap();
    // The next segment's name is taken.
    std::fs::create_dir(segment::path(folder.path(), 2)).unwrap();
    let mut taken = 2;
    while let Ok(seqs) = log.write(&group(taken..taken + 1)) {
        taken += 1;
        assert_eq!(seqs, [Some(taken)]);
    }
    assert!(matches!(log.write(&group(taken..taken + 1)), Err(Failure::Full(_))));
    std::fs::remove_dir(segment::path(folder.path(), 2)).unwrap();
    assert_eq!(log.write(&group(taken..taken + 1)).unwrap(), [Some(taken + 1)]);
    assert_eq!(read(folder.path()).unwrap(), (1..=taken + 1).collect::<Vec<_>>());
}

/// W1, W2, F12: a log cut at any byte gives back a prefix; synced frames that a later one vouches for are
/// never dropped silently.
#[test]
fn a_log_cut_at_every_byte_is_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 0, 0, 1 << 20);
    log.write(&group(0..3)).unwrap();
    let path = segment::path(folder.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut last = 0;
    // A chunk may itself end in zeros: the last cuts hold all of it.
    for cut in 0..=end + 64 {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let seqs = read(folder.path()).unwrap();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "cut at {cut}");
        assert!(seqs.len() >= last);
        last = seqs.len();
    }
    assert_eq!(last, 3);
}

/// W2, F13: every flipped byte of a synced frame that a later frame vouches for is reported, and a flipped
/// byte behind the last vouched frame is a torn tail.
#[test]
fn a_flipped_byte_is_named_where_it_was_durable() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 0, 0, 1 << 20);
    let mut ends = Vec::new();
    for n in 0..3 {
        log.write(&group(n..n + 1)).unwrap();
        let bytes = std::fs::read(segment::path(folder.path(), 1)).unwrap();
        let at = ends.last().copied().unwrap_or(0);
        let (_, payload) = Header::frame(&bytes[at..]).unwrap();
        ends.push(at + frame::HEADER_BYTES + payload.len());
    }
    let path = segment::path(folder.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..ends[2] {
        let mut image = whole.clone();
        image[at] ^= 0x10;
        std::fs::write(&path, &image).unwrap();
        let found = read(folder.path());
        if at < ends[1] {
            assert_eq!(found, Err(ErrorKind::Corrupt), "flip at {at}");
        } else {
            assert_eq!(found, Ok(vec![1, 2]), "flip at {at}");
        }
    }
}

#[test]
fn a_torn_tail_is_cut_and_the_log_grows_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = log(folder.path(), 0, 0, 1 << 20);
    first.write(&group(0..2)).unwrap();
    let path = segment::path(folder.path(), 1);
    let mut image = std::fs::read(&path).unwrap();
    let end = image.iter().rposition(|byte| *byte != 0).unwrap();
    image[end - 10] ^= 1;
    std::fs::write(&path, &image).unwrap();
    let summary = replay(&LocalDisk, folder.path(), &[], |_, _, _| Ok(())).unwrap();
    assert_eq!((summary.last_seq, summary.torn.is_some()), (1, true));
    summary.settle(&LocalDisk, folder.path()).unwrap();
    let mut second = log(folder.path(), summary.last_segment, summary.last_seq, 1 << 20);
    for n in 1..4 {
        second.write(&group(n..n + 1)).unwrap();
    }
    assert_eq!(read(folder.path()).unwrap(), vec![1, 2, 3, 4]);
}

/// What recovery and a seal make of a chunk.
fn become_rows(kind: Kind, batch: &arrow::array::RecordBatch) {
    let columns = Columns::new(kind);
    let (batch, added) = columns.fit(batch.clone());
    let at = Coordinates { writer: "w", first_seq: 0 };
    let rows = to_rows(&batch, columns.with_added(&added).schema(), at);
    assert_eq!(rows.num_rows(), batch.num_rows());
}

#[test]
fn a_chunk_of_other_columns_is_refused() {
    let good = batch(7);
    let refused = |batch: arrow::array::RecordBatch, meta: Meta| {
        let mut bytes = Vec::new();
        let header = Header {
            version: frame::VERSION,
            segment: 1,
            seq: 1,
            epoch: 1,
            durable_seq: 0,
            payload_len: 0,
            payload_crc: 0,
        };
        frame::encode(&mut bytes, header, &meta, &batch).unwrap();
        frame::decode(&bytes[frame::HEADER_BYTES..]).is_err()
    };
    assert!(!refused(good.clone(), meta(7)));
    assert!(refused(good.clone(), meta(u64::MAX)), "numbers that no log reaches");
    let at = good.schema().index_of("time_ns").unwrap();
    let mut without_time = good;
    without_time.remove_column(at);
    assert!(refused(without_time, meta(7)), "no time");
    let texts = Arc::new(arrow::array::StringArray::from(vec!["x"]));
    let other = arrow::array::RecordBatch::try_from_iter([
        ("time_ns", Arc::clone(&texts) as arrow::array::ArrayRef),
        ("observed_time_ns", texts as arrow::array::ArrayRef),
    ]);
    assert!(refused(other.unwrap(), meta(7)), "times that are text");
}

// Found by the fuzzer: Arrow's reader panics on an offset outside of its message.
#[test]
fn a_payload_that_is_not_what_was_written_is_no_panic() {
    flip_every_byte(&meta(7), &batch(7));
    flip_every_byte(&Meta { row_count: 100, ..meta(7) }, &sparse_batch(100, "t"));
}

/// A chunk in which one row in fifty has an attribute, and all rows share a resource.
fn sparse_batch(rows: i64, text: &str) -> arrow::array::RecordBatch {
    let mut draft = Draft::new(Kind::Logs);
    for n in 0..rows {
        draft.begin_row();
        draft.set_int(Field::TimeNs, n);
        draft.set_int(Field::ObservedNs, n);
        draft.set_shared(Field::Resource, &[b'r'; 2_000]);
        if n % 50 == 0 {
            let _ = draft.attribute("sparse", Value::Int(n));
            let _ = draft.attribute("text", Value::Text(text));
        }
        draft.end_row();
    }
    Clean::attest(&mut draft, 1).batch().clone()
}

/// A chunk of several batches, with columns of every form, comes back as it was, and costs its frame no more.
#[test]
fn a_long_sparse_chunk_comes_back_row_by_row() {
    let rows = 20_000;
    let chunk = sparse_batch(rows, &"x".repeat(10_000));
    let mut bytes = Vec::new();
    let header = Header {
        version: frame::VERSION,
        segment: 1,
        seq: 1,
        epoch: 1,
        durable_seq: 0,
        payload_len: 0,
        payload_crc: 0,
    };
    let meta = Meta { kind: Kind::Logs, row_count: rows as u64, ..meta(7) };
    frame::encode(&mut bytes, header, &meta, &chunk).unwrap();
    let held = frame::chunk_bytes(&chunk);
    assert!(held > 4 << 20 && bytes.len() < held + held / 8, "{} for {held}", bytes.len());
    assert!(held < 6 << 20, "resources of 40 MB are kept once");
    let (read, back) = frame::decode(&bytes[frame::HEADER_BYTES..]).unwrap();
    assert_eq!(read, meta);
    let (_, added) = Columns::new(Kind::Logs).fit(chunk.clone());
    let columns = Columns::with_attributes(Kind::Logs, added);
    let at = Coordinates { writer: "w", first_seq: 0 };
    assert_eq!(to_rows(&back, columns.schema(), at), to_rows(&chunk, columns.schema(), at));
    assert!(frame::chunk_bytes(&back) < held + held / 8, "still sparse");
    // One batch would be one message: the largest part of a frame is bounded.
    let starts = memchr::memmem::find_iter(&bytes, &[0xff, 0xff, 0xff, 0xff]).count();
    assert!(starts > held / (1 << 20), "{starts} messages");
}

#[test]
fn a_log_gives_the_room_of_a_large_frame_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 0, 0, 16 << 20);
    let large = Meta { kind: Kind::Logs, row_count: 20_000, ..meta(0) };
    let chunk = || entry(large.clone(), sparse_batch(20_000, &"x".repeat(10_000)));
    log.write(&[chunk()]).unwrap();
    assert!(log.frames.capacity() <= FRAMES_KEPT_BYTES, "{}", log.frames.capacity());
    std::fs::remove_dir_all(folder.path()).unwrap();
    log.segment = None;
    assert!(matches!(log.write(&[chunk()]), Err(Failure::Full(_))));
    assert!(log.frames.capacity() <= FRAMES_KEPT_BYTES, "{}", log.frames.capacity());
}

fn flip_every_byte(meta: &Meta, batch: &arrow::array::RecordBatch) {
    let meta = Meta { kind: if batch.num_rows() > 1 { Kind::Logs } else { Kind::Events }, ..meta.clone() };
    let mut bytes = Vec::new();
    let header = Header {
        version: frame::VERSION,
        segment: 1,
        seq: 1,
        epoch: 1,
        durable_seq: 0,
        payload_len: 0,
        payload_crc: 0,
    };
    frame::encode(&mut bytes, header, &meta, batch).unwrap();
    let payload = &bytes[frame::HEADER_BYTES..];
    assert!(frame::decode(payload).is_ok());
    let mut refused = 0;
    for at in 0..payload.len() {
        for bits in [0x01, 0x40, 0xff] {
            let mut other = payload.to_vec();
            other[at] ^= bits;
            match frame::decode(&other) {
                Ok((meta, batch)) => become_rows(meta.kind, &batch),
                Err(_) => refused += 1,
            }
        }
        refused += usize::from(frame::decode(&payload[..at]).is_err());
    }
    assert!(refused > payload.len(), "{refused} refused");
}

// B1: what a burst made of the buffer of frames is given back with it.
#[test]
fn the_buffer_of_frames_is_small_again_after_a_burst() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 0, 0, 4 << 10);
    let text = "x".repeat(3_000);
    let many: Vec<&str> = vec![&text; 1_000];
    let large = arrow::array::StringArray::from(many);
    let large =
        arrow::array::RecordBatch::try_from_iter([("a", Arc::new(large) as arrow::array::ArrayRef)]).unwrap();
    for seq in 1..4 {
        log.encode(seq, &entry(meta(seq), large.clone())).unwrap();
    }
    assert!(log.frames.capacity() > 9_000_000);
    assert!(log.frames.capacity() < 10_000_000, "reserved to what it takes, not doubled");
    let group: Vec<_> = (1..4).map(|seq| entry(meta(seq), large.clone())).collect();
    log.frames.clear();
    log.write(&group).unwrap();
    assert!(log.frames.capacity() <= FRAMES_KEPT_BYTES);
}
