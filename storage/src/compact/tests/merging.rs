//! One merge: order, statistics, bounds of batches.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;

use super::rig::chunk;
use crate::compact::merge::{Failed, Input, merge, merge_bytes};
use crate::compact::run::fitting;
use crate::error::Kind as ErrorKind;
use crate::memory::{Memory, Pool};
use crate::reader::DataFile;
use crate::record::fit::{Columns, Coordinates, to_rows};
use crate::record::{Clean, Draft, Field, Kind, Type};
use crate::segment::{self, Fingerprint, Written};

/// Fits chunks to one table and numbers their rows one after the other, each chunk of a writer of its own.
fn rows(kind: Kind, chunks: &[RecordBatch]) -> (SchemaRef, Vec<RecordBatch>) {
    let mut columns = Columns::new(kind);
    for chunk in chunks {
        let (_, added) = columns.fit(chunk.clone());
        columns = columns.with_added(&added);
    }
    let schema = Arc::clone(columns.schema());
    let fitted = chunks.iter().enumerate().map(|(at, chunk)| {
        let writer = format!("w-{}", at % 3);
        to_rows(
            &columns.fit(chunk.clone()).0,
            &schema,
            Coordinates { writer: &writer, first_seq: at as u64 * 10_000 },
        )
    });
    (Arc::clone(&schema), fitted.collect())
}

fn input(written: Written) -> Input {
    let statistics = written.statistics;
    let file = DataFile {
        path: "date=2026-01-01/x.parquet".into(),
        bytes: written.bytes.len() as u64,
        rows: statistics.rows(),
        time_ns: statistics.time_ns().unwrap(),
        source: statistics.source().cloned(),
        digest: Some(*blake3::hash(&written.bytes).as_bytes()),
        blocks: None,
        stats: None,
    };
    let cost = segment::Cost::of(&file.path, &written.bytes).unwrap();
    Input { file: Arc::new(file), bytes: written.bytes, cost }
}

fn decode(bytes: bytes::Bytes, schema: &SchemaRef) -> RecordBatch {
    let batches: Vec<_> =
        segment::open("merged", bytes, schema, 1_000).unwrap().map(Result::unwrap).collect();
    concat_batches(schema, &batches).unwrap()
}

/// M1: what is merged is what one seal of all rows would have written: order, statistics, values.
fn check(kind: Kind, chunks: &[RecordBatch], row_group_rows: usize) {
    let (schema, rows) = rows(kind, chunks);
    let inputs = rows.iter().map(|rows| input(segment::write(kind, rows, row_group_rows).unwrap())).collect();
    let merged = merge(kind, &schema, inputs, row_group_rows, || true).unwrap();
    let all = concat_batches(&schema, &rows).unwrap();
    let expected = segment::write(kind, &all, row_group_rows).unwrap();
    assert_eq!(merged.fingerprint, Fingerprint::of(&all));
    assert_eq!(merged.written.statistics, expected.statistics);
    assert_eq!(merged.written.statistics, expected.statistics);
    assert_eq!(decode(merged.written.bytes, &schema), decode(expected.bytes, &schema));
}

/// B1: a table may have hundreds of attributes. A merged file has those that one of its rows has.
#[test]
fn a_column_without_a_value_is_in_no_merged_file() {
    let (narrow, rows) = rows(Kind::Events, &[chunk(0..50, 1), chunk(50..100, 1)]);
    let attributes: Vec<_> = (0..300).map(|at| (format!("unused{at}"), Type::Text)).collect();
    let wide = Columns::of_schema(Kind::Events, &narrow).with_added(&attributes);
    let wide = wide.schema();
    // The second file was written when the table had them already, with nulls.
    let write = |rows| input(segment::write(Kind::Events, rows, 64).unwrap());
    let first = segment::write(Kind::Events, &rows[1], 64).unwrap();
    let padded = decode(first.bytes, wide);
    let inputs = || vec![write(&rows[0]), write(&padded)];
    let merged = merge(Kind::Events, wide, inputs(), 64, || true).unwrap();
    assert_eq!(merged.schema, narrow);
    let all = concat_batches(&narrow, &rows).unwrap();
    assert_eq!(merged.fingerprint, Fingerprint::of(&all));
    let of_all = segment::write(Kind::Events, &all, 64).unwrap();
    assert_eq!(merged.written.statistics, of_all.statistics);
    assert_eq!(decode(merged.written.bytes, wide), decode(of_all.bytes, wide));
    let bytes = |schema| merge_bytes(Kind::Events, &inputs(), schema, 64);
    assert_eq!(bytes(wide), bytes(&narrow), "what nobody has takes no memory");
}

/// Files of one row group each of a table of so many attributes, all of which have values, with the table's columns.
fn wide(files: usize, attributes: usize) -> (SchemaRef, Vec<RecordBatch>) {
    let chunks: Vec<_> = (0..files as i64).map(|at| chunk(at * 7..at * 7 + 50, 1)).collect();
    let (narrow, rows) = rows(Kind::Events, &chunks);
    let added: Vec<_> = (0..attributes).map(|at| (format!("wide{at}"), Type::Text)).collect();
    let schema = Arc::clone(Columns::of_schema(Kind::Events, &narrow).with_added(&added).schema());
    let widened = rows.iter().enumerate().map(|(file, rows)| {
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            let text = |row: usize| {
                (!row.is_multiple_of(7)).then(|| format!("{row} of {file} in {:>60}", field.name()))
            };
            match rows.column_by_name(field.name()) {
                Some(column) => Arc::clone(column),
                None => Arc::new(StringArray::from_iter((0..rows.num_rows()).map(text))),
            }
        });
        RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
    });
    (Arc::clone(&schema), widened.collect())
}

