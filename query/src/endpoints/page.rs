//! One page of rows in order of time, of one table or of several.
//!
//! Two steps, so that no row is widened that is not shown. First the keys: (`time_ns`, `writer`, `seq`) of the rows
//! that match, of which only the page's are kept. Then the rows themselves, a block at a time in the order of the
//! keys: a block is a range of keys, so it is found again by comparison alone. The page ends with its last row, with
//! [`PAGE_BYTES_MAX`], or where the tenant's share of memory ends, and says where the next one begins.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use datafusion::common::Result as EngineResult;
use datafusion::logical_expr::{Expr, col};
use datafusion::prelude::DataFrame;
use storage::memory::{Charge, Short};
use storage::reader::Snapshot;

use super::Call;
use super::key::{KEY, Key, between, keys_of, past, sort};
use crate::budget::{self, Out, PAGE_BYTES_MAX};
use crate::plan::session::Session;
use crate::refusal::Refusal;
use crate::scan::Rows;

/// Decoded bytes of one block of rows. Chosen: a tenth of what reads have at the default cap.
const BLOCK_BYTES: usize = 2 << 20;

/// Rows that are decoded at once where whole rows are read: what a block can be wrong by.
const WIDE_BATCH_ROWS: usize = 512;

/// What a decoded row takes for each of its columns beside the values: an offset and a bit of validity.
const COLUMN_BYTES: usize = 6;

/// How much smaller a row is in a file than decoded, where nothing better is known. Measured on logs.
const COMPRESSION: u64 = 8;

/// What a key takes in memory.
const KEY_BYTES: usize = size_of::<Key>() + 16;

/// Rendered bytes after which other reads have a turn on the thread.
const YIELD_BYTES: usize = 64 << 10;

/// A table of the list, and the conditions that its rows must meet.
#[derive(Debug)]
pub struct Listed<'a> {
    /// The table.
    pub snapshot: &'a Arc<Snapshot>,
    /// What its rows must meet, all of it.
    pub conditions: Vec<Expr>,
}

/// Which page is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Oldest first.
    pub is_ascending: bool,
    /// Rows at most.
    pub limit: usize,
    /// The last row of the page before.
    pub after: Option<Key>,
}

/// How a page ended.
#[derive(Debug)]
pub struct Page {
    /// Its rows.
    pub row_count: usize,
    /// Its last row, where rows follow.
    pub next: Option<Key>,
}

/// Renders the page into `out`, with commas between its rows; `render` appends one row of a table.
///
/// # Errors
/// As for any query; 503 where not even one row has memory now, 422 where it never has.
pub async fn read(
    call: &Call<'_>,
    tables: &[Listed<'_>],
    asked: &Asked,
    out: &mut Out,
    mut render: impl FnMut(&mut Vec<u8>, usize, &RecordBatch, usize),
) -> Result<Page, Refusal> {
    let (keys, _charge) = keys(call, tables, asked).await?;
    let shown = first(&keys, asked.limit);
    let mut writer = Writer::new(out);
    let mut row_bytes = None;
    while writer.row_count < shown.len() {
        let left = shown.get(writer.row_count..).unwrap_or_default();
        let guess = row_bytes.unwrap_or_else(|| guess(tables, left)).max(1);
        let len = (writer.room().clamp(1, BLOCK_BYTES) / guess).clamp(1, left.len());
        let block = match block(call, tables, first(left, len), asked.is_ascending, guess).await {
            Ok(block) => block,
            Err(Trouble::Short(_)) if writer.row_count > 0 => break,
            Err(Trouble::Short(short)) => return Err(budget::refusal(short)),
            Err(Trouble::Refused(refusal)) => return Err(refusal),
        };
        row_bytes = Some(block.row_bytes);
        if block.rows.is_empty() {
            debug_assert!(false, "Q1: the rows of a block are those of its keys");
            return Err(Refusal::bug());
        }
        if !writer.write(&block.batches, &block.rows, &mut render).await? {
            break;
        }
    }
    let at = writer.row_count;
    let last = at.checked_sub(1).filter(|_| at < keys.len());
    Ok(Page { row_count: at, next: last.and_then(|last| keys.get(last)).cloned() })
}

/// Renders the first page of a short list that is read already.
///
/// # Errors
/// As for [`read`].
pub async fn render(
    whole: Whole,
    asked: &Asked,
    out: &mut Out,
    mut render: impl FnMut(&mut Vec<u8>, usize, &RecordBatch, usize),
) -> Result<Page, Refusal> {
    let shown = first(&whole.rows, asked.limit);
    let mut writer = Writer::new(out);
    writer.write(&whole.batches, shown, &mut render).await?;
    let at = writer.row_count;
    let last = at.checked_sub(1).filter(|_| at < whole.rows.len());
    let next = last.and_then(|last| whole.rows.get(last)).map(|(key, ..)| key.clone());
    Ok(Page { row_count: at, next })
}

/// As many of them from the first on as there are, and no more than `count`.
fn first<T>(all: &[T], count: usize) -> &[T] {
    all.get(..count).unwrap_or(all)
}

/// Writes rows until the page is full.
struct Writer<'a> {
    out: &'a mut Out,
    row_count: usize,
    yielded_at: usize,
    row: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut Out) -> Self {
        let yielded_at = out.len();
        Self { out, row_count: 0, yielded_at, row: Vec::new() }
    }

    /// Bytes that the page may still take. What stands before its rows counts: other lists of the reply.
    fn room(&self) -> usize {
        PAGE_BYTES_MAX.saturating_sub(self.out.len())
    }

    /// Writes these rows in their order; `false` where the page is full before the last one.
    async fn write(
        &mut self,
        batches: &[(usize, RecordBatch)],
        rows: &[(Key, usize, usize)],
        render: &mut impl FnMut(&mut Vec<u8>, usize, &RecordBatch, usize),
    ) -> Result<bool, Refusal> {
        for (_, batch, index) in rows {
            self.row.clear();
            if self.row_count > 0 {
                self.row.push(b',');
            }
            let Some((table, batch)) = batches.get(*batch) else { return Err(Refusal::bug()) };
            render(&mut self.row, *table, batch, *index);
            if self.row_count > 0 && self.row.len() > self.room() {
                return Ok(false);
            }
            match self.out.push(&self.row) {
                Ok(()) => self.row_count += 1,
                Err(_) if self.row_count > 0 => return Ok(false),
                Err(short) => return Err(budget::refusal(short)),
            }
            if self.out.len() - self.yielded_at > YIELD_BYTES {
                self.yielded_at = self.out.len();
                tokio::task::yield_now().await;
            }
        }
        Ok(true)
    }
}

