//! Storage as a whole: opened once, shared by every lane and query.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use object_store::ObjectStore;
use tokio::sync::watch;

use crate::backup::{TableCopy, refuse_unfinished};
use crate::bucket_log::{self, BucketLog};
use crate::caretaker;
use crate::clock_trust::ClockTrust;
use crate::commit::{State, TableLog};
use crate::compact::look::Compaction;
use crate::disk::{Disk, LocalDisk, is_odd, open_regular};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::idempotency::Keys;
use crate::keeper;
use crate::latency::Measure;
use crate::memory::{BASE_BYTES, Memory, Pool};
use crate::options::Options;
use crate::policies::Policies;
use crate::reader::{LatencySnapshot, Proofs, Snapshot};
use crate::record::{Dataset, Kind, TableId, Tenant};
use crate::recovery::{self, attempt::Attempts};
use crate::reserve::Reserve;
use crate::seal::fold::unfolded;
use crate::seal::run::Tools;
use crate::sweep::run::Sweeper;
use crate::table::{Summary, Table, Tables};
use crate::wal::log::{Ledger, Log};
use crate::writer::Writer;

/// Everything that is kept: logs, hot buffers, tables.
#[derive(Debug)]
pub struct Storage {
    pub(crate) shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    /// The keeper's, the uploader's and the caretaker's threads.
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// Held as long as the process lives: one process a data folder (F21).
    _lock: Option<File>,
}

/// How far recovery is, for whoever waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    /// Bytes of log read.
    pub bytes_done: u64,
    /// Bytes of log to read.
    pub bytes_total: u64,
    /// Chunks that are in no table yet and serve from the hot buffer.
    pub chunks: u64,
    /// Their rows.
    pub rows: u64,
}

/// The state of one thing storage depends on.
#[derive(Clone, Debug)]
pub struct Check {
    /// `wal`, `object_store`, `disk`, `hot_buffer`.
    pub name: &'static str,
    /// Whether it works.
    pub is_ok: bool,
    /// In a few words, without payload.
    pub detail: String,
}

/// Running totals and levels, for `/metrics`.
#[derive(Debug, Default)]
pub struct Stats {
    /// Syncs of all logs.
    pub syncs: AtomicU64,
    /// Frames that those syncs made durable.
    pub synced_frames: AtomicU64,
    /// Seals that committed.
    pub seals: AtomicU64,
    /// Rows that seals committed.
    pub sealed_rows: AtomicU64,
    /// Seals that failed and are tried again.
    pub seal_failures: AtomicU64,
    /// Bytes of files that seals put.
    pub sealed_bytes: AtomicU64,
    /// Files that did not read back as they went in, encoded or put: none of them was committed.
    pub segment_mismatches: AtomicU64,
    /// Log segments trimmed.
    pub trimmed_segments: AtomicU64,
    /// Objects of frames put into the log in the bucket.
    pub log_objects: AtomicU64,
    /// Bytes of those frames.
    pub log_object_bytes: AtomicU64,
    /// Merges that committed.
    pub compactions: AtomicU64,
    /// Files that those merges replaced.
    pub compacted_files: AtomicU64,
    /// Bytes of files that merges read.
    pub compaction_read_bytes: AtomicU64,
    /// Bytes of files that merges put.
    pub compaction_written_bytes: AtomicU64,
    /// Merges that failed.
    pub compaction_failures: AtomicU64,
    /// Files that a merge found damaged, or otherwise not to be merged.
    pub damaged_files: AtomicU64,
    /// Frames of a newer build that the start left in the log.
    pub newer_frames: AtomicU64,
    /// Lines beside the logs that are no declared keys.
    pub broken_keys: AtomicU64,
    /// Chunks that the start did not measure, because measuring panicked or ended a start before.
    pub unmeasured_chunks: AtomicU64,
    /// Chunks of which the measurement was left out, because rolling it up ended the process before.
    pub unrolled_chunks: AtomicU64,
    /// CPU time of the caretaker's thread, nanoseconds.
    pub caretaker_cpu_ns: AtomicU64,
}

