//! Keeping a table's log short: commits and checkpoints that no reader needs go.

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::checkpoint;
use super::load::Object;
use super::log::TableLog;
use crate::error::Result;
use crate::faults;
use crate::store::unavailable;

/// Objects deleted at once. Chosen: as many as keep a bucket's latency hidden and a disk responsive.
const AT_ONCE: usize = 8;

/// What is kept of a log whatever its checkpoints cover.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Commits before the last checkpoint.
    pub commits: u64,
    /// Commits that were put after this moment, milliseconds since 1970 UTC.
    pub since_ms: i64,
}

/// One object of a log folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    object: Object,
    modified_ms: i64,
}

/// The version below which nothing is needed: that of a checkpoint which all that is kept can be read from.
///
/// `verified` is the checkpoint that the pointer names, which was read back before.
fn base(entries: &[Entry], verified: i64, kept: Kept) -> Option<i64> {
    let commits = i64::try_from(kept.commits).unwrap_or(i64::MAX);
    let young = entries.iter().filter(|entry| entry.modified_ms >= kept.since_ms);
    let youngest = young
        .filter_map(|entry| match entry.object {
            Object::Commit(version) => Some(version.saturating_sub(1)),
            Object::Checkpoint(_) => None,
        })
        .min();
    let horizon = verified.saturating_sub(commits).min(youngest.unwrap_or(i64::MAX));
    let checkpoints = entries.iter().filter_map(|entry| match entry.object {
        Object::Checkpoint(version) => Some(version),
        Object::Commit(_) => None,
    });
    checkpoints.filter(|version| *version <= horizon).max()
}

/// Whether an object is needed by no reader of versions from `base` on.
fn is_behind(object: Object, base: i64) -> bool {
    match object {
        Object::Commit(version) => version <= base,
        Object::Checkpoint(version) => version < base,
    }
}

impl TableLog {
    /// Deletes commits and checkpoints behind a checkpoint that reads; returns how many.
    ///
    /// `listed` are the objects below the table. Every version from the checkpoint on stays readable, and that
    /// checkpoint lies behind the last one. A crash in the middle leaves objects that the next call finds again.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the store does not answer, `Kind::Corrupt` when the checkpoint that would be the
    /// first does not read: nothing was deleted.
    pub async fn clean(&self, listed: &[ObjectMeta], kept: Kept) -> Result<u64> {
        let folder = Path::from(format!("{}/_delta_log", self.root));
        let entries: Vec<(Entry, &Path)> = listed
            .iter()
            .filter(|meta| meta.location.prefix_matches(&folder))
            .filter_map(|meta| {
                let object = Object::named(meta.location.filename()?)?;
                let modified_ms = meta.last_modified.timestamp_millis();
                Some((Entry { object, modified_ms }, &meta.location))
            })
            .collect();
        let last = checkpoint::read_last(&*self.store, &self.path("_last_checkpoint")).await?;
        let plain: Vec<Entry> = entries.iter().map(|(entry, _)| *entry).collect();
        let Some(base) = last.and_then(|verified| base(&plain, verified.version, kept)) else { return Ok(0) };
        let behind: Vec<&Path> = entries
            .iter()
            .filter(|(entry, _)| is_behind(entry.object, base))
            .map(|(_, path)| *path)
            .collect();
        if behind.is_empty() {
            return Ok(0);
        }
        // What everything kept is read from must read itself, today.
        checkpoint::read(&*self.store, &self.checkpoint_path(base), base).await?;
        faults::reach("clean.before_delete").await?;
        let count = behind.len() as u64;
        futures::stream::iter(behind)
            .map(|path| async move {
                match self.store.delete(path).await {
                    // Another process cleans up as well.
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(unavailable(error)),
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Kept, base, is_behind};
    use crate::commit::load::Object::{self, Checkpoint, Commit};

    fn log(commits: i64, every: i64) -> Vec<Entry> {
        let entry = |object: Object, version: i64| Entry { object, modified_ms: version * 1_000 };
        (0..=commits)
            .map(|version| entry(Commit(version), version))
            .chain((0..=commits).step_by(every as usize).map(|version| entry(Checkpoint(version), version)))
            .collect()
    }

    fn check(commits: u64, since_ms: i64, verified: i64, expected: Option<i64>) {
        let found = base(&log(400, 20), verified, Kept { commits, since_ms });
        assert_eq!(found, expected, "keep {commits} commits and those since {since_ms}, {verified} verified");
    }

    #[test]
    fn what_is_kept_is_read_from_a_checkpoint() {
        check(100, i64::MAX, 400, Some(300));
        check(90, i64::MAX, 400, Some(300));
        check(0, i64::MAX, 400, Some(400));
        // Young commits stay, and a checkpoint before the first of them.
        check(100, 250_000, 400, Some(240));
        check(100, 0, 400, None);
        check(500, i64::MAX, 400, None);
        // A pointer that is behind is believed: what it names was read back.
        check(100, i64::MAX, 200, Some(100));
    }

    #[test]
    fn a_checkpoint_stands_for_its_own_commit() {
        let check = |object, expected| assert_eq!(is_behind(object, 20), expected, "{object:?}");
        check(Commit(20), true);
        check(Commit(21), false);
        check(Checkpoint(19), true);
        check(Checkpoint(20), false);
    }
}
