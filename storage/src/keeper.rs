//! Background work: sealing what is due, trimming logs, watching the disk.
//!
//! Runs on a thread and runtime of its own, below the lanes: ingest keeps its latency whatever happens here
//! (X1). Nothing is lost when it stops; it only falls behind, and pressure then refuses ingest (B1).

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::cores;
use crate::deployment::{Check, Shared, is_measured, latency_of};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::hot::HotChunk;
use crate::memory::Pool;
use crate::options::{Options, WalPlace};
use crate::record::{Kind, Tenant};
use crate::seal::dates::{DAYS_MAX, SEAL_DATES_MAX};
use crate::seal::plan::{Backlog, Budget, due};
use crate::seal::run::{seal, seal_together};
use crate::store;
use crate::table::Table;

/// How often the keeper looks. Chosen: a fifth of the shortest seal age that makes sense.
const ROUND: Duration = Duration::from_millis(200);

/// How long a dependency may take to answer a readiness check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a thread for blocking calls outlives its last one: while it lives, what it freed is kept for it.
const BLOCKING_IDLE: Duration = Duration::from_secs(2);

/// Threads for blocking calls of one background thread at most: each keeps some of what it freed. Chosen: as many syncs
/// as a disk takes together, and files beside them that are encoded.
pub const BLOCKING_THREADS: usize = 8;

/// Tables that one tenant has sealed in its turn: then it is another tenant's (X2).
pub const TURN_TABLES_MAX: usize = 16;

/// The runtime of one background thread: what it frees goes back to the system when it rests, and its threads for
/// blocking calls give way to writes.
///
/// # Errors
/// As the system says.
pub(crate) fn runtime(options: &Options) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .on_thread_park(options.at_rest)
        .on_thread_start(cores::give_way)
        .on_thread_stop(cores::end)
        .thread_keep_alive(BLOCKING_IDLE)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
}

/// Starts the keeper's thread; it ends when `stopped` turns true.
///
/// # Errors
/// `Kind::Unavailable` when no thread or runtime can be made.
pub fn start(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) -> Result<std::thread::JoinHandle<()>> {
    let unavailable =
        |error| Error::new(ErrorKind::Unavailable, "no thread for background work").with_source(error);
    let runtime = runtime(&shared.options).map_err(unavailable)?;
    std::thread::Builder::new()
        .name("keeper".into())
        .spawn(move || {
            cores::give_way();
            runtime.block_on(run(&shared, &mut stopped));
        })
        .map_err(unavailable)
}

/// Keeps house until `stopped` turns true.
pub async fn run(shared: &Shared, stopped: &mut watch::Receiver<bool>) {
    let mut budget = Budget::full(shared.options.seal_commits_per_minute);
    let mut pause = ROUND;
    while !*stopped.borrow() {
        if pause > ROUND && !answers(shared).await {
            watch_disk(shared);
            pause = (pause * 2).min(longest_pause(shared));
            let _ = tokio::time::timeout(pause, stopped.changed()).await;
            continue;
        }
        let before = (shared.stats.seals.load(Ordering::Relaxed), failures(shared));
        // A panic ends a round, not the keeper: what was not sealed is tried again.
        let ended = AssertUnwindSafe(round(shared, &mut budget)).catch_unwind().await;
        if ended.is_err() {
            shared.stats.seal_failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a round of sealing panicked");
        }
        // A store that is away is not asked five times a second: what waits would be encoded each time.
        let is_in_vain =
            shared.stats.seals.load(Ordering::Relaxed) == before.0 && failures(shared) > before.1;
        pause = if is_in_vain { (pause * 2).min(longest_pause(shared)) } else { ROUND };
        if !is_in_vain && ended.unwrap_or(false) {
            // Somebody's turn was too short for what waits: the next one follows at once.
            continue;
        }
        let _ = tokio::time::timeout(pause, stopped.changed()).await;
    }
}

/// Whether the store says anything at all, asked for next to nothing: a full disk answers, a bucket that is away
/// does not.
async fn answers(shared: &Shared) -> bool {
    let path = ObjectPath::from("system/master.json");
    let asked = shared.store.head(&path);
    matches!(
        tokio::time::timeout(CHECK_TIMEOUT, asked).await,
        Ok(Ok(_) | Err(object_store::Error::NotFound { .. }))
    )
}

fn failures(shared: &Shared) -> u64 {
    shared.stats.seal_failures.load(Ordering::Relaxed)
}

/// How long the keeper rests at most after rounds in vain: a full disk is to be left within two seconds of there
/// being room, a bucket is asked every half minute.
fn longest_pause(shared: &Shared) -> Duration {
    if store::local_root(&shared.options).is_some() {
        Duration::from_secs(1)
    } else {
        Duration::from_secs(30)
    }
}

