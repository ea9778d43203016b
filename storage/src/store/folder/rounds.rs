//! Objects that are put at the same time become durable together.
//!
//! A sync of one file is a turn of its file system's journal and a flush of its disk, and every other sync waits behind
//! it, the log's above all. A chunk of many dates is hundreds of small files: where several wait, one sync of the whole
//! file system takes the place of each one's own. Who waits alone is synced alone, whatever else is not yet on the disk.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many must wait for one sync of the file system. Chosen: fewer cost about as much one by one, and what others wrote
/// to the same file system is left alone.
const TOGETHER_MIN: usize = 4;

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

/// The syncs of one folder's file system.
#[derive(Debug)]
pub struct Rounds {
    /// On the file system; opened before anything is written, so that no failed write is missed.
    root: File,
    /// Whether the file system can be synced as a whole.
    can_share: bool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: Vec<Wait>,
    is_running: bool,
}

struct Wait {
    own: Box<dyn FnOnce() -> io::Result<()> + Send>,
    done: oneshot::Sender<io::Result<Synced>>,
}

impl std::fmt::Debug for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wait")
    }
}

impl Rounds {
    /// Syncs on the file system of `root`, an open folder.
    pub fn on(root: File) -> Arc<Self> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let can_share = version(&release).is_some_and(|version| version >= KERNEL_MIN);
        Arc::new(Self { root, can_share, waiting: Mutex::default() })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes durable what was written before: by `own`, or together with what others wait for.
    ///
    /// # Errors
    /// As the file system says. Together, a failed write of any of them fails all: whoever put them tries again.
    pub async fn sync(
        self: &Arc<Self>,
        own: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Synced> {
        let (done, synced) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting();
            waiting.next.push(Wait { own: Box::new(own), done });
            !std::mem::replace(&mut waiting.is_running, true)
        };
        if is_first {
            let rounds = Arc::clone(self);
            // What comes while a round runs is the next one. Nobody waits for this thread: each for its own answer.
            drop(tokio::task::spawn_blocking(move || rounds.run()));
        }
        synced.await.unwrap_or_else(|_| Err(io::Error::other("syncing stopped")))
    }

    fn run(&self) {
        loop {
            let round = {
                let mut waiting = self.waiting();
                if waiting.next.is_empty() {
                    waiting.is_running = false;
                    return;
                }
                std::mem::take(&mut waiting.next)
            };
            self.sync_round(round);
        }
    }

    fn sync_round(&self, round: Vec<Wait>) {
        if !self.can_share || round.len() < TOGETHER_MIN {
            for Wait { own, done } in round {
                // Whoever left does not want to know.
                let _ = done.send(own().map(|()| Synced::Alone));
            }
            return;
        }
        let synced = rustix::fs::syncfs(&self.root);
        for Wait { done, .. } in round {
            let _ = done.send(synced.map(|()| Synced::Together).map_err(io::Error::from));
        }
    }
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
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};

    use super::{Rounds, Synced, version};

    #[test]
    fn a_kernel_is_known_by_its_release() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.8-rc1"), Some((5, 8)));
        assert_eq!(version("unknown"), None);
    }

    /// One alone is synced alone; what comes while a sync runs is the next round, in one sync where it is several.
    #[tokio::test]
    async fn those_who_wait_at_the_same_time_are_synced_together() {
        let folder = tempfile::tempdir().unwrap();
        let rounds = Rounds::on(File::open(folder.path()).unwrap());
        if !rounds.can_share {
            return;
        }
        let own = Arc::new(AtomicUsize::new(0));
        let count = || {
            let own = Arc::clone(&own);
            move || {
                own.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        };
        assert_eq!(rounds.sync(count()).await.unwrap(), Synced::Alone);
        let gate = Arc::new(Barrier::new(2));
        let shut = Arc::clone(&gate);
        let blocked = || {
            let shut = Arc::clone(&shut);
            move || {
                shut.wait();
                Ok(())
            }
        };
        let first = rounds.sync(blocked());
        let others: Vec<_> = (0..10).map(|_| rounds.sync(count())).collect();
        let open = async {
            // Everyone waits by now: the futures before this one were asked first.
            tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
        };
        let (first, others, ()) = futures::join!(first, futures::future::join_all(others), open);
        assert_eq!(first.unwrap(), Synced::Alone);
        assert!(others.into_iter().all(|synced| synced.unwrap() == Synced::Together));
        assert_eq!(own.load(Ordering::Relaxed), 1, "none of the ten by itself");
        assert!(!rounds.waiting().is_running);
    }

    #[tokio::test]
    async fn a_failed_sync_is_told_to_whoever_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let rounds = Rounds::on(File::open(folder.path()).unwrap());
        let failed = rounds.sync(|| Err(io::ErrorKind::StorageFull.into())).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(rounds.sync(|| Ok(())).await.unwrap(), Synced::Alone);
    }
}
