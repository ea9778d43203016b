//! Appending to a table's log by compare-and-swap.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde_json::json;

use super::action::{self, Add, Line, MetaData, Protocol, Remove, Txn};
use super::checkpoint;
use super::state::State;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults::{self, Bug};
use crate::reader::DataFile;
use crate::record::Kind;
use crate::record::fit::Columns;
use crate::store::unavailable;

/// How a commit ended.
#[derive(Debug)]
pub struct Committed {
    /// The table as it is now, others' commits included.
    pub state: State,
    /// Whether the change is in the table. One that was made from what is no more (a file to remove, a
    /// transaction's version) never comes in: it is to be made anew from `state`.
    pub is_in: bool,
}

/// Attempts against other writers before a commit gives up and is tried again later.
const ATTEMPTS_MAX: usize = 32;

/// How long a process may go on from what it knows of a table without asking, in milliseconds. Chosen: half of
/// the shortest `log_keep_hours`, so that no commit it has not seen can be cleaned up by then.
const FRESH_MS: i64 = 3_600_000;

/// One table's log in the object store.
#[derive(Debug)]
pub struct TableLog {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) root: String,
}

/// Why a table changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Rows come in.
    Append,
    /// The same rows in other files.
    Compact,
    /// Rows whose retention ended leave.
    Expire,
}

/// What a commit changes in a table.
#[derive(Debug)]
pub struct Change {
    /// Why.
    pub operation: Operation,
    /// What the rows are.
    pub kind: Kind,
    /// The columns that the files were written with.
    pub columns: Columns,
    /// Files that come in; each is complete in the store already (C1).
    pub adds: Vec<DataFile>,
    /// Paths of files that go. Each must be live when the commit is made, or nothing changes.
    pub removes: Vec<String>,
    /// How far each application's transactions are in the table with these files.
    pub txns: Vec<(String, i64)>,
    /// The transactions that say whether the change is in, with the versions it was made from: where every one has
    /// its new version the change is in, where one has moved otherwise a part of it is and it must be made anew.
    pub guards: Vec<(String, Option<i64>)>,
    /// When, milliseconds since 1970 UTC.
    pub now_ms: i64,
}

impl Operation {
    /// Its name in the Delta log's `commitInfo`.
    fn name(self) -> &'static str {
        match self {
            Self::Append => "WRITE",
            Self::Compact => "OPTIMIZE",
            Self::Expire => "DELETE",
        }
    }

    fn parameters(self) -> serde_json::Value {
        match self {
            Self::Append => json!({"mode": "Append", "partitionBy": "[\"date\"]"}),
            Self::Compact => json!({}),
            Self::Expire => json!({"predicate": "[\"retention\"]"}),
        }
    }
}

impl Change {
    /// Whether the table says that this change is in it already.
    fn is_in(&self, state: &State) -> bool {
        // A file's name is used once. Where the table knows it, this very change landed after its put was
        // reported as failed, and must not be taken for refused: its files would be swept from under the table.
        let is_known =
            |file: &DataFile| state.files.contains(&file.path) || state.tombstones.contains(&file.path);
        if self.adds.iter().any(is_known) {
            return true;
        }
        let is_guarded = |app: &String| self.guards.iter().any(|(guard, _)| guard == app);
        let mut guarded = self.txns.iter().filter(|(app, _)| is_guarded(app));
        !self.guards.is_empty()
            && guarded.all(|(app, version)| state.txns.get(app).is_some_and(|at| at >= version))
    }

    /// Whether the table has moved on from what this change was made from.
    fn is_overtaken(&self, state: &State) -> bool {
        self.removes.iter().any(|path| !state.files.contains(path))
            || self.guards.iter().any(|(app, from)| state.txns.get(app) != from.as_ref())
    }
}

impl TableLog {
    /// The log of the table below `root`.
    pub fn new(store: Arc<dyn ObjectStore>, root: String) -> Self {
        Self { store, root }
    }