/// One look at what waits, and what is due of it sealed, one bounded turn a tenant (X2). Its cost is that of the tables
/// with something hot. Returns whether a turn was too short for what was due.
pub(crate) async fn round(shared: &Shared, budget: &mut Budget) -> bool {
    watch_disk(shared);
    let tables = shared.tables.waiting();
    let backlogs: Vec<Backlog<'_>> = tables
        .iter()
        .map(|table| {
            let (rows, bytes, oldest_ns) = table.backlog();
            Backlog { tenant: &table.id.tenant, is_measured: is_measured(table.kind), rows, bytes, oldest_ns }
        })
        .collect();
    let mut sealed_any = false;
    let log_bytes = shared.wal_bytes.load(Ordering::Relaxed).max(shared.bucket_bytes.load(Ordering::Relaxed));
    let is_log_long = log_bytes > shared.options.wal_bytes_max / 2;
    let now_ns = shared.steady_ns();
    budget.refill(now_ns);
    let hot_max = shared.memory.max(Pool::Hot);
    let mut has_more = false;
    for mut places in due(&backlogs, hot_max, is_log_long, &shared.options, budget, now_ns) {
        has_more |= places.len() > TURN_TABLES_MAX;
        places.truncate(TURN_TABLES_MAX);
        places.sort_unstable();
        let group: Vec<&Table> = places.iter().map(|at| &*tables[*at]).collect();
        budget.served(&group[0].id.tenant);
        let (sealed, is_short) = seal_group(shared, &group, budget).await;
        sealed_any |= sealed;
        has_more |= sealed && is_short;
    }
    // On a full disk trimming may have failed when nothing is left to seal.
    if sealed_any || shared.disk_is_full.load(Ordering::Relaxed) || !shared.reserve.is_held() {
        trim(shared).await;
    } else {
        trim_bucket(shared, true).await;
    }
    has_more && sealed_any
}

/// Seals tables of one tenant, in order of name; returns whether any of them was, and whether something of them waits
/// for another turn.
async fn seal_group(shared: &Shared, group: &[&Table], budget: &mut Budget) -> (bool, bool) {
    let failed = |what: &dyn std::fmt::Display, error: &Error| {
        shared.stats.seal_failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(table = %what, %error, "sealing failed and is tried again");
        shared.reserve.give_back(error);
    };
    let tenant = &group[0].id.tenant;
    let latency = match latency_table(shared, tenant, group) {
        Ok(latency) => latency,
        Err(error) => {
            failed(tenant, &error);
            return (false, false);
        }
    };
    match seal_together(&shared.tools(), group, latency.as_deref(), (shared.now)()).await {
        Ok(sealed) => {
            budget.spend(sealed.commits);
            let mut sealed_any = false;
            for (table, sealed) in group.iter().zip(sealed.tables) {
                match sealed {
                    Ok(rows) => {
                        // None: it was not its turn, or an earlier seal got in after all.
                        if rows > 0 {
                            note(shared, rows);
                        }
                        sealed_any = true;
                    }
                    Err(error) => failed(&table.id, &error),
                }
            }
            (sealed_any, sealed.has_more)
        }
        Err(error) => {
            // What was tried has cost requests too: a store that refuses is not asked faster than one that takes.
            budget.spend(1);
            failed(tenant, &error);
            (false, false)
        }
    }
}

/// The tenant's latency table, where one of the tables is measured.
fn latency_table(shared: &Shared, tenant: &Tenant, group: &[&Table]) -> Result<Option<Arc<Table>>> {
    let is_any = group.iter().any(|table| is_measured(table.kind));
    is_any.then(|| shared.table(&latency_of(tenant), Kind::Latency)).transpose()
}

/// Notes what a table's seal came to.
fn note(shared: &Shared, rows: u64) {
    shared.stats.seals.fetch_add(1, Ordering::Relaxed);
    shared.stats.sealed_rows.fetch_add(rows, Ordering::Relaxed);
}

async fn seal_table(shared: &Shared, table: &Table) -> Result<u64> {
    let latency = latency_table(shared, &table.id.tenant, &[table])?;
    let rows = seal(&shared.tools(), table, latency.as_deref(), (shared.now)()).await?;
    note(shared, rows);
    Ok(rows)
}

/// Deletes log segments of which every frame is in a committed table version (C3).
async fn trim(shared: &Shared) {
    trim_bucket(shared, false).await;
    let ledgers = shared.ledgers.lock().expect("no panic happens under this lock").clone();
    for ledger in ledgers {
        let committed = |id: &_| shared.tables.get(id).map_or(0, |table| table.last_seq(&ledger.writer));
        match ledger.trim(committed) {
            Ok(count) => {
                shared.stats.trimmed_segments.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(%error, "log segments stay and are tried again");
                shared.reserve.give_back(&error);
            }
        }
    }
}

