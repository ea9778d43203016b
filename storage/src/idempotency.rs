//! Declared keys: what a client wants stored at most once (F19).
//!
//! A key is reserved while its request is on the way, and stands with its fingerprint and reply once the frame
//! that carries it is durable. It outlives its log segment in a small file beside the log.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::record::Tenant;
use crate::wal::frame::IdempotencyText;
use crate::wal::log::Remembered;
use crate::writer::{Idempotency, Known};

/// The declared keys of all tenants.
#[derive(Debug)]
pub struct Keys {
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
    /// Remembers at most `keys_max` keys a tenant, each for `hours`.
    pub fn new(keys_max: usize, hours: u64) -> Self {
        let hours = i64::try_from(hours).unwrap_or(i64::MAX);
        Self {
            keys_max,
            kept_ns: hours.saturating_mul(3_600_000_000_000),
            tenants: Mutex::new(HashMap::new()),
        }
    }

    fn tenants(&self) -> std::sync::MutexGuard<'_, HashMap<Tenant, TenantKeys>> {
        self.tenants.lock().expect("no panic happens under this lock")
    }

    /// Reserves a key, or tells what is known of it.
    pub fn reserve(&self, tenant: &Tenant, key: &str, fingerprint: [u8; 16]) -> Known {
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

    /// Gives a reserved key back.
    pub fn release(&self, tenant: &Tenant, key: &str) {
        if let Some(keys) = self.tenants().get_mut(tenant)
            && matches!(keys.entries.get(key), Some(Entry::InFlight(_)))
        {
            keys.entries.remove(key);
        }
    }

    /// Makes keys stand; forgets the oldest over the bounds.
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

/// Writes the keys of a segment to `{segment}.keys` beside it, synced; nothing where there are none.
///
/// # Errors
/// As writing a file.
pub fn keep_beside(folder: &Path, segment: u64, keys: &[Remembered]) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut text = Vec::new();
    for (tenant, at_ns, idempotency) in keys {
        let line = Line {
            tenant: tenant.to_string(),
            at_ns: *at_ns,
            idempotency: IdempotencyText::from(&**idempotency),
        };
        serde_json::to_writer(&mut text, &line)?;
        text.push(b'\n');
    }
    let aside = folder.join(format!("{segment:016}.keys.part"));
    let mut file = File::create(&aside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&aside, folder.join(format!("{segment:016}.keys")))?;
    // The segment goes next: the keys' name must not be what a power cut takes back.
    crate::store::sync_folder(folder)
}

/// Reads the keys kept beside a log, and deletes files whose keys are all older than `oldest_ns`.
///
/// # Errors
/// As reading files; a line that is not what was written is an error too.
pub fn read_beside(folder: &Path, oldest_ns: i64) -> io::Result<Vec<Remembered>> {
    let mut remembered = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "keys") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let before = remembered.len();
        for line in text.lines() {
            let line: Line = serde_json::from_str(line)?;
            if line.at_ns < oldest_ns {
                continue;
            }
            let tenant = Tenant::stored(&line.tenant).map_err(io::Error::other)?;
            let idempotency = Idempotency::try_from(line.idempotency).map_err(io::Error::other)?;
            remembered.push((tenant, line.at_ns, Arc::new(idempotency)));
        }
        if remembered.len() == before {
            fs::remove_file(&path)?;
        }
    }
    remembered.sort_by_key(|(_, at_ns, _)| *at_ns);
    Ok(remembered)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Keys, keep_beside, read_beside};
    use crate::record::Tenant;
    use crate::writer::{Idempotency, Known};

    fn done(key: &str) -> Arc<Idempotency> {
        Arc::new(Idempotency { key: key.into(), fingerprint: [7; 16], status: 200, reply: (*b"{}").into() })
    }

    #[test]
    fn a_key_is_reserved_then_stands_then_ages_out() {
        let keys = Keys::new(2, 1);
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
        keep_beside(folder.path(), 3, &[(tenant.clone(), 50, done("a")), (tenant.clone(), 60, done("b"))])
            .unwrap();
        let read = read_beside(folder.path(), 55).unwrap();
        assert_eq!(read, vec![(tenant, 60, done("b"))]);
        assert!(read_beside(folder.path(), 100).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
