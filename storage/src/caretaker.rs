//! Background work on what is stored: one duty after the other, of the lowest priority.
//!
//! Runs on a thread and runtime of its own beside the keeper's, so that nothing here delays a seal, and below
//! every other thread, so that ingest and queries come first (X1). Nothing is lost when it stops; it only falls
//! behind, and says so in its levels.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::watch;

use crate::compact::run::compact;
use crate::cores;
use crate::deployment::Shared;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::keeper;
use crate::memory::Pool;

/// How often the caretaker looks when there was nothing to do.
const ROUND: Duration = Duration::from_secs(1);

/// The niceness of its thread, and of those that its runtime starts for files: the lowest priority there is.
const NICE: i32 = 19;

/// Starts the caretaker's thread; it ends when `stopped` turns true, in the middle of a merge if need be.
///
/// # Errors
/// `Kind::Unavailable` when no thread or runtime can be made.
pub fn start(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) -> Result<std::thread::JoinHandle<()>> {
    let unavailable =
        |error| Error::new(ErrorKind::Unavailable, "no thread for background work").with_source(error);
    let runtime = keeper::runtime(&shared.options).map_err(unavailable)?;
    std::thread::Builder::new()
        .name("caretaker".into())
        .spawn(move || {
            cores::give_way();
            // On Linux this concerns the calling thread alone.
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::warn!(%error, "background work keeps the priority of all others");
            }
            runtime.block_on(async {
                let mut rounds = Rounds::new(Instant::now());
                while !*stopped.borrow() {
                    let round = rounds.next(&shared, &stopped, Instant::now());
                    let is_busy = AssertUnwindSafe(round).catch_unwind().await;
                    let is_busy = is_busy.unwrap_or_else(|_| {
                        tracing::error!("a round of background work panicked and is tried again");
                        false
                    });
                    shared.stats.caretaker_cpu_ns.store(thread_cpu_ns(), Ordering::Relaxed);
                    if !is_busy {
                        let _ = tokio::time::timeout(ROUND, stopped.changed()).await;
                    }
                }
            });
        })
        .map_err(unavailable)
}

/// Its rounds, one after the other.
#[derive(Debug)]
pub struct Rounds {
    looked: Instant,
}

impl Rounds {
    /// Rounds that begin at `now`, in which no table was looked at.
    pub fn new(now: Instant) -> Self {
        Self { looked: now }
    }

    /// Gives each duty a turn; returns whether one of them may have more to do at once. Looks at every table each
    /// [`ROUND`], while there are merges as well: those that nobody uses rest beside the one that is merged.
    pub async fn next(&mut self, shared: &Shared, stopped: &watch::Receiver<bool>, now: Instant) -> bool {
        let is_busy = compact(shared, || !*stopped.borrow()).await;
        if now.saturating_duration_since(self.looked) >= ROUND {
            self.looked = now;
            let is_short = shared.memory.used(Pool::Tables) > shared.memory.max(Pool::Tables);
            shared.tables.all().iter().for_each(|table| {
                table.look(is_short);
            });
            // What was freed, by tables and by merges that follow one another, goes back to the system.
            (shared.options.at_rest)();
        }
        is_busy
    }
}

/// CPU time of the calling thread, nanoseconds; 0 where the kernel does not tell.
fn thread_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::sync::watch;

    use super::{ROUND, Rounds};
    use crate::fixture::{DAY_NS, HOUR, LATE_NS, count, open, rows, run, seal, table};
    use crate::record::{Dataset, TableId};

    /// A table that nobody uses is put at rest, told of as it is, and woken by whoever reads, writes or cleans it.
    #[test]
    fn a_table_that_nobody_uses_rests_and_wakes_whole() {
        run(async || {
            let data = tempfile::tempdir().unwrap();
            let storage = open(data.path(), || LATE_NS).await;
            let days: Vec<i64> = (1..=6).map(|day| LATE_NS - day * DAY_NS).collect();
            seal(&storage, &days).await;
            let held = storage.shared.tables.get(&table()).unwrap();
            let stopped = watch::Sender::new(false).subscribe();
            let begun = Instant::now();
            let rest = async || {
                let mut rounds = Rounds::new(begun);
                for at in 1..=20 {
                    rounds.next(&storage.shared, &stopped, begun + at * ROUND).await;
                }
                held.rests()
            };
            let before = storage.levels();
            assert!(held.expects_chunks());
            assert!(rest().await);
            assert!(!held.expects_chunks(), "what the next chunk needs is made with it");
            assert_eq!(storage.levels().files, before.files);
            assert_eq!(held.version(), Some(0));
            assert!(held.rests(), "asking for its levels wakes nothing");

            let snapshot = storage.snapshot(&table()).unwrap();
            assert!(!held.rests(), "a query needs its files");
            assert_eq!(count(&snapshot), (6, 0));
            assert!(!rest().await, "a snapshot holds its files");
            drop(snapshot);
            assert!(rest().await);

            // Rows that wait are no use of its files; sealing them is.
            seal(&storage, &[LATE_NS - 7 * DAY_NS]).await;
            assert!(!held.rests());
            assert!(rest().await);
            assert_eq!(count(&storage.snapshot(&table()).unwrap()), (7, 0));
            assert!(rest().await);
            assert_eq!(storage.sweep(None, Instant::now() + 100 * HOUR).await.failed, 0);
            assert!(rest().await);
            storage.close().await;
            drop((held, storage));
            let storage = open(data.path(), || LATE_NS).await;
            assert_eq!(count(&storage.snapshot(&table()).unwrap()), (7, 0));
            storage.close().await;
        });
    }

    /// Tables rest although there are merges to do, second after second.
    #[test]
    fn a_table_rests_while_others_are_merged() {
        run(async || {
            let data = tempfile::tempdir().unwrap();
            let storage = open(data.path(), || LATE_NS).await;
            let days: Vec<i64> = (1..=6).map(|day| LATE_NS - day * DAY_NS).collect();
            seal(&storage, &days).await;
            let unused = storage.shared.tables.get(&table()).unwrap();
            let writer = storage.writer(0).unwrap();
            let others: Vec<TableId> = (0..10)
                .map(|at| TableId::new(table().tenant, Dataset::parse(&format!("other{at}")).unwrap()))
                .collect();
            for _ in 0..storage.shared.options.compact_files_min {
                for other in &others {
                    writer.append(other, rows(&[LATE_NS - DAY_NS]), None).await.unwrap();
                }
                storage.flush().await.unwrap();
            }
            let stopped = watch::Sender::new(false).subscribe();
            let (begun, mut at) = (Instant::now(), 0);
            let mut rounds = Rounds::new(begun);
            let is_busy = loop {
                at += 1;
                let is_busy = rounds.next(&storage.shared, &stopped, begun + at * ROUND).await;
                if unused.rests() || !is_busy {
                    break is_busy;
                }
            };
            assert!(unused.rests() && is_busy, "after {at} rounds, busy: {is_busy}");
            storage.close().await;
        });
    }
}