/// The keys of the page's rows in order, and one more where there is one.
async fn keys(call: &Call<'_>, tables: &[Listed<'_>], asked: &Asked) -> Result<(Vec<Key>, Charge), Refusal> {
    let mut keys: Vec<Key> = Vec::new();
    let mut charge = call.budget.take(0).map_err(budget::refusal)?;
    for (at, table) in tables.iter().enumerate() {
        let planned = || -> EngineResult<DataFrame> {
            let after = asked.after.as_ref().map(|after| past(after, at, asked.is_ascending));
            let mut frame = call.session.read(table.snapshot)?;
            if let Some(condition) = table.conditions.iter().cloned().chain(after).reduce(Expr::and) {
                frame = frame.filter(condition)?;
            }
            let order = KEY.map(|name| col(name).sort(asked.is_ascending, false)).to_vec();
            frame.select_columns(&KEY)?.sort(order)?.limit(0, Some(asked.limit + 1))
        };
        let mut rows = start(call, call.session, table, planned()).await?;
        while let Some(batch) = rows.next().await? {
            charge.grow((batch.num_rows() * KEY_BYTES) as u64).map_err(budget::refusal)?;
            keys_of(&batch, at, |key, _| keys.push(key));
        }
        sort(&mut keys, asked.is_ascending);
        keys.truncate(asked.limit + 1);
        charge.shrink_to((keys.len() * KEY_BYTES) as u64);
    }
    Ok((keys, charge))
}

/// Rows of the page, decoded.
struct Block {
    batches: Vec<(usize, RecordBatch)>,
    /// In order: key, batch, row in it.
    rows: Vec<(Key, usize, usize)>,
    /// What a row of them takes decoded.
    row_bytes: usize,
    _charge: Charge,
}

enum Trouble {
    Short(Short),
    Refused(Refusal),
}