/// What lanes, keeper and queries share.
#[derive(Debug)]
pub struct Shared {
    pub(crate) options: Arc<Options>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) now: fn() -> i64,
    pub(crate) tables: Tables,
    pub(crate) keys: Keys,
    pub(crate) ledgers: Mutex<Vec<Arc<Ledger>>>,
    /// The log in the bucket, once it is taken over.
    pub(crate) bucket_log: OnceLock<BucketLog>,
    pub(crate) wal_bytes: Arc<AtomicU64>,
    /// Bytes of frames in the log in the bucket that are in no table yet.
    pub(crate) bucket_bytes: Arc<AtomicU64>,
    pub(crate) disk_is_full: AtomicBool,
    pub(crate) reserve: Reserve,
    /// The data folder's name among writers.
    pub(crate) node: Arc<str>,
    /// The name that this node's log in the bucket lies under.
    pub(crate) bucket_node: Arc<str>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) compaction: Compaction,
    /// The one budget of the process's memory (B1, X2).
    pub(crate) memory: Arc<Memory>,
    /// What a start and the roll-up are at.
    pub(crate) attempts: Arc<Attempts>,
    /// Which stored segments were proved, and which are damaged.
    pub(crate) proofs: Arc<Proofs>,
    pub(crate) tails: Mutex<HashMap<usize, recovery::Tail>>,
    pub(crate) policies: Policies,
    pub(crate) clock: ClockTrust,
    pub(crate) sweeper: tokio::sync::Mutex<Sweeper>,
    /// Held while a dataset is expired: one at a time, so that their memory does not add up.
    pub(crate) expiring: tokio::sync::Mutex<()>,
    poisoned: watch::Sender<bool>,
    /// The wall clock at the start, and when that was.
    started: (i64, tokio::time::Instant),
}

/// What storage stands on: this machine's, or a simulated one.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// Where the log lies.
    pub disk: Arc<dyn Disk>,
    /// Where tables and state lie.
    pub store: Arc<dyn ObjectStore>,
    /// Nanoseconds since 1970 UTC.
    pub now: fn() -> i64,
}

impl Stats {
    /// Bytes that seals and merges put over bytes that seals put: how often a row is written. 1 before the first.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        let sealed = self.sealed_bytes.load(Ordering::Relaxed);
        let merged = self.compaction_written_bytes.load(Ordering::Relaxed);
        if sealed == 0 { 1.0 } else { (sealed + merged) as f64 / sealed as f64 }
    }
}

impl Shared {
    /// Reads the tables of `store` and replays the log: everything, but nothing moves yet.
    pub(crate) async fn read(
        options: Options,
        world: World,
        measure: Measure,
        progress: impl Fn(Recovery),
    ) -> Result<Arc<Self>> {
        let World { disk, store, now } = world;
        let wal = options.data.join("wal");
        make_log_folder(&*disk, &options.data, &wal)?;
        let node = recovery::node(&*disk, &wal)?;
        let bucket_node = options.node.as_deref().map_or_else(|| Arc::clone(&node), Arc::from);
        let memory = Memory::new(options.memory_max, BASE_BYTES);
        let options = Arc::new(options.sized(&memory));
        let shared = Arc::new(Self {
            started: (now(), tokio::time::Instant::now()),
            keys: Keys::new(
                options.declared_key_secret.clone(),
                options.idempotency_keys_max,
                options.idempotency_bytes_max,
                options.idempotency_hours,
                Arc::clone(&memory),
            ),
            reserve: Reserve::open(&options.data, options.disk_reserve_bytes)?,
            tables: Tables::new(options.datasets_max),
            options,
            attempts: Arc::new(Attempts::open(&*disk, &wal)),
            disk,
            store,
            now,
            ledgers: Mutex::new(Vec::new()),
            bucket_log: OnceLock::new(),
            wal_bytes: Arc::new(AtomicU64::new(0)),
            bucket_bytes: Arc::new(AtomicU64::new(0)),
            disk_is_full: AtomicBool::new(false),
            bucket_node,
            node,
            stats: Arc::default(),
            compaction: Compaction::default(),
            memory,
            proofs: Arc::default(),
            tails: Mutex::new(HashMap::new()),
            policies: Policies::default(),
            // Tokio's clock is the system's, and a paused one in tests.
            clock: ClockTrust::new(now(), tokio::time::Instant::now().into_std()),
            sweeper: tokio::sync::Mutex::default(),
            expiring: tokio::sync::Mutex::default(),
            poisoned: watch::Sender::new(false),
        });
        recovery::read_tables(&shared).await?;
        if shared.options.salvage {
            recovery::salvage(&shared, &wal)?;
        }
        recovery::replay_all(&shared, &wal, measure, progress).await?;
        Ok(shared)
    }

