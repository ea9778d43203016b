//! Declared keys: what a client wants stored at most once (F19).
//!
//! A key is reserved while its request is on the way, and stands with its fingerprint and reply once the frame
//! that carries it is durable. It outlives its log segment in a small file beside the log. Everywhere it is its keyed
//! hash ([`crate::declared`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::declared::DeclaredKeySecret;
use crate::disk::{Disk, is_odd, read_small, replace};
use crate::memory::{Charge, Memory, Pool};
use crate::record::Tenant;
use crate::wal::frame::IdempotencyText;
use crate::wal::log::Remembered;
use crate::writer::{Idempotency, Known};

/// The declared keys of all tenants.
#[derive(Debug)]
pub struct Keys {
    secret: DeclaredKeySecret,
    keys_max: usize,
    bytes_max: u64,
    memory: Arc<Memory>,
    kept_ns: i64,
    tenants: Mutex<HashMap<Tenant, TenantKeys>>,
}

#[derive(Debug, Default)]
struct TenantKeys {
    entries: HashMap<Box<str>, Entry>,
    by_age: VecDeque<(i64, Box<str>)>,
    /// Bytes of those that stand.
    bytes: u64,
}

/// Bytes that a key takes beside its text and its reply: its places in both collections, its counters, and what the
/// allocator rounds up. Chosen from the sizes of what it is made of.
const KEY_BYTES: u64 = 256;

/// What a key that stands takes in memory: its text stands in three places.
fn held_bytes(idempotency: &Idempotency) -> u64 {
    KEY_BYTES + 3 * idempotency.key.len() as u64 + idempotency.reply.len() as u64
}

#[derive(Debug)]
enum Entry {
    InFlight([u8; 16]),
    /// With what it takes of the process's memory.
    Done(Arc<Idempotency>, Charge),
}

impl Keys {
    /// Remembers at most `keys_max` keys a tenant, hashed under `secret`, which take at most `bytes_max`, each for
    /// `hours`. All together take at most what `memory` has for what is kept: above it, the tenant that has the most
    /// forgets its oldest.
    pub fn new(
        secret: DeclaredKeySecret,
        keys_max: usize,
        bytes_max: u64,
        hours: u64,
        memory: Arc<Memory>,
    ) -> Self {
        let hours = i64::try_from(hours).unwrap_or(i64::MAX);
        Self {
            secret,
            keys_max,
            bytes_max,
            memory,
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
            Some(Entry::Done(done, _)) if done.fingerprint == fingerprint => {
                Known::Replayed(Arc::clone(done))
            }
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
                Entry::Done(done, _) => Some((tenant.clone(), *at_ns, Arc::clone(done))),
                Entry::InFlight(_) => None,
            })
        });
        standing.collect()
    }

    /// Makes keys stand, as [`Self::sealed`] gives them; forgets the oldest over the bounds.
    pub fn remember(&self, now_ns: i64, remembered: impl IntoIterator<Item = Remembered>) {
        let mut tenants = self.tenants();
        for (tenant, at_ns, idempotency) in remembered {
            // They were acknowledged: what is too much goes below.
            let bytes = held_bytes(&idempotency);
            let charge = self.memory.count(Pool::Kept, Some(&tenant), bytes);
            let keys = tenants.entry(tenant).or_default();
            keys.by_age.push_back((at_ns, idempotency.key.clone()));
            keys.bytes += bytes;
            let key = idempotency.key.clone();
            if let Some(Entry::Done(_, before)) = keys.entries.insert(key, Entry::Done(idempotency, charge)) {
                keys.bytes -= before.bytes();
            }
            while let Some((oldest_ns, _)) = keys.by_age.front() {
                let is_old = now_ns.saturating_sub(*oldest_ns) > self.kept_ns;
                // The newest stands whatever it takes: it was just acknowledged.
                let is_within = keys.by_age.len() <= self.keys_max && keys.bytes <= self.bytes_max;
                if !is_old && (is_within || keys.by_age.len() == 1) {
                    break;
                }
                keys.forget_oldest();
            }
            let all_max = self.memory.max(Pool::Kept);
            while self.memory.used(Pool::Kept) > all_max {
                let heaviest = tenants.values_mut().filter(|keys| keys.by_age.len() > 1);
                let Some(keys) = heaviest.max_by_key(|keys| keys.bytes) else { break };
                keys.forget_oldest();
            }
        }
    }
}

