//! Sealing tables of one tenant: chunks to rows, rows to files, files to a commit of each table.
//!
//! The `latency` table takes the chunks' measurements first, in one commit for all of them, under transactions of
//! its own that each name the chunks' dataset; then the chunks go into their tables. A crash between is told apart
//! by the transactions, so neither rows nor durations are counted twice (A3).

use std::collections::HashMap;
use std::sync::Arc;

use object_store::ObjectStore;
use tokio::sync::MutexGuard;

use super::dates::{Begun, dates_app};
use super::files::{Target, put_files};
use super::fold::fold;
use super::input::Input;
use super::share::Turn;
use crate::commit::{Change, Committed, Operation, State, TableLog};
use crate::deployment::Stats;
use crate::error::Result;
use crate::faults;
use crate::hot::HotChunk;
use crate::memory::Memory;
use crate::options::Options;
use crate::recovery::attempt::Attempts;
use crate::table::{Published, Table};

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
    /// The one budget of memory.
    pub memory: Arc<Memory>,
    /// What the roll-up is at.
    pub attempts: Arc<Attempts>,
}

/// What a seal of several tables came to.
#[derive(Debug)]
pub struct Sealed {
    /// The rows of each table.
    pub tables: Vec<Result<u64>>,
    /// Commits that were tried.
    pub commits: u64,
    /// Whether some of what waited did not fit the turn.
    pub has_more: bool,
}

/// A table whose log is held, and the chunks of it that are sealed.
pub struct Part<'a> {
    /// The table.
    pub table: &'a Table,
    log: MutexGuard<'a, TableLog>,
    /// What is sealed.
    pub chunks: Vec<Arc<HotChunk>>,
    /// Where it is a part of one chunk: the last day of that part.
    pub last_day: Option<i64>,
    published: Arc<Published>,
}

/// Seals what waits in one table, up to a bound; returns the rows.
///
/// `latency` is the tenant's latency table, where this kind of row is measured.
///
/// # Errors
/// `Kind::Unavailable` when the store does not take it: the chunks stay hot and logged, the next round tries
/// again, and what was put without a commit is an orphan that no version names.
pub async fn seal(tools: &Tools, table: &Table, latency: Option<&Table>, now_ns: i64) -> Result<u64> {
    seal_together(tools, &[table], latency, now_ns).await?.tables.pop().unwrap_or(Ok(0))
}

/// Seals what waits in tables of one tenant, all together up to a bound: one turn. Their durations go into `latency`
/// in one commit.
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
        let (chunks, published) = table.consistent();
        parts.push(Part { table, log, chunks, last_day: None, published });
    }
    let mut sealed = Sealed { tables: Vec::with_capacity(parts.len()), commits: 0, has_more: false };
    // The oldest first: what does not fit a turn is the first of another one.
    let mut oldest: Vec<usize> = (0..parts.len()).collect();
    oldest.sort_by_key(|at| parts[*at].chunks.first().map(|chunk| chunk.appended_ns));
    let mut turn = Turn::default();
    for at in oldest {
        let part = &mut parts[at];
        let share = turn.share(&part.chunks, &part.published);
        sealed.has_more |= share.chunks < part.chunks.len() || share.last_day.is_some();
        part.chunks.truncate(share.chunks);
        part.last_day = share.last_day;
    }
    if parts.iter().all(|part| part.chunks.is_empty()) {
        sealed.tables.extend(parts.iter().map(|_| Ok(0)));
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
            sealed.tables.push(Ok(0));
            continue;
        }
        sealed.commits += 1;
        sealed.tables.push(seal_part(tools, part, now_ns).await);
    }
    Ok(sealed)
}

/// Puts the part's rows into files and commits them.
async fn seal_part(tools: &Tools, part: Part<'_>, now_ns: i64) -> Result<u64> {
    let Part { table, log, chunks, last_day, published } = part;
    let columns = table.columns();
    let inputs: Vec<Input> = chunks
        .iter()
        .map(|chunk| Input {
            batch: chunk.batch.clone(),
            writer: Arc::clone(&chunk.writer),
            first_seq: chunk.first_seq,
            after_day: published.begun(chunk),
        })
        .collect();
    let root = table.id.prefix();
    let target = Target { kind: table.kind, root: &root, schema: columns.schema(), last_day, now_ns };
    let files = put_files(tools, target, inputs).await?;
    let row_count: u64 = files.iter().map(|file| file.rows).sum();
    let mut last: HashMap<&Arc<str>, (u64, u64)> = HashMap::new();
    for chunk in &chunks {
        let entry = last.entry(&chunk.writer).or_default();
        entry.0 = entry.0.max(chunk.seq);
        entry.1 = entry.1.max(chunk.first_seq + chunk.batch.num_rows() as u64);
    }
    let txns = last
        .iter()
        .flat_map(|(writer, (seq, next_row))| {
            let how_far = match last_day {
                Some(last_day) => (dates_app(writer), Begun { seq: *seq, last_day }.version()),
                None => (writer.to_string(), version(*seq)),
            };
            // Rows of a chunk that is begun have their numbers already.
            [how_far, (rows_app(writer), version(*next_row))]
        })
        .collect();
    let guards = last
        .keys()
        .flat_map(|writer| {
            [made_from(&published.state, writer), made_from(&published.state, &dates_app(writer))]
        })
        .collect();
    let change = Change {
        operation: Operation::Append,
        kind: table.kind,
        columns: (*columns).clone(),
        adds: files,
        removes: Vec::new(),
        txns,
        guards,
        now_ms: now_ns / 1_000_000,
    };
    let Committed { mut state, is_in } = log.commit(published.state.clone(), &change).await?;
    if !is_in {
        // An earlier seal got in although its put was reported as failed: what it holds leaves the hot buffer,
        // and the next round seals the rest.
        table.publish(state);
        return Ok(0);
    }
    faults::reach("seal.before_checkpoint").await?;
    checkpoint_if_due(tools, &log, &mut state).await;
    faults::reach("seal.before_publish").await?;
    table.publish(state);
    Ok(row_count)
}

/// The transaction that tells the next row's number of a writer in a table.
pub fn rows_app(writer: &str) -> String {
    format!("{writer}:rows")
}

/// The transaction that tells how far the latency table holds a writer's chunks of a dataset.
pub fn fold_app(writer: &str, dataset: &str) -> String {
    format!("{writer}/{dataset}")
}

/// A guard: a transaction's version in the state that a change is made from.
pub(super) fn made_from(state: &State, app: &str) -> (String, Option<i64>) {
    (app.to_owned(), state.txns.get(app).copied())
}

pub(super) fn version(seq: u64) -> i64 {
    i64::try_from(seq).expect("fewer than 2^63 frames and rows")
}

/// A checkpoint is a convenience: a failed one is logged and tried again at the next commit.
pub(super) async fn checkpoint_if_due(tools: &Tools, log: &TableLog, state: &mut State) {
    let since = state.version.unwrap_or(0) - state.checkpoint.unwrap_or(-1);
    if since < i64::try_from(tools.options.checkpoint_commits).unwrap_or(i64::MAX) {
        return;
    }
    if let Err(error) = log.checkpoint(state).await {
        tracing::warn!(%error, "checkpoint was not written");
    }
}
