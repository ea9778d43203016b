//! A local folder as an object store whose puts survive a power cut.
//!
//! A local `put` of the library neither syncs the file nor its folder, so after a power cut a commit could
//! name an empty object. [`SyncedFolder`] writes aside, syncs, links into place and syncs the folder: an
//! object is complete before anything names it (C1).

mod folders;
mod rounds;
mod walk;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
    UploadPart,
};

use self::folders::Folders;
use self::rounds::{Rounds, Synced};
use crate::error::{Error, Kind, Result};

/// Bytes from which an object is synced by itself first.
const LARGE: usize = 1 << 20;

/// A local folder whose puts are on stable storage when they return.
#[derive(Debug)]
pub struct SyncedFolder {
    root: PathBuf,
    folders: Arc<Folders>,
    rounds: Arc<Rounds>,
    inner: LocalFileSystem,
}

impl SyncedFolder {
    /// Opens the folder, which is made where there is none.
    ///
    /// # Errors
    /// `Kind::Unavailable` when it cannot be made or read.
    pub fn open(root: &FsPath) -> Result<Self> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(Kind::Unavailable, "store folder cannot be opened").with_source(error)
        };
        fs::create_dir_all(root).map_err(|error| failed(error.into()))?;
        let root = root.canonicalize().map_err(|error| failed(error.into()))?;
        let inner = LocalFileSystem::new_with_prefix(&root).map_err(|error| failed(error.into()))?;
        let rounds = File::open(&root).and_then(Rounds::start).map_err(|error| failed(error.into()))?;
        Ok(Self { folders: Arc::new(Folders::below(root.clone())), rounds: Arc::new(rounds), root, inner })
    }
}

impl SyncedFolder {
    /// The folder that a prefix is.
    fn folder_of(&self, prefix: &Path) -> StoreResult<PathBuf> {
        if prefix.is_root() { Ok(self.root.clone()) } else { self.inner.path_to_filesystem(prefix) }
    }

    /// Makes sure that an object is one: a look at its name, which is not worth another thread.
    fn check(&self, location: &Path) -> StoreResult<()> {
        let path = self.inner.path_to_filesystem(location)?;
        walk::is_object(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                object_store::Error::NotFound { path: location.to_string(), source: error.into() }
            }
            _ => failed(error),
        })
    }

    fn listed(
        &self,
        prefix: Option<&Path>,
        after: Option<&Path>,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let (root, prefix, after) = (self.root.clone(), prefix.cloned().unwrap_or_default(), after.cloned());
        let folder = self.folder_of(&prefix);
        let found = async move {
            let folder = folder?;
            let found = move || walk::objects(&root, &folder, &prefix, after.as_ref());
            let found = blocking(found).await.map_err(failed)?;
            Ok::<_, object_store::Error>(futures::stream::iter(found.into_iter().map(Ok)))
        };
        futures::stream::once(found).try_flatten().boxed()
    }
}

