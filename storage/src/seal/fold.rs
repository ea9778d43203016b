//! Durations of chunks that are sealed, as rows of the tenant's latency table.
//!
//! One commit for all tables that are sealed together, under transactions that name the log and the dataset; of a chunk
//! that is sealed by dates, the durations of those dates.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::dates::{Begun, dates_app, day_of};
use super::files::{Target, lend, put_files};
use super::input::Input;
use super::run::{Part, Tools, checkpoint_if_due, fold_app, made_from, rows_app, version};
use crate::commit::{Change, Committed, Operation};
use crate::deployment::is_measured;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::hot::HotChunk;
use crate::latency::{Measurement, Series, rollup};
use crate::memory::Pool;
use crate::record::{Clean, Kind};
use crate::recovery::attempt::Step;
use crate::table::{Published, Table};

/// Folds the measurements of all parts into the latency table; returns whether that took a commit.
///
/// # Errors
/// As a seal: no table was sealed, and the next attempt finds by the transactions what is in.
pub async fn fold(tools: &Tools, parts: &[Part<'_>], latency: &Table, now_ns: i64) -> Result<bool> {
    let log = latency.log.lock().await;
    let published = latency.published();
    let rows_app = rows_app(&tools.rollup_writer);
    let columns = latency.columns();
    let mut next_row = published.state.last_seq(&rows_app);
    let mut inputs = Vec::new();
    let mut txns: BTreeMap<String, i64> = BTreeMap::new();
    let mut guarded = BTreeSet::from([rows_app.clone()]);
    let mut charges = Vec::new();
    for part in parts.iter().filter(|part| is_measured(part.table.kind)) {
        let dataset = part.table.id.dataset.as_str();
        let mut series: Vec<&Series> = Vec::new();
        for chunk in &part.chunks {
            series.extend(fresh(&published, chunk, dataset, part.last_day));
        }
        // B1: a client chose how many these are; their bytes are taken before they exist.
        charges.push(lend(&tools.memory, Pool::Seal, rollup::bytes(&series)).await?);
        let Some(first) = part.chunks.first().filter(|_| !series.is_empty()) else { continue };
        let rolled = rolled_up(tools, part.table, first, || rollup::rows(dataset, series, now_ns));
        let Some(clean) = rolled else { continue };
        let first_seq = next_row;
        next_row += clean.row_count() as u64;
        let (_, batch, _, _) = clean.into_parts();
        inputs.push(Input { batch, writer: Arc::clone(&tools.rollup_writer), first_seq, after_day: None });
        for chunk in &part.chunks {
            let app = fold_app(&chunk.writer, dataset);
            guarded.extend([app.clone(), dates_app(&app)]);
            let (app, version) = match part.last_day {
                Some(last_day) => (dates_app(&app), Begun { seq: chunk.seq, last_day }.version()),
                None => (app, version(chunk.seq)),
            };
            let entry = txns.entry(app).or_insert(version);
            *entry = (*entry).max(version);
        }
    }
    if inputs.is_empty() {
        return Ok(false);
    }
    let root = latency.id.prefix();
    let target =
        Target { kind: Kind::Latency, root: &root, schema: columns.schema(), last_day: None, now_ns };
    // What is gathered now stands in the inputs: the files' own bytes come on top.
    charges.iter_mut().for_each(|charge| charge.shrink_to(charge.bytes() / 2));
    let files = put_files(tools, target, inputs).await?;
    let guards = guarded.iter().map(|app| made_from(&published.state, app)).collect();
    let mut txns: Vec<_> = txns.into_iter().collect();
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

/// The series of a chunk that the latency table does not hold, those of up to `last_day`.
fn fresh<'a>(
    latency: &Published,
    chunk: &'a HotChunk,
    dataset: &str,
    last_day: Option<i64>,
) -> impl Iterator<Item = &'a Series> {
    let app = fold_app(&chunk.writer, dataset);
    let is_in = chunk.seq <= latency.state.last_seq(&app);
    let after = latency.begun_as(&app, chunk.seq);
    chunk.measurement.series.iter().filter(move |series| {
        let day = day_of(series.window_start_ns);
        !is_in && after.is_none_or(|after| day > after) && last_day.is_none_or(|last_day| day <= last_day)
    })
}

/// What a chunk measured that the latency table does not hold; `None` where it holds all of it.
pub fn unfolded(latency: &Published, chunk: &HotChunk, dataset: &str) -> Option<Arc<Measurement>> {
    let app = fold_app(&chunk.writer, dataset);
    if chunk.seq <= latency.state.last_seq(&app) {
        return None;
    }
    if latency.begun_as(&app, chunk.seq).is_none() {
        return Some(Arc::clone(&chunk.measurement));
    }
    let series = fresh(latency, chunk, dataset, None).cloned().collect();
    Some(Arc::new(Measurement { series }))
}
