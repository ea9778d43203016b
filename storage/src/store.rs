//! The object store that tables and state live in: a local folder, or any bucket by URL.
//!
//! A local `put` of the library neither syncs the file nor its folder, so after a power cut a commit could
//! name an empty object. [`SyncedFolder`] writes aside, syncs, links into place and syncs the folder: an
//! object is complete before anything names it (C1).

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::options::Options;

/// What a store's failure means to its callers: come back later.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err calls")]
pub fn unavailable(error: object_store::Error) -> Error {
    Error::new(Kind::Unavailable, "object store does not answer").with_source(redacted(&error))
}

/// The error without the signatures that some stores put into their URLs.
fn redacted(error: &object_store::Error) -> String {
    let text = error.to_string();
    match text.find('?') {
        Some(at) => format!("{}?…", &text[..at]),
        None => text,
    }
}

/// Opens the store: the folder `local` where `url` is `None`, else the bucket behind the URL.
///
/// Credentials come from the environment (`AWS_*`, `AZURE_*`, `GOOGLE_*`), never from the URL.
///
/// # Errors
/// `Kind::Invalid` for a URL that names no store, `Kind::Unavailable` when the folder cannot be made.
pub fn open(url: Option<&str>, local: &FsPath) -> Result<Arc<dyn ObjectStore>> {
    let Some(url) = url else {
        return Ok(Arc::new(SyncedFolder::open(local)?));
    };
    let parsed = Url::parse(url)
        .map_err(|error| Error::new(Kind::Invalid, "store_url is no URL").with_source(error))?;
    if parsed.scheme() == "file" {
        let path = parsed
            .to_file_path()
            .map_err(|()| Error::new(Kind::Invalid, "store_url names no local folder"))?;
        return Ok(Arc::new(SyncedFolder::open(&path)?));
    }
    let environment = std::env::vars()
        .filter(|(name, _)| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| (name.to_ascii_lowercase(), value));
    let (store, prefix) = object_store::parse_url_opts(&parsed, environment)
        .map_err(|error| Error::new(Kind::Invalid, "store_url cannot be opened").with_source(error))?;
    Ok(if prefix.as_ref().is_empty() { store.into() } else { Arc::new(PrefixStore::new(store, prefix)) })
}

/// The folder that the store of these options lies in; `None` for a bucket.
#[must_use]
pub fn local_root(options: &Options) -> Option<PathBuf> {
    match options.store_url.as_deref().map(Url::parse) {
        None => Some(options.data.join("store")),
        Some(Ok(url)) if url.scheme() == "file" => url.to_file_path().ok(),
        Some(_) => None,
    }
}

/// A local folder whose puts are on stable storage when they return.
#[derive(Debug)]
pub struct SyncedFolder {
    root: PathBuf,
    inner: LocalFileSystem,
}

impl SyncedFolder {
    fn open(root: &FsPath) -> Result<Self> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(Kind::Unavailable, "store folder cannot be opened").with_source(error)
        };
        fs::create_dir_all(root).map_err(|error| failed(error.into()))?;
        let root = root.canonicalize().map_err(|error| failed(error.into()))?;
        let inner = LocalFileSystem::new_with_prefix(&root).map_err(|error| failed(error.into()))?;
        Ok(Self { root, inner })
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
        let root = self.root.clone();
        let is_create = opts.mode == PutMode::Create;
        let key = location.to_string();
        let put = move || put_synced(&root, &target, &payload, is_create);
        match tokio::task::spawn_blocking(put).await {
            Ok(Ok(())) => Ok(PutResult { e_tag: None, version: None }),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(object_store::Error::AlreadyExists { path: key, source: error.into() })
            }
            Ok(Err(error)) => Err(object_store::Error::Generic { store: "folder", source: error.into() }),
            Err(error) => Err(object_store::Error::Generic { store: "folder", source: error.into() }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let all = self.inner.list_with_offset(prefix, offset);
        let (Some(prefix), Some(after)) = (prefix.cloned(), offset.filename().map(str::to_owned)) else {
            return all;
        };
        let Ok(folder) = self.inner.path_to_filesystem(&prefix) else { return all };
        if Path::from(format!("{prefix}/{after}")) != *offset {
            return all;
        }
        // The library builds the whole key of every name before it looks at the offset. A table's log is one flat
        // folder of up to ten thousand, of which a few are asked for.
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
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
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
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
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

/// Writes aside, syncs, puts in place (a hard link where the name must be new), syncs the folders.
fn put_synced(root: &FsPath, target: &FsPath, payload: &PutPayload, is_create: bool) -> std::io::Result<()> {
    let folder = target.parent().expect("an object lies below the root");
    make_folder(root, folder)?;
    // `#` cannot be in an object's key, so a half-written file is never listed as one.
    let aside = folder.join(format!(
        "{}#{}",
        target.file_name().and_then(|name| name.to_str()).unwrap_or("object"),
        uuid::Uuid::new_v4().simple()
    ));
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).open(&aside)?;
        for part in payload.iter() {
            file.write_all(part)?;
        }
        file.sync_all()?;
        if is_create { fs::hard_link(&aside, target) } else { fs::rename(&aside, target) }
    })();
    if is_create || written.is_err() {
        // Left behind at worst: it is not an object, and the next start ignores it.
        let _ = fs::remove_file(&aside);
    }
    written?;
    sync_folder(folder)
}

/// Makes a folder below `root`, syncing each parent that gains an entry.
fn make_folder(root: &FsPath, folder: &FsPath) -> std::io::Result<()> {
    if folder.is_dir() || folder == root {
        return Ok(());
    }
    let parent = folder.parent().expect("the root stops the climb");
    make_folder(root, parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(parent)
}

/// Makes entries of a folder survive a power cut.
///
/// # Errors
/// As for opening and syncing a file.
pub fn sync_folder(folder: &FsPath) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}
