//! A disk that keeps its word and nothing more: what was not synced may be lost, torn or reordered by a power cut.
//!
//! Files hold what the process sees (the page cache) beside what is durable; entries of folders likewise.
//! A power cut keeps any subset of the 512-byte sectors that were written and not synced, and any prefix of a
//! folder's changes that were not synced. A failed sync forgets what it should have written, as Linux does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::random::Random;
use crate::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// How often a call fails, per mille.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskOdds {
    /// Writes.
    pub write: u64,
    /// Syncs of files and folders.
    pub sync: u64,
    /// Creating and allocating, as on a full disk.
    pub full: u64,
}

#[derive(Debug, Default)]
struct Inode {
    /// What the process reads; zeros behind its end up to `len`.
    seen: Vec<u8>,
    len: u64,
    durable: Vec<u8>,
    durable_len: u64,
    /// Writes since the last sync: offset and bytes.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Entry {
    Add(PathBuf, u64),
    Move(PathBuf, PathBuf),
    Drop(PathBuf),
}

#[derive(Debug)]
struct State {
    random: Random,
    odds: DiskOdds,
    inodes: HashMap<u64, Inode>,
    next_inode: u64,
    seen: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    pending: Vec<Entry>,
    folders: BTreeSet<PathBuf>,
    is_off: bool,
    /// Told when the power goes.
    off: Arc<Notify>,
    ops: u64,
    off_at: Option<u64>,
    injected: u64,
    capacity: u64,
}

/// The disk; it outlives the process that uses it.
#[derive(Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

fn dead() -> io::Error {
    io::Error::other("the power is off")
}

fn apply(entries: &mut BTreeMap<PathBuf, u64>, entry: &Entry) {
    match entry {
        Entry::Add(path, inode) => {
            entries.insert(path.clone(), *inode);
        }
        Entry::Move(from, to) => {
            if let Some(inode) = entries.remove(from) {
                entries.insert(to.clone(), inode);
            }
        }
        Entry::Drop(path) => {
            entries.remove(path);
        }
    }
}

impl Entry {
    fn folder(&self) -> &Path {
        let (Self::Add(path, _) | Self::Move(_, path) | Self::Drop(path)) = self;
        path.parent().expect("a file lies in a folder")
    }
}

fn write_into(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if bytes.len() < at + part.len() {
        bytes.resize(at + part.len(), 0);
    }
    bytes[at..at + part.len()].copy_from_slice(part);
}

impl State {
    /// Counts a change; fails once the power is off.
    fn step(&mut self) -> io::Result<()> {
        self.ops += 1;
        if self.off_at.is_some_and(|at| self.ops >= at) {
            self.is_off = true;
            self.off.notify_waiters();
        }
        if self.is_off { Err(dead()) } else { Ok(()) }
    }

    fn fails(&mut self, per_mille: u64) -> bool {
        let fails = self.random.happens(per_mille);
        self.injected += u64::from(fails);
        fails
    }