impl fmt::Display for SyncedFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SyncedFolder({})", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for SyncedFolder {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> StoreResult<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) {
            return self.inner.put_opts(location, payload, opts).await;
        }
        let target = self.inner.path_to_filesystem(location)?;
        let (folders, rounds) = (Arc::clone(&self.folders), Arc::clone(&self.rounds));
        let is_create = opts.mode == PutMode::Create;
        let key = location.to_string();
        match put_synced(folders, rounds, target, payload, is_create).await {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(object_store::Error::AlreadyExists { path: key, source: error.into() })
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        let _ = opts;
        let target = self.inner.path_to_filesystem(location)?;
        let folders = Arc::clone(&self.folders);
        let begin = move || SyncedUpload::begin(folders, target);
        Ok(Box::new(blocking(begin).await.map_err(failed)?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.check(location)?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.check(location)?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.listed(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let all = self.listed(prefix, Some(offset));
        let (Some(prefix), Some(after)) = (prefix.cloned(), offset.filename().map(str::to_owned)) else {
            return all;
        };
        let Ok(folder) = self.inner.path_to_filesystem(&prefix) else { return all };
        if Path::from(format!("{prefix}/{after}")) != *offset {
            return all;
        }
        // A table's log is one flat folder of up to ten thousand, of which a few are asked for: no more than their
        // names is looked at.
        let names = tokio::task::spawn_blocking(move || flat_names_after(&folder, &prefix, &after));
        let found = async move {
            Ok::<_, object_store::Error>(match names.await {
                Ok(Some(found)) => futures::stream::iter(found.into_iter().map(Ok)).boxed(),
                _ => all,
            })
        };
        futures::stream::once(found).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let (root, folder) = (self.root.clone(), self.folder_of(&prefix)?);
        blocking(move || walk::level(&root, &folder, &prefix)).await.map_err(failed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        let bytes = self.inner.get(from).await?.bytes().await?;
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.put_opts(to, bytes.into(), mode.into()).await.map(drop)
    }
}

fn failed(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "folder", source: error.into() }
}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Where `target` is written before it is complete.
fn aside(target: &FsPath) -> PathBuf {
    let name = target.file_name().and_then(|name| name.to_str()).unwrap_or("object");
    // The folder's listing leaves out what ends in `#` and digits alone, so a half-written file is no object.
    let id = uuid::Uuid::new_v4().as_u128() % 10_u128.pow(32);
    target.with_file_name(format!("{name}#{id:032}"))
}

/// An object that is written aside in parts, and synced before it is put in place.
#[derive(Debug)]
struct SyncedUpload {
    folders: Arc<Folders>,
    target: PathBuf,
    aside: PathBuf,
    file: Arc<File>,
    /// Where the next part begins.
    offset: u64,
    is_over: bool,
}

impl SyncedUpload {
    fn begin(folders: Arc<Folders>, target: PathBuf) -> io::Result<Self> {
        folders.make(target.parent().expect("an object lies below the root"))?;
        let aside = aside(&target);
        let file = Arc::new(File::options().write(true).create_new(true).open(&aside)?);
        Ok(Self { folders, target, aside, file, offset: 0, is_over: false })
    }
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let file = Arc::clone(&self.file);
        let mut at = self.offset;
        self.offset += data.content_length() as u64;
        Box::pin(async move {
            let write = move || {
                for piece in data.iter() {
                    file.write_all_at(piece, at)?;
                    at += piece.len() as u64;
                }
                Ok(())
            };
            blocking(write).await.map_err(failed)
        })
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let (file, aside, target) = (Arc::clone(&self.file), self.aside.clone(), self.target.clone());
        let folders = Arc::clone(&self.folders);
        let put = move || {
            file.sync_all()?;
            fs::rename(aside, &target)?;
            folders.sync(target.parent().expect("an object lies below the root"))
        };
        blocking(put).await.map_err(failed)?;
        self.is_over = true;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.is_over = true;
        fs::remove_file(&self.aside).map_err(failed)
    }
}

impl Drop for SyncedUpload {
    fn drop(&mut self) {
        if !self.is_over {
            // Left behind at worst: it is not an object, and no listing shows it.
            let _ = fs::remove_file(&self.aside);
        }
    }
}

/// The objects of a folder whose names come after `after`, or `None` where it is not a flat folder that reads.
fn flat_names_after(folder: &FsPath, prefix: &Path, after: &str) -> Option<Vec<ObjectMeta>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        if !entry.file_type().ok()?.is_file() {
            return None;
        }
        // `#` marks what is half-written.
        if name.as_str() <= after || name.contains('#') {
            continue;
        }
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            // Cleaned up since it was named.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return None,
        };
        found.push(ObjectMeta {
            location: Path::from(format!("{prefix}/{name}")),
            last_modified: meta.modified().ok()?.into(),
            size: meta.len(),
            e_tag: None,
            version: None,
        });
    }
    Some(found)
}

/// Writes aside, syncs, puts in place (a hard link where the name must be new), syncs the folders. Where nobody waits
/// for it any more it ends between two of these, as a process may.
async fn put_synced(
    folders: Arc<Folders>,
    rounds: Arc<Rounds>,
    target: PathBuf,
    payload: PutPayload,
    is_create: bool,
) -> io::Result<()> {
    let folder = target.parent().expect("an object lies below the root").to_owned();
    let write = {
        let (folders, folder, target) = (Arc::clone(&folders), folder.clone(), target.clone());
        move || {
            folders.make(&folder)?;
            if is_create && target.exists() {
                // Told without a byte written: a start on a full disk finds its state taken, and goes on.
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Aside::write(aside(&target), &payload)
        }
    };
    let (aside, file) = blocking(write).await?;
    rounds.sync(move || file.sync_all()).await?;
    blocking(move || aside.place(&target, is_create)).await?;
    let own = {
        let (folders, folder) = (Arc::clone(&folders), folder.clone());
        move || folders.sync(&folder)
    };
    if rounds.sync(own).await? == Synced::Together {
        folders.are_synced(&folder);
    }
    Ok(())
}

/// A file that is no object yet. It is removed where it does not become one; left behind at worst, the next start
/// ignores it.
struct Aside(PathBuf);

impl Aside {
    fn write(path: PathBuf, payload: &PutPayload) -> io::Result<(Self, File)> {
        let mut file = File::options().write(true).create_new(true).open(&path)?;
        let aside = Self(path);
        for part in payload.iter() {
            file.write_all(part)?;
        }
        if payload.content_length() > LARGE {
            // Others need not wait for it: its turn comes when it is on the disk but for the journal.
            file.sync_data()?;
        }
        Ok((aside, file))
    }

    fn place(self, target: &FsPath, is_create: bool) -> io::Result<()> {
        if is_create { fs::hard_link(&self.0, target) } else { fs::rename(&self.0, target) }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests;
