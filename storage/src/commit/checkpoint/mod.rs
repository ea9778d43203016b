//! Checkpoints: a table's state in one Parquet file, in the layout of the Delta protocol.
//!
//! Actions become rows through Arrow's JSON reader and writer, so the codec of `action.rs` is the only one.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde_json::{Value, json};

use super::action::{self, Add, Line, Protocol, Remove, Txn};
use super::state::State;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults;
use crate::store::unavailable;

/// The version that `_last_checkpoint` points at.
///
/// The pointer is a hint: where it is missing or damaged the answer is `None`, and the listing tells instead.
pub async fn read_last(store: &dyn ObjectStore, path: &Path) -> Result<Option<i64>> {
    let bytes = match store.get(path).await {
        Ok(result) => result.bytes().await.map_err(unavailable)?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(unavailable(error)),
    };
    let parsed = serde_json::from_slice::<Value>(&bytes).ok();
    let version = parsed.and_then(|parsed| parsed["version"].as_i64());
    if version.is_none() {
        tracing::warn!(object = %path, "the pointer to the last checkpoint is damaged and not believed");
    }
    Ok(version)
}

/// The table as checkpoint `version` says.
///
/// # Errors
/// `Kind::Corrupt` when it is gone or is not what was written, `Kind::Unavailable` when the store does not
/// answer.
pub async fn read(store: &dyn ObjectStore, path: &Path, version: i64) -> Result<State> {
    let bytes = match store.get(path).await {
        Ok(result) => result.bytes().await.map_err(unavailable)?,
        Err(object_store::Error::NotFound { .. }) => {
            return Err(Error::new(ErrorKind::Corrupt, format!("checkpoint {path} is gone")));
        }
        Err(error) => return Err(unavailable(error)),
    };
    // A decoder that panics on damaged bytes is an error like any other (F40).
    let lines = std::panic::catch_unwind(|| decode(path, bytes)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Corrupt, format!("checkpoint {path} is damaged: decoding it panicked")))
    })?;
    let mut state = State::empty();
    state.apply(version, lines)?;
    if state.metadata.is_none() {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("checkpoint {path} does not say what the table is"),
        ));
    }
    state.checkpoint = Some(version);
    Ok(state)
}

fn decode(path: &Path, bytes: Bytes) -> Result<Vec<Line>> {
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Corrupt, format!("checkpoint {path} does not read")).with_source(error)
    };
    let mut lines = Vec::new();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(|builder| builder.build())
        .map_err(|error| broken(error.into()))?;
    for batch in reader {
        let batch = batch.map_err(|error| broken(error.into()))?;
        let mut text = Vec::new();
        let mut writer = LineDelimitedWriter::new(&mut text);
        writer.write(&batch).and_then(|()| writer.finish()).map_err(|error| broken(error.into()))?;
        lines.extend(action::from_bytes(&text)?);
    }
    Ok(lines)
}

/// Writes a checkpoint, reads it back, and only then points `_last_checkpoint` at it (F24): what the pointer
/// names has been read once.
///
/// # Errors
/// `Kind::Corrupt` when it does not read back as `state`: the pointer stays where it was.
pub async fn write(
    store: &dyn ObjectStore,
    path: &Path,
    last: &Path,
    version: i64,
    state: &State,
) -> Result<()> {
    let (bytes, count) = encode(state)?;
    let size = bytes.len();
    faults::reach("checkpoint.before_put").await?;
    store.put(path, PutPayload::from(bytes)).await.map_err(unavailable)?;
    faults::reach("checkpoint.before_check").await?;
    if !read(store, path, version).await?.holds_the_same(state) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("checkpoint {path} does not read back as written"),
        ));
    }
    // The pointer never goes back: behind a later one commits may be cleaned up already.
    if read_last(store, last).await?.is_some_and(|at| at >= version) {
        return Ok(());
    }
    let pointer =
        json!({"version": version, "size": count, "sizeInBytes": size, "numOfAddFiles": state.files.len()});
    faults::reach("checkpoint.before_pointer").await?;
    store.put(last, PutPayload::from(pointer.to_string())).await.map_err(unavailable)?;
    Ok(())
}

fn encode(state: &State) -> Result<(Bytes, usize)> {
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
    let mut files: Vec<_> = state.files.values().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    for file in files {
        let add = Add { data_change: false, ..Add::of(file, 0) };
        lines.push(Line { add: Some(add), ..Line::default() });
    }
    let mut tombstones: Vec<_> = state.tombstones.iter().collect();
    tombstones.sort_by_key(|(path, _)| *path);
    for (path, tombstone) in tombstones {
        let remove = Remove::of(path, false, tombstone.removed_ms);
        lines.push(Line { remove: Some(remove), ..Line::default() });
    }
    let bug = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Bug, "checkpoint does not encode").with_source(error)
    };
    let schema = Arc::new(schema());
    let text = action::to_bytes(&lines);
    let reader = ReaderBuilder::new(Arc::clone(&schema))
        .with_batch_size(lines.len())
        .build(std::io::Cursor::new(text))
        .map_err(|error| bug(error.into()))?;
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().map_err(|error| bug(error.into()))?;
    // A checkpoint is read whole: statistics, page offsets and Arrow's own copy of the schema would be most of a
    // small one.
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new_with_options(&mut bytes, schema, options).map_err(|error| bug(error.into()))?;
    for batch in &batches {
        writer.write(batch).map_err(|error| bug(error.into()))?;
    }
    writer.close().map_err(|error| bug(error.into()))?;
    Ok((bytes.into(), lines.len()))
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
