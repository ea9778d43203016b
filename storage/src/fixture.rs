//! What several rooms' tests need: a deployment on a folder of its own, rows at chosen times.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fmt, io};

use crate::deployment::Storage;
use crate::disk::{Disk, DiskFile, LocalDisk};
use crate::latency::Measurement;
use crate::options::Options;
use crate::policies::Rules;
use crate::reader::Snapshot;
use crate::record::{Clean, Dataset, Draft, Field, Kind, TableId, Tenant};

pub const HOUR: Duration = Duration::from_secs(3_600);
pub const HOUR_NS: i64 = 3_600_000_000_000;
pub const DAY_NS: i64 = 24 * HOUR_NS;

/// 2096-10-02: what these tests write is long past by this clock.
pub const LATE_NS: i64 = 4_000_000_000_000_000_000;

pub fn table() -> TableId {
    TableId::new(Tenant::parse("acme").unwrap(), Dataset::parse("events").unwrap())
}

/// One row at each time.
pub fn rows(times_ns: &[i64]) -> Clean {
    let mut draft = Draft::new(Kind::Events);
    for time_ns in times_ns {
        draft.begin_row();
        draft.set_int(Field::TimeNs, *time_ns);
        draft.set_int(Field::ObservedNs, *time_ns);
        draft.set_text(Field::Source, "s");
        draft.end_row();
    }
    Clean::attest(&mut draft, 1)
}

pub async fn open(data: &Path, now: fn() -> i64) -> Arc<Storage> {
    let options = Options {
        data: data.to_owned(),
        seal_age_ms: 3_600_000_000_000,
        wal_segment_bytes: 1 << 20,
        disk_free_bytes_min: 1,
        ..Options::default()
    };
    Storage::open(options, |_, _| Measurement::default(), now, |_| ()).await.unwrap()
}

/// Appends rows and seals them into files of one commit.
pub async fn seal(storage: &Arc<Storage>, times_ns: &[i64]) {
    // A lane is opened once: each call takes another.
    static LANES: AtomicUsize = AtomicUsize::new(1);
    let writer = storage.writer(LANES.fetch_add(1, Ordering::Relaxed)).unwrap();
    writer.append(&table(), rows(times_ns), None).await.unwrap();
    storage.flush().await.unwrap();
}

/// The events are kept for so many days, or held.
pub fn rule(days: Option<u32>, is_held: bool) -> Rules {
    let mut rules = Rules::default();
    rules.retention_days.extend(days.map(|days| (table(), days)));
    rules.held.extend(is_held.then(table));
    rules
}

/// Rows of files and of the hot buffer.
pub fn count(snapshot: &Snapshot) -> (u64, usize) {
    (snapshot.files.iter().map(|file| file.rows).sum(), snapshot.hot.iter().map(|hot| hot.num_rows()).sum())
}

/// Where a file of the events lies.
pub fn on_disk(data: &Path, path: &str) -> PathBuf {
    data.join("store/tenant/acme/events").join(path)
}

pub fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(async { test().await }));
}

/// The local disk, but for what a test changes.
#[derive(Clone, Default)]
pub struct OddDisk {
    /// What its files all say that they have of bytes: as long ones do, at the cost of short ones.
    pub len: Option<u64>,
    /// What happens before a file is synced.
    pub before_sync: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl OddDisk {
    /// One whose files say that they have so many bytes.
    pub fn stretched(len: u64) -> Self {
        Self { len: Some(len), ..Self::default() }
    }
}

impl fmt::Debug for OddDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OddDisk").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A file of it.
#[derive(Debug)]
struct OddFile(Box<dyn DiskFile>, OddDisk);

impl DiskFile for OddFile {
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_at(bytes, at)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn sync(&self) -> io::Result<()> {
        self.1.before_sync.iter().for_each(|before_sync| before_sync());
        self.0.sync()
    }
}

impl Disk for OddDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OddFile(LocalDisk.create(path)?, self.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        LocalDisk.open(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        LocalDisk.read(path)
    }

    fn read_at(&self, path: &Path, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        LocalDisk.read_at(path, bytes, at)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        LocalDisk.len(path).map(|len| self.len.unwrap_or(len))
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        LocalDisk.names(folder)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        LocalDisk.make_folder(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        LocalDisk.sync_folder(folder)
    }

    fn space(&self, folder: &Path) -> io::Result<(u64, u64)> {
        LocalDisk.space(folder)
    }
}
