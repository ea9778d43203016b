//! One table in memory: its columns, its hot chunks, and the version the store holds.
//!
//! The order that keeps every row in exactly one place (A3): a snapshot takes the hot chunks first and the
//! version after; a seal publishes the version first and removes the chunks after. Whatever happens between,
//! a chunk is left out exactly when the version's transactions say that it is in.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use arc_swap::ArcSwap;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, Schema};

use crate::commit::{State, TableLog};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults::{self, Bug};
use crate::hot::HotChunk;
use crate::reader::{DataFile, Snapshot};
use crate::record::fit::{Columns, Coordinates, to_rows};
use crate::record::{Kind, TableId};
use crate::seal::dates::{Begun, day_of};

/// A published version: what a snapshot reads.
#[derive(Debug)]
pub struct Published {
    /// The table as its log says.
    pub state: State,
    /// Its live files, by path.
    pub files: Vec<Arc<DataFile>>,
    /// Chunks of many dates of which it holds the first ones: one a log at most, mostly none.
    begun: HashMap<String, Begun>,
}

impl Published {
    /// Publishes a state.
    pub fn new(state: State) -> Self {
        let mut files: Vec<_> = state.files.values().cloned().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let begun = Begun::all(&state);
        Self { state, files, begun }
    }

    /// The last UTC day of a chunk that this version holds, in days since 1970, where it holds a part of it.
    pub fn begun(&self, chunk: &HotChunk) -> Option<i64> {
        self.begun_as(&chunk.writer, chunk.seq)
    }

    /// As [`Self::begun`], of the chunk that an application's transactions call so.
    pub fn begun_as(&self, app: &str, seq: u64) -> Option<i64> {
        self.begun.get(app).filter(|begun| begun.seq == seq).map(|begun| begun.last_day)
    }

    /// The rows of a chunk that this version does not hold (A3).
    pub fn rest(&self, chunk: &HotChunk, rows: RecordBatch) -> RecordBatch {
        let Some(last_day) = self.begun(chunk) else { return rows };
        let times =
            rows.column_by_name("time_ns").expect("every row has its time").as_primitive::<Int64Type>();
        let is_left: BooleanArray =
            times.values().iter().map(|time_ns| Some(day_of(*time_ns) > last_day)).collect();
        filter_record_batch(&rows, &is_left).expect("as many verdicts as rows")
    }
}

/// Names of the tables that have something hot, in their order. Locked after a table's chunks where both are.
type Waiting = Arc<Mutex<BTreeSet<TableId>>>;

/// One table.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub id: TableId,
    /// What its rows are.
    pub kind: Kind,
    /// Its log in the store; held while committing: one committer a table and process.
    pub log: tokio::sync::Mutex<TableLog>,
    columns: ArcSwap<Columns>,
    growing: Mutex<()>,
    /// The schema of the last chunk: chunks of one shape share it, which is half of what a small one takes.
    shape: ArcSwap<Schema>,
    hot: Mutex<Vec<Arc<HotChunk>>>,
    waiting: Waiting,
    hot_rows: AtomicU64,
    hot_bytes: AtomicU64,
    published: ArcSwap<Published>,
}

impl Table {
    /// A table as its log says, with nothing hot.
    pub fn new(id: TableId, kind: Kind, log: TableLog, state: State) -> Result<Self> {
        let columns = state.columns()?.unwrap_or_else(|| Columns::new(kind));
        Ok(Self {
            id,
            kind,
            log: tokio::sync::Mutex::new(log),
            columns: ArcSwap::from_pointee(columns),
            growing: Mutex::new(()),
            shape: ArcSwap::from_pointee(Schema::empty()),
            hot: Mutex::new(Vec::new()),
            waiting: Waiting::default(),
            hot_rows: AtomicU64::new(0),
            hot_bytes: AtomicU64::new(0),
            published: ArcSwap::from_pointee(Published::new(state)),
        })
    }

    /// Makes a chunk fit the table, which may gain columns by it. Lock-free where it gains none.
    pub fn fit(&self, batch: RecordBatch) -> RecordBatch {
        let (fitted, added) = self.columns.load().fit(batch.clone());
        if added.is_empty() {
            return self.shaped(fitted);
        }
        let _growing = self.growing.lock().expect("no panic happens under this lock");
        let columns = self.columns.load_full();
        let (fitted, added) = columns.fit(batch);
        if !added.is_empty() {
            self.columns.store(Arc::new(columns.with_added(&added)));
        }
        self.shaped(fitted)
    }

    /// The chunk under the schema object of the last one, where both are equal.
    fn shaped(&self, batch: RecordBatch) -> RecordBatch {
        let last = self.shape.load_full();
        if *batch.schema_ref() != last {
            self.shape.store(batch.schema());
            return batch;
        }
        batch.with_schema(last).expect("the schemas are equal")
    }

    /// The table's columns, those of hot chunks included.
    pub fn columns(&self) -> Arc<Columns> {
        self.columns.load_full()
    }

