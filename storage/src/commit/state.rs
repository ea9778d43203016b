//! What a table looks like at one version, and how a commit's lines change it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::action::{Line, MetaData};
use super::folders::{Entry, Folders};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::reader::DataFile;
use crate::record::Kind;
use crate::record::fit::Columns;

/// A file that a version removed and that may still be in the store.
#[derive(Clone, Debug)]
pub struct Tombstone {
    /// Its path below the table's root.
    pub path: Box<str>,
    /// When it was removed, by its remover's clock, milliseconds since 1970 UTC.
    pub removed_ms: i64,
    /// Alive as long as a snapshot of this process names the file (R1).
    pub pin: Weak<DataFile>,
}

/// A table at one version.
#[derive(Clone, Debug)]
pub struct State {
    /// The last commit that is in it; `None` before the first.
    pub version: Option<i64>,
    /// Live files.
    pub files: Folders<Arc<DataFile>>,
    /// Files that are live no more, until they are gone from the store. Without those of `tombstones_in`.
    pub tombstones: Folders<Tombstone>,
    /// How far each application's transactions are in the table.
    pub txns: HashMap<String, i64>,
    /// Schema and partitioning; `None` before the first commit.
    pub(super) metadata: Option<MetaData>,
    /// The last commit that a checkpoint covers.
    pub checkpoint: Option<i64>,
    /// The version whose checkpoint has tombstones that were not read yet.
    pub(super) tombstones_in: Option<i64>,
    /// When this process last knew that `version` was the newest, milliseconds since 1970 UTC.
    pub(super) seen_ms: Option<i64>,
}

impl Entry for Arc<DataFile> {
    fn path(&self) -> &str {
        &self.path
    }
}

impl Entry for Tombstone {
    fn path(&self) -> &str {
        &self.path
    }
}

