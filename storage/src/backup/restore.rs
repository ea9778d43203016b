//! A backup made a data folder again: everything in tables, an empty log, a new name among writers.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use object_store::path::Path as ObjectPath;
use object_store::{PutMode, PutPayload};

use super::copy::{is_local, sync_tree};
use super::manifest::{FileCopy, Manifest, check, unread, unwritten};
use super::{Progress, TableCopy};
use crate::deployment::Storage;
use crate::disk::LocalDisk;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::idempotency::beside;
use crate::latency::Measure;
use crate::options::Options;
use crate::recovery;
use crate::store::{self, sync_folder, unavailable};
use crate::wal::log::Remembered;

/// The file that says that a folder is not whole yet.
const UNFINISHED: &str = "restoring";

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The tables as they are now, what the log held included.
    pub tables: Vec<TableCopy>,
    /// Rows that came from the log.
    pub log_rows: u64,
    /// Declared keys that are known again.
    pub keys: u64,
    /// Objects of the state that were put; a bucket keeps those it has.
    pub state_objects: u64,
    /// The folder's new name among writers.
    pub node: Arc<str>,
    /// What the backup said.
    pub manifest: Manifest,
}

/// Makes a data folder of the backup in `from`.
///
/// Every file is proved against its digest before anything is written, and again as it is copied. `options.data` must be
/// empty or absent; until the end it holds a file that keeps an engine from starting on it. With a bucket, `from` has
/// state and log: what the log holds and the bucket's tables do not goes into them, and state that the bucket has stays.
///
/// # Errors
/// `Kind::Conflict` when the data folder is not empty; `Kind::Corrupt` naming the damaged file, or that the backup is
/// incomplete; `Kind::Invalid` when backup and `store_url` do not go together; `Kind::Unavailable` when something cannot be
/// read or written. What was restored so far is of no use then: empty the folder and restore again.
pub async fn restore(
    from: &Path,
    options: Options,
    measure: Measure,
    now: fn() -> i64,
    progress: &dyn Fn(Progress),
) -> Result<Restored> {
    let data = options.data.clone();
    refuse_used(&data)?;
    let manifest = check(from, progress)?;
    if manifest.is_bucket == is_local(&options) {
        let text = if manifest.is_bucket {
            "the backup is of a deployment on a bucket: set storage.store_url to that bucket"
        } else {
            "the backup holds the tables of a local store: restore it without storage.store_url"
        };
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    fs::create_dir_all(&data).map_err(unwritten)?;
    File::create_new(data.join(UNFINISHED)).and_then(|file| file.sync_all()).map_err(unwritten)?;
    sync_folder(&data).map_err(unwritten)?;
    let mut at = Progress { bytes_total: manifest.bytes(), ..Progress::default() };
    let mut state_objects = 0;
    for file in &manifest.files {
        let is_state = file.path.starts_with("store/system/");
        if is_state && manifest.is_bucket {
            state_objects += u64::from(put_state(from, file, &options).await?);
        } else {
            copy_file(from, file, &options)?;
            state_objects += u64::from(is_state);
        }
        at.files += 1;
        at.bytes += file.bytes;
        progress(at);
    }
    sync_tree(&data)?;

    let storage = Storage::open_restored(options, measure, now, |_| ()).await?;
    let log_rows = storage.levels().hot_rows;
    storage.flush().await?;
    let tables = storage.versions();
    let keys = storage.shared.keys.standing();
    storage.close().await;
    if !manifest.is_bucket {
        // Everything of it is in the tables, and nobody else has this store.
        recovery::bucket::remove(&storage.shared).await?;
    }
    drop(storage);

    let node = begin_epoch(&data.join("wal"), &keys)?;
    let keys = keys.len() as u64;
    fs::remove_file(data.join(UNFINISHED)).and_then(|()| sync_folder(&data)).map_err(unwritten)?;
    Ok(Restored { tables, log_rows, keys, state_objects, node, manifest })
}

/// Refuses a data folder that a restore did not finish.
///
/// # Errors
/// `Kind::Conflict`.
pub fn refuse_unfinished(data: &Path) -> Result<()> {
    if data.join(UNFINISHED).exists() {
        return Err(Error::new(
            ErrorKind::Conflict,
            "a restore into this data folder is not finished: empty the folder and restore again",
        ));
    }
    Ok(())
}

fn refuse_used(data: &Path) -> Result<()> {
    match fs::read_dir(data).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(
            ErrorKind::Conflict,
            format!("{} is not empty: a restore makes a data folder and changes none", data.display()),
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unread(error)),
    }
}

/// Where a file of the backup belongs: the store may be in another folder than the data.
fn copy_file(from: &Path, file: &FileCopy, options: &Options) -> Result<()> {
    let target = match (file.path.strip_prefix("store/"), &options.store_url) {
        (Some(path), Some(url)) => {
            let invalid = || Error::new(ErrorKind::Invalid, "store_url names no local folder");
            let url = url::Url::parse(url).map_err(|error| invalid().with_source(error))?;
            let root = url.to_file_path().map_err(|()| invalid())?;
            FileCopy { path: path.to_owned(), ..file.clone() }.below(&root)?
        }
        _ => file.below(&options.data)?,
    };
    let mode = if file.path == "master.key" { 0o600 } else { 0o644 };
    fs::create_dir_all(target.parent().expect("it lies below a folder")).map_err(unwritten)?;
    let mut out = File::options().write(true).create_new(true).mode(mode).open(&target).map_err(unwritten)?;
    file.read(from, |block| out.write_all(block).map_err(unwritten))?;
    out.sync_all().map_err(unwritten)
}

/// Puts an object of the state into a bucket; false where it has one of that name, which stays.
async fn put_state(from: &Path, file: &FileCopy, options: &Options) -> Result<bool> {
    let store = store::open(options)?;
    let mut bytes = Vec::new();
    file.read(from, |block| {
        bytes.extend_from_slice(block);
        Ok(())
    })?;
    let path = ObjectPath::from(file.path.trim_start_matches("store/"));
    match store.put_opts(&path, PutPayload::from(bytes), PutMode::Create.into()).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
        Err(error) => Err(unavailable(error)),
    }
}

/// Replaces a log that is in the tables, whole, by an empty one under a new name that knows the same declared keys.
fn begin_epoch(wal: &Path, keys: &[Remembered]) -> Result<Arc<str>> {
    fs::remove_dir_all(wal).map_err(unwritten)?;
    let lane = wal.join("0");
    fs::create_dir_all(&lane).map_err(unwritten)?;
    // Segments count from 1: what stands beside segment 0 is never trimmed over.
    beside::keep_beside(&LocalDisk, &lane, 0, keys).map_err(unwritten)?;
    sync_folder(&lane).and_then(|()| sync_folder(wal)).map_err(unwritten)?;
    recovery::node(&LocalDisk, wal)
}
