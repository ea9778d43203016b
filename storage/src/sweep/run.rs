//! One sweep over the tables: looks, decides, deletes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::asides;
use super::plan::{Ages, Listed, Plan, Seen, plan};
use crate::commit::Kept;
use crate::deployment::Shared;
use crate::error::Result;
use crate::faults;
use crate::memory::{Charge, Pool};
use crate::record::{TableId, Tenant};
use crate::store::{self, unavailable};
use crate::table::Table;

/// Files deleted while a table's log is held: sealing waits for these at most. Chosen: well below a second.
const BATCH: usize = 64;

/// Deletions under way at once. Chosen: hides a bucket's latency, keeps a disk responsive.
const AT_ONCE: usize = 8;

/// What earlier sweeps saw. One sweep at a time: whoever sweeps holds it.
#[derive(Debug, Default)]
pub struct Sweeper {
    files: HashMap<TableId, Seen>,
    asides: HashMap<PathBuf, Instant>,
    /// What `files` takes, counted.
    counted: Option<Charge>,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Tables looked at.
    pub tables: u64,
    /// Tables left alone because of a hold.
    pub held: u64,
    /// Tables that could not be swept this time.
    pub failed: u64,
    /// Files deleted that a version had removed.
    pub files: u64,
    /// Files deleted that no version named.
    pub orphans: u64,
    /// Bytes of all of these, as far as the store told.
    pub bytes: u64,
    /// Commits and checkpoints deleted.
    pub log_objects: u64,
    /// Half-written files deleted.
    pub asides: u64,
}

/// Sweeps every table, or those of one tenant. `at` is the monotonic clock.
///
/// A file is gone from the store when it is counted, and leaves the table's state after that: a crash between
/// finds it named and missing, which the next sweep takes for done. A table that fails is left for the next
/// sweep; nothing here fails as a whole.
pub async fn sweep(shared: &Shared, scope: Option<&Tenant>, at: Instant) -> Swept {
    let mut sweeper = shared.sweeper.lock().await;
    let now_ms = (shared.now)().div_euclid(1_000_000);
    let is_believed = shared.clock.observe((shared.now)(), at);
    let hours = |hours: u64| Duration::from_secs(hours.saturating_mul(3_600));
    let ages =
        Ages { at, now_ms: is_believed.then_some(now_ms), grace: hours(shared.options.sweep_grace_hours) };
    let mut swept = Swept::default();
    for table in shared.tables.all() {
        if scope.is_some_and(|tenant| table.id.tenant != *tenant) {
            continue;
        }
        swept.tables += 1;
        if shared.policies.is_held(&table.id) {
            swept.held += 1;
            continue;
        }
        let seen = sweeper.files.entry(table.id.clone()).or_default();
        if let Err(error) = sweep_table(shared, &table, seen, ages, &mut swept).await {
            swept.failed += 1;
            tracing::warn!(table = %table.id, %error, "the table is swept another time");
        }
    }
    let bytes = sweeper.files.values().map(|seen| seen.held_bytes() as u64).sum();
    sweeper.counted = Some(shared.memory.count(Pool::Tables, None, bytes));
    if scope.is_none()
        && let Some(root) = store::local_root(&shared.options)
    {
        let mut seen = std::mem::take(&mut sweeper.asides);
        let looked = tokio::task::spawn_blocking(move || (asides::sweep(&root, &mut seen, at), seen)).await;
        if let Ok((deleted, seen)) = looked {
            swept.asides = deleted;
            sweeper.asides = seen;
        }
    }
    swept
}

async fn sweep_table(
    shared: &Shared,
    table: &Table,
    seen: &mut Seen,
    ages: Ages,
    swept: &mut Swept,
) -> Result<()> {
    // The listing first, the state after: what was committed between is named by the state.
    let root = Path::from(table.id.prefix());
    let objects: Vec<ObjectMeta> = shared.store.list(Some(&root)).try_collect().await.map_err(unavailable)?;
    let listed = below(&root, &objects);
    let now_ms = (shared.now)().div_euclid(1_000_000);
    let going = {
        let log = table.log.lock().await;
        let known = table.published().state.clone();
        let (version, is_whole) = (known.version, known.is_whole());
        let state = log.refresh(known, now_ms).await?;
        let going = plan(&state, &listed, seen, ages);
        // Others' commits are heard of here, where this process makes none.
        if state.version != version || !is_whole {
            table.publish(state);
        }
        going
    };
    let sizes: HashMap<&str, u64> = listed.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
    let Plan { tombstoned, orphans } = going;
    for (paths, count) in [(tombstoned, &mut swept.files), (orphans, &mut swept.orphans)] {
        for batch in paths.chunks(BATCH) {
            faults::reach("sweep.before_delete").await?;
            let gone = delete(shared, table, &root, batch).await;
            *count += gone.len() as u64;
            swept.bytes += gone.iter().filter_map(|path| sizes.get(path.as_str())).sum::<u64>();
        }
    }
    faults::reach("sweep.before_clean").await?;
    if let Some(now_ms) = ages.now_ms {
        let keep_ms =
            i64::try_from(shared.options.log_keep_hours.saturating_mul(3_600_000)).unwrap_or(i64::MAX);
        let kept =
            Kept { commits: shared.options.log_keep_commits, since_ms: now_ms.saturating_sub(keep_ms) };
        let log = table.log.lock().await;
        if !shared.policies.is_held(&table.id) {
            swept.log_objects += log.clean(&objects, kept).await?;
        }
    }
    Ok(())
}

fn below(root: &Path, objects: &[ObjectMeta]) -> Vec<Listed> {
    let root = format!("{root}/");
    objects
        .iter()
        .filter_map(|object| {
            Some(Listed {
                path: object.location.as_ref().strip_prefix(&root)?.to_owned(),
                modified_ms: object.last_modified.timestamp_millis(),
                bytes: object.size,
            })
        })
        .collect()
}

/// Deletes files that no version names, and takes their tombstones out of the state; returns which are gone.
///
/// The table's log is held, so that no commit of this process is in flight meanwhile and a hold that was
/// answered is seen: whoever places one waits for this lock.
async fn delete(shared: &Shared, table: &Table, root: &Path, paths: &[String]) -> Vec<String> {
    let _log = table.log.lock().await;
    if shared.policies.is_held(&table.id) {
        return Vec::new();
    }
    let published = table.published();
    // R1: named by nobody, at this moment.
    let is_free = |path: &&String| {
        !published.state.files.contains(path)
            && published.state.tombstones.get(path).is_none_or(|tombstone| tombstone.pin.strong_count() == 0)
    };
    let free: Vec<&String> = paths.iter().filter(is_free).collect();
    let store: &Arc<dyn ObjectStore> = &shared.store;
    let gone: Vec<String> = futures::stream::iter(free)
        .map(|path| async move {
            match store.delete(&Path::from(format!("{root}/{path}"))).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Some(path.clone()),
                Err(error) => {
                    tracing::warn!(table = %table.id, error = %unavailable(error), "a file stays and is tried again");
                    None
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(async |path| path)
        .collect()
        .await;
    faults::step("sweep.before_forget");
    if !gone.is_empty() {
        let mut state = published.state.clone();
        for path in &gone {
            state.tombstones.remove(path);
        }
        drop(published);
        table.publish(state);
    }
    gone
}
