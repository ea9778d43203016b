//! What a backup says of itself: every file with its length and digest. Written last: without it there is no backup.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Progress;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::store::sync_folder;

/// The manifest, and the digest of the manifest, in the form of `b3sum`.
const MANIFEST: &str = "manifest.json";
const DIGEST: &str = "manifest.b3";

/// The layout that this engine writes and reads.
const VERSION: u32 = 1;

/// Bytes that are copied or checked at once.
const BLOCK_BYTES: usize = 1 << 20;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout of the folder.
    pub version: u32,
    /// When it was begun, RFC 3339.
    pub begun: String,
    /// The engine that took it.
    pub engine: String,
    /// The data folder's name among writers.
    pub node: String,
    /// Whether the tables are in a bucket and not in here.
    pub is_bucket: bool,
    /// Whether the master key is in here.
    pub has_master_key: bool,
    /// The tables, each as of one version.
    pub tables: Vec<TableCopy>,
    /// Every file, by path.
    pub files: Vec<FileCopy>,
}

/// One table in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCopy {
    /// `tenant/dataset`.
    pub table: String,
    /// The version that was copied.
    pub version: i64,
    /// Its rows; what the log holds besides is not counted.
    pub rows: u64,
    /// Bytes of its data files.
    pub bytes: u64,
}

/// One file in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCopy {
    /// Path below the backup's folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its bytes, in hex.
    pub blake3: String,
}

impl Manifest {
    /// A manifest that names no file yet.
    pub fn new(begun_ns: i64, node: &str, is_bucket: bool) -> Self {
        let begun = jiff::Timestamp::from_nanosecond(i128::from(begun_ns))
            .expect("nanoseconds in 64 bits lie between 1677 and 2262");
        Self {
            version: VERSION,
            begun: begun.to_string(),
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            node: node.to_owned(),
            is_bucket,
            has_master_key: false,
            tables: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Puts the manifest in the backup's folder and syncs it: from here on the backup is whole.
    pub(super) fn write(&mut self, folder: &Path) -> Result<()> {
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        let text = serde_json::to_vec_pretty(self).expect("plain data becomes JSON");
        let digest = format!("{}  {MANIFEST}\n", blake3::hash(&text).to_hex());
        let put = |name: &str, bytes: &[u8]| {
            let mut file = File::create_new(folder.join(name))?;
            file.write_all(bytes)?;
            file.sync_all()?;
            sync_folder(folder)
        };
        put(MANIFEST, &text).and_then(|()| put(DIGEST, digest.as_bytes())).map_err(unwritten)
    }

    /// Reads the manifest of a whole backup.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let corrupt = |text: String| Error::new(ErrorKind::Corrupt, text);
        let read = |name: &str| {
            fs::read(folder.join(name)).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => corrupt(format!(
                    "backup is incomplete: it has no {name}, which is written last; it was interrupted, or this is no \
                     backup"
                )),
                _ => unread(error),
            })
        };
        let (digest, text) = (read(DIGEST)?, read(MANIFEST)?);
        let expected = format!("{}  {MANIFEST}\n", blake3::hash(&text).to_hex());
        if digest != expected.as_bytes() {
            return Err(corrupt(format!(
                "backup file {MANIFEST} is damaged: its digest is not that of {DIGEST}"
            )));
        }
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| corrupt(format!("backup file {MANIFEST} does not read")).with_source(error))?;
        if manifest.version != VERSION {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("backup has layout {}, and this engine reads {VERSION}", manifest.version),
            ));
        }
        Ok(manifest)
    }
}

impl FileCopy {
    /// Where the file lies below `folder`; never outside of it, whatever the manifest says.
    pub(super) fn below(&self, folder: &Path) -> Result<PathBuf> {
        let path = Path::new(&self.path);
        let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
        if is_below && !self.path.is_empty() {
            return Ok(folder.join(path));
        }
        Err(Error::new(ErrorKind::Corrupt, "backup names a file outside of itself"))
    }

    /// Reads the file in `folder` block by block, and proves it against its digest.
    pub(super) fn read(&self, folder: &Path, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let damaged = |why: &str| {
            Error::new(ErrorKind::Corrupt, format!("backup file {} is damaged: {why}", self.path))
        };
        let mut file = match File::open(self.below(folder)?) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(damaged("it is gone")),
            Err(error) => return Err(unread(error)),
        };
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = file.read(&mut block).map_err(unread)?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            hasher.update(&block[..read]);
            each(&block[..read])?;
        }
        if bytes != self.bytes {
            return Err(damaged(&format!("it has {bytes} bytes, not {}", self.bytes)));
        }
        if *hasher.finalize().to_hex() != *self.blake3 {
            return Err(damaged("its digest is another"));
        }
        Ok(())
    }
}

/// Reads a whole backup and proves every file of it against its digest.
///
/// # Errors
/// `Kind::Corrupt` naming the file, or that the backup is incomplete; `Kind::Unavailable` when it does not read.
pub fn check(folder: &Path, progress: &dyn Fn(Progress)) -> Result<Manifest> {
    let manifest = Manifest::read(folder)?;
    let mut at = Progress { bytes_total: manifest.bytes(), ..Progress::default() };
    for file in &manifest.files {
        file.read(folder, |block| {
            at.bytes += block.len() as u64;
            progress(at);
            Ok(())
        })?;
        at.files += 1;
    }
    progress(at);
    Ok(manifest)
}

/// What a failing disk under the backup means: nothing is lost, try again.
pub(super) fn unwritten(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "backup cannot be written").with_source(error)
}

pub(super) fn unread(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "files cannot be read").with_source(error)
}
