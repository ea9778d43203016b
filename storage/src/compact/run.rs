//! Merging files of a table: get, merge, read back, put, commit.
//!
//! Nothing changes before the commit, which takes the old files out and the new one in at once: whatever stops a
//! merge half way leaves at worst a file that no version names. The old files stay in the store for snapshots
//! that still read them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::datatypes::SchemaRef;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::look::{Files, most_due};
use super::merge::{Failed, Input, Merged, merge, merge_bytes};
use crate::commit::{Change, Operation};
use crate::deployment::Shared;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults::{self, Bug};
use crate::memory::{Charge, Pool, Short};
use crate::reader::DataFile;
use crate::record::Kind;
use crate::record::fit::Columns;
use crate::seal::files::lend;
use crate::segment::{self, Fingerprint};
use crate::table::Table;

/// How long compaction waits after a failure that may pass, nanoseconds. Chosen: a store that is away is asked a
/// few times a minute, and a merge is not begun in vain more often.
const PAUSE_NS: i64 = 15_000_000_000;

/// Does the merges of the table that is most due, if any and unless ingest needs the memory or the disk; returns whether
/// it did, so that others may be due.
pub async fn compact(shared: &Shared, goes_on: impl Fn() -> bool) -> bool {
    let memory = &shared.compaction;
    let now_ns = (shared.now)();
    let Some((table, merges)) = most_due(shared, now_ns) else { return false };
    if is_pressed(shared) || now_ns < memory.not_before_ns.load(Ordering::Relaxed) {
        return false;
    }
    let (files, failed) = match replace_all(shared, &table, merges, goes_on).await {
        Ok(()) | Err((_, Failed::Stopped)) => return true,
        Err(failed) => failed,
    };
    if !matches!(&failed, Failed::Input(_, error) if error.kind() == ErrorKind::TooLarge) {
        shared.stats.compaction_failures.fetch_add(1, Ordering::Relaxed);
    }
    match failed {
        Failed::Input(at, error) if error.kind() == ErrorKind::TooLarge => {
            memory.set_aside(&table.id, &files[at].path);
            tracing::info!(table = %table.id, file = files[at].path, %error, "a file stays as it is: not merged");
            return true;
        }
        Failed::Input(at, error) => {
            shared.stats.damaged_files.fetch_add(1, Ordering::Relaxed);
            memory.set_aside(&table.id, &files[at].path);
            tracing::error!(table = %table.id, file = files[at].path, %error, "a file stays as it is: not merged");
            return true;
        }
        // M1: files that do not merge to the same rows are left alone, whatever the reason.
        Failed::Merge(error) if error.kind() == ErrorKind::Bug => {
            files.iter().for_each(|file| memory.set_aside(&table.id, &file.path));
            let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
            tracing::error!(table = %table.id, files = ?paths, %error, "a merge failed: its files stay as they are");
        }
        Failed::Merge(error) => {
            tracing::warn!(table = %table.id, %error, "compaction failed and is tried again");
        }
        Failed::Stopped => unreachable!("handled above"),
    }
    memory.not_before_ns.store(now_ns.saturating_add(PAUSE_NS), Ordering::Relaxed);
    false
}

/// Whether ingest needs what a merge would take: three quarters of the hot buffer, or a budget that is full.
fn is_pressed(shared: &Shared) -> bool {
    shared.is_full() || shared.memory.used(Pool::Hot) >= shared.memory.max(Pool::Hot) / 4 * 3
}

/// Does merges of one table, and commits them together: a table of thousands of files pays for each commit with a look
/// at all of them. Where one fails, those before it are committed, and its files are told.
async fn replace_all(
    shared: &Shared,
    table: &Table,
    merges: Vec<Files>,
    goes_on: impl Fn() -> bool,
) -> Result<(), (Files, Failed)> {
    let columns = table.columns();
    let (mut adds, mut replaced) = (Vec::new(), Vec::new());
    let mut end = Ok(());
    for mut files in merges {
        match replacement(shared, table, &columns, &files, &goes_on).await {
            Ok((file, count)) => {
                adds.push(file);
                replaced.extend(files.drain(..count));
            }
            Err(failed) => {
                end = Err((files, failed));
                break;
            }
        }
    }
    if adds.is_empty() {
        return end;
    }
    commit_all(shared, table, &columns, adds, &replaced)
        .await
        .map_err(|error| (replaced, Failed::Merge(error)))
        .and(end)
}

async fn commit_all(
    shared: &Shared,
    table: &Table,
    columns: &Columns,
    adds: Vec<DataFile>,
    replaced: &[Arc<DataFile>],
) -> Result<()> {
    faults::reach("compact.before_commit").await?;
    let merges = adds.len() as u64;
    let change = Change {
        operation: Operation::Compact,
        kind: table.kind,
        columns: columns.clone(),
        adds,
        removes: replaced.iter().map(|file| file.path.clone()).collect(),
        txns: Vec::new(),
        guards: Vec::new(),
        now_ms: (shared.now)() / 1_000_000,
    };
    if commit(table, &change).await? {
        shared.stats.compactions.fetch_add(merges, Ordering::Relaxed);
        shared.stats.compacted_files.fetch_add(replaced.len() as u64, Ordering::Relaxed);
    } else {
        tracing::info!(table = %table.id, "another writer removed files first: their merges are dropped");
    }
    Ok(())
}