    fn hot(&self) -> std::sync::MutexGuard<'_, Vec<Arc<HotChunk>>> {
        self.hot.lock().expect("no panic happens under this lock")
    }

    /// Makes an acknowledged chunk readable.
    pub fn push(&self, chunk: Arc<HotChunk>) {
        self.hot_rows.fetch_add(chunk.batch.num_rows() as u64, Ordering::Relaxed);
        self.hot_bytes.fetch_add(chunk.bytes(), Ordering::Relaxed);
        let mut hot = self.hot();
        if hot.is_empty() {
            self.waiting.lock().expect("no panic happens under this lock").insert(self.id.clone());
        }
        hot.push(chunk);
    }

    /// The chunks that wait, oldest first.
    pub fn waiting(&self) -> Vec<Arc<HotChunk>> {
        self.hot().clone()
    }

    /// Rows and bytes that wait, and when the oldest of them was appended.
    pub fn backlog(&self) -> (u64, u64, Option<i64>) {
        let oldest = self.hot().first().map(|chunk| chunk.appended_ns);
        (self.hot_rows.load(Ordering::Relaxed), self.hot_bytes.load(Ordering::Relaxed), oldest)
    }

    /// The version in force.
    pub fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Publishes a new version, then lets go of the chunks that it holds.
    pub fn publish(&self, state: State) {
        if faults::has(Bug::ForgetBeforePublish) {
            self.hot().retain(|chunk| chunk.seq > state.last_seq(&chunk.writer) + 1);
        }
        self.published.store(Arc::new(Published::new(state)));
        let published = self.published.load();
        let mut hot = self.hot();
        hot.retain(|chunk| {
            let is_in = chunk.seq <= published.state.last_seq(&chunk.writer);
            if is_in {
                self.hot_rows.fetch_sub(chunk.batch.num_rows() as u64, Ordering::Relaxed);
                self.hot_bytes.fetch_sub(chunk.bytes(), Ordering::Relaxed);
            }
            !is_in
        });
        if hot.is_empty() {
            self.waiting.lock().expect("no panic happens under this lock").remove(&self.id);
        }
    }

    /// The chunks and the version that together hold every acknowledged row once.
    pub fn consistent(&self) -> (Vec<Arc<HotChunk>>, Arc<Published>) {
        let mut hot = self.waiting();
        let published = self.published();
        hot.retain(|chunk| chunk.seq > published.state.last_seq(&chunk.writer));
        (hot, published)
    }

    /// A view for queries (Q1).
    pub fn snapshot(&self) -> Snapshot {
        let (hot, published) = self.consistent();
        let columns = self.columns();
        let hot = hot
            .iter()
            .map(|chunk| {
                let at = Coordinates { writer: &chunk.writer, first_seq: chunk.first_seq };
                // A3: a chunk that is half sealed is read where it is not.
                published.rest(chunk, to_rows(&chunk.batch, columns.schema(), at))
            })
            .collect();
        Snapshot {
            table: self.id.clone(),
            kind: self.kind,
            version: published.state.version,
            schema: Arc::clone(columns.schema()),
            files: published.files.clone(),
            hot,
        }
    }
}

/// Every table of the deployment.
#[derive(Debug, Default)]
pub struct Tables {
    by_id: RwLock<HashMap<TableId, Arc<Table>>>,
    waiting: Waiting,
}

impl Tables {
    /// The table of that name.
    pub fn get(&self, id: &TableId) -> Option<Arc<Table>> {
        self.by_id.read().expect("no panic happens under this lock").get(id).cloned()
    }

    /// Adds a table unless it is there; returns the one that is.
    ///
    /// # Errors
    /// `Kind::Conflict` when it is there with another kind.
    pub fn ensure(
        &self,
        id: &TableId,
        kind: Kind,
        make: impl FnOnce() -> Result<Table>,
    ) -> Result<Arc<Table>> {
        if let Some(table) = self.get(id) {
            return if table.kind == kind { Ok(table) } else { Err(clash(&table, kind)) };
        }
        let mut by_id = self.by_id.write().expect("no panic happens under this lock");
        if let Some(table) = by_id.get(id) {
            return if table.kind == kind { Ok(Arc::clone(table)) } else { Err(clash(table, kind)) };
        }
        let table = Arc::new(Table { waiting: Arc::clone(&self.waiting), ..make()? });
        by_id.insert(id.clone(), Arc::clone(&table));
        Ok(table)
    }

    /// The tables that have something hot, in order of name: at a cost of these alone.
    pub fn waiting(&self) -> Vec<Arc<Table>> {
        let waiting = self.waiting.lock().expect("no panic happens under this lock");
        let by_id = self.by_id.read().expect("no panic happens under this lock");
        waiting.iter().filter_map(|id| by_id.get(id).cloned()).collect()
    }

    /// Every table, in any order: what looks through thousands each second need not sort them.
    pub fn unordered(&self) -> Vec<Arc<Table>> {
        self.by_id.read().expect("no panic happens under this lock").values().cloned().collect()
    }

    /// Every table, in order of name.
    pub fn all(&self) -> Vec<Arc<Table>> {
        let mut tables = self.unordered();
        tables.sort_by(|a, b| a.id.cmp(&b.id));
        tables
    }
}

fn clash(table: &Table, wanted: Kind) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("dataset {} holds {}, not {}", table.id.dataset, table.kind.as_str(), wanted.as_str()),
    )
}
