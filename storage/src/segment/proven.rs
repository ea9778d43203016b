//! A store whose segments are proved before a byte of them is given out (F40).
//!
//! A range of a segment is read as whole blocks and proved by the sums in the table's log, every time it is read: that
//! costs no memory, and a file in a bucket is not fetched for a page of it. A segment from before there were sums is
//! read once in each process and proved by its digest; one that has neither is given out as it is. What does not
//! prove is remembered as damaged, named in the log, counted, and not read again until the object changes.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use dashmap::DashMap;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, coalesce_ranges,
};
use tokio::sync::Semaphore;

use crate::commit::place;
use crate::reader::{Blocks, DataFile, Snapshot};

/// Bytes of a segment that are read at once to prove its digest. Chosen: a read of a disk's own size.
const PIECE_BYTES: u64 = 1 << 20;

/// Digests that are proved at once, so that cold files of one query do not take every connection and core.
const PROOFS_MAX: usize = 4;

/// Segments that are remembered as proved, and as damaged, at most; beyond them some are proved again.
const REMEMBERED_MAX: usize = 32 * 1024;

/// What is known of segments that were read, for the whole process.
#[derive(Debug)]
pub struct Proofs {
    /// Segments whose digest was proved, and the state of the object that it was proved of.
    proven: DashMap<u128, u64>,
    damaged: DashMap<u128, u64>,
    damaged_count: AtomicU64,
    proving: Semaphore,
}

impl Default for Proofs {
    fn default() -> Self {
        Self {
            proven: DashMap::new(),
            damaged: DashMap::new(),
            damaged_count: AtomicU64::new(0),
            proving: Semaphore::new(PROOFS_MAX),
        }
    }
}

/// A segment that is read without the store.
#[derive(Debug)]
pub struct OpenFile {
    /// Its descriptor, for reading.
    pub file: std::fs::File,
    /// What every part that is read of it is to be proved by; where there is nothing, it was proved as a whole, or cannot be.
    pub blocks: Option<Arc<Blocks>>,
}

/// A segment whose bytes are not what was committed.
#[derive(Debug)]
pub struct Damaged {
    /// Its path in the deployment.
    pub path: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {} is damaged: its bytes are not what was committed", self.path)
    }
}

impl std::error::Error for Damaged {}

impl Damaged {
    /// The damaged segment that an error tells of, however deep.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(damaged) = error.downcast_ref() {
                return Some(damaged);
            }
            cause = error.source();
        }
        None
    }
}

impl Proofs {
    /// Segments that were found damaged since the start.
    #[must_use]
    pub fn damaged_count(&self) -> u64 {
        self.damaged_count.load(Ordering::Relaxed)
    }

    /// Remembers a segment as damaged in this state of its object, and says so once.
    fn condemn(&self, path: &Path, key: u128, state: u64) -> StoreError {
        if remember(&self.damaged, key, state) != Some(state) {
            self.damaged_count.fetch_add(1, Ordering::Relaxed);
            tracing::error!(object = %path, "a stored object is not what was committed: it is not read until it changes");
        }
        let source = Box::new(Damaged { path: path.to_string() });
        StoreError::Generic { store: "segment", source }
    }
}

/// Remembers one more; where there is no room some other is forgotten.
fn remember(known: &DashMap<u128, u64>, key: u128, state: u64) -> Option<u64> {
    if known.len() >= REMEMBERED_MAX {
        let other = known.iter().next().map(|entry| *entry.key());
        other.and_then(|other| known.remove(&other));
    }
    known.insert(key, state)
}

/// A store over one tenant's snapshots. It reads, and nothing else.
#[derive(Debug)]
pub struct ProvenStore {
    inner: Arc<dyn ObjectStore>,
    proofs: Arc<Proofs>,
    /// Tables by the prefix of their files.
    tables: Vec<(String, Arc<Snapshot>)>,
    /// The first damaged segment that a read came upon.
    found: OnceLock<String>,
}