    /// The table of that name, made on first use.
    ///
    /// # Errors
    /// `Kind::Conflict` when it holds another kind of rows, `Kind::Full` when the tenant has too many, `Kind::Newer` when
    /// it is left alone.
    pub(crate) fn table(&self, id: &TableId, kind: Kind) -> Result<Arc<Table>> {
        self.tables.ensure_new(id, kind, || self.new_table(id, kind))
    }

    /// The table that rows of a log belong to: they were acknowledged, however many tables there are.
    pub(crate) fn logged_table(&self, id: &TableId, kind: Kind) -> Result<Arc<Table>> {
        self.tables.ensure(id, kind, || self.new_table(id, kind))
    }

    fn new_table(&self, id: &TableId, kind: Kind) -> Result<Table> {
        let log = TableLog::new(Arc::clone(&self.store), id.prefix());
        Table::new(id.clone(), kind, log, State::empty(), &self.memory)
    }

    /// Leaves a table alone, and counts it.
    pub(crate) fn leave_alone(&self, id: &TableId, why: &str) {
        self.tables.leave(id, why);
    }

    /// The log in the bucket.
    pub(crate) fn bucket_log(&self) -> &BucketLog {
        self.bucket_log.get().expect("it is taken over before anything is served")
    }

    /// The wall clock of the start and the time since, nanoseconds since 1970 UTC: it does not jump. What waits and
    /// what is remembered ages by it (F19, F27).
    pub(crate) fn steady_ns(&self) -> i64 {
        let (wall_ns, at) = self.started;
        wall_ns.saturating_add(i64::try_from(at.elapsed().as_nanos()).unwrap_or(i64::MAX))
    }

    /// Whether a budget of the disk is full: no tenant's chunk is taken. Memory has a share for each.
    pub(crate) fn is_full(&self) -> bool {
        // The segment that a lane would open next must still be within the budget.
        let wal = self.wal_bytes.load(Ordering::Relaxed) + self.options.wal_segment_bytes;
        wal > self.options.wal_bytes_max
            || self.bucket_bytes.load(Ordering::Relaxed) >= self.options.wal_bytes_max
            || self.disk_is_full.load(Ordering::Relaxed)
            || !self.reserve.is_held()
    }

    /// W3: says that the process must exit and replay.
    pub(crate) fn poison(&self, error: &dyn std::fmt::Display) {
        tracing::error!(%error, "the log cannot go on: exiting, the next start replays it");
        self.poisoned.send_replace(true);
    }

    pub(crate) fn tools(&self) -> Tools {
        Tools {
            store: Arc::clone(&self.store),
            options: Arc::clone(&self.options),
            rollup_writer: format!("{}-rollup", self.node).into(),
            stats: Arc::clone(&self.stats),
            memory: Arc::clone(&self.memory),
            attempts: Arc::clone(&self.attempts),
        }
    }
}