impl State {
    /// A table that has no commit yet.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            version: None,
            files: Folders::default(),
            tombstones: Folders::default(),
            txns: HashMap::new(),
            metadata: None,
            checkpoint: None,
            tombstones_in: None,
            seen_ms: None,
        }
    }

    /// The same without files and tombstones.
    pub(super) fn without_files(&self) -> Self {
        Self {
            version: self.version,
            files: Folders::default(),
            tombstones: Folders::default(),
            txns: self.txns.clone(),
            metadata: self.metadata.clone(),
            checkpoint: self.checkpoint,
            tombstones_in: self.tombstones_in,
            seen_ms: self.seen_ms,
        }
    }

    /// Bytes of memory that it takes, about, and the files in it: a table may have thousands (B1).
    pub(crate) fn held_bytes(&self) -> usize {
        let files = self.files.iter().map(|file| file.held_bytes()).sum::<usize>() + self.files.held_bytes();
        let dead =
            self.tombstones.iter().map(|dead| dead.path.len()).sum::<usize>() + self.tombstones.held_bytes();
        let schema = self.metadata.as_ref().map_or(0, |metadata| metadata.schema_string.len());
        size_of::<Self>() + schema + files + dead
    }

    /// Whether every tombstone was read. Until then `tombstones` has those alone that came since.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.tombstones_in.is_none()
    }

    /// Takes the tombstones of the checkpoint that it was opened from. A file that is live since is not dead.
    pub(super) fn bury(&mut self, checkpoint: &Self) {
        for tombstone in checkpoint.tombstones.iter() {
            if !self.files.contains(&tombstone.path) && !self.tombstones.contains(&tombstone.path) {
                self.tombstones.insert(tombstone.clone());
            }
        }
        self.tombstones_in = None;
    }

    /// Forgets every file that is live no more, those that were not read as well.
    pub fn forget_tombstones(&mut self) {
        self.tombstones = Folders::default();
        self.tombstones_in = None;
    }

    /// Whether both have the same tombstones.
    pub(super) fn buries_the_same(&self, other: &Self) -> bool {
        let is_known = |tombstone: &Tombstone| {
            other
                .tombstones
                .get(&tombstone.path)
                .is_some_and(|known| known.removed_ms == tombstone.removed_ms)
        };
        self.tombstones.len() == other.tombstones.len() && self.tombstones.iter().all(is_known)
    }

    /// Whether both are the same table at the same version. Tombstones aside: they go as files are swept.
    pub(super) fn holds_the_same(&self, other: &Self) -> bool {
        self.version == other.version
            && self.metadata == other.metadata
            && self.txns == other.txns
            && self.files == other.files
    }

    /// Takes over what this process knew of the same table before it was read anew: which files snapshots name.
    pub(super) fn adopt(&mut self, before: &Self) {
        self.files.for_each_mut(|file| {
            if let Some(known) = before.files.get(&file.path) {
                *file = Arc::clone(known);
            }
        });
        self.tombstones.for_each_mut(|tombstone| {
            // R1: a snapshot of this process may name it still.
            if let Some(known) = before.files.get(&tombstone.path) {
                tombstone.pin = Arc::downgrade(known);
            } else if let Some(known) = before.tombstones.get(&tombstone.path) {
                tombstone.pin = Weak::clone(&known.pin);
            }
        });
    }

    /// The last frame of log `writer` that the table holds; 0 where it holds none.
    #[must_use]
    pub fn last_seq(&self, writer: &str) -> u64 {
        self.txns.get(writer).map_or(0, |version| u64::try_from(*version).unwrap_or(0))
    }

    /// The kind of the table's rows, where it has a commit.
    ///
    /// # Errors
    /// `Kind::Corrupt` when the metadata does not say.
    pub fn kind(&self) -> Result<Option<Kind>> {
        self.metadata.as_ref().map(MetaData::kind).transpose()
    }

    /// The table's attribute columns, where it has a commit.
    ///
    /// # Errors
    /// `Kind::Corrupt` when the schema is not what was written.
    pub fn columns(&self) -> Result<Option<Columns>> {
        let Some(metadata) = &self.metadata else { return Ok(None) };
        Ok(Some(Columns::of_schema(metadata.kind()?, &metadata.schema()?)))
    }

    /// Applies the lines of commit `version`.
    ///
    /// # Errors
    /// `Kind::Newer` where the table is of a newer build; `Kind::Corrupt` where a line cannot be.
    pub(super) fn apply(&mut self, version: i64, lines: Vec<Line>) -> Result<()> {
        for line in lines {
            self.take(line)?;
        }
        self.version = Some(version);
        Ok(())
    }

    /// Applies one line.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub(super) fn take(&mut self, line: Line) -> Result<()> {
        if let Some(protocol) = line.protocol
            && (protocol.min_reader_version > 1 || protocol.min_writer_version > 2)
        {
            let text = "it asks for a newer Delta protocol than reader 1, writer 2";
            return Err(Error::new(ErrorKind::Newer, text));
        }
        if let Some(metadata) = line.meta_data {
            self.metadata = Some(metadata);
        }
        if let Some(txn) = line.txn {
            self.txns.insert(txn.app_id, txn.version);
        }
        if let Some(remove) = line.remove {
            let file = self.files.remove(&remove.path);
            let pin = file.as_ref().map(Arc::downgrade).unwrap_or_default();
            let removed_ms = remove.deletion_timestamp.unwrap_or(0);
            self.tombstones.insert(Tombstone { path: remove.path.into(), removed_ms, pin });
        }
        if let Some(add) = line.add {
            if add.deletion_vector.is_some() {
                let text = "it has files of which rows were deleted in a way that this build does not know";
                return Err(Error::new(ErrorKind::Newer, text));
            }
            self.tombstones.remove(&add.path);
            self.files.insert(Arc::new(add.file()?));
        }
        Ok(())
    }
}

/// A state of `version` with these files, of which `removed` were removed; log `w` is in it up to frame 41.
#[cfg(test)]
pub fn state_of(version: i64, files: impl Iterator<Item = DataFile>, removed: &[String]) -> State {
    use super::action::{Add, Remove, Txn};
    let adds = files.map(|file| Line { add: Some(Add::of(&file, 5)), ..Line::default() });
    let removes = removed
        .iter()
        .enumerate()
        .map(|(at, path)| Line { remove: Some(Remove::of(path, true, at as i64)), ..Line::default() });
    let txn = Txn { app_id: "w".into(), version: 41, last_updated: None };
    let lines = adds.chain(removes).chain([Line { txn: Some(txn), ..Line::default() }]);
    let mut state = State::empty();
    state.apply(version, lines.collect()).unwrap();
    state
}
