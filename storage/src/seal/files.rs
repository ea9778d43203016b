//! Rows of chunks to files in the store: sorted, encoded, read back and put, one file after the other.
//!
//! At any moment a seal holds the places of some chunks' rows, one file that is encoded and one that is put, or a few small
//! ones. All have their bytes from the pool of seals before they exist; where the pool is lent out, the seal waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::dates::date_of;
use super::input::{Input, values};
use super::run::Tools;
use super::sorted::{BATCH_BYTES, Piece, Sorted, sort_bytes};
use crate::deployment::Stats;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults;
use crate::hot::array_bytes;
use crate::memory::{Charge, Memory, Pool, Short};
use crate::reader::DataFile;
use crate::record::Kind;
use crate::segment::{self, Fingerprint, Writer, Written};

/// How long a seal waits for its memory; it is tried again later then.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// Small files of one seal that are encoded at once. Chosen: what a sync waits for, others encode meanwhile.
const ENCODED_AT_ONCE: usize = 4;

/// Small files of one seal on their way to the store at once, where they are together no more than two batches. Chosen: those
/// that wait for the disk at the same time share its syncs, and those that wait for a bucket its latency.
const PUT_AT_ONCE: usize = 32;

/// What one seal may hold at once, by the pool that it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of chunks that are sorted together, but for a chunk that is larger alone.
    pub sort_bytes: u64,
    /// Bytes of rows in one file, but for a row that is larger alone.
    pub file_bytes: u64,
}

impl Sizes {
    /// Chosen: the keys of what is sorted, a file that is encoded, and one that is put, fit the pool side by side.
    pub fn of(memory: &Memory) -> Self {
        let pool = memory.max(Pool::Seal);
        Self { sort_bytes: pool / 3, file_bytes: pool / 6 }
    }
}

/// Takes bytes of a pool for background work, waiting for others to give theirs back.
///
/// What is larger than the pool gets all of it: a chunk that was acknowledged must be sealed, whatever it is.
///
/// # Errors
/// `Kind::Unavailable` when the pool stays lent out: nothing was begun.
pub async fn lend(memory: &Arc<Memory>, pool: Pool, bytes: u64) -> Result<Charge> {
    let bytes = bytes.min(memory.max(pool));
    let ends = tokio::time::Instant::now() + WAIT_MAX;
    loop {
        match memory.take(pool, None, bytes) {
            Ok(charge) => return Ok(charge),
            Err(Short::Never { .. } | Short::Share | Short::Whole) if tokio::time::Instant::now() < ends => {
                tokio::time::sleep(LOOK).await;
            }
            Err(_) => {
                let text = format!("{bytes} bytes of the pool {} are lent to others", pool.as_str());
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
        }
    }
}

/// Where files go, and what is in them.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// What the rows are.
    pub kind: Kind,
    /// The table's root in the store.
    pub root: &'a str,
    /// The table's columns.
    pub schema: &'a SchemaRef,
    /// Rows of later days are left out.
    pub last_day: Option<i64>,
    /// When, nanoseconds since 1970 UTC.
    pub now_ns: i64,
}

/// Writes files of one UTC date of event time each, reads them back, and puts them in the store, complete (C1).
///
/// # Errors
/// As the store and the encoder say; what was put is deleted again, as far as the store takes that.
pub async fn put_files(tools: &Tools, target: Target<'_>, inputs: Vec<Input>) -> Result<Vec<DataFile>> {
    let mut files: Vec<DataFile> = Vec::new();
    for group in grouped(inputs, Sizes::of(&tools.memory).sort_bytes) {
        if let Err(error) = put_group(tools, target, group, &mut files).await {
            // No commit was tried, so nothing names them: on a full disk they are the next attempt's room.
            for file in &files {
                let _ = tools.store.delete(&Path::from(format!("{}/{}", target.root, file.path))).await;
            }
            return Err(error);
        }
    }
    let bytes = files.iter().map(|file| file.bytes).sum();
    tools.stats.sealed_bytes.fetch_add(bytes, Ordering::Relaxed);
    Ok(files)
}

/// Inputs in their order, so many together as `bytes_max` allows; one at least.
fn grouped(inputs: Vec<Input>, bytes_max: u64) -> Vec<Vec<Input>> {
    let mut groups: Vec<Vec<Input>> = Vec::new();
    let mut bytes = 0;
    for input in inputs {
        let own = array_bytes(&input.batch);
        match groups.last_mut().filter(|_| bytes + own <= bytes_max) {
            Some(group) => group.push(input),
            None => {
                groups.push(vec![input]);
                bytes = 0;
            }
        }
        bytes += own;
    }
    groups
}