impl Storage {
    /// Opens the data folder: locks it, reads the tables, replays the log, starts background work.
    ///
    /// `measure` is applied to replayed chunks; `now` gives nanoseconds since 1970 UTC; `progress` is called
    /// as the log is read.
    ///
    /// # Errors
    /// `Kind::Conflict` when another process holds the folder, `Kind::Corrupt` naming file and offset,
    /// `Kind::Unavailable` when folder or bucket do not answer.
    pub async fn open(
        options: Options,
        measure: Measure,
        now: fn() -> i64,
        progress: impl Fn(Recovery),
    ) -> Result<Arc<Self>> {
        refuse_unfinished(&options.data)?;
        Self::open_restored(options, measure, now, progress).await
    }

    /// As [`Self::open`], of a data folder that is being restored too.
    pub(crate) async fn open_restored(
        options: Options,
        measure: Measure,
        now: fn() -> i64,
        progress: impl Fn(Recovery),
    ) -> Result<Arc<Self>> {
        options.validate()?;
        let lock = lock(&options.data)?;
        let store = crate::store::open(&options)?;
        let world = World { disk: Arc::new(LocalDisk), store, now };
        let storage = Self::recover(options, world, Some(lock), measure, progress).await?;
        let (shared, stopped) = (Arc::clone(&storage.shared), storage.stop.subscribe());
        let keeper = keeper::start(Arc::clone(&shared), stopped.clone())?;
        let uploader = bucket_log::start(Arc::clone(&shared), stopped.clone())?;
        let caretaker = caretaker::start(shared, stopped)?;
        storage.threads().extend([keeper, uploader, caretaker]);
        Ok(storage)
    }

