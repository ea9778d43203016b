//! Sealing one table: chunks to rows, rows to files, files to a commit.
//!
//! The `latency` table takes the chunks' measurements first, under a transaction of its own that names the
//! chunks' dataset; then the chunks go into their table. A crash between the two is told apart by the two
//! transactions, so neither rows nor durations are counted twice (A3).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Int64Type;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::commit::{Change, Operation};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::latency::rollup;
use crate::options::Options;
use crate::reader::DataFile;
use crate::record::fit::{Coordinates, to_rows};
use crate::record::{Kind, schema};
use crate::segment;
use crate::store::put_object;
use crate::table::{HotChunk, Table};

/// Nanoseconds in a day.
const DAY_NS: i64 = 86_400_000_000_000;

/// Chunks sealed into one commit at most: bounds the memory a seal takes (B1).
const SEAL_BYTES_MAX: u64 = 256 << 20;

/// The parts of storage that a seal works with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Where files go.
    pub store: Arc<dyn ObjectStore>,
    /// Row groups and checkpoints.
    pub options: Arc<Options>,
    /// Name of the writer that derived rows come under.
    pub rollup_writer: Arc<str>,
}

/// Seals what waits in `table`, up to a bound; returns the rows and the bytes of memory set free.
///
/// `latency` is the tenant's latency table, where this kind of row is measured.
///
/// # Errors
/// `Kind::Unavailable` when the store does not take it: the chunks stay hot and logged, the next round tries
/// again, and what was put without a commit is an orphan that no version names.
pub async fn seal(tools: &Tools, table: &Table, latency: Option<&Table>, now_ns: i64) -> Result<(u64, u64)> {
    let log = table.log.lock().await;
    let (mut chunks, published) = table.consistent();
    let mut bytes = 0;
    let fitting = chunks.iter().take_while(|chunk| {
        let fits = bytes == 0 || bytes + chunk.bytes <= SEAL_BYTES_MAX;
        bytes += chunk.bytes;
        fits
    });
    let fitting = fitting.count();
    chunks.truncate(fitting);
    if chunks.is_empty() {
        return Ok((0, 0));
    }
    if let Some(latency) = latency {
        fold(tools, table, latency, &chunks, now_ns).await?;
    }
    let columns = table.columns();
    let rows: Vec<RecordBatch> = chunks
        .iter()
        .map(|chunk| {
            let at = Coordinates { writer: &chunk.writer, first_seq: chunk.first_seq };
            to_rows(&chunk.batch, columns.schema(), at)
        })
        .collect();
    let row_count: u64 = rows.iter().map(|rows| rows.num_rows() as u64).sum();
    let files = put_files(tools, table.kind, &table.id.prefix(), rows).await?;
    let mut last: HashMap<&Arc<str>, (u64, u64)> = HashMap::new();
    for chunk in &chunks {
        let entry = last.entry(&chunk.writer).or_default();
        entry.0 = entry.0.max(chunk.seq);
        entry.1 = entry.1.max(chunk.first_seq + chunk.batch.num_rows() as u64);
    }
    let txns = last
        .iter()
        .flat_map(|(writer, (seq, next_row))| {
            [(writer.to_string(), version(*seq)), (rows_app(writer), version(*next_row))]
        })
        .collect();
    let change = Change {
        operation: Operation::Append,
        kind: table.kind,
        columns: (*columns).clone(),
        adds: files,
        removes: Vec::new(),
        txns,
        guards: last.keys().map(|writer| writer.to_string()).collect(),
        now_ms: now_ns / 1_000_000,
    };
    let mut state = log.commit(published.state.clone(), &change).await?.state;
    checkpoint_if_due(tools, &log, &mut state).await;
    Ok((row_count, table.publish(state)))
}

/// The transaction that tells the next row's number of a writer in a table.
pub fn rows_app(writer: &str) -> String {
    format!("{writer}:rows")
}

/// The transaction that tells how far the latency table holds a writer's chunks of a dataset.
pub fn fold_app(writer: &str, dataset: &str) -> String {
    format!("{writer}/{dataset}")
}

fn version(seq: u64) -> i64 {
    i64::try_from(seq).expect("fewer than 2^63 frames and rows")
}