impl From<Short> for Trouble {
    fn from(short: Short) -> Self {
        Self::Short(short)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Reads the rows of these keys, or of the first of them where rows are larger than `row_bytes` tells.
async fn block(
    call: &Call<'_>,
    tables: &[Listed<'_>],
    keys: &[Key],
    is_ascending: bool,
    row_bytes: usize,
) -> Result<Block, Trouble> {
    let mut len = keys.len();
    let mut row_bytes = row_bytes;
    loop {
        let keys = first(keys, len);
        match fill(call, tables, keys, is_ascending, row_bytes).await {
            Ok(block) => return Ok(block),
            Err((Trouble::Short(short), found)) if len > 1 => {
                // Too wide for a guess: as many as fit by what was seen, and at most half.
                let _ = short;
                row_bytes = found.max(row_bytes);
                len = (BLOCK_BYTES / row_bytes.max(1)).clamp(1, len / 2);
            }
            Err((trouble, _)) => return Err(trouble),
        }
    }
}

/// Reads the rows of these keys; with an error comes what a row took until then.
async fn fill(
    call: &Call<'_>,
    tables: &[Listed<'_>],
    keys: &[Key],
    is_ascending: bool,
    row_bytes: usize,
) -> Result<Block, (Trouble, usize)> {
    let with = |trouble: Trouble| (trouble, row_bytes);
    let reserved = keys.len().saturating_mul(row_bytes + KEY_BYTES);
    let mut charge = call.budget.take(reserved).map_err(|short| with(short.into()))?;
    let session = call.session.with_batch_rows(WIDE_BATCH_ROWS);
    let mut block = Vec::new();
    let mut rows_found: Vec<(Key, usize, usize)> = Vec::with_capacity(keys.len());
    let mut bytes = 0;
    for (at, table) in tables.iter().enumerate() {
        let mut own = keys.iter().filter(|key| key.table == at);
        let Some(first) = own.next() else { continue };
        let last = own.next_back().unwrap_or(first);
        let (low, high) = if is_ascending { (first, last) } else { (last, first) };
        let planned = || -> EngineResult<DataFrame> {
            let mut condition = between(low, high);
            for one in &table.conditions {
                condition = condition.and(one.clone());
            }
            session.read(table.snapshot)?.filter(condition)
        };
        let mut rows =
            start(call, &session, table, planned()).await.map_err(|refused| with(refused.into()))?;
        while let Some(batch) = rows.next().await.map_err(|refused| with(refused.into()))? {
            bytes += held_bytes(&batch) + batch.num_rows() * KEY_BYTES;
            let found = bytes / (rows_found.len() + batch.num_rows()).max(1);
            let over = bytes > 2 * BLOCK_BYTES.max(reserved) && keys.len() > 1;
            let missing = (bytes as u64).saturating_sub(charge.bytes());
            if over {
                return Err((Trouble::Short(Short::Share), found));
            }
            charge.grow(missing).map_err(|short| (short.into(), found))?;
            let place = block.len();
            keys_of(&batch, at, |key, row| rows_found.push((key, place, row)));
            block.push((at, batch));
        }
    }
    rows_found.sort_unstable_by(|(a, ..), (b, ..)| if is_ascending { a.cmp(b) } else { b.cmp(a) });
    let row_bytes = bytes / rows_found.len().max(1);
    Ok(Block { batches: block, rows: rows_found, row_bytes, _charge: charge })
}

/// Starts a plan over one table.
async fn start(
    call: &Call<'_>,
    session: &Session,
    table: &Listed<'_>,
    planned: EngineResult<DataFrame>,
) -> Result<Rows, Refusal> {
    let sources = call.sources_in(session, vec![Arc::clone(table.snapshot)]);
    match planned {
        Ok(frame) => Rows::start(frame, sources).await,
        Err(error) => Err(sources.refusal(&error).await),
    }
}

/// The rows of all tables, where together they are few: decoded and in order of time. `None` where they pass
/// [`BLOCK_BYTES`], and are to be read in pages.
///
/// # Errors
/// As for any query.
pub async fn whole(call: &Call<'_>, tables: &[Listed<'_>]) -> Result<Option<Whole>, Refusal> {
    let mut charge = call.budget.take(0).map_err(budget::refusal)?;
    let session = call.session.with_batch_rows(WIDE_BATCH_ROWS);
    let (mut batches, mut rows, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (at, table) in tables.iter().enumerate() {
        let planned = || -> EngineResult<DataFrame> {
            let frame = session.read(table.snapshot)?;
            match table.conditions.iter().cloned().reduce(Expr::and) {
                Some(condition) => frame.filter(condition),
                None => Ok(frame),
            }
        };
        let mut found = start(call, &session, table, planned()).await?;
        while let Some(batch) = found.next().await? {
            bytes += held_bytes(&batch) + batch.num_rows() * KEY_BYTES;
            if bytes > BLOCK_BYTES || charge.grow((bytes as u64).saturating_sub(charge.bytes())).is_err() {
                return Ok(None);
            }
            let place = batches.len();
            keys_of(&batch, at, |key, row| rows.push((key, place, row)));
            batches.push((at, batch));
        }
    }
    rows.sort_unstable();
    Ok(Some(Whole { batches, rows, _charge: charge }))
}

/// All rows of a short list.
#[derive(Debug)]
pub struct Whole {
    /// Table and batch.
    pub batches: Vec<(usize, RecordBatch)>,
    /// In order of time: key, batch, row in it.
    pub rows: Vec<(Key, usize, usize)>,
    _charge: Charge,
}

/// What a decoded batch holds. A part of a larger one counts as what it shows.
fn held_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns
        .map(|column| {
            column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
        })
        .sum()
}

/// What a row takes decoded, by the averages of the tables.
fn guess(tables: &[Listed<'_>], keys: &[Key]) -> usize {
    let of_table = |table: &Listed<'_>| {
        let snapshot = table.snapshot;
        let low = keys.iter().map(|key| key.time_ns).min().unwrap_or(i64::MIN);
        let high = keys.iter().map(|key| key.time_ns).max().unwrap_or(i64::MAX);
        let hot = snapshot.hot.iter().map(|rows| rows.held_bytes() / (rows.num_rows() as u64).max(1));
        let in_time = snapshot.files.iter().filter(|file| file.time_ns.1 >= low && file.time_ns.0 <= high);
        let sealed = in_time.map(|file| file.bytes.saturating_mul(COMPRESSION) / file.rows.max(1));
        let values = hot.chain(sealed).max().unwrap_or(0);
        usize::try_from(values)
            .unwrap_or(usize::MAX)
            .saturating_add(snapshot.schema.fields().len() * COLUMN_BYTES)
    };
    tables.iter().map(of_table).max().unwrap_or(1)
}
