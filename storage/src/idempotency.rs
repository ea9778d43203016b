//! Declared keys: what a client wants stored at most once (F19).
//!
//! A key is reserved while its request is on the way, and stands with its fingerprint and reply once the frame
//! that carries it is durable. It outlives its log segment in a small file beside the log. Everywhere it is its keyed
//! hash ([`crate::declared`]).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::declared::DeclaredKeySecret;
use crate::disk::{Disk, replace};
use crate::record::Tenant;
use crate::wal::frame::IdempotencyText;
use crate::wal::log::Remembered;
use crate::writer::{Idempotency, Known};

/// The declared keys of all tenants.
#[derive(Debug)]
pub struct Keys {
    secret: DeclaredKeySecret,
    keys_max: usize,
    kept_ns: i64,
    tenants: Mutex<HashMap<Tenant, TenantKeys>>,
}

#[derive(Debug, Default)]
struct TenantKeys {
    entries: HashMap<Box<str>, Entry>,
    by_age: VecDeque<(i64, Box<str>)>,
}

#[derive(Debug)]
enum Entry {
    InFlight([u8; 16]),
    Done(Arc<Idempotency>),
}

impl Keys {
    /// Remembers at most `keys_max` keys a tenant, each for `hours`, hashed under `secret`.
    pub fn new(secret: DeclaredKeySecret, keys_max: usize, hours: u64) -> Self {
        let hours = i64::try_from(hours).unwrap_or(i64::MAX);
        Self {
            secret,
            keys_max,
            kept_ns: hours.saturating_mul(3_600_000_000_000),
            tenants: Mutex::new(HashMap::new()),
        }
    }

