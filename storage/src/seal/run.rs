//! Sealing tables of one tenant: chunks to rows, rows to files, files to a commit of each table.
//!
//! The `latency` table takes the chunks' measurements first, in one commit for all of them, under transactions of
//! its own that each name the chunks' dataset; then the chunks go into their tables. A crash between is told apart
//! by the transactions, so neither rows nor durations are counted twice (A3).

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Int64Type;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::MutexGuard;

use crate::commit::{Change, Committed, Operation, State, TableLog};
use crate::deployment::{Stats, is_measured};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults;
use crate::latency::rollup;
use crate::options::Options;
use crate::reader::DataFile;
use crate::record::fit::{Coordinates, to_rows};
use crate::record::{Clean, Kind};
use crate::recovery::attempt::{Attempts, Step};
use crate::segment::{self, Fingerprint, Written};
use crate::table::{HotChunk, Published, Table};

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
    /// Running totals.
    pub stats: Arc<Stats>,
    /// What the roll-up is at.
    pub attempts: Arc<Attempts>,
}

/// What a seal of several tables came to.
#[derive(Debug)]
pub struct Sealed {
    /// Of each table: the rows, and the bytes of memory set free.
    pub tables: Vec<Result<(u64, u64)>>,
    /// Commits that were tried.
    pub commits: u64,
}

/// A table whose log is held, and the chunks of it that are sealed.
struct Part<'a> {
    table: &'a Table,
    log: MutexGuard<'a, TableLog>,
    chunks: Vec<Arc<HotChunk>>,
    published: Arc<Published>,
}

/// Seals what waits in one table, up to a bound; returns the rows and the bytes of memory set free.
///
/// `latency` is the tenant's latency table, where this kind of row is measured.
///
/// # Errors
/// `Kind::Unavailable` when the store does not take it: the chunks stay hot and logged, the next round tries
/// again, and what was put without a commit is an orphan that no version names.
pub async fn seal(tools: &Tools, table: &Table, latency: Option<&Table>, now_ns: i64) -> Result<(u64, u64)> {
    seal_together(tools, &[table], latency, now_ns).await?.tables.pop().unwrap_or(Ok((0, 0)))
}

/// Seals what waits in tables of one tenant, each up to a bound; their durations go into `latency` in one commit.
///
/// `tables` are in order of name: whoever holds several tables' logs takes them in that order, and the latency
/// table's last. A table that fails does not keep the others from their commits.
///
/// # Errors
/// As [`seal`], where the durations are not taken: no table was sealed.
pub async fn seal_together(
    tools: &Tools,
    tables: &[&Table],
    latency: Option<&Table>,
    now_ns: i64,
) -> Result<Sealed> {
    debug_assert!(tables.is_sorted_by(|a, b| a.id < b.id), "logs are held in order of name");
    let mut parts = Vec::with_capacity(tables.len());
    for table in tables {
        let log = table.log.lock().await;
        let (mut chunks, published) = table.consistent();
        chunks.truncate(fitting(&chunks));
        parts.push(Part { table, log, chunks, published });
    }
    let mut sealed = Sealed { tables: Vec::with_capacity(parts.len()), commits: 0 };
    if parts.iter().all(|part| part.chunks.is_empty()) {
        sealed.tables.extend(parts.iter().map(|_| Ok((0, 0))));
        return Ok(sealed);
    }
    faults::reach("seal.before_fold").await?;
    // A3: the very chunks that are sealed below, under logs that stay held: none comes in without its durations.
    if let Some(latency) = latency
        && fold(tools, &parts, latency, now_ns).await?
    {
        sealed.commits += 1;
    }
    faults::reach("seal.after_fold").await?;
    for part in parts {
        if part.chunks.is_empty() {
            sealed.tables.push(Ok((0, 0)));
            continue;
        }
        sealed.commits += 1;
        sealed.tables.push(seal_part(tools, part, now_ns).await);
    }
    Ok(sealed)
}

/// How many of the chunks one commit takes: the first at least.
fn fitting(chunks: &[Arc<HotChunk>]) -> usize {
    let mut bytes = 0;
    let fitting = chunks.iter().take_while(|chunk| {
        let fits = bytes == 0 || bytes + chunk.bytes <= SEAL_BYTES_MAX;
        bytes += chunk.bytes;
        fits
    });
    fitting.count()
}

/// Puts the part's rows into files and commits them.
async fn seal_part(tools: &Tools, part: Part<'_>, now_ns: i64) -> Result<(u64, u64)> {
    let Part { table, log, chunks, published } = part;
    let columns = table.columns();
    let rows: Vec<RecordBatch> = chunks
        .iter()
        .map(|chunk| {
            let at = Coordinates { writer: &chunk.writer, first_seq: chunk.first_seq };
            to_rows(&chunk.batch, columns.schema(), at)
        })
        .collect();
    let row_count: u64 = rows.iter().map(|rows| rows.num_rows() as u64).sum();
    let files = put_files(tools, table.kind, &table.id.prefix(), rows, now_ns).await?;
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
        guards: last.keys().map(|writer| made_from(&published.state, writer)).collect(),
        now_ms: now_ns / 1_000_000,
    };
    let Committed { mut state, is_in } = log.commit(published.state.clone(), &change).await?;
    if !is_in {
        // An earlier seal got in although its put was reported as failed: what it holds leaves the hot buffer,
        // and the next round seals the rest.
        return Ok((0, table.publish(state)));
    }
    faults::reach("seal.before_checkpoint").await?;
    checkpoint_if_due(tools, &log, &mut state).await;
    faults::reach("seal.before_publish").await?;
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

