//! Taking a backup: what is kept, copied in the order that `super` explains.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use super::Progress;
use super::hold::Hold;
use super::manifest::{FileCopy, Manifest, TableCopy, unread, unwritten};
use crate::commit::{State, TableLog};
use crate::disk::LocalDisk;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::options::Options;
use crate::record::{Dataset, TableId, Tenant};
use crate::store::{self, sync_folder, unavailable};
use crate::wal::bucket::ROOT;
use crate::wal::frame::{HEADER_BYTES, Header};
use crate::wal::{replay, salvage, segment};

/// Versions of a table that are tried while its files are compacted away under the copy.
const ATTEMPTS_MAX: usize = 8;

/// Looks at a segment that is being written: one may see a later frame without an earlier one.
const LOOKS_MAX: usize = 5;

/// Copies a deployment to the folder `out`, whether its engine runs or not.
///
/// Holds what was acknowledged before the call, all of it; what is acknowledged meanwhile may be in it or not, each
/// request whole. Everything is on stable storage when it returns. `progress` is called as it goes; `begun_ns` is
/// nanoseconds since 1970 UTC.
///
/// # Errors
/// `Kind::Invalid` when `out` is not empty or `DIR` is no data folder; `Kind::Corrupt` naming the file when a digest does
/// not hold; `Kind::Conflict` while another backup is taken; `Kind::Unavailable` when something cannot be read or written.
/// The folder has no manifest then and is no backup.
pub async fn take(
    options: &Options,
    out: &Path,
    with_master_key: bool,
    begun_ns: i64,
    progress: &dyn Fn(Progress),
) -> Result<Manifest> {
    let node = fs::read_to_string(options.data.join("wal").join("node")).map_err(|error| {
        let text = format!("{} is no data folder: it has no wal/node", options.data.display());
        Error::new(ErrorKind::Invalid, text).with_source(error)
    })?;
    begin_folder(out)?;
    let is_bucket = !is_local(options);
    let mut copy = Copy {
        store: store::open(options)?,
        out,
        manifest: Manifest::new(begun_ns, node.trim(), is_bucket),
        at: Progress::default(),
        progress,
    };
    let mut hold = Hold::begin(&options.data)?;
    copy.keys(&options.data, &hold)?;
    copy.state().await?;
    if !is_bucket {
        copy.tables(&mut hold).await?;
    }
    hold.refresh()?;
    copy.log(&hold)?;
    copy.file(&options.data.join("wal").join("node"), "wal/node", 0o644)?;
    if with_master_key {
        copy.file(&options.data.join("master.key"), "master.key", 0o600)?;
        copy.manifest.has_master_key = true;
    }
    sync_tree(out)?;
    copy.manifest.write(out)?;
    Ok(copy.manifest)
}

/// Whether the tables are in a folder of this machine.
pub(super) fn is_local(options: &Options) -> bool {
    options.store_url.as_ref().is_none_or(|url| url.starts_with("file:"))
}

fn begin_folder(out: &Path) -> Result<()> {
    fs::create_dir_all(out).map_err(unwritten)?;
    if fs::read_dir(out).map_err(unwritten)?.next().is_some() {
        return Err(Error::new(ErrorKind::Invalid, format!("{} is not empty", out.display())));
    }
    Ok(())
}

struct Copy<'a> {
    store: Arc<dyn ObjectStore>,
    out: &'a Path,
    manifest: Manifest,
    at: Progress,
    progress: &'a dyn Fn(Progress),
}

