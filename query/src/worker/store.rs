//! The worker's object store: it reads the files of the scans it was given, and can name nothing else.
//!
//! A file of a folder is lent open, once the server has found it on a list it gave. A file of a bucket is read through the
//! server, which checks each range. So there is no path, no credential and no network in a worker.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::desk::Desk;
use super::near::{Near, Open};
use super::wire::{Ask, Given, READ_BYTES_MAX};
use crate::plan::table::Scanned;
use crate::refusal::Refusal;

/// Reads what the server lends.
pub struct Lent {
    desk: Arc<Desk>,
    /// The files of this query's scans, by path.
    files: Mutex<HashMap<String, Scanned>>,
    open: Open,
    /// Whether the server said that files are not on this machine.
    is_far: AtomicBool,
    /// Bytes read so far.
    read_bytes: AtomicU64,
    /// Whether a read was refused because the server's store does not answer: the reader of files keeps no more of an
    /// error than its text.
    was_away: AtomicBool,
}

impl Lent {
    /// A store with nothing in it.
    #[must_use]
    pub fn new(desk: Arc<Desk>) -> Self {
        Self {
            desk,
            files: Mutex::default(),
            open: Open::default(),
            is_far: AtomicBool::new(false),
            read_bytes: AtomicU64::new(0),
            was_away: AtomicBool::new(false),
        }
    }

    /// Adds a file of a scan.
    pub fn add(&self, file: Scanned) {
        self.files().insert(file.path.clone(), file);
    }

    /// Takes what was given for a file: that file, open, or that files are not where this machine can read them.
    pub fn take(&self, path: &str, size: u64, given: Given, file: Option<File>) -> Option<Arc<Near>> {
        let (Given::File { sums }, Some(file)) = (given, file) else {
            self.is_far.store(true, Ordering::Relaxed);
            return None;
        };
        let near = Near::new(file, size, sums.as_deref())?;
        Some(self.open.get(path).unwrap_or_else(|| self.open.keep(path, near)))
    }

    /// The files of one dataset's scans.
    #[must_use]
    pub fn files_of(&self, dataset: &str) -> Vec<Scanned> {
        let is_of = |path: &str| path.strip_prefix(dataset).is_some_and(|rest| rest.starts_with('/'));
        let mut files: Vec<Scanned> =
            self.files().values().filter(|file| is_of(&file.path)).cloned().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }

    fn files(&self) -> MutexGuard<'_, HashMap<String, Scanned>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes read so far.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Whether the server's store did not answer a read: what failed then says nothing about the bytes.
    #[must_use]
    pub fn was_away(&self) -> bool {
        self.was_away.load(Ordering::Relaxed)
    }

    fn size(&self, location: &Path) -> Result<u64> {
        self.files().get(location.as_ref()).map(|file| file.bytes).ok_or_else(|| Error::NotFound {
            path: location.to_string(),
            source: "not a file of this query".into(),
        })
    }

    /// The file, open; nothing where it is to be read through the server.
    async fn near(&self, path: &str, size: u64) -> Result<Option<Arc<Near>>> {
        if self.is_far.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some(near) = self.open.get(path) {
            return Ok(Some(near));
        }
        let ask = Ask::Open { path: path.to_owned() };
        let gift = self.desk.ask(ask).await.map_err(|refusal| self.failed(path, refusal))?;
        Ok(self.take(path, size, gift.given, gift.file))
    }

    async fn read(&self, path: &str, size: u64, range: Range<u64>) -> Result<Bytes> {
        let length = range.end.saturating_sub(range.start);
        self.read_bytes.fetch_add(length, Ordering::Relaxed);
        if let Some(near) = self.near(path, size).await?
            && let Some(bytes) = near.read(&range)
        {
            return Ok(bytes);
        }
        let Ok(length) = usize::try_from(length) else { return Err(short(path)) };
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length)
            .map_err(|_| Error::Generic { store: "lent", source: Box::new(Refusal::memory()) })?;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + READ_BYTES_MAX);
            let ask = Ask::Read { path: path.to_owned(), ranges: vec![(at, end)] };
            let gift = self.desk.ask(ask).await.map_err(|refusal| self.failed(path, refusal))?;
            if gift.tail.len() as u64 != end - at {
                return Err(short(path));
            }
            bytes.extend_from_slice(&gift.tail);
            at = end;
        }
        Ok(Bytes::from(bytes))
    }

    /// What a refusal of the server is to a reader of files.
    fn failed(&self, path: &str, refusal: Refusal) -> Error {
        if refusal.status == 503 {
            self.was_away.store(true, Ordering::Relaxed);
        }
        if refusal.code == "corrupt_object" || refusal.status == 500 {
            return Error::NotFound { path: path.to_owned(), source: refusal.detail.into() };
        }
        Error::Generic { store: "lent", source: refusal.detail.into() }
    }
}

fn short(path: &str) -> Error {
    Error::NotFound { path: path.to_owned(), source: "fewer bytes than its size".into() }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent")
    }
}

impl fmt::Display for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent")
    }
}

#[async_trait]
impl ObjectStore for Lent {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let size = self.size(location)?;
        let range = match &options.range {
            Some(range) => range
                .as_range(size)
                .map_err(|error| Error::Generic { store: "lent", source: Box::new(error) })?,
            None => 0..size,
        };
        let bytes = if options.head {
            Bytes::new()
        } else {
            self.read(location.as_ref(), size, range.clone()).await?
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed()),
            meta: ObjectMeta {
                location: location.clone(),
                last_modified: Default::default(),
                size,
                e_tag: None,
                version: None,
            },
            range,
            attributes: object_store::Attributes::new(),
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let size = self.size(location)?;
        // A bucket answers slowly: what is wanted of it is asked for together.
        let mut reads = Vec::with_capacity(ranges.len());
        for range in ranges {
            reads.push(self.read(location.as_ref(), size, range.start.min(size)..range.end.min(size)));
        }
        try_join_all(reads).await
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(Error::NotImplemented { operation: "put".into(), implementer: "Lent".into() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "put".into(), implementer: "Lent".into() })
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::empty().boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::empty().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotImplemented { operation: "list".into(), implementer: "Lent".into() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".into(), implementer: "Lent".into() })
    }
}
