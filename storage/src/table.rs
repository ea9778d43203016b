//! One table in memory: its columns, its hot chunks, and the version the store holds.
//!
//! The order that keeps every row in exactly one place (A3): a snapshot takes the hot chunks first and the
//! version after; a seal publishes the version first and removes the chunks after. Whatever happens between,
//! a chunk is left out exactly when the version's transactions say that it is in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arc_swap::ArcSwap;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema};

use crate::commit::{State, TableLog};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults::{self, Bug};
use crate::hot::HotChunk;
use crate::memory::{Memory, Pool};
use crate::reader::{DataFile, HotRows, Snapshot};
use crate::record::fit::Columns;
use crate::record::{Dataset, Kind, TableId, Tenant};
use crate::seal::dates::{Begun, Days, day_of, days_of};

mod place;

pub use place::{Place, Summary};

/// A published version: what a snapshot reads.
#[derive(Debug)]
pub struct Published {
    /// The table as its log says.
    pub state: State,
    /// Chunks of many dates of which it holds the first ones: one a log at most, mostly none.
    begun: HashMap<String, Begun>,
}

impl Published {
    /// Bytes of memory that it takes, about.
    fn held_bytes(&self) -> usize {
        self.state.held_bytes()
    }

    /// Publishes a state.
    pub fn new(state: State) -> Self {
        let begun = Begun::all(&state);
        Self { state, begun }
    }

    /// Its live files.
    pub fn files(&self) -> impl Iterator<Item = &Arc<DataFile>> {
        self.state.files.iter()
    }

    /// The last UTC day of a chunk that this version holds, in days since 1970, where it holds a part of it.
    pub fn begun(&self, chunk: &HotChunk) -> Option<i64> {
        self.begun_as(&chunk.writer, chunk.seq)
    }

    /// As [`Self::begun`], of the chunk that an application's transactions call so.
    pub fn begun_as(&self, app: &str, seq: u64) -> Option<i64> {
        self.begun.get(app).filter(|begun| begun.seq == seq).map(|begun| begun.last_day)
    }