/// Folds the chunks' measurements into the latency table.
async fn fold(
    tools: &Tools,
    table: &Table,
    latency: &Table,
    chunks: &[Arc<HotChunk>],
    now_ns: i64,
) -> Result<()> {
    let log = latency.log.lock().await;
    let published = latency.published();
    let dataset = table.id.dataset.as_str();
    let fresh: Vec<&Arc<HotChunk>> = chunks
        .iter()
        .filter(|chunk| chunk.seq > published.state.last_seq(&fold_app(&chunk.writer, dataset)))
        .collect();
    let measurements: Vec<_> = fresh.iter().map(|chunk| &*chunk.measurement).collect();
    let Some(clean) = rollup::rows(dataset, &measurements, now_ns) else { return Ok(()) };
    let rows_app = rows_app(&tools.rollup_writer);
    let first_seq = published.state.last_seq(&rows_app);
    let next_row = first_seq + clean.row_count() as u64;
    let (_, batch, _, _) = clean.into_parts();
    let columns = latency.columns();
    let at = Coordinates { writer: &tools.rollup_writer, first_seq };
    let rows = to_rows(&batch, columns.schema(), at);
    let files = put_files(tools, Kind::Latency, &latency.id.prefix(), vec![rows]).await?;
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for chunk in &fresh {
        let entry = last.entry(fold_app(&chunk.writer, dataset)).or_default();
        *entry = (*entry).max(version(chunk.seq));
    }
    let guards = last.keys().cloned().collect();
    let mut txns: Vec<_> = last.into_iter().collect();
    txns.push((rows_app, version(next_row)));
    let change = Change {
        operation: Operation::Append,
        kind: Kind::Latency,
        columns: (*columns).clone(),
        adds: files,
        removes: Vec::new(),
        txns,
        guards,
        now_ms: now_ns / 1_000_000,
    };
    let mut state = log.commit(published.state.clone(), &change).await?.state;
    checkpoint_if_due(tools, &log, &mut state).await;
    latency.publish(state);
    Ok(())
}

/// Writes one file a UTC date of event time and puts it in the store, complete (C1).
async fn put_files(tools: &Tools, kind: Kind, root: &str, rows: Vec<RecordBatch>) -> Result<Vec<DataFile>> {
    let row_group_rows = tools.options.row_group_rows;
    let encode = move || -> Result<Vec<(String, segment::Written)>> {
        let bug = |error| Error::new(ErrorKind::Bug, "rows do not concatenate").with_source(error);
        let schema = rows[0].schema();
        let rows = concat_batches(&schema, &rows).map_err(bug)?;
        by_date(&rows)
            .into_iter()
            .map(|(date, rows)| Ok((date, segment::write(kind, &rows, row_group_rows)?)))
            .collect()
    };
    let encoded = tokio::task::spawn_blocking(encode)
        .await
        .map_err(|error| Error::new(ErrorKind::Bug, "sealing panicked").with_source(error))??;
    let mut files = Vec::new();
    for (date, written) in encoded {
        let path = format!("{}={date}/{}.parquet", schema::DATE, uuid::Uuid::now_v7());
        let bytes = written.bytes.len() as u64;
        let digest = Some(*blake3::hash(&written.bytes).as_bytes());
        let object = Path::from(format!("{root}/{path}"));
        put_object(&*tools.store, &object, written.bytes).await?;
        files.push(DataFile {
            path,
            bytes,
            rows: written.rows,
            time_ns: written.time_ns,
            source: written.source,
            digest,
            stats: written.stats,
        });
    }
    Ok(files)
}

/// Splits rows by UTC date of event time.
fn by_date(rows: &RecordBatch) -> Vec<(String, RecordBatch)> {
    let times = rows.column_by_name("time_ns").expect("every row has its time").as_primitive::<Int64Type>();
    let mut days: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (row, time_ns) in times.values().iter().enumerate() {
        let row = u32::try_from(row).expect("a seal holds fewer than 2^32 rows");
        days.entry(time_ns.div_euclid(DAY_NS)).or_default().push(row);
    }
    days.into_iter()
        .map(|(day, indices)| {
            let date = jiff::Timestamp::from_second(day * 86_400)
                .expect("nanoseconds in 64 bits lie between 1677 and 2262")
                .strftime("%Y-%m-%d")
                .to_string();
            let rows = if indices.len() == rows.num_rows() {
                rows.clone()
            } else {
                take_record_batch(rows, &UInt32Array::from(indices)).expect("indices are rows of this batch")
            };
            (date, rows)
        })
        .collect()
}

/// A checkpoint is a convenience: a failed one is logged and tried again at the next commit.
async fn checkpoint_if_due(tools: &Tools, log: &crate::commit::TableLog, state: &mut crate::commit::State) {
    let since = state.version.unwrap_or(0) - state.checkpoint.unwrap_or(-1);
    if since < i64::try_from(tools.options.checkpoint_commits).unwrap_or(i64::MAX) {
        return;
    }
    match log.checkpoint(state).await {
        Ok(()) => state.checkpoint = state.version,
        Err(error) => tracing::warn!(%error, "checkpoint was not written"),
    }
}