    pub(super) fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/_delta_log/{name}", self.root))
    }

    pub(super) fn commit_path(&self, version: i64) -> Path {
        self.path(&format!("{version:020}.json"))
    }

    pub(super) fn checkpoint_path(&self, version: i64) -> Path {
        self.path(&format!("{version:020}.checkpoint.parquet"))
    }

    /// The lines of commit `version`, whose object holds `bytes`.
    pub(super) fn lines_of(&self, version: i64, bytes: &[u8]) -> Result<Vec<Line>> {
        let object = self.commit_path(version);
        let lines = action::from_bytes(object.as_ref(), bytes)?;
        if lines.is_empty() {
            // Every commit says who made it, whoever that was.
            return Err(Error::new(ErrorKind::Corrupt, format!("{object} is damaged: it is empty")));
        }
        Ok(lines)
    }

    pub(super) async fn get(&self, version: i64) -> Result<Option<Bytes>> {
        match self.store.get(&self.commit_path(version)).await {
            Ok(result) => result.bytes().await.map(Some).map_err(unavailable),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Commits a change to the table, exactly once, and returns the table as it is then.
    ///
    /// The commit is all or nothing (C1) and moves by create-if-absent (C2). Where another writer took the
    /// number, its commit is read and the next number tried; where the store did not say how a put ended, the
    /// object itself does. A table whose transactions already show the change as committed is returned as it
    /// is, and so is one that has moved on from what the change was made from.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the store does not answer or others win every time: try again later, nothing
    /// is in the table or the next attempt will find it there.
    pub async fn commit(&self, state: State, change: &Change) -> Result<Committed> {
        let mut state = self.past_holes(state, change.now_ms).await?;
        // A file of this change may be dead already.
        self.read_tombstones(&mut state).await?;
        let mut is_newest = false;
        for _ in 0..ATTEMPTS_MAX {
            let is_blind = faults::has(Bug::SkipCommitGuard);
            if !is_blind && change.is_in(&state) {
                return Ok(Committed { state, is_in: true });
            }
            if !is_blind && change.is_overtaken(&state) {
                if is_newest {
                    return Ok(Committed { state, is_in: false });
                }
                // What this state lacks may have come after it, and this change with it: only the table as it
                // is now refuses.
                self.catch_up(&mut state).await?;
                is_newest = true;
                continue;
            }
            let version = state.version.map_or(0, |at| at + 1);
            let lines = self.lines(&state, change)?;
            let bytes = Bytes::from(action::to_bytes(&lines));
            faults::reach("commit.before_put").await?;
            let put = self
                .store
                .put_opts(&self.commit_path(version), PutPayload::from(bytes.clone()), PutMode::Create.into())
                .await;
            faults::reach("commit.after_put").await?;
            let winner = match put {
                Ok(_) => None,
                Err(object_store::Error::AlreadyExists { .. }) if faults::has(Bug::TrustTakenNumber) => None,
                // How the put ended is unknown, even where the store says that the name was taken (by a proxy's
                // second delivery of our own put, or by nothing at all): what stands there now decides.
                Err(error) => match self.get(version).await? {
                    Some(found) => Some(found),
                    None => return Err(unavailable(error)),
                },
            };
            match winner {
                None => {
                    state.apply(version, lines)?;
                    state.seen_ms = Some(change.now_ms);
                    return Ok(Committed { state, is_in: true });
                }
                // The id in our own commitInfo makes equal bytes ours.
                Some(found) if found == bytes => {
                    state.apply(version, lines)?;
                    state.seen_ms = Some(change.now_ms);
                    return Ok(Committed { state, is_in: true });
                }
                Some(found) => {
                    state.apply(version, self.lines_of(version, &found)?)?;
                    self.catch_up(&mut state).await?;
                }
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("other writers won {ATTEMPTS_MAX} times in a row on table {}", self.root),
        ))
    }

    /// The table as it is now, tombstones and all, from what this process knew of it.
    ///
    /// # Errors
    /// As [`TableLog::load`].
    pub async fn refresh(&self, state: State, now_ms: i64) -> Result<State> {
        let mut state = self.past_holes(state, now_ms).await?;
        self.read_tombstones(&mut state).await?;
        self.catch_up(&mut state).await?;
        state.seen_ms = Some(now_ms);
        Ok(state)
    }

    /// A state of which the next commit's number is free only if nobody ever took it.
    ///
    /// Old commits are cleaned up behind a checkpoint. Whoever slept that long would find its next number free
    /// again and put a commit where no reader looks, so a state that is not fresh asks the pointer first (C2).
    async fn past_holes(&self, state: State, now_ms: i64) -> Result<State> {
        let is_fresh =
            state.seen_ms.is_some_and(|seen_ms| (0..FRESH_MS).contains(&now_ms.saturating_sub(seen_ms)));
        if is_fresh {
            return Ok(state);
        }
        let last = checkpoint::read_last(&*self.store, &self.path("_last_checkpoint")).await?;
        if last.is_none_or(|last| state.version.is_some_and(|at| at >= last.version)) {
            return Ok(state);
        }
        let mut loaded = self.load_whole().await?;
        loaded.adopt(&state);
        Ok(loaded)
    }

    /// Applies every commit behind the state's version.
    pub(super) async fn catch_up(&self, state: &mut State) -> Result<()> {
        faults::reach("commit.catch_up").await?;
        loop {
            let next = state.version.map_or(0, |at| at + 1);
            let Some(bytes) = self.get(next).await? else { return Ok(()) };
            state.apply(next, self.lines_of(next, &bytes)?)?;
        }
    }

    fn lines(&self, state: &State, change: &Change) -> Result<Vec<Line>> {
        let mut lines = vec![Line {
            commit_info: Some(json!({
                "timestamp": change.now_ms,
                "operation": change.operation.name(),
                "operationParameters": change.operation.parameters(),
                "engineInfo": concat!("floodmark/", env!("CARGO_PKG_VERSION")),
                "isBlindAppend": change.operation == Operation::Append,
                "operationId": uuid::Uuid::new_v4().to_string(),
            })),
            ..Line::default()
        }];
        match &state.metadata {
            None => {
                let id = uuid::Uuid::new_v4().to_string();
                let metadata = MetaData::new(id, change.kind, change.columns.schema(), change.now_ms);
                let protocol = Protocol { min_reader_version: 1, min_writer_version: 2 };
                lines.push(Line { protocol: Some(protocol), ..Line::default() });
                lines.push(Line { meta_data: Some(metadata), ..Line::default() });
            }
            Some(metadata) => {
                let known = Columns::of_schema(change.kind, &metadata.schema()?);
                let wanted = known.with_added(change.columns.attributes());
                if wanted.attributes().len() > known.attributes().len() {
                    let metadata = metadata.with_schema(wanted.schema());
                    lines.push(Line { meta_data: Some(metadata), ..Line::default() });
                }
            }
        }
        for (app_id, version) in &change.txns {
            let txn = Txn { app_id: app_id.clone(), version: *version, last_updated: Some(change.now_ms) };
            lines.push(Line { txn: Some(txn), ..Line::default() });
        }
        let data_change = change.operation != Operation::Compact;
        for path in &change.removes {
            let remove = Remove::of(path, data_change, change.now_ms);
            lines.push(Line { remove: Some(remove), ..Line::default() });
        }
        for file in &change.adds {
            let add = Add { data_change, ..Add::of(file, change.now_ms) };
            lines.push(Line { add: Some(add), ..Line::default() });
        }
        let count = lines.len();
        if let Some(info) = &mut lines[0].commit_info {
            info[action::LINES] = count.into();
        }
        Ok(lines)
    }

    /// Writes a checkpoint of `state`, so that opening the table does not read every commit; `state` says so then.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the store does not take it, `Kind::Corrupt` when it does not read back: the table
    /// is as good without.
    pub async fn checkpoint(&self, state: &mut State) -> Result<()> {
        self.read_tombstones(state).await?;
        let Some(version) = state.version else { return Ok(()) };
        let path = self.checkpoint_path(version);
        checkpoint::write(&*self.store, &path, &self.path("_last_checkpoint"), version, state).await?;
        state.checkpoint = Some(version);
        Ok(())
    }
}
