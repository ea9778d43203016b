//! The thread that writes one lane's log: while it encodes, writes and syncs one group, the lane goes on.
//!
//! A sync takes as long as the disk wants, up to seconds where others write much. The lane must not wait for it: it
//! reads sockets, answers queries and gathers the next group meanwhile (`docs/decisions/0003-log-per-lane.md`).

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::log::{Entry, Failure, Log};

/// After so long without a group the thread is at rest for good. Chosen: `at_rest` may have done nothing after the last
/// group, where it had done something shortly before.
const REST: Duration = Duration::from_secs(3);

/// Commits groups to one log, one at a time.
#[derive(Debug)]
pub struct Committer {
    place: Place,
    /// Whether a heartbeat was asked for since the last group.
    is_marked: bool,
}

/// Where a log is written.
#[derive(Debug)]
enum Place {
    /// On a thread of its own, which ends when this is dropped.
    Thread(mpsc::SyncSender<Job>),
    /// On the caller's thread: for a disk that takes no time.
    Here(Box<Log>),
}

/// What the thread is asked to do, and where the answer goes.
#[derive(Debug)]
enum Job {
    /// Write and sync these.
    Commit(Vec<Entry>, oneshot::Sender<Result<Vec<Option<u64>>, Failure>>),
    /// Mark what was synced last.
    Heartbeat(oneshot::Sender<io::Result<()>>),
}

impl Committer {
    /// Commits to `log`, on a thread where its disk may block; the thread calls `at_rest` when nothing more waits.
    ///
    /// # Errors
    /// As the system says when no thread can be made.
    pub fn start(log: Log, at_rest: fn()) -> io::Result<Self> {
        if !log.may_block() {
            return Ok(Self { place: Place::Here(Box::new(log)), is_marked: true });
        }
        // One job at a time: sending never waits.
        let (sender, jobs) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("log".into()).spawn(move || work(log, &jobs, at_rest))?;
        Ok(Self { place: Place::Thread(sender), is_marked: true })
    }

    /// Writes a group and makes it durable; the result has each entry's number, as [`Log::write`].
    ///
    /// # Errors
    /// As [`Log::write`]; [`Failure::Poisoned`] when the thread panicked.
    pub async fn commit(&mut self, group: Vec<Entry>) -> Result<Vec<Option<u64>>, Failure> {
        self.is_marked = false;
        match &mut self.place {
            Place::Thread(jobs) => {
                let (answer, answered) = oneshot::channel();
                jobs.send(Job::Commit(group, answer)).map_err(|_| Failure::Poisoned(gone()))?;
                answered.await.unwrap_or_else(|_| Err(Failure::Poisoned(gone())))
            }
            Place::Here(log) => {
                // Others go on meanwhile here too.
                tokio::task::yield_now().await;
                let written = log.write(&group);
                tokio::task::yield_now().await;
                written
            }
        }
    }

    /// Marks what was synced last as such, unless it is marked: later damage to it is told from a torn tail then.
    ///
    /// # Errors
    /// As [`Log::heartbeat`].
    pub async fn heartbeat(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_marked, true) {
            return Ok(());
        }
        match &mut self.place {
            Place::Thread(jobs) => {
                let (answer, answered) = oneshot::channel();
                jobs.send(Job::Heartbeat(answer)).map_err(|_| gone())?;
                answered.await.unwrap_or_else(|_| Err(gone()))
            }
            Place::Here(log) => log.heartbeat(),
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the log's thread panicked")
}

fn work(mut log: Log, jobs: &mpsc::Receiver<Job>, at_rest: fn()) {
    loop {
        let job = match jobs.try_recv() {
            Ok(job) => job,
            Err(mpsc::TryRecvError::Disconnected) => return,
            Err(mpsc::TryRecvError::Empty) => {
                at_rest();
                match jobs.recv_timeout(REST) {
                    Ok(job) => job,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        log.rest();
                        at_rest();
                        let Ok(job) = jobs.recv() else { return };
                        job
                    }
                }
            }
        };
        // A panic in here leaves the log in a state that nobody knows: the answer never comes, and the lane takes it
        // for a failed sync (W3).
        match job {
            Job::Commit(group, answer) => drop(answer.send(log.write(&group))),
            Job::Heartbeat(answer) => drop(answer.send(log.heartbeat())),
        }
    }
}

#[cfg(test)]
mod tests;