    /// Which rows of a chunk this version does not hold (A3); `None` where it holds none.
    pub fn rest(&self, chunk: &HotChunk) -> Option<BooleanArray> {
        let last_day = self.begun(chunk)?;
        let times = chunk.batch.column_by_name("time_ns").expect("every chunk has its times");
        let times = times.as_primitive::<Int64Type>().values().iter();
        Some(times.map(|time_ns| Some(day_of(*time_ns) > last_day)).collect())
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
    pushed: AtomicU64,
    hot_rows: AtomicU64,
    hot_bytes: AtomicU64,
    /// Locked after the chunks where both are.
    hot_days: Mutex<Days>,
    published: Place,
}

impl Table {
    /// A table as its log says, with nothing hot. What is known of it is counted in `memory`.
    pub fn new(id: TableId, kind: Kind, log: TableLog, state: State, memory: &Arc<Memory>) -> Result<Self> {
        let columns = state.columns()?.unwrap_or_else(|| Columns::new(kind));
        let charge = memory.count(Pool::Tables, Some(&id.tenant), 0);
        Ok(Self {
            id,
            kind,
            log: tokio::sync::Mutex::new(log),
            columns: ArcSwap::from_pointee(columns),
            growing: Mutex::new(()),
            shape: ArcSwap::from_pointee(Schema::empty()),
            hot: Mutex::new(Vec::new()),
            waiting: Waiting::default(),
            pushed: AtomicU64::new(0),
            hot_rows: AtomicU64::new(0),
            hot_bytes: AtomicU64::new(0),
            hot_days: Mutex::default(),
            published: Place::new(Published::new(state), charge),
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

    fn hot(&self) -> MutexGuard<'_, Vec<Arc<HotChunk>>> {
        self.hot.lock().expect("no panic happens under this lock")
    }

    /// Whether its version rests.
    #[cfg(test)]
    pub fn rests(&self) -> bool {
        self.published.rests()
    }

    /// Whether it holds what is made for the next chunk.
    #[cfg(test)]
    pub fn expects_chunks(&self) -> bool {
        !self.shape.load().fields().is_empty() || self.columns.load().at_rest().is_some()
    }

    fn hot_days(&self) -> MutexGuard<'_, Days> {
        self.hot_days.lock().expect("no panic happens under this lock")
    }

    /// The UTC days of what waits.
    pub fn days_waiting(&self) -> usize {
        self.hot_days().count()
    }

    /// Makes an acknowledged chunk readable.
    pub fn push(&self, chunk: Arc<HotChunk>) {
        let days = days_of(&chunk.batch);
        self.pushed.fetch_add(1, Ordering::Relaxed);
        self.hot_rows.fetch_add(chunk.batch.num_rows() as u64, Ordering::Relaxed);
        self.hot_bytes.fetch_add(chunk.bytes(), Ordering::Relaxed);
        let mut hot = self.hot();
        if hot.is_empty() {
            self.waiting.lock().expect("no panic happens under this lock").insert(self.id.clone());
        }
        self.hot_days().add(&days);
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

    /// Chunks that came since the start. Without the chunks' lock, as [`Self::look`].
    pub fn pushed(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed)
    }

    /// The version in force, with its files; wakes it where it rests.
    pub fn published(&self) -> Arc<Published> {
        self.published.published()
    }

    /// The number of the version in force; `None` before the first.
    pub fn version(&self) -> Option<i64> {
        self.published.told(|state| state.version)
    }

    /// The last frame of log `writer` that the version in force holds; 0 where it holds none.
    pub fn last_seq(&self, writer: &str) -> u64 {
        self.published.told(|state| state.last_seq(writer))
    }

    /// What is told of the version in force, without waking it.
    pub fn summary(&self) -> Summary {
        self.published.summary()
    }

    /// Looks whether anybody used the version; puts it at rest where nobody did for a while, or since the last look where
    /// memory for tables `is_short`. Returns whether it went to rest now.
    pub fn look(&self, is_short: bool) -> bool {
        // Without the chunks' lock: whoever looks is of the lowest priority, and who adds a chunk must not wait for it.
        if self.hot_rows.load(Ordering::Relaxed) > 0 {
            return false;
        }
        let rests_now = self.published.look(is_short);
        if self.published.is_unused() {
            self.forget_chunks();
        }
        rests_now
    }

    /// Lets go of what is known for the next chunk and is made again with it: hundreds of names of a wide table.
    fn forget_chunks(&self) {
        if !self.shape.load().fields().is_empty() {
            self.shape.store(Arc::new(Schema::empty()));
        }
        // Without the lock, for the same reason as in `look`. Where columns were added meanwhile, those stay.
        let columns = self.columns.load();
        if let Some(at_rest) = columns.at_rest() {
            self.columns.compare_and_swap(&*columns, Arc::new(at_rest));
        }
    }

    /// Publishes a new version, then lets go of the chunks that it holds.
    pub fn publish(&self, state: State) {
        if faults::has(Bug::ForgetBeforePublish) {
            self.hot().retain(|chunk| chunk.seq > state.last_seq(&chunk.writer) + 1);
        }
        self.published.publish(Published::new(state));
        let published = self.published();
        let mut hot = self.hot();
        hot.retain(|chunk| {
            let is_in = chunk.seq <= published.state.last_seq(&chunk.writer);
            if is_in {
                self.hot_rows.fetch_sub(chunk.batch.num_rows() as u64, Ordering::Relaxed);
                self.hot_bytes.fetch_sub(chunk.bytes(), Ordering::Relaxed);
                self.hot_days().remove(&days_of(&chunk.batch));
            }
            !is_in
        });
        if hot.is_empty() {
            // Room for thousands of small chunks goes with them.
            *hot = Vec::new();
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

    /// A view for queries (Q1): chunks and files are shared, not copied.
    pub fn snapshot(&self) -> Snapshot {
        let (hot, published) = self.consistent();
        // The columns after the chunks: what a chunk has is among them.
        let columns = self.columns();
        // A3: a chunk that is half sealed is read where it is not.
        let rest = |chunk: Arc<HotChunk>| {
            let left = published.rest(&chunk);
            HotRows::of(chunk, left)
        };
        let hot = hot.into_iter().map(rest).collect();
        Snapshot {
            table: self.id.clone(),
            kind: self.kind,
            version: published.state.version,
            schema: Arc::clone(columns.schema()),
            files: published.files().cloned().collect(),
            hot,
        }
    }
}

/// Every table of the deployment.
#[derive(Debug, Default)]
pub struct Tables {
    /// Replaced as a whole by whoever adds one, which is rare: no thread holds it while others want it. Background work of
    /// the lowest priority looks through it, and on a busy machine would hold a lock for seconds.
    by_id: ArcSwap<BTreeMap<TableId, Arc<Table>>>,
    /// Held while one is added or left.
    changing: Mutex<()>,
    /// Tables that a newer build wrote, or that are damaged and were given up, each with the reason: nothing is read of
    /// them, written to them or removed from them, and the log keeps what it holds of them.
    left_alone: RwLock<HashMap<TableId, String>>,
    waiting: Waiting,
    /// Tables that one tenant may have; those that are there already stay.
    per_tenant_max: usize,
}

impl Tables {
    /// No tables yet, and at most so many for a tenant.
    pub fn new(per_tenant_max: usize) -> Self {
        Self { per_tenant_max, ..Self::default() }
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        // Whoever panicked under it, making a table of what a client named, has changed nothing: the map is stored last.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a table alone from now on, and lets go of its chunks.
    pub fn leave(&self, id: &TableId, why: &str) {
        let mut left_alone = self.left_alone.write().expect("no panic happens under this lock");
        if left_alone.insert(id.clone(), why.to_owned()).is_none() {
            tracing::error!(table = %id, why, "this table is left alone");
        }
        self.waiting.lock().expect("no panic happens under this lock").remove(id);
        let _changing = self.changing();
        let mut by_id = BTreeMap::clone(&self.by_id.load());
        by_id.remove(id);
        self.by_id.store(Arc::new(by_id));
    }

    /// Why a table is left alone, where it is.
    pub fn why_left(&self, id: &TableId) -> Option<String> {
        self.left_alone.read().expect("no panic happens under this lock").get(id).cloned()
    }

    /// The tables that are left alone, each with the reason.
    pub fn left_alone(&self) -> Vec<(TableId, String)> {
        let left_alone = self.left_alone.read().expect("no panic happens under this lock");
        left_alone.iter().map(|(id, why)| (id.clone(), why.clone())).collect()
    }

    /// The table of that name.
    pub fn get(&self, id: &TableId) -> Option<Arc<Table>> {
        self.by_id.load().get(id).cloned()
    }

    /// Adds the tables that the store has, all at once; there are none before.
    pub fn fill(&self, tables: Vec<Table>) {
        let _changing = self.changing();
        let mut by_id = BTreeMap::clone(&self.by_id.load());
        for table in tables {
            by_id.insert(table.id.clone(), Arc::new(Table { waiting: Arc::clone(&self.waiting), ..table }));
        }
        self.by_id.store(Arc::new(by_id));
    }

    /// Adds a table that the store or a log has, unless it is there; returns the one that is.
    ///
    /// # Errors
    /// `Kind::Conflict` when it is there with another kind; `Kind::Newer` when it is left alone.
    pub fn ensure(
        &self,
        id: &TableId,
        kind: Kind,
        make: impl FnOnce() -> Result<Table>,
    ) -> Result<Arc<Table>> {
        self.add(id, kind, usize::MAX, make)
    }

    /// As [`Self::ensure`], of a table that a client may name as it likes.
    ///
    /// # Errors
    /// As [`Self::ensure`], and `Kind::Full` where the tenant has as many tables as one may have. Those of the built-in
    /// names do not count: the tenant's own data always has a place.
    pub fn ensure_new(
        &self,
        id: &TableId,
        kind: Kind,
        make: impl FnOnce() -> Result<Table>,
    ) -> Result<Arc<Table>> {
        let is_built_in = Kind::ALL.into_iter().any(|kind| Dataset::built_in(kind) == id.dataset);
        self.add(id, kind, if is_built_in { usize::MAX } else { self.per_tenant_max }, make)
    }

    fn add(
        &self,
        id: &TableId,
        kind: Kind,
        per_tenant_max: usize,
        make: impl FnOnce() -> Result<Table>,
    ) -> Result<Arc<Table>> {
        if let Some(table) = self.get(id) {
            return if table.kind == kind { Ok(table) } else { Err(clash(&table, kind)) };
        }
        if let Some(why) = self.why_left(id) {
            let text = format!("dataset {} is left alone: {why}", id.dataset);
            return Err(Error::new(ErrorKind::Newer, text));
        }
        let _changing = self.changing();
        let by_id = self.by_id.load();
        if let Some(table) = by_id.get(id) {
            return if table.kind == kind { Ok(Arc::clone(table)) } else { Err(clash(table, kind)) };
        }
        // A new table is rare: its commits cost more than this look at all.
        if by_id.len() >= per_tenant_max
            && by_id.keys().filter(|other| other.tenant == id.tenant).count() >= per_tenant_max
        {
            let text = format!(
                "the tenant has {per_tenant_max} datasets, which is the most (storage.datasets_max): send to one that \
                 is there, and tell sources apart by an attribute"
            );
            return Err(Error::new(ErrorKind::Full, text));
        }
        let table = Arc::new(Table { waiting: Arc::clone(&self.waiting), ..make()? });
        let mut more = BTreeMap::clone(&by_id);
        more.insert(id.clone(), Arc::clone(&table));
        self.by_id.store(Arc::new(more));
        Ok(table)
    }

    /// The tables that have something hot, in order of name: at a cost of these alone.
    pub fn waiting(&self) -> Vec<Arc<Table>> {
        let waiting = self.waiting.lock().expect("no panic happens under this lock");
        let by_id = self.by_id.load();
        waiting.iter().filter_map(|id| by_id.get(id).cloned()).collect()
    }

    /// A tenant's tables, in order of name: at a cost of these alone.
    pub fn of(&self, tenant: &Tenant) -> Vec<Arc<Table>> {
        let by_id = self.by_id.load();
        let from = by_id.range(TableId::first_of(tenant)..);
        from.take_while(|(id, _)| id.tenant == *tenant).map(|(_, table)| Arc::clone(table)).collect()
    }

    /// The UTC days of what waits in a tenant's tables, counted table by table.
    pub fn days_waiting(&self, tenant: &Tenant) -> usize {
        self.of(tenant).iter().map(|table| table.days_waiting()).sum()
    }

    /// Every table, in order of name.
    pub fn all(&self) -> Vec<Arc<Table>> {
        self.by_id.load().values().cloned().collect()
    }
}

fn clash(table: &Table, wanted: Kind) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("dataset {} holds {}, not {}", table.id.dataset, table.kind.as_str(), wanted.as_str()),
    )
}
