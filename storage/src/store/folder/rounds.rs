//! Small objects that are put at the same time become durable together.
//!
//! A sync of one file is a turn of its file system's journal and a flush of its disk, and every other sync waits behind
//! it, the log's above all: eight at once, where processors are busy too, made the log's wait six times as long as one at
//! a time. So one thread syncs, and what comes meanwhile is its next round. What a round waits for was written before, so
//! that the first turn of the journal takes most of it along; where several wait and little else is on its way to the
//! disk, one sync of the whole file system takes the place of each one's own.

use std::fs::File;
use std::io;
use std::panic::AssertUnwindSafe;

use tokio::sync::{mpsc, oneshot};

/// How many must wait for one sync of the file system. Chosen: fewer cost about as much one by one.
const TOGETHER_MIN: usize = 4;

/// What may be on its way to disks for that, in KiB of all processes. Chosen: a disk of today writes it in a tenth of a
/// second; what others wrote beyond it is theirs to wait for.
const DIRTY_KIB_MAX: u64 = 32 << 10;

/// Those who may wait for the thread; more wait to be let in. Chosen: a round of so many is one sync all the same.
const WAITING_MAX: usize = 64;

/// The first kernel whose sync of a file system tells that a write failed.
const KERNEL_MIN: (u32, u32) = (5, 8);

/// How something became durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synced {
    /// By its own sync.
    Alone,
    /// With everything else on the file system.
    Together,
}

/// The thread that syncs what is put in one folder; it ends when this is dropped.
#[derive(Debug)]
pub struct Rounds {
    waiting: mpsc::Sender<Wait>,
}

struct Wait {
    own: Box<dyn FnOnce() -> io::Result<()> + Send>,
    done: oneshot::Sender<io::Result<Synced>>,
}

impl Rounds {
    /// Starts the thread. `root` is an open folder on the file system, opened before anything is written there, so that
    /// no failed write is missed.
    ///
    /// # Errors
    /// As the system says when no thread can be made.
    pub fn start(root: File) -> io::Result<Self> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let can_share = version(&release).is_some_and(|version| version >= KERNEL_MIN);
        let (rounds, mut waits) = Self::new();
        std::thread::Builder::new()
            .name("sync".into())
            .spawn(move || run(&mut waits, &move || can_share && is_little_dirty(), &root))?;
        Ok(rounds)
    }

    fn new() -> (Self, mpsc::Receiver<Wait>) {
        let (waiting, waits) = mpsc::channel(WAITING_MAX);
        (Self { waiting }, waits)
    }

    /// Makes durable what was written before: by `own`, or together with what others wait for.
    ///
    /// # Errors
    /// As the file system says. Together, a failed write of any of them fails all: whoever put them tries again.
    pub async fn sync(&self, own: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<Synced> {
        let (done, synced) = oneshot::channel();
        self.waiting.send(Wait { own: Box::new(own), done }).await.map_err(|_| panicked())?;
        synced.await.unwrap_or_else(|_| Err(panicked()))
    }
}

fn panicked() -> io::Error {
    io::Error::other("syncing panicked")
}

fn run(waits: &mut mpsc::Receiver<Wait>, may_share: &dyn Fn() -> bool, root: &File) {
    while let Some(first) = waits.blocking_recv() {
        let mut round = vec![first];
        while let Ok(next) = waits.try_recv() {
            round.push(next);
        }
        if round.len() < TOGETHER_MIN || !may_share() {
            for Wait { own, done } in round {
                // Whoever left does not want to know.
                let ended =
                    std::panic::catch_unwind(AssertUnwindSafe(own)).unwrap_or_else(|_| Err(panicked()));
                let _ = done.send(ended.map(|()| Synced::Alone));
            }
            continue;
        }
        let synced = rustix::fs::syncfs(root);
        for Wait { done, .. } in round {
            let _ = done.send(synced.map(|()| Synced::Together).map_err(io::Error::from));
        }
    }
}