async fn put_group(
    tools: &Tools,
    target: Target<'_>,
    inputs: Vec<Input>,
    files: &mut Vec<DataFile>,
) -> Result<()> {
    let file_bytes = Sizes::of(&tools.memory).file_bytes;
    let sort = sort_bytes(target.kind, &inputs);
    let encoders = values(target.schema, &inputs).into_iter().map(segment::encoder_bytes).sum();
    let mut charge = lend(&tools.memory, Pool::Seal, sort + held(1, 2, file_bytes, encoders)).await?;
    let (kind, schema, last_day) = (target.kind, Arc::clone(target.schema), target.last_day);
    let sorted = blocking(move || Sorted::new(kind, &schema, inputs, last_day).map_err(bug)).await?;
    let sorted = Arc::new(sorted);
    let pieces = sorted.pieces(file_bytes);
    // A chunk of many dates is many small files, and each waits for a sync.
    let is_small = |piece: &Piece| piece.bytes <= BATCH_BYTES / ENCODED_AT_ONCE as u64;
    let are_many = pieces.len() > 2 * ENCODED_AT_ONCE && pieces.iter().all(is_small);
    let largest = pieces.iter().map(|piece| piece.bytes).max().unwrap_or(0);
    let (encoded_at_once, put_at_once) = match are_many {
        true => {
            let fitting = usize::try_from(2 * BATCH_BYTES / largest.max(1)).unwrap_or(PUT_AT_ONCE);
            (ENCODED_AT_ONCE, fitting.clamp(ENCODED_AT_ONCE, PUT_AT_ONCE))
        }
        // The next one is encoded while the disk or the bucket takes this one.
        false => (1, 2),
    };
    let encoders = match are_many {
        true => {
            let of = |piece: &Piece| sorted.encoder_bytes(piece, &sorted.columns_of(piece));
            pieces.iter().map(of).max().unwrap_or(0)
        }
        false => encoders,
    };
    // What it takes is known now: mostly less than what it could have been.
    let needed = sort + held(encoded_at_once, put_at_once, largest, encoders);
    let missing = needed.saturating_sub(charge.bytes());
    charge.shrink_to(needed);
    charge.count(missing);
    let encode = |piece| encode_piece(tools, target, &sorted, piece, are_many);
    let put = |encoded| put_piece(tools, target, encoded);
    let mut put = stream::iter(pieces).map(encode).buffered(encoded_at_once).map(put).buffered(put_at_once);
    while let Some(file) = put.try_next().await? {
        files.push(file);
    }
    Ok(())
}

/// Memory of files of at most `file_bytes` of rows on their way: of those that are encoded pages and the finished file side
/// by side, two batches of rows, and what the encoders of one keep. While one is encoded, one fewer is put than may be.
fn held(encoded_at_once: usize, put_at_once: usize, file_bytes: u64, encoders: u64) -> u64 {
    let encoded = 2 * file_bytes + 2 * BATCH_BYTES.min(file_bytes) + encoders;
    encoded_at_once as u64 * encoded + (put_at_once - 1) as u64 * file_bytes
}

/// Encodes a piece and reads it back: its path and its bytes.
async fn encode_piece(
    tools: &Tools,
    target: Target<'_>,
    sorted: &Arc<Sorted>,
    piece: Piece,
    is_one_of_many: bool,
) -> Result<(String, Written)> {
    let path = segment::path(&date_of(piece.day), target.now_ns);
    let (sorted, stats, kind) = (Arc::clone(sorted), Arc::clone(&tools.stats), target.kind);
    let (row_group_rows, at_rest) = (tools.options.row_group_rows, tools.options.at_rest);
    let work = move || {
        let written = encode((kind, is_one_of_many), &sorted, &piece, row_group_rows, &path, &stats)?;
        // Such a thread does not park while there are files, and keeps what it freed until it is told.
        at_rest();
        Ok((path, written))
    };
    blocking(work).await
}

async fn put_piece(
    tools: &Tools,
    target: Target<'_>,
    encoded: Result<(String, Written)>,
) -> Result<DataFile> {
    let (path, written) = encoded?;
    faults::reach("seal.before_put").await?;
    segment::put(&*tools.store, target.root, path, written, &tools.stats.segment_mismatches).await
}