impl ProvenStore {
    /// A store that proves the files of these snapshots.
    #[must_use]
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        proofs: Arc<Proofs>,
        snapshots: impl IntoIterator<Item = Arc<Snapshot>>,
    ) -> Self {
        let with_prefix = |snapshot: Arc<Snapshot>| (format!("{}/", snapshot.table.prefix()), snapshot);
        Self {
            inner,
            proofs,
            tables: snapshots.into_iter().map(with_prefix).collect(),
            found: OnceLock::new(),
        }
    }

    /// As [`Self::new`], over a store that is rooted at the tenant.
    #[must_use]
    pub fn rooted(
        inner: Arc<dyn ObjectStore>,
        proofs: Arc<Proofs>,
        snapshots: impl IntoIterator<Item = Arc<Snapshot>>,
    ) -> Self {
        let with_prefix = |snapshot: Arc<Snapshot>| (format!("{}/", snapshot.table.dataset), snapshot);
        let tables = snapshots.into_iter().map(with_prefix).collect();
        Self { inner, proofs, tables, found: OnceLock::new() }
    }

    /// The path of a damaged segment that a read of this store came upon.
    #[must_use]
    pub fn damaged(&self) -> Option<&str> {
        self.found.get().map(String::as_str)
    }

    fn condemn(&self, location: &Path, key: u128, state: u64) -> StoreError {
        let _ = self.found.set(location.to_string());
        self.proofs.condemn(location, key, state)
    }

    fn file(&self, location: &Path) -> Option<&Arc<DataFile>> {
        self.tables.iter().find_map(|(prefix, snapshot)| {
            let path = location.as_ref().strip_prefix(prefix.as_str())?;
            let at = snapshot.files.binary_search_by(|file| place(&file.path).cmp(&place(path))).ok()?;
            Some(&snapshot.files[at])
        })
    }

    /// Refuses what is known to be damaged, unless the object has changed since.
    async fn refuse_damaged(&self, location: &Path, key: u128) -> Result<()> {
        // The guard of the map is not held while the store answers.
        let Some(known) = self.proofs.damaged.get(&key).map(|entry| *entry.value()) else { return Ok(()) };
        let state = state_of(&self.inner.head(location).await?);
        if state == known {
            return Err(self.condemn(location, key, state));
        }
        self.proofs.damaged.remove(&key);
        Ok(())
    }

    /// A range, proved by the sums of its blocks.
    async fn by_blocks(
        &self,
        location: &Path,
        file: &DataFile,
        range: Range<u64>,
    ) -> Result<(ObjectMeta, Bytes)> {
        let blocks = file.blocks.as_ref().expect("the caller has looked");
        let around = blocks.around(&range, file.bytes);
        let (meta, bytes) = self.read(location, around.clone()).await?;
        if meta.size != file.bytes || !blocks.prove(around.start, &bytes) {
            return Err(self.condemn(location, key_of(file), state_of(&meta)));
        }
        let from = usize::try_from(range.start - around.start).expect("a part of a part");
        let len = usize::try_from(range.end - range.start).expect("a part of a part");
        Ok((meta, bytes.slice(from..from + len)))
    }

    /// A range of a file whose digest was proved of the object as it is now.
    async fn by_digest(
        &self,
        location: &Path,
        file: &DataFile,
        range: Range<u64>,
    ) -> Result<(ObjectMeta, Bytes)> {
        let key = key_of(file);
        // Twice at most: the object may be replaced between the proof and the read.
        for _ in 0..2 {
            let (meta, bytes) = self.read(location, range.clone()).await?;
            let state = state_of(&meta);
            if self.proofs.proven.get(&key).is_some_and(|known| *known.value() == state) {
                return Ok((meta, bytes));
            }
            drop(bytes);
            self.prove(location, file, key).await?;
        }
        Err(changes())
    }

    /// Reads a segment from end to end, a piece at a time, and compares its digest.
    async fn prove(&self, location: &Path, file: &DataFile, key: u128) -> Result<()> {
        let _turn = self.proofs.proving.acquire().await.expect("it is never closed");
        let mut hasher = blake3::Hasher::new();
        let mut state = None;
        let mut at = 0;
        while at < file.bytes {
            let end = (at + PIECE_BYTES).min(file.bytes);
            let (meta, bytes) = self.read(location, at..end).await?;
            let now = state_of(&meta);
            if meta.size != file.bytes
                || bytes.len() as u64 != end - at
                || state.is_some_and(|known| known != now)
            {
                return Err(self.condemn(location, key, now));
            }
            state = Some(now);
            hasher.update(&bytes);
            at = end;
            tokio::task::consume_budget().await;
        }
        let state = state.unwrap_or_default();
        if file.digest.is_some_and(|digest| digest != *hasher.finalize().as_bytes()) {
            return Err(self.condemn(location, key, state));
        }
        remember(&self.proofs.proven, key, state);
        Ok(())
    }

    /// Opens a segment of a store on this machine's own disk; `None` for any other. Who reads it proves what is read.
    ///
    /// # Errors
    /// The store's; [`Damaged`] where it is known to be, or another size than was committed.
    pub async fn open(&self, location: &Path) -> Result<Option<OpenFile>> {
        let missing =
            || StoreError::NotFound { path: location.to_string(), source: "no segment of these".into() };
        let file = self.file(location).ok_or_else(missing)?;
        let key = key_of(file);
        self.refuse_damaged(location, key).await?;
        // Twice at most: the object may be replaced between the proof and the opening.
        for _ in 0..2 {
            // A byte of it: a store that is elsewhere sends what it is asked for.
            let options = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
            let got = self.inner.get_opts(location, options).await?;
            let GetResultPayload::File(opened, _) = got.payload else { return Ok(None) };
            let state = state_of(&got.meta);
            if got.meta.size != file.bytes {
                return Err(self.condemn(location, key, state));
            }
            let is_proven = || self.proofs.proven.get(&key).is_some_and(|known| *known.value() == state);
            if file.blocks.is_some() || file.digest.is_none() || is_proven() {
                return Ok(Some(OpenFile { file: opened, blocks: file.blocks.clone() }));
            }
            self.prove(location, file, key).await?;
        }
        Err(changes())
    }

    /// Reads a range, and what the store says of the object it is of.
    async fn read(&self, location: &Path, range: Range<u64>) -> Result<(ObjectMeta, Bytes)> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.inner.get_opts(location, options).await {
            Ok(result) => Ok((result.meta.clone(), result.bytes().await?)),
            // A range past the end: the object is shorter than what was committed.
            Err(error) => match self.inner.head(location).await {
                Ok(meta) => match self.file(location) {
                    Some(file) if meta.size != file.bytes => {
                        Err(self.condemn(location, key_of(file), state_of(&meta)))
                    }
                    _ => Err(error),
                },
                Err(error) => Err(error),
            },
        }
    }
}