/// B1: what is open side by side does not grow with a table's columns.
#[test]
fn a_merge_of_many_columns_is_done_part_by_part() {
    let open_bytes = |attributes| {
        let (schema, rows) = wide(4, attributes);
        let inputs: Vec<_> =
            rows.iter().map(|rows| input(segment::write(Kind::Events, rows, 1_000).unwrap())).collect();
        let encoded = |input: &Input| 2 * input.file.bytes + input.cost.footer_bytes;
        let bytes =
            merge_bytes(Kind::Events, &inputs, &schema, 1_000) - inputs.iter().map(encoded).sum::<u64>();
        let merged = merge(Kind::Events, &schema, inputs, 70, || true).unwrap();
        let all = concat_batches(&schema, &rows).unwrap();
        let expected = segment::write(Kind::Events, &all, 70).unwrap();
        assert_eq!(merged.fingerprint, Fingerprint::of(&all));
        assert_eq!(merged.written.statistics, expected.statistics);
        assert_eq!(decode(merged.written.bytes, &schema), decode(expected.bytes, &schema));
        bytes
    };
    let (few, many) = (open_bytes(50), open_bytes(200));
    assert!(many <= few + (1 << 20), "{many} for 200 attributes, {few} for 50");
}

#[test]
fn a_merge_is_what_one_seal_would_have_written() {
    let chunks: Vec<_> =
        (0..9_i64).map(|at| chunk(at * 100..at * 100 + 1 + at * 11, (at % 4) as u8)).collect();
    for count in [1, 2, 9] {
        check(Kind::Events, &chunks[..count], 64);
    }
    // Batches of an input end at other places than those of the result.
    let large: Vec<_> = (0..3_i64).map(|at| chunk(at * 20_000..at * 20_000 + 9_000, at as u8)).collect();
    check(Kind::Events, &large, 10_000);
    let spans: Vec<_> = (0..4_i64)
        .map(|at| {
            let mut draft = Draft::new(Kind::Spans);
            for n in 0..50 {
                draft.begin_row();
                draft.set_int(Field::TimeNs, 1_000 - n * at);
                draft.set_int(Field::ObservedNs, 0);
                draft.set_text(Field::Source, "s");
                if n % 3 > 0 {
                    draft.set_text(Field::TraceId, &format!("{:032x}", n * 7_919 % 11));
                }
                draft.end_row();
            }
            Clean::attest(&mut draft, 1).batch().clone()
        })
        .collect();
    check(Kind::Spans, &spans, 64);
}

#[test]
fn what_is_not_sorted_damaged_or_unknown_is_named_by_its_place() {
    let (schema, rows) = rows(Kind::Events, &[chunk(0..50, 0), chunk(50..100, 1)]);
    let good = || input(segment::write(Kind::Events, &rows[0], 64).unwrap());
    let failing = |second: Input, schema: &SchemaRef| match merge(
        Kind::Events,
        schema,
        vec![good(), second],
        64,
        || true,
    ) {
        Err(Failed::Input(1, error)) => error.context().to_owned(),
        other => panic!("{other:?}"),
    };
    let mut damaged = input(segment::write(Kind::Events, &rows[1], 64).unwrap());
    let mut bytes = damaged.bytes.to_vec();
    bytes[100] ^= 1;
    damaged.bytes = bytes.into();
    assert!(failing(damaged, &schema).contains("not what was committed"));
    let mut writer =
        segment::Writer::new(Kind::Events, Arc::clone(&schema), 50, 0, |_| u64::MAX, 64).unwrap();
    writer.write(&rows[1]).unwrap();
    assert!(failing(input(writer.finish().unwrap()), &schema).contains("is not sorted"));
    // A table that lacks the second chunk's `note`.
    let (narrow, rows) = self::rows(Kind::Events, &[chunk(0..50, 0)]);
    let inputs = vec![input(segment::write(Kind::Events, &rows[0], 64).unwrap()), good()];
    match merge(Kind::Events, &narrow, inputs, 64, || true) {
        Err(Failed::Input(1, error)) => {
            assert!(error.context().contains("column that its table does not have"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_merge_stops_when_told() {
    let (schema, rows) = rows(Kind::Events, &[chunk(0..50, 0), chunk(50..100, 0)]);
    let inputs = rows.iter().map(|rows| input(segment::write(Kind::Events, rows, 64).unwrap())).collect();
    assert!(matches!(merge(Kind::Events, &schema, inputs, 64, || false), Err(Failed::Stopped)));
}

// B1: as many files as the memory for merges takes; two that do not fit are left alone.
#[test]
fn a_merge_takes_as_many_files_as_fit_its_memory() {
    let memory = Memory::new(300 << 20, 0);
    let pool = memory.max(Pool::Merge);
    let (schema, rows) = rows(Kind::Events, &[chunk(0..10, 0)]);
    let check = |open_bytes: u64, expected: Result<usize, usize>| {
        let inputs: Vec<Input> = (0..8)
            .map(|_| {
                let mut input = input(segment::write(Kind::Events, &rows[0], 64).unwrap());
                input.cost.footer_bytes = open_bytes;
                input
            })
            .collect();
        let mut charge = memory.take(Pool::Merge, None, 1_000).unwrap();
        let found =
            fitting(Kind::Events, pool, &mut charge, &inputs, (&schema, 64)).map_err(|failed| match failed {
                Failed::Input(at, error) if error.kind() == ErrorKind::TooLarge => at,
                other => panic!("{other:?}"),
            });
        assert_eq!(found, expected, "{open_bytes} of {pool}");
        assert!(memory.used(Pool::Merge) <= pool);
    };
    check(1_000, Ok(8));
    check(pool / 6, Ok(4));
    check(pool / 3, Ok(2));
    check(pool, Err(1));
}