/// Encodes a piece and reads it back. One of many small ones goes without the attributes that none of its rows has: a
/// file of one row in a table of a thousand columns costs a thousand encoders otherwise, and a column that a file lacks
/// reads as nulls.
fn encode(
    (kind, is_one_of_many): (Kind, bool),
    sorted: &Sorted,
    piece: &Piece,
    row_group_rows: usize,
    path: &str,
    stats: &Stats,
) -> Result<Written> {
    let wanted: Vec<usize> = match is_one_of_many {
        true => sorted.columns_of(piece),
        false => (0..sorted.schema().fields().len()).collect(),
    };
    let mut batches = sorted.batches(piece, &wanted);
    let gathered: Vec<RecordBatch> = match is_one_of_many {
        true => batches.by_ref().collect::<std::result::Result<_, _>>().map_err(bug)?,
        false => Vec::new(),
    };
    let columns =
        if is_one_of_many { filled(sorted, &wanted, &gathered) } else { (0..wanted.len()).collect() };
    let of_table: Vec<usize> = columns.iter().map(|at| wanted[*at]).collect();
    let schema: SchemaRef = Arc::new(sorted.schema().project(&of_table).map_err(bug)?);
    let values = |name: &str| sorted.value_bytes(sorted.place(name), piece);
    let rows = sorted.row_count(piece);
    let mut writer = Writer::new(kind, Arc::clone(&schema), rows, piece.bytes, values, row_group_rows)?;
    let mut expected = Fingerprint::default();
    for batch in gathered.into_iter().map(Ok).chain(batches) {
        let batch = batch.and_then(|batch| batch.project(&columns)?.with_schema(Arc::clone(&schema)));
        let batch = batch.map_err(bug)?;
        expected.add(&batch);
        writer.write(&batch)?;
    }
    let written = writer.finish()?;
    // C1: what a commit will name has been read back, every row of the piece.
    segment::check(path, &written, &schema, expected, &stats.segment_mismatches)?;
    if expected.rows() != rows {
        return Err(Error::new(ErrorKind::Bug, format!("{} of {rows} rows were gathered", expected.rows())));
    }
    Ok(written)
}

/// Of these columns of the table those that every row has by its kind, and those in which a row has a value, by their
/// places in the batches.
fn filled(sorted: &Sorted, columns: &[usize], batches: &[RecordBatch]) -> Vec<usize> {
    let is_filled = |at: &usize| {
        sorted.is_fixed(columns[*at])
            || batches.iter().any(|batch| batch.column(*at).null_count() < batch.num_rows())
    };
    (0..columns.len()).filter(is_filled).collect()
}

fn bug(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Bug, "rows do not sort").with_source(error)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::new(ErrorKind::Bug, "sealing panicked").with_source(error))?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ENCODED_AT_ONCE, PUT_AT_ONCE, Sizes, grouped, held};
    use crate::fixture::rows;
    use crate::hot::array_bytes;
    use crate::memory::{Memory, Pool};
    use crate::seal::input::Input;

    fn input(count: usize) -> Input {
        let batch = rows(&vec![5; count]).batch().clone();
        Input { batch, writer: Arc::from("w-0"), first_seq: 0, after_day: None }
    }

    // B1: what is sorted together is bounded, whatever a commit takes.
    #[test]
    fn chunks_are_sorted_together_up_to_a_bound() {
        let one = array_bytes(&input(100).batch);
        let sizes = |bytes_max, counts: &[usize]| -> Vec<usize> {
            let inputs = counts.iter().map(|count| input(*count)).collect();
            grouped(inputs, bytes_max).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(one * 2, &[100, 100, 100]), [2, 1]);
        assert_eq!(sizes(one, &[100, 5_000, 100]), [1, 1, 1], "a chunk that is larger alone");
        assert_eq!(sizes(u64::MAX, &[100; 4]), [4]);
        assert!(sizes(1, &[]).is_empty());
        // What is sorted, its keys, a file that is encoded and one that is put fit the pool of seals together.
        let memory = Memory::new(350 << 20, 0);
        let held = Sizes::of(&memory);
        assert!(held.sort_bytes + 3 * held.file_bytes <= memory.max(Pool::Seal));
    }

    // B1: small files count as what they are, not as one that fills the pool.
    #[test]
    fn files_on_their_way_count_by_their_size_and_columns() {
        let small = held(ENCODED_AT_ONCE, PUT_AT_ONCE, 4_096, 40_000);
        assert_eq!(small, 4 * (2 * 4_096 + 2 * 4_096 + 40_000) + 31 * 4_096);
        assert_eq!(held(1, 1, 14 << 20, 500), (2 << 20) + 500 + (28 << 20));
        assert_eq!(held(1, 2, 14 << 20, 500), (2 << 20) + 500 + (42 << 20), "one is put meanwhile");
    }
}