/// Whether little is on its way to disks, of this process and all others.
fn is_little_dirty() -> bool {
    std::fs::read_to_string("/proc/meminfo").is_ok_and(|text| is_little(&text))
}

fn is_little(meminfo: &str) -> bool {
    dirty_kib(meminfo) <= DIRTY_KIB_MAX
}

/// What `/proc/meminfo` tells of pages that are to be written and of those being written, in KiB; more than there can be
/// where it does not tell.
fn dirty_kib(meminfo: &str) -> u64 {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(u64::MAX)
    };
    kib("Dirty:").saturating_add(kib("Writeback:"))
}

/// Major and minor number of a kernel's release, such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::{mpsc, oneshot};

    use super::{Rounds, Synced, Wait, dirty_kib, is_little, is_little_dirty, run, version};

    #[test]
    fn a_kernel_is_known_by_its_release() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.8-rc1"), Some((5, 8)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn what_is_on_its_way_to_disks_is_read() {
        assert_eq!(
            dirty_kib("MemTotal: 5 kB\nDirty:     28 kB\nWriteback:   4 kB\nWritebackTmp: 9 kB\n"),
            32
        );
        assert_eq!(dirty_kib("Dirty: 28 kB\n"), u64::MAX);
        let _ = is_little_dirty();
    }

    // B1: what others wrote does not become ours to wait for.
    #[test]
    fn little_on_its_way_is_shared() {
        assert!(is_little("Dirty: 30000 kB\nWriteback: 2768 kB\n"));
        assert!(!is_little("Dirty: 30000 kB\nWriteback: 2769 kB\n"));
    }

    /// What `waiting` wait for, told how each became durable and how many did by themselves.
    fn round(waiting: usize, may_share: bool) -> (Vec<Synced>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let root = File::open(folder.path()).unwrap();
        let (sender, mut waits) = mpsc::channel(waiting);
        let alone = Arc::new(AtomicUsize::new(0));
        let mut answers = Vec::new();
        for _ in 0..waiting {
            let (done, synced) = oneshot::channel();
            let alone = Arc::clone(&alone);
            let own = move || {
                alone.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            assert!(sender.try_send(Wait { own: Box::new(own), done }).is_ok());
            answers.push(synced);
        }
        drop(sender);
        run(&mut waits, &|| may_share, &root);
        let synced = answers.into_iter().map(|answer| answer.blocking_recv().unwrap().unwrap()).collect();
        (synced, alone.load(Ordering::Relaxed))
    }

    #[test]
    fn those_who_wait_at_the_same_time_are_synced_together() {
        assert_eq!(round(10, true), (vec![Synced::Together; 10], 0), "none of the ten by itself");
        assert_eq!(round(3, true), (vec![Synced::Alone; 3], 3), "few");
        assert_eq!(round(10, false), (vec![Synced::Alone; 10], 10), "beside much that others wrote");
    }

    // B1
    #[test]
    fn so_many_wait_for_the_thread_and_others_to_be_let_in() {
        let (rounds, waits) = Rounds::new();
        let mut all = futures::future::join_all((0..500).map(|_| rounds.sync(|| Ok(()))));
        futures::executor::block_on(async {
            assert!(futures::poll!(&mut all).is_pending(), "nobody syncs");
        });
        assert_eq!((rounds.waiting.capacity(), waits.len()), (0, rounds.waiting.max_capacity()));
    }

    #[tokio::test]
    async fn a_failed_sync_is_told_to_whoever_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let rounds = Rounds::start(File::open(folder.path()).unwrap()).unwrap();
        let failed = rounds.sync(|| Err(io::ErrorKind::StorageFull.into())).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(rounds.sync(|| Ok(())).await.unwrap(), Synced::Alone);
        // A panic is an error for whoever waits, and for nobody else.
        assert!(rounds.sync(|| panic!("planted")).await.is_err());
        assert_eq!(rounds.sync(|| Ok(())).await.unwrap(), Synced::Alone);
    }
}