/// A guard: the transaction's version in the state that a change is made from.
fn made_from(state: &State, app: &str) -> (String, Option<i64>) {
    (app.to_owned(), state.txns.get(app).copied())
}

fn version(seq: u64) -> i64 {
    i64::try_from(seq).expect("fewer than 2^63 frames and rows")
}

/// What `roll_up` makes of the chunks from `first` on; nothing where it panics, or ended processes before: the rows are
/// sealed without their durations, rather than never.
fn rolled_up(
    tools: &Tools,
    table: &Table,
    first: &HotChunk,
    roll_up: impl FnOnce() -> Option<Clean>,
) -> Option<Clean> {
    let attempt = tools.attempts.begin(Step::RollUp, &table.id, &first.writer, first.seq);
    let rolled = attempt.as_ref().and_then(|_| catch_unwind(AssertUnwindSafe(roll_up)).ok());
    drop(attempt);
    rolled.unwrap_or_else(|| {
        tools.stats.unrolled_chunks.fetch_add(1, Ordering::Relaxed);
        tracing::error!(table = %table.id, frame = first.seq, "durations were left out: rolling them up failed");
        None
    })
}

/// Folds the measurements of all parts into the latency table; returns whether that took a commit.
async fn fold(tools: &Tools, parts: &[Part<'_>], latency: &Table, now_ns: i64) -> Result<bool> {
    let log = latency.log.lock().await;
    let published = latency.published();
    let rows_app = rows_app(&tools.rollup_writer);
    let columns = latency.columns();
    let mut next_row = published.state.last_seq(&rows_app);
    let mut rows = Vec::new();
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for part in parts.iter().filter(|part| is_measured(part.table.kind)) {
        let dataset = part.table.id.dataset.as_str();
        let is_fresh =
            |chunk: &&Arc<HotChunk>| chunk.seq > published.state.last_seq(&fold_app(&chunk.writer, dataset));
        let fresh: Vec<&Arc<HotChunk>> = part.chunks.iter().filter(is_fresh).collect();
        let measurements: Vec<_> = fresh.iter().map(|chunk| &*chunk.measurement).collect();
        let Some(first) = fresh.first() else { continue };
        let rolled = rolled_up(tools, part.table, first, || rollup::rows(dataset, &measurements, now_ns));
        let Some(clean) = rolled else { continue };
        let first_seq = next_row;
        next_row += clean.row_count() as u64;
        let (_, batch, _, _) = clean.into_parts();
        let at = Coordinates { writer: &tools.rollup_writer, first_seq };
        rows.push(to_rows(&batch, columns.schema(), at));
        for chunk in &fresh {
            let entry = last.entry(fold_app(&chunk.writer, dataset)).or_default();
            *entry = (*entry).max(version(chunk.seq));
        }
    }
    if rows.is_empty() {
        return Ok(false);
    }
    let files = put_files(tools, Kind::Latency, &latency.id.prefix(), rows, now_ns).await?;
    let guards = last.keys().chain([&rows_app]).map(|app| made_from(&published.state, app)).collect();
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
    let Committed { mut state, is_in } = log.commit(published.state.clone(), &change).await?;
    checkpoint_if_due(tools, &log, &mut state).await;
    latency.publish(state);
    if is_in {
        return Ok(true);
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        "an earlier seal's durations got in after all: sealing begins anew",
    ))
}

/// Writes one file a UTC date of event time, reads it back, and puts it in the store, complete (C1).
async fn put_files(
    tools: &Tools,
    kind: Kind,
    root: &str,
    rows: Vec<RecordBatch>,
    now_ns: i64,
) -> Result<Vec<DataFile>> {
    let row_group_rows = tools.options.row_group_rows;
    let stats = Arc::clone(&tools.stats);
    let encode = move || -> Result<Vec<(String, Written)>> {
        let bug = |error| Error::new(ErrorKind::Bug, "rows do not concatenate").with_source(error);
        let schema = rows[0].schema();
        let rows = concat_batches(&schema, &rows).map_err(bug)?;
        by_date(&rows)
            .into_iter()
            .map(|(date, rows)| {
                let written = segment::write(kind, &rows, row_group_rows)?;
                let path = segment::path(&date, now_ns);
                // C1: what a commit will name has been read back (F22).
                let expected = Fingerprint::of(&rows);
                segment::check(&path, &written, &schema, expected, &stats.segment_mismatches)?;
                Ok((path, written))
            })
            .collect()
    };
    let encoded = tokio::task::spawn_blocking(encode)
        .await
        .map_err(|error| Error::new(ErrorKind::Bug, "sealing panicked").with_source(error))??;
    let mut files: Vec<DataFile> = Vec::new();
    for (path, written) in encoded {
        faults::reach("seal.before_put").await?;
        match segment::put(&*tools.store, root, path, written, &tools.stats.segment_mismatches).await {
            Ok(file) => files.push(file),
            Err(error) => {
                // No commit was tried, so nothing names them: on a full disk they are the next attempt's room.
                for file in &files {
                    let _ = tools.store.delete(&Path::from(format!("{root}/{}", file.path))).await;
                }
                return Err(error);
            }
        }
    }
    let bytes = files.iter().map(|file| file.bytes).sum();
    tools.stats.sealed_bytes.fetch_add(bytes, Ordering::Relaxed);
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
async fn checkpoint_if_due(tools: &Tools, log: &TableLog, state: &mut State) {
    let since = state.version.unwrap_or(0) - state.checkpoint.unwrap_or(-1);
    if since < i64::try_from(tools.options.checkpoint_commits).unwrap_or(i64::MAX) {
        return;
    }
    if let Err(error) = log.checkpoint(state).await {
        tracing::warn!(%error, "checkpoint was not written");
    }
}
