//! A file in which some rows are past their retention: counted exactly, and written again without them.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::deployment::Shared;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::memory::{Memory, Pool};
use crate::reader::DataFile;
use crate::seal::files::lend;
use crate::segment::{self, Fingerprint, Writer};
use crate::store::unavailable;
use crate::table::Table;

/// Rows decoded at once: bounds what counting holds in memory (B1).
const BATCH_ROWS: usize = 8_192;

/// Bytes of rows decoded at once.
const BATCH_BYTES: u64 = 1 << 20;

/// How many rows of a file lie before the cutoff.
///
/// # Errors
/// `Kind::Unavailable` when the store does not answer, `Kind::Corrupt` when the file is not what was committed.
pub async fn count(
    memory: &Arc<Memory>,
    store: &dyn ObjectStore,
    root: &str,
    file: &DataFile,
    cutoff_ns: i64,
) -> Result<u64> {
    let _charge = lend(memory, Pool::Merge, file.bytes).await?;
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

/// Writes a file again without its rows before the cutoff, reads it back, and puts it whole (C1).
///
/// Memory: the file encoded, twice, and one batch of its rows.
///
/// # Errors
/// As [`count`]; what was put without a commit is an orphan.
pub async fn rewrite(
    shared: &Shared,
    table: &Table,
    file: &DataFile,
    schema: &SchemaRef,
    cutoff_ns: i64,
) -> Result<DataFile> {
    let root = table.id.prefix();
    let mut charge = lend(&shared.memory, Pool::Merge, 2 * file.bytes).await?;
    let bytes = get(&*shared.store, &root, file).await?;
    // It must go whatever it takes: what its footer says comes on top.
    let cost = segment::Cost::of(&file.path, &bytes)?;
    charge.count(cost.open_bytes() + 2 * BATCH_BYTES);
    let batch_rows = usize::try_from(BATCH_BYTES / cost.row_bytes().max(1)).unwrap_or(BATCH_ROWS);
    let batch_rows = batch_rows.clamp(1, BATCH_ROWS);
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let date = folder.strip_prefix("date=").ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, format!("segment {} lies in the folder of no date", file.path))
    })?;
    let path = segment::path(date, (shared.now)());
    let work = {
        let (old, schema, path, kind) = (file.clone(), Arc::clone(schema), path.clone(), table.kind);
        let (stats, row_group_rows) = (Arc::clone(&shared.stats), shared.options.row_group_rows);
        move || {
            let bug = |error| Error::new(ErrorKind::Bug, "rows do not filter").with_source(error);
            // How many of a column's values are left is known only at the end.
            let values = |name: &str| cost.column(name).values;
            let mut writer =
                Writer::new(kind, Arc::clone(&schema), old.rows, old.bytes, values, row_group_rows)?;
            let mut kept = Fingerprint::default();
            for batch in segment::read(&old, bytes, &schema, batch_rows)? {
                let batch = batch?;
                let batch = filter_record_batch(&batch, &is_kept(&batch, cutoff_ns)).map_err(bug)?;
                kept.add(&batch);
                writer.write(&batch)?;
            }
            let written = writer.finish()?;
            segment::check(&path, &written, &schema, kept, &stats.segment_mismatches)?;
            Ok(written)
        }
    };
    let written = blocking(work).await?;
    segment::put(&*shared.store, &root, path, written, &shared.stats.segment_mismatches).await
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
