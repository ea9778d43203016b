//! The bytes of a checkpoint.
//!
//! Actions become rows through Arrow's JSON reader and writer, so the codec of `action.rs` is the only one. The
//! tombstones are row groups of their own before all else, so that the end of the file is what an open needs.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::tail::Tail;
use crate::commit::action::{self, Add, Line, Protocol, Remove, Txn};
use crate::commit::state::{State, Tombstone};
use crate::error::{Error, Kind as ErrorKind, Result};

/// The columns of text that grows with the table.
const COMPRESSED: [&[&str]; 4] =
    [&["metaData", "schemaString"], &["add", "path"], &["add", "stats"], &["remove", "path"]];

/// A checkpoint as it is put.
#[derive(Debug)]
pub struct Encoded {
    /// The whole file.
    pub bytes: Bytes,
    /// Actions in it.
    pub lines: usize,
    /// Where the tombstones end and the rest begins; `None` where there are none.
    pub live_at: Option<u64>,
}

/// The actions of the row groups that `tail` has whole.
///
/// # Errors
/// `Kind::Corrupt` when it does not read, whatever it is.
pub fn decode(path: &Path, tail: Tail) -> Result<Vec<Line>> {
    // A decoder that panics on damaged bytes is an error like any other (F40).
    std::panic::catch_unwind(|| read(path, tail)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Corrupt, format!("checkpoint {path} is damaged: decoding it panicked")))
    })
}

fn read(path: &Path, tail: Tail) -> Result<Vec<Line>> {
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Corrupt, format!("checkpoint {path} does not read")).with_source(error)
    };
    let from = tail.from();
    let builder = ParquetRecordBatchReaderBuilder::try_new(tail).map_err(|error| broken(error.into()))?;
    let groups = builder.metadata().row_groups();
    let within = (0..groups.len()).filter(|group| start(&groups[*group]) >= from).collect();
    let reader = builder.with_row_groups(within).build().map_err(|error| broken(error.into()))?;
    let mut lines = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| broken(error.into()))?;
        let mut text = Vec::new();
        let mut writer = LineDelimitedWriter::new(&mut text);
        writer.write(&batch).and_then(|()| writer.finish()).map_err(|error| broken(error.into()))?;
        lines.extend(action::from_bytes(path.as_ref(), &text)?);
    }
    Ok(lines)
}

/// Where the first byte of a row group is.
fn start(group: &RowGroupMetaData) -> u64 {
    group.columns().iter().map(|column| column.byte_range().0).min().unwrap_or(0)
}

/// The table as one file.
pub fn encode(state: &State) -> Result<Encoded> {
    let bug = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Bug, "checkpoint does not encode").with_source(error)
    };
    let schema = Arc::new(schema());
    let batches = |lines: &[Line]| -> Result<Vec<RecordBatch>> {
        let reader = ReaderBuilder::new(Arc::clone(&schema))
            .with_batch_size(lines.len().max(1))
            .build(std::io::Cursor::new(action::to_bytes(lines)))
            .map_err(|error| bug(error.into()))?;
        reader.collect::<Result<_, _>>().map_err(|error| bug(error.into()))
    };
    // A checkpoint's row groups are read whole: statistics, page offsets and Arrow's own copy of the schema would
    // be most of a small one. Nearly all bytes are in few columns; to set a decompressor up for each of the others
    // would be most of an open.
    let mut properties = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true);
    for column in COMPRESSED {
        let path = ColumnPath::from(column.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        properties = properties.set_column_compression(path, Compression::ZSTD(ZstdLevel::default()));
    }
    let properties = properties.build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, Arc::clone(&schema), options)
        .map_err(|error| bug(error.into()))?;
    let (gone, live) = (tombstones(state), live(state));
    for batch in &batches(&gone)? {
        writer.write(batch).map_err(|error| bug(error.into()))?;
    }
    writer.flush().map_err(|error| bug(error.into()))?;
    let live_at = (!gone.is_empty()).then(|| writer.bytes_written() as u64);
    for batch in &batches(&live)? {
        writer.write(batch).map_err(|error| bug(error.into()))?;
    }
    writer.close().map_err(|error| bug(error.into()))?;
    Ok(Encoded { bytes: bytes.into(), lines: gone.len() + live.len(), live_at })
}

fn tombstones(state: &State) -> Vec<Line> {
    let line = |dead: &Tombstone| Line {
        remove: Some(Remove::of(&dead.path, false, dead.removed_ms)),
        ..Line::default()
    };
    state.tombstones.iter().map(line).collect()
}

fn live(state: &State) -> Vec<Line> {
    let mut lines = vec![Line {
        protocol: Some(Protocol { min_reader_version: 1, min_writer_version: 2 }),
        ..Line::default()
    }];
    lines.push(Line { meta_data: state.metadata.clone(), ..Line::default() });
    let mut txns: Vec<_> = state.txns.iter().collect();
    txns.sort();
    for (app_id, version) in txns {
        let txn = Txn { app_id: app_id.clone(), version: *version, last_updated: None };
        lines.push(Line { txn: Some(txn), ..Line::default() });
    }
    for file in state.files.iter() {
        let add = Add { data_change: false, ..Add::of(file, 0) };
        lines.push(Line { add: Some(add), ..Line::default() });
    }
    lines
}

fn schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let flag = |name: &str| Field::new(name, DataType::Boolean, true);
    let map = |name: &str| {
        let entries = Fields::from(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Utf8, true),
        ]);
        let entry = Field::new("key_value", DataType::Struct(entries), false);
        Field::new(name, DataType::Map(Arc::new(entry), false), true)
    };
    let group = |name: &str, fields: Vec<Field>| Field::new(name, DataType::Struct(fields.into()), true);
    Schema::new(vec![
        group("protocol", vec![int("minReaderVersion"), int("minWriterVersion")]),
        group(
            "metaData",
            vec![
                text("id"),
                group("format", vec![text("provider"), map("options")]),
                text("schemaString"),
                Field::new(
                    "partitionColumns",
                    DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
                    true,
                ),
                map("configuration"),
                long("createdTime"),
            ],
        ),
        group("txn", vec![text("appId"), long("version"), long("lastUpdated")]),
        group(
            "add",
            vec![
                text("path"),
                map("partitionValues"),
                long("size"),
                long("modificationTime"),
                flag("dataChange"),
                text("stats"),
                map("tags"),
            ],
        ),
        group("remove", vec![text("path"), long("deletionTimestamp"), flag("dataChange")]),
    ])
}