    /// Reads the tables and replays the log; starts nothing in the background.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn recover(
        options: Options,
        world: World,
        lock: Option<File>,
        measure: Measure,
        progress: impl Fn(Recovery),
    ) -> Result<Arc<Self>> {
        let shared = Shared::read(options, world, measure, progress).await?;
        keeper::watch_disk(&shared);
        let stop = watch::Sender::new(false);
        Ok(Arc::new(Self { shared, stop, threads: Mutex::default(), _lock: lock }))
    }

    /// What its parts share, for a world that runs them itself.
    #[cfg(test)]
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Whether the process would have exited.
    #[cfg(test)]
    pub(crate) fn is_poisoned(&self) -> bool {
        *self.shared.poisoned.borrow()
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<std::thread::JoinHandle<()>>> {
        self.threads.lock().expect("no panic happens under this lock")
    }

    /// Opens the log of lane `index`; call it once a lane, on the lane's own thread, inside its `LocalSet`.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the log's folder or thread cannot be made.
    pub fn writer(self: &Arc<Self>, index: usize) -> Result<Writer> {
        let shared = Arc::clone(&self.shared);
        let folder = shared.options.data.join("wal").join(index.to_string());
        make_log_folder(&*shared.disk, &shared.options.data.join("wal"), &folder)?;
        let writer: Arc<str> = recovery::writer_name(&shared.node, index).into();
        let tail = shared.tails.lock().expect("no panic happens under this lock").remove(&index);
        let tail = tail.unwrap_or_else(|| recovery::Tail::fresh(&shared, &folder, &writer));
        let bytes = shared.options.wal_segment_bytes;
        let log = Log::new(tail.ledger, tail.last_segment, tail.last_seq, tail.epoch + 1, bytes);
        Writer::open(shared, log, tail.next_rows)
    }

    /// Makes sure a dataset of that kind exists (built-in ones appear by themselves on first use).
    ///
    /// # Errors
    /// `Kind::Conflict` when it exists with another kind.
    pub fn ensure_dataset(&self, table: &TableId, kind: Kind) -> Result<()> {
        self.shared.table(table, kind).map(drop)
    }

    /// The tenant's datasets that hold or held something, and what they hold.
    #[must_use]
    pub fn datasets(&self, tenant: &Tenant) -> Vec<(Dataset, Kind)> {
        let tables = self.shared.tables.of(tenant);
        tables.iter().map(|table| (table.id.dataset.clone(), table.kind)).collect()
    }

    /// Why a dataset is left alone, where it is: a newer build wrote it, or it is damaged and was given up.
    #[must_use]
    pub fn why_left_alone(&self, table: &TableId) -> Option<String> {
        self.shared.tables.why_left(table)
    }

    /// The tenant's datasets that are left alone, each with the reason.
    #[must_use]
    pub fn left_alone(&self, tenant: &Tenant) -> Vec<(Dataset, String)> {
        let left_alone = self.shared.tables.left_alone();
        let own = left_alone.into_iter().filter(|(table, _)| table.tenant == *tenant);
        own.map(|(table, why)| (table.dataset, why)).collect()
    }

    /// What the start passed over, by what it is: `frames` of the log and `tables` that a newer build wrote, `keys` that do
    /// not read, `measure` and `roll_up` that ended a start before.
    #[must_use]
    pub fn passed_over(&self) -> [(&'static str, u64); 5] {
        let stats = &self.shared.stats;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("frames", load(&stats.newer_frames)),
            ("tables", self.shared.tables.left_alone().len() as u64),
            ("keys", load(&stats.broken_keys)),
            ("measure", load(&stats.unmeasured_chunks)),
            ("roll_up", load(&stats.unrolled_chunks)),
        ]
    }

    /// A consistent view of one table; `None` where the tenant has no such dataset.
    #[must_use]
    pub fn snapshot(&self, table: &TableId) -> Option<Snapshot> {
        self.shared.tables.get(table).map(|table| table.snapshot())
    }

    /// A consistent view of a tenant's latency.
    #[must_use]
    pub fn latency(&self, tenant: &Tenant) -> LatencySnapshot {
        // Hot first, version after: see `table.rs`.
        let waiting: Vec<_> = self
            .shared
            .tables
            .of(tenant)
            .into_iter()
            .filter(|table| is_measured(table.kind))
            .map(|table| (table.id.dataset.clone(), table.waiting()))
            .collect();
        let latency = self.shared.tables.get(&latency_of(tenant));
        let published = latency.as_ref().map(|table| table.published());
        let hot = waiting
            .into_iter()
            .flat_map(|(dataset, chunks)| chunks.into_iter().map(move |chunk| (dataset.clone(), chunk)))
            .filter_map(|(dataset, chunk)| match &published {
                Some(published) => unfolded(published, &chunk, dataset.as_str()),
                None => Some(Arc::clone(&chunk.measurement)),
            })
            .collect();
        let stored = latency.zip(published).map(|(table, published)| Snapshot {
            table: table.id.clone(),
            kind: Kind::Latency,
            version: published.state.version,
            schema: Arc::clone(table.columns().schema()),
            files: published.files().cloned().collect(),
            hot: Vec::new(),
        });
        LatencySnapshot { stored, hot }
    }

    /// The one budget of the process's memory: whoever allocates by what a client sent takes from it before.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.shared.memory
    }

    /// The object store, rooted at the deployment.
    #[must_use]
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.shared.store)
    }

    /// What is known of the segments that reads proved, or found damaged.
    #[must_use]
    pub fn proofs(&self) -> &Arc<Proofs> {
        &self.shared.proofs
    }

    /// Seals and commits everything acknowledged so far; returns how many rows when it is in the tables.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the object store does not take it; nothing is lost.
    pub async fn flush(&self) -> Result<u64> {
        keeper::flush(&self.shared).await
    }

    /// The state of what storage depends on, measured now.
    pub async fn checks(&self) -> Vec<Check> {
        keeper::checks(&self.shared).await
    }

    /// Running totals.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Levels of the moment; those of compaction as the caretaker last found them, at most seconds ago.
    #[must_use]
    pub fn levels(&self) -> Levels {
        let tables = self.shared.tables.all();
        Levels {
            wal_bytes: self.shared.wal_bytes.load(Ordering::Relaxed),
            bucket_bytes: self.shared.bucket_bytes.load(Ordering::Relaxed),
            hot_bytes: self.shared.memory.used(Pool::Hot),
            hot_rows: tables.iter().map(|table| table.backlog().0).sum(),
            tables: tables.len() as u64,
            files: tables.iter().map(|table| table.summary().files).sum(),
            files_waiting: self.shared.compaction.files_waiting.load(Ordering::Relaxed),
            partition_files_max: self.shared.compaction.partition_files_max.load(Ordering::Relaxed),
        }
    }

    /// Every table that has a version: its name, version, rows and bytes.
    pub(crate) fn versions(&self) -> Vec<TableCopy> {
        let tables = self.shared.tables.all();
        let copies = tables.iter().filter_map(|table| {
            let Summary { version, rows, bytes, .. } = table.summary();
            Some(TableCopy { table: table.id.to_string(), version: version?, rows, bytes })
        });
        copies.collect()
    }

    /// Returns once a sync has failed: the process must exit with 70 and replay (W3).
    pub async fn poisoned(&self) {
        let mut poisoned = self.shared.poisoned.subscribe();
        // The sender lives as long as `self`.
        let _ = poisoned.wait_for(|is_poisoned| *is_poisoned).await;
    }

    /// Stops background work. Acknowledged rows are safe without it, in the log.
    pub async fn close(&self) {
        self.stop.send_replace(true);
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Levels of the moment, for `/metrics`.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    /// Bytes that log segments take on the disk.
    pub wal_bytes: u64,
    /// Bytes of frames in this node's log in the bucket that are in no table yet.
    pub bucket_bytes: u64,
    /// Bytes of chunks that wait to be sealed.
    pub hot_bytes: u64,
    /// Rows that wait to be sealed.
    pub hot_rows: u64,
    /// Tables of all tenants.
    pub tables: u64,
    /// Live files of all tables.
    pub files: u64,
    /// Of them, those that wait to be merged.
    pub files_waiting: u64,
    /// Live files of the date of a table that has the most.
    pub partition_files_max: u64,
}