    fn inode(&mut self, path: &Path) -> io::Result<u64> {
        self.seen.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Inode {
    /// A power cut: any subset of the sectors that were written stays.
    fn cut(&mut self, random: &mut Random) {
        let keeps = [0, 0, 300, 700, 1000][usize::try_from(random.below(5)).expect("below five")];
        for (at, bytes) in std::mem::take(&mut self.pending) {
            let mut done = 0;
            while done < bytes.len() {
                let part = (SECTOR - (at + done) % SECTOR).min(bytes.len() - done);
                if random.happens(keeps) {
                    write_into(&mut self.durable, at + done, &bytes[done..done + part]);
                }
                done += part;
            }
        }
        if random.happens(500) {
            self.durable_len = self.len;
        }
        self.durable.truncate(usize::try_from(self.durable_len).expect("small files"));
        self.seen.clone_from(&self.durable);
        self.len = self.durable_len;
    }
}

impl SimDisk {
    /// An empty disk with a data folder.
    pub fn new(seed: u64, data: &Path) -> Arc<Self> {
        let state = State {
            random: Random::new(seed),
            odds: DiskOdds::default(),
            inodes: HashMap::new(),
            next_inode: 1,
            seen: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            folders: BTreeSet::from([data.to_owned()]),
            is_off: false,
            off: Arc::default(),
            ops: 0,
            off_at: None,
            injected: 0,
            capacity: u64::MAX,
        };
        Arc::new(Self { state: Arc::new(Mutex::new(state)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a simulated disk does not panic")
    }

    /// Sets how often calls fail.
    pub fn set_odds(&self, odds: DiskOdds) {
        self.state().odds = odds;
    }

    /// Sets how many bytes the disk has.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Takes the power away at the `at`-th change from now; `None` leaves it on.
    pub fn power_off_after(&self, changes: Option<u64>) {
        let mut state = self.state();
        state.off_at = changes.map(|changes| state.ops + changes.max(1));
    }

    /// Takes the power away.
    pub fn power_off(&self) {
        let mut state = self.state();
        state.is_off = true;
        state.off.notify_waiters();
    }

    /// Returns once the power is off.
    pub async fn off(&self) {
        let off = Arc::clone(&self.state().off);
        let told = off.notified();
        if !self.is_off() {
            told.await;
        }
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// Bytes that files take.
    pub fn used(&self) -> u64 {
        let state = self.state();
        state.seen.values().map(|inode| state.inodes[inode].len).sum()
    }

    /// Faults injected so far.
    pub fn injected(&self) -> u64 {
        self.state().injected
    }

    /// Starts anew after the process was killed: what it wrote is there, synced or not.
    pub fn restart(&self) {
        let mut state = self.state();
        state.is_off = false;
        state.off_at = None;
    }

    /// Starts anew after a power cut: what was not synced may be lost.
    pub fn cut_and_restart(&self) {
        let mut state = self.state();
        let state = &mut *state;
        let mut stopped: BTreeSet<PathBuf> = BTreeSet::new();
        let mut ended = BTreeMap::new();
        for entry in std::mem::take(&mut state.pending) {
            // Of each folder's changes a prefix is kept.
            let folder = entry.folder().to_owned();
            if stopped.contains(&folder) {
                continue;
            }
            let keeps = *ended.entry(folder.clone()).or_insert_with(|| state.random.below(1001));
            if state.random.happens(keeps) {
                apply(&mut state.durable, &entry);
            } else {
                stopped.insert(folder);
            }
        }
        state.seen.clone_from(&state.durable);
        let live: BTreeSet<u64> = state.seen.values().copied().collect();
        state.inodes.retain(|inode, _| live.contains(inode));
        let mut inodes: Vec<_> = state.inodes.iter_mut().collect();
        inodes.sort_by_key(|(number, _)| **number);
        for (_, inode) in inodes {
            inode.cut(&mut state.random);
        }
        state.is_off = false;
        state.off_at = None;
    }

    /// Flips a bit of a log segment, in a frame that a later one vouches for.
    pub fn rot_somewhere(&self, random: &mut Random) {
        let mut state = self.state();
        let segments: Vec<u64> = state
            .seen
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|extension| extension == "wal"))
            .map(|(_, inode)| *inode)
            .collect();
        let at = usize::try_from(random.below(segments.len() as u64)).expect("a small index");
        let Some(number) = segments.get(at) else { return };
        let inode = state.inodes.get_mut(number).expect("entries name inodes");
        // The last frame is the heartbeat, which nothing vouches for.
        let end = inode.seen.iter().rposition(|byte| *byte != 0).unwrap_or(0).saturating_sub(64);
        let at = usize::try_from(random.below(end as u64)).expect("a small offset");
        for bytes in [&mut inode.seen, &mut inode.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x10;
            }
        }
    }
}

impl Disk for SimDisk {
    fn may_block(&self) -> bool {
        false
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.step()?;
        if state.seen.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !state.folders.contains(path.parent().expect("a file lies in a folder")) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let odds = state.odds.full;
        if state.fails(odds) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        let entry = Entry::Add(path.to_owned(), inode);
        apply(&mut state.seen, &entry);
        state.pending.push(entry);
        Ok(Box::new(SimFile { state: Arc::clone(&self.state), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.state().inode(path)?;
        Ok(Box::new(SimFile { state: Arc::clone(&self.state), inode }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        if state.is_off {
            return Err(dead());
        }
        let inode = state.inode(path)?;
        let inode = &state.inodes[&inode];
        let mut bytes = inode.seen.clone();
        bytes.resize(usize::try_from(inode.len).expect("small files"), 0);
        Ok(bytes)
    }

    fn read_at(&self, path: &Path, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let whole = self.read(path)?;
        let from = usize::try_from(at).expect("small files").min(whole.len());
        let count = bytes.len().min(whole.len() - from);
        bytes[..count].copy_from_slice(&whole[from..from + count]);
        Ok(count)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.state();
        let inode = state.inode(path)?;
        Ok(state.inodes[&inode].len)
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let name = |path: &PathBuf| {
            (path.parent() == Some(folder)).then(|| path.file_name()?.to_str().map(str::to_owned)).flatten()
        };
        Ok(state.seen.keys().filter_map(name).chain(state.folders.iter().filter_map(name)).collect())
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.folders.insert(folder.to_owned());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.inode(from)?;
        let entry = Entry::Move(from.to_owned(), to.to_owned());
        apply(&mut state.seen, &entry);
        state.pending.push(entry);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.inode(path)?;
        let entry = Entry::Drop(path.to_owned());
        apply(&mut state.seen, &entry);
        state.pending.push(entry);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let odds = state.odds.sync;
        if state.fails(odds) {
            return Err(io::Error::other("injected: folder sync"));
        }
        let (synced, rest) =
            std::mem::take(&mut state.pending).into_iter().partition(|entry| entry.folder() == folder);
        state.pending = rest;
        let synced: Vec<Entry> = synced;
        for entry in &synced {
            apply(&mut state.durable, entry);
        }
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<(u64, u64)> {
        let state = self.state();
        let used: u64 = state.seen.values().map(|inode| state.inodes[inode].len).sum();
        Ok((state.capacity.saturating_sub(used), state.capacity))
    }
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    inode: u64,
}

impl SimFile {
    fn change(
        &self,
        odds: impl Fn(&DiskOdds) -> u64,
        error: io::ErrorKind,
        change: impl FnOnce(&mut Inode, bool),
    ) -> io::Result<()> {
        let mut state = self.state.lock().expect("a simulated disk does not panic");
        state.step()?;
        let odds = odds(&state.odds);
        let fails = state.fails(odds);
        if let Some(inode) = state.inodes.get_mut(&self.inode) {
            change(inode, fails);
        }
        if fails { Err(error.into()) } else { Ok(()) }
    }
}

impl DiskFile for SimFile {
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        {
            let mut state = self.state.lock().expect("a simulated disk does not panic");
            let used: u64 = state.seen.values().map(|inode| state.inodes[inode].len).sum();
            if used.saturating_add(bytes) > state.capacity {
                state.injected += 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.change(
            |odds| odds.full,
            io::ErrorKind::StorageFull,
            |inode, fails| {
                if !fails {
                    inode.len = inode.len.max(bytes);
                }
            },
        )
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).expect("small files");
        self.change(
            |odds| odds.write,
            io::ErrorKind::Other,
            |inode, fails| {
                // A failed write may have written a part.
                let bytes = if fails { &bytes[..bytes.len() / 2] } else { bytes };
                write_into(&mut inode.seen, at, bytes);
                inode.len = inode.len.max((at + bytes.len()) as u64);
                inode.pending.push((at, bytes.to_vec()));
            },
        )
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(
            |odds| odds.write,
            io::ErrorKind::Other,
            |inode, fails| {
                if !fails {
                    inode.len = bytes;
                    inode.seen.truncate(usize::try_from(bytes).expect("small files"));
                    inode.pending.retain(|(at, _)| (*at as u64) < bytes);
                    for (at, part) in &mut inode.pending {
                        part.truncate(usize::try_from(bytes).expect("small files") - *at);
                    }
                }
            },
        )
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        self.change(
            |odds| odds.sync,
            io::ErrorKind::Other,
            |inode, fails| {
                let pending = std::mem::take(&mut inode.pending);
                if fails {
                    // The pages are clean now, and were never written.
                    return;
                }
                for (at, part) in pending {
                    write_into(&mut inode.durable, at, &part);
                }
                inode.durable_len = inode.len;
                inode.durable.truncate(usize::try_from(inode.len).expect("small files"));
            },
        )
    }
}