impl Copy<'_> {
    fn done(&mut self, path: String, bytes: u64, digest: blake3::Hash) {
        self.at.files += 1;
        self.manifest.files.push(FileCopy { path, bytes, blake3: digest.to_hex().to_string() });
        (self.progress)(self.at);
    }

    /// Creates a file of the backup; its name survives a crash once [`sync_tree`] has run.
    fn create(&self, path: &str, mode: u32) -> Result<File> {
        let path = self.out.join(path);
        fs::create_dir_all(path.parent().expect("it lies below the backup's folder")).map_err(unwritten)?;
        File::options().write(true).create_new(true).mode(mode).open(path).map_err(unwritten)
    }

    fn bytes(&mut self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let mut file = self.create(path, mode)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(unwritten)?;
        self.at.bytes += bytes.len() as u64;
        self.at.bytes_total = self.at.bytes_total.max(self.at.bytes);
        self.done(path.to_owned(), bytes.len() as u64, blake3::hash(bytes));
        Ok(())
    }

    fn file(&mut self, from: &Path, path: &str, mode: u32) -> Result<()> {
        let bytes = fs::read(from).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("{path} cannot be read")).with_source(error)
        })?;
        self.bytes(path, &bytes, mode)
    }

    /// Copies the declared keys of segments that were trimmed before the log was held; later ones come with their frames.
    fn keys(&mut self, data: &Path, hold: &Hold) -> Result<()> {
        for (lane, held) in hold.lanes() {
            for entry in fs::read_dir(data.join("wal").join(lane.to_string())).map_err(unread)? {
                let name = entry.map_err(unread)?.file_name();
                let Some(name) = name.to_str() else { continue };
                let Some(number) = name.strip_suffix(".keys").and_then(|number| number.parse::<u64>().ok())
                else {
                    continue;
                };
                if held.first().is_some_and(|first| number >= *first) {
                    continue;
                }
                self.file(
                    &data.join("wal").join(lane.to_string()).join(name),
                    &format!("wal/{lane}/{name}"),
                    0o644,
                )?;
            }
        }
        Ok(())
    }

    /// Copies tenants, keys and limits.
    async fn state(&mut self) -> Result<()> {
        let listed: Vec<_> =
            self.store.list(Some(&ObjectPath::from("system"))).try_collect().await.map_err(unavailable)?;
        for object in listed {
            // A bucket keeps its logs itself. A folder's are copied before the tables: what is trimmed meanwhile is in
            // those.
            if self.manifest.is_bucket && object.location.as_ref().starts_with(ROOT) {
                continue;
            }
            let bytes = match self.store.get(&object.location).await {
                Ok(result) => result.bytes().await.map_err(unavailable)?,
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(unavailable(error)),
            };
            self.bytes(&format!("store/{}", object.location), &bytes, 0o644)?;
        }
        Ok(())
    }

    /// Copies every table, each as of one version; all versions are read, and the log is held past them, before the first
    /// data file is copied.
    async fn tables(&mut self, hold: &mut Hold) -> Result<()> {
        let mut tables = Vec::new();
        for tenant in folders(&*self.store, "tenant").await? {
            let Ok(name) = Tenant::stored(&tenant) else { continue };
            for dataset in folders(&*self.store, &format!("tenant/{tenant}")).await? {
                let Ok(dataset) = Dataset::parse(&dataset) else { continue };
                let id = TableId::new(name.clone(), dataset);
                hold.refresh()?;
                let state = self.log_of(&id).load().await?;
                self.at.bytes_total += state.files.iter().map(|file| file.bytes).sum::<u64>();
                tables.push((id, state));
            }
        }
        for (id, state) in tables {
            if state.version.is_some() {
                self.table(&id, state, hold).await?;
            }
        }
        Ok(())
    }

    fn log_of(&self, id: &TableId) -> TableLog {
        TableLog::new(Arc::clone(&self.store), id.prefix())
    }

    async fn table(&mut self, id: &TableId, mut state: State, hold: &mut Hold) -> Result<()> {
        let mut copied = HashSet::new();
        for _ in 0..ATTEMPTS_MAX {
            if self.data_files(id, &state, &mut copied).await? {
                return self.version(id, state, &copied).await;
            }
            hold.refresh()?;
            state = self.log_of(id).load().await?;
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("files of table {id} were gone {ATTEMPTS_MAX} times before they were copied"),
        ))
    }

    /// Copies the live files that are not copied yet; false where one of them is gone.
    async fn data_files(
        &mut self,
        id: &TableId,
        state: &State,
        copied: &mut HashSet<String>,
    ) -> Result<bool> {
        for file in state.files.iter() {
            if copied.contains(&file.path) {
                continue;
            }
            let location = format!("{}/{}", id.prefix(), file.path);
            let mut stream = match self.store.get(&ObjectPath::from(location.as_str())).await {
                Ok(result) => result.into_stream(),
                Err(object_store::Error::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(unavailable(error)),
            };
            let path = format!("store/{location}");
            let mut out = self.create(&path, 0o644)?;
            let mut hasher = blake3::Hasher::new();
            let mut bytes = 0;
            while let Some(block) = stream.try_next().await.map_err(unavailable)? {
                out.write_all(&block).map_err(unwritten)?;
                hasher.update(&block);
                bytes += block.len() as u64;
                self.at.bytes += block.len() as u64;
                (self.progress)(self.at);
            }
            out.sync_all().map_err(unwritten)?;
            let digest = hasher.finalize();
            if bytes != file.bytes || file.digest.is_some_and(|expected| expected != *digest.as_bytes()) {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("{location} is not what its table's log names"),
                ));
            }
            self.done(path, bytes, digest);
            copied.insert(file.path.clone());
        }
        Ok(true)
    }

    /// Writes the one version that the copy has: a checkpoint, without what is live no more.
    async fn version(&mut self, id: &TableId, mut state: State, copied: &HashSet<String>) -> Result<()> {
        for path in copied.iter().filter(|path| !state.files.contains(path)) {
            let path = format!("store/{}/{path}", id.prefix());
            fs::remove_file(self.out.join(&path)).map_err(unwritten)?;
            self.manifest.files.retain(|file| file.path != path);
        }
        state.forget_tombstones();
        let root = self.out.join("store");
        let beside = Options { data: self.out.to_owned(), ..Options::default() };
        TableLog::new(store::open(&beside)?, id.prefix()).checkpoint(&mut state).await?;
        let known: HashSet<String> = self.manifest.files.iter().map(|file| file.path.clone()).collect();
        for path in files_below(&root.join(id.prefix())).map_err(unread)? {
            let name = path.strip_prefix(self.out).expect("it lies below").to_string_lossy().into_owned();
            if !known.contains(&name) {
                let bytes = fs::read(&path).map_err(unread)?;
                self.done(name, bytes.len() as u64, blake3::hash(&bytes));
            }
        }
        self.manifest.tables.push(TableCopy {
            table: id.to_string(),
            version: state.version.unwrap_or(0),
            rows: state.files.iter().map(|file| file.rows).sum(),
            bytes: state.files.iter().map(|file| file.bytes).sum(),
        });
        Ok(())
    }

    /// Copies the held segments, and reads the copy back as a start would.
    fn log(&mut self, hold: &Hold) -> Result<()> {
        for (lane, held) in hold.lanes() {
            let folder = self.out.join("wal").join(lane.to_string());
            fs::create_dir_all(&folder).map_err(unwritten)?;
            let gaps = hold.gaps(lane)?;
            if !gaps.is_empty() {
                salvage::keep(&LocalDisk, &folder, &gaps)?;
                let text = fs::read(folder.join(salvage::NAME)).map_err(unread)?;
                let name = format!("wal/{lane}/{}", salvage::NAME);
                self.done(name, text.len() as u64, blake3::hash(&text));
            }
            let mut looks = 0;
            let copies = loop {
                let mut copies = Vec::new();
                for number in held {
                    copies.push(copy_segment(&hold.lane(lane), &folder, *number)?);
                }
                looks += 1;
                match replay::replay(&LocalDisk, &folder, &gaps, |_, _, _| Ok(())) {
                    Ok(_) => break copies,
                    Err(error) if error.kind() == ErrorKind::Corrupt && looks < LOOKS_MAX => {}
                    Err(error) => return Err(error),
                }
            };
            for (number, bytes, digest) in copies {
                self.at.bytes += bytes;
                self.at.bytes_total = self.at.bytes_total.max(self.at.bytes);
                self.done(format!("wal/{lane}/{number:016}.wal"), bytes, digest);
            }
        }
        Ok(())
    }
}

/// Copies one segment without the zeros behind its last frame.
fn copy_segment(from: &Path, to: &Path, number: u64) -> Result<(u64, u64, blake3::Hash)> {
    let mut bytes = Vec::new();
    File::open(segment::path(from, number))
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(unread)?;
    let mut end = 0;
    while let Some((_, payload)) = Header::frame(&bytes[end..]) {
        end += HEADER_BYTES + payload.len();
    }
    // What is neither frame nor zero is for the replay to judge.
    if bytes[end..].iter().all(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    let mut file = File::create(segment::path(to, number)).map_err(unwritten)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(unwritten)?;
    Ok((number, bytes.len() as u64, blake3::hash(&bytes)))
}

async fn folders(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<String>> {
    let listed = store.list_with_delimiter(Some(&ObjectPath::from(prefix))).await.map_err(unavailable)?;
    Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
}

/// Every file below a folder.
fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files_below(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Makes the names of everything below a folder survive a crash.
pub(super) fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        if entry.file_type().map_err(unread)?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_folder(folder).map_err(unwritten)
}