    fn tenants(&self) -> std::sync::MutexGuard<'_, HashMap<Tenant, TenantKeys>> {
        self.tenants.lock().expect("no panic happens under this lock")
    }

    /// A record as it is kept, in the log and here.
    pub fn seal(&self, tenant: &Tenant, record: Idempotency) -> Idempotency {
        self.secret.seal(tenant, record)
    }

    /// Records that were read back, as they are kept: an older build kept keys as they came.
    pub fn sealed(&self, remembered: Vec<Remembered>) -> Vec<Remembered> {
        let seal = |(tenant, at_ns, record): Remembered| {
            let record = match self.secret.seals(&record) {
                true => Arc::new(self.seal(&tenant, Arc::unwrap_or_clone(record))),
                false => record,
            };
            (tenant, at_ns, record)
        };
        remembered.into_iter().map(seal).collect()
    }

    /// Reserves a key, or tells what is known of it.
    pub fn reserve(&self, tenant: &Tenant, key: &str, fingerprint: [u8; 16]) -> Known {
        let (key, fingerprint) =
            (&*self.secret.key(tenant, key), self.secret.fingerprint(tenant, fingerprint));
        let mut tenants = self.tenants();
        let keys = tenants.entry(tenant.clone()).or_default();
        match keys.entries.get(key) {
            Some(Entry::Done(done)) if done.fingerprint == fingerprint => Known::Replayed(Arc::clone(done)),
            Some(Entry::InFlight(other)) if *other == fingerprint => Known::InFlight,
            Some(_) => Known::Mismatch,
            None => {
                keys.entries.insert(key.into(), Entry::InFlight(fingerprint));
                Known::New
            }
        }
    }

    /// Gives a reserved key back, as it came or as it is kept.
    pub fn release(&self, tenant: &Tenant, key: &str) {
        let key = &*self.secret.key(tenant, key);
        if let Some(keys) = self.tenants().get_mut(tenant)
            && matches!(keys.entries.get(key), Some(Entry::InFlight(_)))
        {
            keys.entries.remove(key);
        }
    }

    /// Every key that stands, of each tenant in the order of its acknowledgement.
    pub fn standing(&self) -> Vec<Remembered> {
        let tenants = self.tenants();
        let standing = tenants.iter().flat_map(|(tenant, keys)| {
            keys.by_age.iter().filter_map(move |(at_ns, key)| match keys.entries.get(key)? {
                Entry::Done(done) => Some((tenant.clone(), *at_ns, Arc::clone(done))),
                Entry::InFlight(_) => None,
            })
        });
        standing.collect()
    }

    /// Makes keys stand, as [`Self::sealed`] gives them; forgets the oldest over the bounds.
    pub fn remember(&self, now_ns: i64, remembered: impl IntoIterator<Item = Remembered>) {
        let mut tenants = self.tenants();
        for (tenant, at_ns, idempotency) in remembered {
            let keys = tenants.entry(tenant).or_default();
            keys.by_age.push_back((at_ns, idempotency.key.clone()));
            keys.entries.insert(idempotency.key.clone(), Entry::Done(idempotency));
            while let Some((oldest_ns, _)) = keys.by_age.front() {
                let is_old = now_ns.saturating_sub(*oldest_ns) > self.kept_ns;
                if !is_old && keys.by_age.len() <= self.keys_max {
                    break;
                }
                if let Some((_, key)) = keys.by_age.pop_front() {
                    keys.entries.remove(&key);
                }
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    tenant: String,
    at_ns: i64,
    #[serde(flatten)]
    idempotency: IdempotencyText,
}

/// Writes the keys of a segment to `{segment}.keys` beside it, durably; nothing where there are none.
///
/// # Errors
/// As writing a file.
pub fn keep_beside(disk: &dyn Disk, folder: &Path, segment: u64, keys: &[Remembered]) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    replace(disk, &folder.join(format!("{segment:016}.keys")), &encode_lines(keys))
}

/// Keys as lines of JSON.
pub fn encode_lines(keys: &[Remembered]) -> Vec<u8> {
    let mut text = Vec::new();
    for (tenant, at_ns, idempotency) in keys {
        let line = Line {
            tenant: tenant.to_string(),
            at_ns: *at_ns,
            idempotency: IdempotencyText::from(&**idempotency),
        };
        serde_json::to_writer(&mut text, &line).expect("plain data becomes JSON");
        text.push(b'\n');
    }
    text
}

/// Reads what [`encode_lines`] made.
///
/// # Errors
/// `InvalidData` or the like for a line that is not what was written.
pub fn decode_lines(text: &[u8]) -> io::Result<Vec<Remembered>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let remembered = lines.map(|line| {
        let line: Line = serde_json::from_slice(line)?;
        let tenant = Tenant::stored(&line.tenant).map_err(io::Error::other)?;
        let idempotency = Idempotency::try_from(line.idempotency).map_err(io::Error::other)?;
        Ok((tenant, line.at_ns, Arc::new(idempotency)))
    });
    remembered.collect()
}

/// Files of keys beside a log above which a start writes one instead. Chosen: a handful of reads.
const FILES_MAX: usize = 8;