impl TenantKeys {
    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.by_age.pop_front()
            && let Some(Entry::Done(_, charge)) = self.entries.remove(&key)
        {
            self.bytes -= charge.bytes();
        }
    }
}

/// Keys of several logs, each in the order it acknowledged them in, as one: the newest of all are last, each key once.
///
/// Within a log its order counts and no clock: one that was set back must not make the newest the oldest.
pub fn in_order(logs: Vec<Vec<Remembered>>) -> Vec<Remembered> {
    let mut all: Vec<Remembered> = Vec::with_capacity(logs.iter().map(Vec::len).sum());
    for log in logs {
        let mut newest_ns = i64::MIN;
        all.extend(log.into_iter().map(|(tenant, at_ns, key)| {
            newest_ns = newest_ns.max(at_ns);
            (tenant, newest_ns, key)
        }));
    }
    all.sort_by_key(|(_, at_ns, _)| *at_ns);
    let mut seen = HashSet::with_capacity(all.len());
    let mut once: Vec<Remembered> = all
        .into_iter()
        .rev()
        .filter(|(tenant, _, key)| seen.insert((tenant.clone(), key.key.clone())))
        .collect();
    once.reverse();
    once
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

/// Reads what [`encode_lines`] made; returns how many lines were something else, too.
///
/// A line that does not read costs its key and no more: a client that sends the same again is stored twice at worst, and
/// every acknowledged row is where it was. It is named by `name`, its number and where it begins.
pub fn decode_lines(name: &str, text: &[u8]) -> (Vec<Remembered>, u64) {
    let (remembered, Broken { count, named }) = read_lines(text);
    for (line, offset) in named {
        tracing::error!(file = name, line, offset, "no declared key stands here: it is passed over");
    }
    (remembered, count)
}

/// Lines that are no keys.
#[derive(Debug, Default)]
struct Broken {
    count: u64,
    /// The first of them: their numbers, and where they begin.
    named: Vec<(usize, usize)>,
}

fn read_lines(text: &[u8]) -> (Vec<Remembered>, Broken) {
    let read = |line: &[u8]| {
        let line: Line = serde_json::from_slice(line).ok()?;
        let tenant = Tenant::stored(&line.tenant).ok()?;
        Some((tenant, line.at_ns, Arc::new(Idempotency::try_from(line.idempotency).ok()?)))
    };
    let (mut remembered, mut broken, mut at) = (Vec::new(), Broken::default(), 0);
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let offset = at;
        at += line.len() + 1;
        if line.is_empty() {
            continue;
        }
        match read(line) {
            Some(key) => remembered.push(key),
            None => {
                broken.count += 1;
                if broken.named.len() < NAMED_MAX {
                    broken.named.push((index + 1, offset));
                }
            }
        }
    }
    (remembered, broken)
}

/// Lines of a file that are named when they do not read; the others are counted.
const NAMED_MAX: usize = 10;

/// Bytes of one file of keys that a start reads; what stands beyond is no key of ours. Chosen: far above what all
/// tenants' keys may take.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Files of keys beside a log above which a start writes one instead. Chosen: a handful of reads.
const FILES_MAX: usize = 8;

/// Reads the keys kept beside a log, in the order they were acknowledged in.
///
/// However old they say they are: a clock that jumped while nothing ran must not make the log forget (F19). They
/// age anew from the start, and their number is bounded.
///
/// Returns how many lines were no keys, too.
///
/// # Errors
/// As reading files.
pub fn read_beside(disk: &dyn Disk, folder: &Path) -> io::Result<(Vec<Remembered>, u64)> {
    let (mut remembered, mut broken) = (Vec::new(), 0);
    for (_, path) in files_beside(disk, folder)? {
        let text = match read_small(disk, &path, FILE_BYTES_MAX) {
            Err(error) if is_odd(&error) || error.kind() == io::ErrorKind::FileTooLarge => {
                tracing::error!(path = %path.display(), %error, "no file of declared keys: it is left alone");
                broken += 1;
                continue;
            }
            text => text?,
        };
        let (keys, not_keys) = decode_lines(&path.to_string_lossy(), &text);
        remembered.extend(keys);
        broken += not_keys;
    }
    Ok((remembered, broken))
}

/// The file that many are gathered in. Segments count from 1: a trim never writes over it.
const GATHERED: u64 = 0;

