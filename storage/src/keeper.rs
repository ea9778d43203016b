//! Background work: sealing what is due, trimming logs, watching the disk.
//!
//! Runs on a thread and runtime of its own, below the lanes: ingest keeps its latency whatever happens here
//! (X1). Nothing is lost when it stops; it only falls behind, and pressure then refuses ingest (B1).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path as ObjectPath;
use tokio::sync::watch;

use crate::deployment::{Check, Shared, is_measured, latency_of};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::record::Kind;
use crate::seal::plan::{Backlog, due};
use crate::seal::run::seal;
use crate::table::Table;

/// How often the keeper looks. Chosen: a fifth of the shortest seal age that makes sense.
const ROUND: Duration = Duration::from_millis(200);

/// How long a dependency may take to answer a readiness check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts the keeper's thread; it ends when `stopped` turns true.
///
/// # Errors
/// `Kind::Unavailable` when no thread or runtime can be made.
pub fn start(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) -> Result<std::thread::JoinHandle<()>> {
    let unavailable =
        |error| Error::new(ErrorKind::Unavailable, "no thread for background work").with_source(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unavailable)?;
    std::thread::Builder::new()
        .name("keeper".into())
        .spawn(move || {
            runtime.block_on(async {
                while !*stopped.borrow() {
                    round(&shared).await;
                    let _ = tokio::time::timeout(ROUND, stopped.changed()).await;
                }
            });
        })
        .map_err(unavailable)
}

async fn round(shared: &Shared) {
    watch_disk(shared);
    let tables = shared.tables.all();
    let backlogs: Vec<Backlog> = tables
        .iter()
        .map(|table| {
            let (rows, bytes, oldest_ns) = table.backlog();
            Backlog { rows, bytes, oldest_ns }
        })
        .collect();
    let mut sealed_any = false;
    for at in due(&backlogs, &shared.options, (shared.now)()) {
        match seal_table(shared, &tables[at]).await {
            Ok(_) => sealed_any = true,
            Err(error) => {
                shared.stats.seal_failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(table = %tables[at].id, %error, "sealing failed and is tried again");
            }
        }
    }
    if sealed_any {
        trim(shared);
    }
}

async fn seal_table(shared: &Shared, table: &Table) -> Result<u64> {
    let latency = is_measured(table.kind)
        .then(|| shared.table(&latency_of(&table.id.tenant), Kind::Latency))
        .transpose()?;
    let (rows, freed) = seal(&shared.tools(), table, latency.as_deref(), (shared.now)()).await?;
    shared.hot_bytes.fetch_sub(freed, Ordering::Relaxed);
    shared.stats.seals.fetch_add(1, Ordering::Relaxed);
    shared.stats.sealed_rows.fetch_add(rows, Ordering::Relaxed);
    Ok(rows)
}

/// Deletes log segments of which every frame is in a committed table version (C3).
fn trim(shared: &Shared) {
    let ledgers = shared.ledgers.lock().expect("no panic happens under this lock").clone();
    for ledger in ledgers {
        let committed = |id: &_| {
            shared.tables.get(id).map_or(0, |table| table.published().state.last_seq(&ledger.writer))
        };
        match ledger.trim(committed) {
            Ok(count) => {
                shared.stats.trimmed_segments.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(%error, "log segments stay and are tried again"),
        }
    }
}

/// Seals everything acknowledged so far; returns how many rows were sealed by this call.
///
/// # Errors
/// `Kind::Unavailable` when the object store does not take it.
pub async fn flush(shared: &Shared) -> Result<u64> {
    let mut rows = 0;
    for table in shared.tables.all() {
        rows += flush_table(shared, &table).await?;
    }
    trim(shared);
    Ok(rows)
}

/// Seals everything acknowledged so far of one table; returns how many rows were sealed by this call.
///
/// # Errors
/// As [`flush`].
pub async fn flush_table(shared: &Shared, table: &Table) -> Result<u64> {
    let mut rows = 0;
    // A bound by what waits now: rows that arrive meanwhile are another flush's.
    let mut waiting = table.waiting().len();
    while waiting > 0 && !table.waiting().is_empty() {
        rows += seal_table(shared, table).await?;
        waiting -= 1;
    }
    Ok(rows)
}

/// Notes whether the disk has room left for the log.
pub fn watch_disk(shared: &Shared) {
    if let Ok(stat) = rustix::fs::statvfs(&shared.options.data) {
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let floor =
            (stat.f_blocks.saturating_mul(stat.f_frsize) / 20).min(shared.options.disk_free_bytes_min);
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
        Ok(Err(_)) => Err("does not answer".to_owned()),
        Err(_) => Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
    };
    let options = &shared.options;
    let wal_bytes = shared.wal_bytes.load(Ordering::Relaxed);
    let hot_bytes = shared.hot_bytes.load(Ordering::Relaxed);
    let level =
        |name, bytes: u64, max: u64, is_ok| Check { name, is_ok, detail: format!("{bytes} of {max} bytes") };
    let disk_is_full = shared.disk_is_full.load(Ordering::Relaxed);
    vec![
        level(
            "wal",
            wal_bytes,
            options.wal_bytes_max,
            wal_bytes + options.wal_segment_bytes <= options.wal_bytes_max,
        ),
        level("hot_buffer", hot_bytes, options.hot_bytes_max, hot_bytes < options.hot_bytes_max),
        Check {
            name: "disk",
            is_ok: !disk_is_full,
            detail: if disk_is_full { "too little free space".into() } else { "has room".into() },
        },
        Check {
            name: "object_store",
            is_ok: object_store.is_ok(),
            detail: object_store.unwrap_or_else(|error| error),
        },
    ]
}
