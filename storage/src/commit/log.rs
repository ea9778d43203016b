//! Reading a table's log and appending to it by compare-and-swap.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde_json::json;

use super::action::{self, Add, Line, MetaData, Protocol, Txn};
use super::checkpoint;
use super::state::State;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::reader::DataFile;
use crate::record::Kind;
use crate::record::fit::Columns;
use crate::store::unavailable;

/// Attempts against other writers before a commit gives up and is tried again later.
const ATTEMPTS_MAX: usize = 32;

/// One table's log in the object store.
#[derive(Debug)]
pub struct TableLog {
    store: Arc<dyn ObjectStore>,
    root: String,
}

/// What a commit adds to a table.
#[derive(Debug)]
pub struct Append {
    /// What the rows are.
    pub kind: Kind,
    /// The columns that the files were written with.
    pub columns: Columns,
    /// The files; each is complete in the store already (C1).
    pub files: Vec<DataFile>,
    /// How far each application's transactions are in the table with these files.
    pub txns: Vec<(String, i64)>,
    /// The transactions of which every one must still be below its new version, or the files are in already.
    pub guards: Vec<String>,
    /// When, milliseconds since 1970 UTC.
    pub now_ms: i64,
}

impl TableLog {
    /// The log of the table below `root`.
    pub fn new(store: Arc<dyn ObjectStore>, root: String) -> Self {
        Self { store, root }
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/_delta_log/{name}", self.root))
    }

    fn commit_path(&self, version: i64) -> Path {
        self.path(&format!("{version:020}.json"))
    }

    /// Reads the table as it is now: the last checkpoint, and every commit after it.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the store does not answer, `Kind::Corrupt` when the log has a hole or a line
    /// that cannot be.
    pub async fn load(&self) -> Result<State> {
        let mut state = match checkpoint::read_last(&*self.store, &self.path("_last_checkpoint")).await? {
            Some(version) => {
                let path = self.path(&format!("{version:020}.checkpoint.parquet"));
                let lines = checkpoint::read(&*self.store, &path).await?;
                let mut state = State::empty();
                state.apply(version, lines)?;
                state.checkpoint = Some(version);
                state
            }
            None => State::empty(),
        };
        let listed: Vec<_> = self
            .store
            .list(Some(&Path::from(format!("{}/_delta_log", self.root))))
            .try_collect()
            .await
            .map_err(unavailable)?;
        let mut versions: Vec<i64> = listed
            .iter()
            .filter_map(|object| object.location.filename()?.strip_suffix(".json")?.parse().ok())
            .filter(|version| state.version.is_none_or(|at| *version > at))
            .collect();
        versions.sort_unstable();
        for version in versions {
            let expected = state.version.map_or(0, |at| at + 1);
            if version != expected {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("log of table {} has no commit {expected} but has {version}", self.root),
                ));
            }
            let bytes = self.get(version).await?.ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, format!("commit {version} of table {} is gone", self.root))
            })?;
            state.apply(version, action::from_bytes(&bytes)?)?;
        }
        Ok(state)
    }

    async fn get(&self, version: i64) -> Result<Option<Bytes>> {
        match self.store.get(&self.commit_path(version)).await {
            Ok(result) => result.bytes().await.map(Some).map_err(unavailable),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Commits files to the table, exactly once, and returns the table with them.
    ///
    /// The commit is all or nothing (C1) and moves by create-if-absent (C2). Where another writer took the
    /// number, its commit is read and the next number tried; where the store did not say how a put ended, the
    /// object itself does. A table whose transactions already show `append` as committed is returned as it is.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the store does not answer or others win every time: try again later, nothing
    /// is in the table or the next attempt will find it there.
    pub async fn append(&self, mut state: State, append: &Append) -> Result<State> {
        for _ in 0..ATTEMPTS_MAX {
            let is_in = !append.guards.is_empty()
                && append
                    .txns
                    .iter()
                    .filter(|(app, _)| append.guards.contains(app))
                    .all(|(app, version)| state.txns.get(app).is_some_and(|at| at >= version));
            if is_in {
                return Ok(state);
            }
            let version = state.version.map_or(0, |at| at + 1);
            let lines = self.lines(&state, append)?;
            let bytes = Bytes::from(action::to_bytes(&lines));
            let put = self
                .store
                .put_opts(&self.commit_path(version), PutPayload::from(bytes.clone()), PutMode::Create.into())
                .await;
            let winner = match put {
                Ok(_) => None,
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    self.get(version).await?
                }
                // How the put ended is unknown: what stands there now decides.
                Err(error) => match self.get(version).await? {
                    Some(found) => Some(found),
                    None => return Err(unavailable(error)),
                },
            };
            match winner {
                None => {
                    state.apply(version, lines)?;
                    return Ok(state);
                }
                // The id in our own commitInfo makes equal bytes ours.
                Some(found) if found == bytes => {
                    state.apply(version, lines)?;
                    return Ok(state);
                }
                Some(found) => {
                    state.apply(version, action::from_bytes(&found)?)?;
                    self.catch_up(&mut state).await?;
                }
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("other writers won {ATTEMPTS_MAX} times in a row on table {}", self.root),
        ))
    }

    /// Applies every commit behind the state's version.
    async fn catch_up(&self, state: &mut State) -> Result<()> {
        loop {
            let next = state.version.map_or(0, |at| at + 1);
            let Some(bytes) = self.get(next).await? else { return Ok(()) };
            state.apply(next, action::from_bytes(&bytes)?)?;
        }
    }

    fn lines(&self, state: &State, append: &Append) -> Result<Vec<Line>> {
        let mut lines = vec![Line {
            commit_info: Some(json!({
                "timestamp": append.now_ms,
                "operation": "WRITE",
                "operationParameters": {"mode": "Append", "partitionBy": "[\"date\"]"},
                "engineInfo": concat!("floodmark/", env!("CARGO_PKG_VERSION")),
                "isBlindAppend": true,
                "operationId": uuid::Uuid::new_v4().to_string(),
            })),
            ..Line::default()
        }];
        match &state.metadata {
            None => {
                let id = uuid::Uuid::new_v4().to_string();
                let metadata = MetaData::new(id, append.kind, append.columns.schema(), append.now_ms);
                let protocol = Protocol { min_reader_version: 1, min_writer_version: 2 };
                lines.push(Line { protocol: Some(protocol), ..Line::default() });
                lines.push(Line { meta_data: Some(metadata), ..Line::default() });
            }
            Some(metadata) => {
                let known = Columns::of_schema(append.kind, &metadata.schema()?);
                let wanted = known.with_added(append.columns.attributes());
                if wanted.attributes().len() > known.attributes().len() {
                    let metadata = metadata.with_schema(wanted.schema());
                    lines.push(Line { meta_data: Some(metadata), ..Line::default() });
                }
            }
        }
        for (app_id, version) in &append.txns {
            let txn = Txn { app_id: app_id.clone(), version: *version, last_updated: Some(append.now_ms) };
            lines.push(Line { txn: Some(txn), ..Line::default() });
        }
        for file in &append.files {
            lines.push(Line { add: Some(Add::of(file, append.now_ms)), ..Line::default() });
        }
        Ok(lines)
    }

    /// Writes a checkpoint of `state`, so that opening the table does not read every commit.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the store does not take it: the table is as good without.
    pub async fn checkpoint(&self, state: &State) -> Result<()> {
        let Some(version) = state.version else { return Ok(()) };
        let path = self.path(&format!("{version:020}.checkpoint.parquet"));
        checkpoint::write(&*self.store, &path, &self.path("_last_checkpoint"), version, state).await
    }
}
