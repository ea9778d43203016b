//! What a chunk of one row takes in memory, against what is counted.

use std::ops::Range;
use std::sync::Arc;

use object_store::memory::InMemory;

use super::{memory_bytes, size};
use crate::commit::{State, TableLog};
use crate::fixture::{rows, table as id};
use crate::hot::{HotChunk, held_bytes};
use crate::latency::Measurement;
use crate::memory::{Memory, Pool};
use crate::record::{Clean, Draft, Field, Kind, Value};
use crate::table::Table;

/// A span with some 25 columns.
fn wide() -> Clean {
    let mut draft = Draft::new(Kind::Spans);
    draft.begin_row();
    for field in Kind::Spans.fields() {
        match field.r#type() {
            crate::record::Type::Int => draft.set_int(*field, 1),
            crate::record::Type::Text => draft.set_text(*field, "0123456789abcdef"),
            _ => {}
        }
    }
    draft.set_int(Field::TimeNs, 1);
    for n in 0..10 {
        let _ = draft.attribute(&format!("attribute.{n}"), Value::Text("some value"));
    }
    draft.end_row();
    Clean::attest(&mut draft, 1)
}

/// Chunks of one shape, as their table holds them; what is counted for each lies in `expected`.
#[expect(clippy::print_stdout, reason = "a test says what it measured")]
fn check(kind: Kind, make: fn() -> Clean, expected: Range<u64>) -> Vec<Arc<HotChunk>> {
    let count = size("FLOODMARK_CHUNKS", 4_000);
    let log = TableLog::new(Arc::new(InMemory::new()), id().prefix());
    let table = Table::new(id(), kind, log, State::empty(), &Memory::new(1 << 30, 0)).unwrap();
    let mut kept = Vec::new();
    let memory = Memory::new(1 << 30, 0);
    let before = memory_bytes("VmRSS");
    for seq in 0..count {
        let batch = table.fit(make().batch().clone());
        let measurement = Arc::new(Measurement::default());
        let bytes = held_bytes(&batch, &measurement);
        let writer: Arc<str> = "w-0".into();
        kept.push(Arc::new(HotChunk {
            writer,
            seq,
            first_seq: seq,
            batch,
            measurement,
            appended_ns: 0,
            charge: memory.count(Pool::Hot, None, bytes),
        }));
    }
    let held = memory_bytes("VmRSS").saturating_sub(before) / count;
    let chunk = kept.last().unwrap();
    let (batch, bytes) = (&chunk.batch, chunk.bytes());
    let (columns, arrays) = (batch.num_columns(), batch.get_array_memory_size());
    println!(
        "{kind:?}, {columns} columns, a row a chunk: {bytes} bytes counted, {arrays} of them arrays; {held} held"
    );
    // The process's memory is other tests' too: what was measured alone is the band that the count must lie in.
    assert!(expected.contains(&bytes), "{bytes} of {expected:?}");
    assert!(kept.iter().all(|chunk| Arc::ptr_eq(chunk.batch.schema_ref(), batch.schema_ref())));
    kept
}

/// B1: what is counted of a small chunk is what it holds, its bookkeeping included.
#[test]
fn hot_bytes_are_what_chunks_hold() {
    let kept = check(Kind::Events, || rows(&[1]), 1_500..3_000);
    drop((check(Kind::Spans, wide, 9_000..14_000), kept));
}
