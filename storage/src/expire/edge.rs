//! A file in which some rows are past their retention: counted exactly, and written again without them.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::reader::DataFile;
use crate::record::Kind;
use crate::segment;
use crate::store::unavailable;

/// Rows decoded at once: bounds what counting holds in memory (B1).
const BATCH_ROWS: usize = 8_192;

/// How many rows of a file lie before the cutoff.
///
/// # Errors
/// `Kind::Unavailable` when the store does not answer, `Kind::Corrupt` when the file is not what was committed.
pub async fn count(store: &dyn ObjectStore, root: &str, file: &DataFile, cutoff_ns: i64) -> Result<u64> {
    let bytes = get(store, root, file).await?;
    let file = file.clone();
    let times = Arc::new(Schema::new(vec![Field::new("time_ns", arrow::datatypes::DataType::Int64, true)]));
    blocking(move || {
        let mut count = 0;
        for batch in segment::read(&file, bytes, &times, BATCH_ROWS)? {
            count += batch?
                .column(0)
                .as_primitive::<Int64Type>()
                .iter()
                .flatten()
                .filter(|at| *at < cutoff_ns)
                .count();
        }
        Ok(count as u64)
    })
    .await
}

/// Writes a file again without its rows before the cutoff, and puts it whole (C1).
///
/// Memory: the rows that stay, once decoded and once encoded.
///
/// # Errors
/// As [`count`]; what was put without a commit is an orphan.
pub async fn rewrite(
    store: &dyn ObjectStore,
    root: &str,
    file: &DataFile,
    kind: Kind,
    schema: &SchemaRef,
    cutoff_ns: i64,
    row_group_rows: usize,
) -> Result<DataFile> {
    let bytes = get(store, root, file).await?;
    let old = file.clone();
    let schema = Arc::clone(schema);
    let written = blocking(move || {
        let bug = |error| Error::new(ErrorKind::Bug, "rows do not filter").with_source(error);
        let mut kept = Vec::new();
        for batch in segment::read(&old, bytes, &schema, BATCH_ROWS)? {
            let batch = batch?;
            kept.push(filter_record_batch(&batch, &is_kept(&batch, cutoff_ns)).map_err(bug)?);
        }
        segment::write(kind, &concat_batches(&schema, &kept).map_err(bug)?, row_group_rows)
    })
    .await?;
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = format!("{folder}/{}.parquet", uuid::Uuid::now_v7());
    let digest = Some(*blake3::hash(&written.bytes).as_bytes());
    let bytes = written.bytes.len() as u64;
    store
        .put(&Path::from(format!("{root}/{path}")), PutPayload::from(written.bytes))
        .await
        .map_err(unavailable)?;
    Ok(DataFile {
        path,
        bytes,
        rows: written.rows,
        time_ns: written.time_ns,
        source: written.source,
        digest,
        stats: written.stats,
    })
}

/// A row without a time cannot be told to be old.
fn is_kept(batch: &RecordBatch, cutoff_ns: i64) -> BooleanArray {
    let times = batch.column_by_name("time_ns").expect("tables have their sort columns");
    times.as_primitive::<Int64Type>().iter().map(|at| Some(at.is_none_or(|at| at >= cutoff_ns))).collect()
}

async fn get(store: &dyn ObjectStore, root: &str, file: &DataFile) -> Result<Bytes> {
    match store.get(&Path::from(format!("{root}/{}", file.path))).await {
        Ok(found) => found.bytes().await.map_err(unavailable),
        Err(object_store::Error::NotFound { .. }) => {
            Err(Error::new(ErrorKind::Corrupt, format!("segment {} is gone", file.path)))
        }
        Err(error) => Err(unavailable(error)),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::new(ErrorKind::Bug, "expiry panicked").with_source(error))?
}