/// Whether rows of this kind have durations that the latency table keeps.
pub(crate) fn is_measured(kind: Kind) -> bool {
    matches!(kind, Kind::Spans | Kind::Events | Kind::Audit)
}

/// The table of a tenant's latency.
pub(crate) fn latency_of(tenant: &Tenant) -> TableId {
    TableId::new(tenant.clone(), Dataset::built_in(Kind::Latency))
}

/// Makes a folder of the log, durably.
fn make_log_folder(disk: &dyn Disk, parent: &Path, folder: &Path) -> Result<()> {
    disk.make_folder(folder)
        .and_then(|()| disk.sync_folder(parent))
        .map_err(|error| Error::new(ErrorKind::Unavailable, "log folder cannot be made").with_source(error))
}

/// Locks the data folder for this process.
fn lock(data: &Path) -> Result<File> {
    let failed =
        |error| Error::new(ErrorKind::Unavailable, "data folder cannot be opened").with_source(error);
    std::fs::create_dir_all(data).map_err(failed)?;
    let path = data.join("lock");
    let file = open_regular(&path, File::options().create(true).truncate(false).write(true));
    let file = file.map_err(|error| odd_or(&path, error, failed))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Conflict,
            "another process holds the data folder: stop it, or choose another with --data",
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The error that names a file of ours in the place of which stands something else; what `failed` says of another error.
pub(crate) fn odd_or(path: &Path, error: std::io::Error, failed: impl Fn(std::io::Error) -> Error) -> Error {
    if !is_odd(&error) {
        return failed(error);
    }
    let text =
        format!("{} is no regular file: a link or a pipe is not followed; move it away", path.display());
    Error::new(ErrorKind::Corrupt, text)
}

#[cfg(test)]
mod tests;