/// Reads the keys kept beside a log, in the order they were acknowledged in.
///
/// However old they say they are: a clock that jumped while nothing ran must not make the log forget (F19). They
/// age anew from the start, and their number is bounded.
///
/// # Errors
/// As reading files; a line that is not what was written is an error too.
pub fn read_beside(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<Remembered>> {
    let mut remembered = Vec::new();
    for (_, path) in files_beside(disk, folder)? {
        remembered.extend(decode_lines(&disk.read(&path)?)?);
    }
    Ok(remembered)
}

/// Replaces many files of keys beside a log by one that holds the last `keys_max` of each tenant, durably.
///
/// `remembered` is what [`read_beside`] gave.
///
/// # Errors
/// As writing and deleting files; every key is in a file all the while.
pub fn gather_beside(
    disk: &dyn Disk,
    folder: &Path,
    remembered: &[Remembered],
    keys_max: usize,
) -> io::Result<()> {
    let files = files_beside(disk, folder)?;
    let Some((last, _)) = files.last().filter(|_| files.len() > FILES_MAX) else { return Ok(()) };
    let mut counts: HashMap<&Tenant, usize> = HashMap::new();
    let mut kept: Vec<Remembered> = Vec::new();
    for key in remembered.iter().rev() {
        let count = counts.entry(&key.0).or_default();
        *count += 1;
        if *count <= keys_max {
            kept.push(key.clone());
        }
    }
    kept.reverse();
    keep_beside(disk, folder, *last, &kept)?;
    for (number, path) in &files {
        if number != last {
            disk.remove(path)?;
        }
    }
    disk.sync_folder(folder)
}

/// Files of keys by the segment they are of, rising.
fn files_beside(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files: Vec<_> = disk
        .names(folder)?
        .into_iter()
        .filter_map(|name| Some((name.strip_suffix(".keys")?.parse().ok()?, folder.join(&name))))
        .collect();
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Keys, gather_beside, keep_beside, read_beside};
    use crate::declared::DeclaredKeySecret;
    use crate::disk::LocalDisk;
    use crate::record::Tenant;
    use crate::writer::{Idempotency, Known};

    fn done(key: &str) -> Arc<Idempotency> {
        Arc::new(Idempotency { key: key.into(), fingerprint: [7; 16], status: 200, reply: (*b"{}").into() })
    }

    #[test]
    fn a_key_is_reserved_then_stands_then_ages_out() {
        let keys = Keys::new(DeclaredKeySecret::default(), 2, 1);
        let tenant = Tenant::parse("acme").unwrap();
        assert_eq!(keys.reserve(&tenant, "a", [7; 16]), Known::New);
        assert_eq!(keys.reserve(&tenant, "a", [7; 16]), Known::InFlight);
        keys.release(&tenant, "a");
        assert_eq!(keys.reserve(&tenant, "a", [7; 16]), Known::New);
        keys.remember(0, [(tenant.clone(), 0, done("a"))]);
        assert_eq!(keys.reserve(&tenant, "a", [7; 16]), Known::Replayed(done("a")));
        assert_eq!(keys.reserve(&tenant, "a", [8; 16]), Known::Mismatch);
        keys.remember(0, [(tenant.clone(), 0, done("b")), (tenant.clone(), 0, done("c"))]);
        assert_eq!(keys.reserve(&tenant, "a", [8; 16]), Known::New, "the oldest over the bound is forgotten");
        keys.remember(4_000_000_000_000, [(tenant.clone(), 4_000_000_000_000, done("d"))]);
        assert_eq!(keys.reserve(&tenant, "c", [8; 16]), Known::New, "an hour is over");
    }

    #[test]
    fn keys_outlive_their_segment() {
        let folder = tempfile::tempdir().unwrap();
        let tenant = Tenant::parse("acme").unwrap();
        keep_beside(
            &LocalDisk,
            folder.path(),
            3,
            &[(tenant.clone(), 50, done("a")), (tenant.clone(), 60, done("b"))],
        )
        .unwrap();
        let both = vec![(tenant.clone(), 50, done("a")), (tenant, 60, done("b"))];
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap(), both);
        gather_beside(&LocalDisk, folder.path(), &both, 1).unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap(), both, "few files stay as they are");
    }

    #[test]
    fn many_files_of_keys_become_one() {
        let folder = tempfile::tempdir().unwrap();
        let tenant = Tenant::parse("acme").unwrap();
        for number in 1..=20 {
            let key = (tenant.clone(), i64::try_from(number).unwrap(), done(&format!("k{number}")));
            keep_beside(&LocalDisk, folder.path(), number, &[key]).unwrap();
        }
        let all = read_beside(&LocalDisk, folder.path()).unwrap();
        gather_beside(&LocalDisk, folder.path(), &all, 15).unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap(), all[5..]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