/// Lets go of objects of the log in the bucket of which every frame is in a committed table version; with `only_due`
/// only where something is to be deleted.
async fn trim_bucket(shared: &Shared, only_due: bool) {
    let ledger = shared.bucket_log().ledger();
    if only_due && !ledger.is_due() {
        return;
    }
    let committed = |id: &_| shared.tables.get(id).map_or(0, |table| table.last_seq(&ledger.writer));
    if let Err(error) = ledger.trim(committed).await {
        tracing::warn!(%error, "objects of the log stay and are tried again");
    }
}

/// Seals everything acknowledged so far; returns how many rows were sealed by this call.
///
/// # Errors
/// `Kind::Unavailable` when the object store does not take it.
pub async fn flush(shared: &Shared) -> Result<u64> {
    let mut rows = 0;
    for table in shared.tables.waiting() {
        rows += flush_table(shared, &table).await?;
    }
    trim(shared).await;
    Ok(rows)
}

/// Seals everything acknowledged so far of one table; returns how many rows were sealed by this call.
///
/// # Errors
/// As [`flush`].
pub async fn flush_table(shared: &Shared, table: &Table) -> Result<u64> {
    let mut rows = 0;
    // A bound by what waits now: rows that arrive meanwhile are another flush's.
    let mut last: HashMap<Arc<str>, u64> = HashMap::new();
    let waiting = table.waiting();
    // Each attempt seals a chunk, or some dates of one.
    let mut attempts = waiting.len() + DAYS_MAX / SEAL_DATES_MAX;
    for chunk in waiting {
        let seq = last.entry(Arc::clone(&chunk.writer)).or_default();
        *seq = (*seq).max(chunk.seq);
    }
    let is_left = |chunk: &Arc<HotChunk>| last.get(&chunk.writer).is_some_and(|last| chunk.seq <= *last);
    while attempts > 0 && table.waiting().iter().any(is_left) {
        match seal_table(shared, table).await {
            Ok(sealed) => rows += sealed,
            // Once: it is given back no second time before it is made again.
            Err(error) if shared.reserve.give_back(&error) => continue,
            Err(error) => return Err(error),
        }
        attempts -= 1;
    }
    Ok(rows)
}

/// Notes whether the disk has room left for the log, and keeps the reserve where it has.
pub fn watch_disk(shared: &Shared) {
    if let Ok((free, all)) = shared.disk.space(&shared.options.data) {
        let floor = (all / 20).min(shared.options.disk_free_bytes_min);
        shared.reserve.keep(free, all, floor);
        shared.disk_is_full.store(free < floor, Ordering::Relaxed);
    }
}

/// The state of what storage depends on, measured now.
pub async fn checks(shared: &Shared) -> Vec<Check> {
    watch_disk(shared);
    let listed = async {
        let prefix = ObjectPath::from("system");
        shared.store.list(Some(&prefix)).try_next().await
    };
    let object_store = match tokio::time::timeout(CHECK_TIMEOUT, listed).await {
        Ok(Ok(_)) => Ok("answers".to_owned()),
        Ok(Err(error)) => Err(store::unavailable(error).context().to_owned()),
        Err(_) => Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
    };
    let options = &shared.options;
    let wal_bytes = match options.wal_place {
        WalPlace::Disk => shared.wal_bytes.load(Ordering::Relaxed),
        WalPlace::Bucket => shared.bucket_bytes.load(Ordering::Relaxed),
    };
    let (hot_bytes, hot_max) = (shared.memory.used(Pool::Hot), shared.memory.max(Pool::Hot));
    let level =
        |name, bytes: u64, max: u64, is_ok| Check { name, is_ok, detail: format!("{bytes} of {max} bytes") };
    let disk = match (shared.disk_is_full.load(Ordering::Relaxed), shared.reserve.is_held()) {
        (false, true) => Ok("has room"),
        (true, true) => Err("too little free space"),
        (_, false) => Err("too little free space: the reserve is given back to sealing"),
    };
    vec![
        level(
            "wal",
            wal_bytes,
            options.wal_bytes_max,
            wal_bytes + options.wal_segment_bytes <= options.wal_bytes_max,
        ),
        level("hot_buffer", hot_bytes, hot_max, hot_bytes < hot_max),
        Check { name: "disk", is_ok: disk.is_ok(), detail: disk.unwrap_or_else(|why| why).into() },
        Check {
            name: "object_store",
            is_ok: object_store.is_ok(),
            detail: object_store.unwrap_or_else(|error| error),
        },
    ]
}