/// What a file is remembered by: its name and what it must hold.
fn key_of(file: &DataFile) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(file.path.as_bytes());
    hasher.update(&file.digest.unwrap_or_default());
    let hash = hasher.finalize();
    u128::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"))
}

/// The state of an object: another one when it was put or changed again.
fn state_of(meta: &ObjectMeta) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(meta.e_tag.as_deref().unwrap_or_default().as_bytes());
    hasher.update(&meta.last_modified.timestamp_micros().to_le_bytes());
    hasher.update(&meta.size.to_le_bytes());
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("32 bytes"))
}

impl fmt::Display for ProvenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenStore({})", self.inner)
    }
}

fn changes() -> StoreError {
    StoreError::Generic { store: "segment", source: "the object changes while it is read".into() }
}

fn read_only() -> StoreError {
    StoreError::NotImplemented { operation: "a write".into(), implementer: "ProvenStore".into() }
}

#[async_trait]
impl ObjectStore for ProvenStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(file) = self.file(location).filter(|_| !options.head) else {
            return self.inner.get_opts(location, options).await;
        };
        if file.blocks.is_none() && file.digest.is_none() {
            return self.inner.get_opts(location, options).await;
        }
        self.refuse_damaged(location, key_of(file)).await?;
        let range = match &options.range {
            None => 0..file.bytes,
            Some(range) => range
                .as_range(file.bytes)
                .map_err(|source| StoreError::Generic { store: "segment", source: Box::new(source) })?,
        };
        let (meta, bytes) = match file.blocks {
            Some(_) => self.by_blocks(location, file, range.clone()).await?,
            None => self.by_digest(location, file, range.clone()).await?,
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed()),
            meta,
            range,
            attributes: object_store::Attributes::default(),
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fetch = |range| self.get_range(location, range);
        coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only())
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        locations.and_then(|_| async { Err(read_only()) }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only())
    }
}

#[cfg(test)]
mod tests;