/// Puts a file with the rows of the first of these files of one date; how many of them these are.
async fn replacement(
    shared: &Shared,
    table: &Table,
    columns: &Columns,
    files: &[Arc<DataFile>],
    goes_on: impl Fn() -> bool,
) -> Result<(DataFile, usize), Failed> {
    let root = table.id.prefix();
    let schema = columns.schema();
    faults::reach("compact.before_read").await.map_err(Failed::Merge)?;
    // B1: files in and out before they are read, the rest by what their footers say.
    let encoded = 2 * files.iter().map(|file| file.bytes).sum::<u64>();
    let mut charge = lend(&shared.memory, Pool::Merge, encoded).await.map_err(Failed::Merge)?;
    let mut inputs = get(shared, &root, files).await?;
    let fits = fitting(
        table.kind,
        shared.memory.max(Pool::Merge),
        &mut charge,
        &inputs,
        (schema, shared.options.row_group_rows),
    )?;
    inputs.truncate(fits);
    let files = &files[..fits];
    if faults::has(Bug::CompactionDropsRow) {
        inputs.pop();
    }
    let read_bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let row_group_rows = shared.options.row_group_rows;
    // On this very thread, which has nothing else to do: a thread of a pool would not be of its low priority.
    let merged =
        catch_unwind(AssertUnwindSafe(|| merge(table.kind, schema, inputs, row_group_rows, goes_on)))
            .unwrap_or_else(|_| Err(Failed::Merge(Error::new(ErrorKind::Bug, "merging panicked"))))?;
    let Merged { written, schema, fingerprint } = merged;
    let date = files[0].path.strip_prefix("date=").and_then(|path| path.split('/').next());
    let date = date.expect("a partition's files lie in its folder");
    let path = segment::path(date, (shared.now)());
    let mismatches = &shared.stats.segment_mismatches;
    if !faults::has(Bug::CompactionDropsRow) {
        // M1: every row of the inputs is in the result, as the result itself reads.
        segment::check(&path, &written, &schema, fingerprint, mismatches).map_err(Failed::Merge)?;
        same_rows(files, fingerprint).map_err(Failed::Merge)?;
    }
    faults::reach("compact.before_put").await.map_err(Failed::Merge)?;
    // C1: the file is complete in the store before the commit names it.
    let file = segment::put(&*shared.store, &root, path, written, mismatches).await.map_err(Failed::Merge)?;
    let written_bytes = file.bytes;
    shared.stats.compaction_read_bytes.fetch_add(read_bytes, Ordering::Relaxed);
    shared.stats.compaction_written_bytes.fetch_add(written_bytes, Ordering::Relaxed);
    Ok((file, files.len()))
}

/// How many of the inputs, two at least, are merged within the memory for that, which is taken here.
///
/// A file that does not fit with its neighbour is left alone: it is as large as this machine merges.
pub(super) fn fitting(
    kind: Kind,
    pool: u64,
    charge: &mut Charge,
    inputs: &[Input],
    (schema, row_group_rows): (&SchemaRef, usize),
) -> Result<usize, Failed> {
    let mut fits = inputs.len();
    loop {
        let bytes = merge_bytes(kind, &inputs[..fits], schema, row_group_rows);
        let more = bytes.saturating_sub(charge.bytes());
        match charge.grow(more) {
            Ok(()) => {
                charge.shrink_to(bytes);
                return Ok(fits);
            }
            Err(_) if fits > 2 => fits = (fits / 2).max(2),
            Err(Short::Never { .. }) => {
                // The larger of the two: the plan has them by size.
                let text =
                    format!("merging it takes {bytes} bytes of the {pool} for merges: raise memory_max");
                return Err(Failed::Input(fits - 1, Error::new(ErrorKind::TooLarge, text)));
            }
            Err(_) => {
                let text = "the memory for merges is lent to others";
                return Err(Failed::Merge(Error::new(ErrorKind::Unavailable, text)));
            }
        }
    }
}

/// The inputs' bytes. A file that is gone or of another length is damaged; a store that does not answer is not.
async fn get(shared: &Shared, root: &str, files: &[Arc<DataFile>]) -> Result<Vec<Input>, Failed> {
    let mut inputs = Vec::with_capacity(files.len());
    for (at, file) in files.iter().enumerate() {
        let damaged = |why: &str| {
            Failed::Input(
                at,
                Error::new(ErrorKind::Corrupt, format!("segment {} is damaged: {why}", file.path)),
            )
        };
        let unavailable = |error| Failed::Merge(crate::store::unavailable(error));
        let result = match shared.store.get(&Path::from(format!("{root}/{}", file.path))).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Err(damaged("the store does not have it")),
            Err(error) => return Err(unavailable(error)),
        };
        // Asked before the bytes are read: they were planned for by the length that was committed (B1).
        if result.meta.size != file.bytes {
            return Err(damaged("its length is not what was committed"));
        }
        let bytes = result.bytes().await.map_err(unavailable)?;
        let cost = segment::Cost::of(&file.path, &bytes).map_err(|error| Failed::Input(at, error))?;
        inputs.push(Input { file: Arc::clone(file), bytes, cost });
    }
    Ok(inputs)
}

/// M1: as many rows as the table's log says of the inputs.
fn same_rows(files: &[Arc<DataFile>], merged: Fingerprint) -> Result<()> {
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    if rows == merged.rows() {
        return Ok(());
    }
    let context = format!("files of {rows} rows by the table's log hold {}", merged.rows());
    Err(Error::new(ErrorKind::Bug, context))
}

/// Commits and publishes; `false` where another writer removed one of the files first.
///
/// The table's log is held for the commit alone: a seal never waits for a merge.
async fn commit(table: &Table, change: &Change) -> Result<bool> {
    let log = table.log.lock().await;
    let committed = log.commit(table.published().state.clone(), change).await?;
    // A checkpoint is left to the next seal: a thread of low priority must not hold the log for long.
    table.publish(committed.state);
    Ok(committed.is_in)
}