/// Replaces many files of keys beside a log by one that holds the last `keys_max` of each tenant, durably.
///
/// `remembered` is what [`read_beside`] gave. The segment of a file that goes may still be there: its keys are written
/// anew when it is trimmed.
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
    if files.len() <= FILES_MAX {
        return Ok(());
    }
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
    keep_beside(disk, folder, GATHERED, &kept)?;
    for (number, path) in &files {
        if *number != GATHERED {
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
        .filter_map(|name| {
            let number: u64 = name.strip_suffix(".keys")?.parse().ok()?;
            (name == format!("{number:016}.keys")).then(|| (number, folder.join(&name)))
        })
        .collect();
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Keys, gather_beside, in_order, keep_beside, read_beside, read_lines};
    use crate::declared::DeclaredKeySecret;
    use crate::disk::LocalDisk;
    use crate::fixture::OddDisk;
    use crate::memory::{Memory, Pool};
    use crate::record::Tenant;
    use crate::writer::{Idempotency, Known};

    fn keys(keys_max: usize, bytes_max: u64, memory_max: u64) -> Keys {
        Keys::new(DeclaredKeySecret::default(), keys_max, bytes_max, 1, Memory::new(memory_max, 0))
    }

    fn done(key: &str) -> Arc<Idempotency> {
        Arc::new(Idempotency { key: key.into(), fingerprint: [7; 16], status: 200, reply: (*b"{}").into() })
    }

    #[test]
    fn a_key_is_reserved_then_stands_then_ages_out() {
        let keys = keys(2, 1 << 20, 1 << 30);
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
    fn large_replies_push_out_the_tenants_own_oldest_keys_alone() {
        let large = |key: &str, bytes: usize| {
            let reply = vec![b'x'; bytes].into();
            Arc::new(Idempotency { key: key.into(), fingerprint: [7; 16], status: 200, reply })
        };
        let keys = keys(100_000, 64 << 10, 1 << 30);
        let (heavy, small) = (Tenant::parse("heavy").unwrap(), Tenant::parse("small").unwrap());
        keys.remember(0, [(small.clone(), 0, large("s", 10))]);
        for number in 0..100 {
            keys.remember(0, [(heavy.clone(), 0, large(&format!("h{number}"), 8 << 10))]);
        }
        let bytes = |tenant: &Tenant| -> u64 {
            let standing = keys.standing();
            let own = standing.iter().filter(|(of, ..)| of == tenant);
            own.map(|(_, _, key)| super::held_bytes(key)).sum()
        };
        assert!((48 << 10..=64 << 10).contains(&bytes(&heavy)), "{}", bytes(&heavy));
        assert_eq!(bytes(&heavy), keys.tenants()[&heavy].bytes);
        assert_eq!(bytes(&heavy) + bytes(&small), keys.memory.used(Pool::Kept));
        assert!(matches!(keys.reserve(&small, "s", [7; 16]), Known::Replayed(_)));
        assert!(matches!(keys.reserve(&heavy, "h99", [7; 16]), Known::Replayed(_)));
        // One that takes more than all may is the only one then.
        keys.remember(0, [(heavy.clone(), 0, large("all", 1 << 20))]);
        assert!(matches!(keys.reserve(&heavy, "all", [7; 16]), Known::Replayed(_)));
        keys.remember(0, [(heavy.clone(), 0, large("next", 10))]);
        assert!(bytes(&heavy) < 1 << 10, "the large one is the oldest, and goes");
    }

    /// X2: what all keep is bounded, and the heavy one pays.
    #[test]
    fn where_all_keep_too_much_the_heaviest_forgets() {
        let keys = keys(100_000, 1 << 30, 1 << 20);
        let all_max = keys.memory.max(Pool::Kept);
        let (heavy, small) = (Tenant::parse("heavy").unwrap(), Tenant::parse("small").unwrap());
        keys.remember(0, (0..5).map(|number| (small.clone(), 0, done(&format!("s{number}")))));
        keys.remember(0, (0..1_000).map(|number| (heavy.clone(), 0, done(&format!("h{number}")))));
        assert!(keys.memory.used(Pool::Kept) <= all_max);
        assert!(matches!(keys.reserve(&small, "s0", [7; 16]), Known::Replayed(_)));
        assert!(matches!(keys.reserve(&heavy, "h0", [7; 16]), Known::New));
        assert!(matches!(keys.reserve(&heavy, "h999", [7; 16]), Known::Replayed(_)));
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
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap().0, both);
        gather_beside(&LocalDisk, folder.path(), &both, 1).unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap().0, both, "few files stay as they are");
    }

    #[test]
    fn many_files_of_keys_become_one() {
        let folder = tempfile::tempdir().unwrap();
        let tenant = Tenant::parse("acme").unwrap();
        for number in 1..=20 {
            let key = (tenant.clone(), i64::try_from(number).unwrap(), done(&format!("k{number}")));
            keep_beside(&LocalDisk, folder.path(), number, &[key]).unwrap();
        }
        let (all, _) = read_beside(&LocalDisk, folder.path()).unwrap();
        gather_beside(&LocalDisk, folder.path(), &all, 15).unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap().0, all[5..]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// F19: a kill between a segment's keys and its end has it trimmed once more behind the next start.
    #[test]
    fn a_segment_that_is_trimmed_once_more_costs_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let tenant = Tenant::parse("acme").unwrap();
        let key = |number: u64| (tenant.clone(), number.cast_signed(), done(&format!("k{number}")));
        for number in 1..=20 {
            keep_beside(&LocalDisk, folder.path(), number, &[key(number)]).unwrap();
        }
        let all = || read_beside(&LocalDisk, folder.path()).unwrap().0;
        for _ in 0..2 {
            gather_beside(&LocalDisk, folder.path(), &all(), 100).unwrap();
            keep_beside(&LocalDisk, folder.path(), 20, &[key(20)]).unwrap();
        }
        assert_eq!(in_order(vec![all()]), (1..=20).map(key).collect::<Vec<_>>());
    }

    #[test]
    fn keys_of_several_logs_are_in_the_order_of_their_time() {
        let tenant = Tenant::parse("acme").unwrap();
        let log = |keys: &[(i64, &str)]| -> Vec<_> {
            keys.iter().map(|(at_ns, key)| (tenant.clone(), *at_ns, done(key))).collect()
        };
        // The second log's clock was set back behind `d`; `b` stands in a file and in a frame.
        let logs =
            vec![log(&[(1, "a"), (5, "b"), (5, "b"), (40, "c")]), log(&[(30, "d"), (2, "e"), (41, "f")])];
        let keys: Vec<_> = in_order(logs).into_iter().map(|(_, _, key)| key.key.to_string()).collect();
        assert_eq!(keys, ["a", "b", "d", "e", "c", "f"]);
    }

    // B1: damage does not fill the log.
    #[test]
    fn few_lines_that_are_no_keys_are_named() {
        let (keys, broken) = read_lines("no key\n".repeat(5_000).as_bytes());
        assert_eq!((keys.len(), broken.count, broken.named.len()), (0, 5_000, 10));
        assert_eq!(broken.named[..2], [(1, 0), (2, 7)]);
    }

    // B1: a start does not read whatever stands there into memory.
    #[test]
    fn a_file_of_keys_that_is_too_long_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let key = (Tenant::parse("acme").unwrap(), 50, done("a"));
        keep_beside(&LocalDisk, folder.path(), 1, std::slice::from_ref(&key)).unwrap();
        assert_eq!(read_beside(&OddDisk::stretched(1 << 30), folder.path()).unwrap(), (vec![key], 0));
        assert_eq!(read_beside(&OddDisk::stretched((1 << 30) + 1), folder.path()).unwrap(), (Vec::new(), 1));
    }

    #[test]
    fn a_line_that_is_no_key_costs_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let tenant = Tenant::parse("acme").unwrap();
        let (a, b) = ((tenant.clone(), 50, done("a")), (tenant, 60, done("b")));
        keep_beside(&LocalDisk, folder.path(), 3, &[a.clone(), b.clone()]).unwrap();
        let path = folder.path().join(format!("{:016}.keys", 3));
        let text = std::fs::read_to_string(&path).unwrap();
        let (first, second) = text.split_once('\n').unwrap();
        std::fs::write(&path, format!("{first}\n\0\0\0\n{{}}\n{second}")).unwrap();
        std::fs::create_dir(folder.path().join(format!("{:016}.keys", 4))).unwrap();
        std::fs::write(folder.path().join("5.keys"), b"of nobody").unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap(), (vec![a.clone(), b], 3));
        std::fs::write(&path, format!("{first}\n{}", &second[..second.len() / 2])).unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap(), (vec![a], 2), "cut off");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(8 << 30).unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap(), (Vec::new(), 2), "sparse");
    }
}
