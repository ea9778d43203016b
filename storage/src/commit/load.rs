//! Opening a table: from its last checkpoint, whatever stands before that.
//!
//! The cost is that of the commits behind the checkpoint, at ten commits as at ten thousand. The pointer to the
//! checkpoint and the checkpoint itself are a short way and nothing more: where one is missing, stale or damaged,
//! an earlier checkpoint, and at last the first commit, is where reading begins (F24). Wherever it begins, no
//! commit may be missing on the way to the newest.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;

use super::checkpoint;
use super::log::TableLog;
use crate::commit::State;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::store::unavailable;

/// How often a table is read anew when something that was listed is gone: another process cleans up meanwhile.
const ATTEMPTS_MAX: usize = 3;

/// Commits that are asked for at once. Chosen: hides a bucket's latency, and twenty are the most by default.
const AT_ONCE: usize = 8;

/// When the tombstones of a checkpoint are read.
#[derive(Clone, Copy, Debug)]
enum Tombstones {
    Now,
    Later,
}

/// Which versions a log folder holds.
#[derive(Debug, Default)]
struct Listed {
    commits: BTreeSet<i64>,
    checkpoints: BTreeSet<i64>,
}

/// What an object of a log folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Commit(i64),
    Checkpoint(i64),
}

impl Object {
    /// Reads an object's name; what others put there is nothing to us.
    pub(super) fn named(name: &str) -> Option<Self> {
        let version = |digits: &str| (digits.len() == 20).then(|| digits.parse().ok()).flatten();
        match (name.strip_suffix(".json"), name.strip_suffix(".checkpoint.parquet")) {
            (Some(digits), _) => version(digits).map(Self::Commit),
            (_, Some(digits)) => version(digits).map(Self::Checkpoint),
            _ => None,
        }
    }
}

impl TableLog {
    /// Reads the table as it is now: a checkpoint, and every commit after it.
    ///
    /// The tombstones in the checkpoint are left there: whoever needs them reads them then.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the store does not answer, `Kind::Corrupt` when the log has a hole or a line
    /// that cannot be, from wherever it is read.
    pub async fn load(&self) -> Result<State> {
        self.load_with(Tombstones::Later).await
    }

    /// Reads the table as it is now, tombstones and all.
    ///
    /// # Errors
    /// As [`TableLog::load`].
    pub(super) async fn load_whole(&self) -> Result<State> {
        self.load_with(Tombstones::Now).await
    }

    /// Reads the tombstones that `state` left in its checkpoint, if any.
    ///
    /// # Errors
    /// As [`TableLog::load`]; `state` is what it was.
    pub(super) async fn read_tombstones(&self, state: &mut State) -> Result<()> {
        let Some(version) = state.tombstones_in else { return Ok(()) };
        match checkpoint::read(&*self.store, &self.checkpoint_path(version), version).await {
            Ok(checkpoint) => state.bury(&checkpoint),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                // Cleaned up behind a later one, or damaged where the open did not look.
                tracing::warn!(table = self.root, %error, "the table is read anew");
                let mut loaded = self.load_whole().await?;
                if loaded.version < state.version {
                    // A listing that lags. To go back would be to forget what this process saw committed.
                    let context = format!("table {} is listed as it was: try again", self.root);
                    return Err(Error::new(ErrorKind::Unavailable, context).with_source(error));
                }
                loaded.adopt(state);
                *state = loaded;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn load_with(&self, tombstones: Tombstones) -> Result<State> {
        let mut attempt = 1;
        loop {
            match self.load_once(tombstones).await {
                Err(error) if error.kind() == ErrorKind::Corrupt && attempt < ATTEMPTS_MAX => attempt += 1,
                done => return done,
            }
        }
    }

    async fn load_once(&self, tombstones: Tombstones) -> Result<State> {
        let last = self.path("_last_checkpoint");
        if let Some(pointer) = checkpoint::read_last(&*self.store, &last).await? {
            let listed = self.list(Some(pointer.version)).await?;
            let path = self.checkpoint_path(pointer.version);
            let start = match tombstones {
                Tombstones::Later => checkpoint::read_live(&*self.store, &path, &pointer).await,
                Tombstones::Now => checkpoint::read(&*self.store, &path, pointer.version).await,
            };
            let rolled = match start {
                Ok(start) => self.roll(start, &listed).await,
                Err(error) => Err(error),
            };
            match rolled {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(table = self.root, %error, "the table is read from elsewhere in its log");
                }
                done => return done,
            }
        }
        let listed = self.list(None).await?;
        let mut broken = None;
        for version in listed.checkpoints.iter().rev() {
            match self.roll_from(*version, &listed).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => broken = broken.or(Some(error)),
                done => return done,
            }
        }
        match self.roll(State::empty(), &listed).await {
            // The damage that sent us here says more than the hole behind it.
            Err(error) if error.kind() == ErrorKind::Corrupt => Err(broken.unwrap_or(error)),
            done => done,
        }
    }

    async fn roll_from(&self, version: i64, listed: &Listed) -> Result<State> {
        let start = checkpoint::read(&*self.store, &self.checkpoint_path(version), version).await?;
        self.roll(start, listed).await
    }

    /// What the log folder holds, of versions behind `after` alone where one is given.
    async fn list(&self, after: Option<i64>) -> Result<Listed> {
        let folder = Path::from(format!("{}/_delta_log", self.root));
        let mut objects = match after {
            Some(version) => self.store.list_with_offset(Some(&folder), &self.commit_path(version)),
            None => self.store.list(Some(&folder)),
        };
        let mut listed = Listed::default();
        while let Some(object) = objects.try_next().await.map_err(unavailable)? {
            match object.location.filename().and_then(Object::named) {
                Some(Object::Commit(version)) => drop(listed.commits.insert(version)),
                Some(Object::Checkpoint(version)) => drop(listed.checkpoints.insert(version)),
                None => {}
            }
        }
        Ok(listed)
    }

    /// Applies every listed commit behind `state`; none may be missing before the newest version that is listed.
    async fn roll(&self, mut state: State, listed: &Listed) -> Result<State> {
        let first = state.version.map_or(0, |at| at + 1);
        let versions: Vec<i64> = listed.commits.range(first..).copied().collect();
        let newest = listed.commits.last().max(listed.checkpoints.last()).copied();
        if let Some(hole) =
            (first..).zip(&versions).find_map(|(wanted, found)| (wanted != *found).then_some(wanted))
        {
            return Err(self.hole(hole));
        }
        let reached = versions.last().copied().or(state.version);
        if newest > reached {
            return Err(self.hole(reached.map_or(0, |at| at + 1)));
        }
        let mut commits = futures::stream::iter(versions)
            .map(|version| async move { Ok::<_, Error>((version, self.get(version).await?)) })
            .buffered(AT_ONCE);
        while let Some((version, bytes)) = commits.try_next().await? {
            let bytes = bytes.ok_or_else(|| self.hole(version))?;
            state.apply(version, self.lines_of(version, &bytes)?)?;
        }
        // A listing may lag behind, a look at a name does not.
        self.catch_up(&mut state).await?;
        Ok(state)
    }

    fn hole(&self, version: i64) -> Error {
        Error::new(ErrorKind::Corrupt, format!("log of table {} has no commit {version}", self.root))
    }
}
