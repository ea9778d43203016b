//! The workers: which are ready, which are busy, and when one is thrown away.
//!
//! A worker serves one tenant, with one set of roles, in its life: whatever a query leaves in its memory can meet no
//! other tenant's. It is used again only after a query that ended by itself and let go of everything, and not for
//! ever. There are never more processes than [`Options::workers_max`], so all workers together stay within their memory.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use storage::record::Tenant;
use storage::{Roles, cores};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Notify, oneshot};

use super::child::End;
use super::process::{Options, Starter, Worker};
use super::turns::{Full, Turns};

/// Queries that one worker answers in its life.
const SERVED_MAX: u64 = 200;
/// Memory that a worker may keep after a query beyond what it held when it was ready, in bytes.
const GROWN_BYTES_MAX: u64 = 48 << 20;
/// How long a worker waits for its tenant's next query before its memory is given back.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How often idle workers are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long a start that failed is not tried again in the background.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Threads that forward between workers and clients; none of them computes.
pub const FORWARD_THREADS: usize = 2;
/// Threads for what blocks: opening files, encoding hot rows, waiting for an ended process.
const BLOCKING_THREADS: usize = 8;

/// Whom a worker serves: nobody else ever meets what is left in its memory.
pub type Key = (Tenant, Roles);

/// What is told of the workers.
#[derive(Debug, Default)]
pub struct Counts {
    /// Workers started.
    pub started: AtomicU64,
    /// Workers that could not be started.
    pub failed: AtomicU64,
    /// Workers killed because their query was over its time.
    pub killed_timeout: AtomicU64,
    /// Workers killed because their client left.
    pub killed_left: AtomicU64,
    /// Workers that ended for want of memory.
    pub killed_memory: AtomicU64,
    /// Workers that ended in another way: a bug.
    pub crashed: AtomicU64,
    /// Workers thrown away after a query that was well: used often enough, grown, idle, or of another tenant.
    pub retired: AtomicU64,
}

/// Starts, lends and ends workers.
pub struct Pool {
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

/// What the tasks of a pool share.
pub struct Shared {
    state: Mutex<State>,
    starter: Starter,
    options: Options,
    handle: Handle,
    /// A place came free, or a worker was lost.
    changed: Notify,
    /// What is told.
    pub counts: Counts,
}

struct State {
    turns: Turns<Tenant, oneshot::Sender<()>>,
    /// Ready, and nobody's yet.
    fresh: Vec<Worker>,
    /// Ready, each for its own, the longest idle first.
    kept: Vec<(Key, Worker, Instant)>,
    /// Processes there are, or that are being started or ended.
    processes: usize,
    is_over: bool,
}

/// A place among the running queries; given back when it is dropped.
pub struct Turn {
    shared: Arc<Shared>,
    tenant: Tenant,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.turns.end(&self.tenant);
        grant(&mut state);
    }
}

impl State {
    /// Takes out the workers that nobody is to wait for any more: long idle, or ended by themselves.
    fn spent(&mut self, now: Instant) -> Vec<Worker> {
        let mut spent = Vec::new();
        while let Some((_, _, since)) = self.kept.first()
            && now.saturating_duration_since(*since) >= IDLE_MAX
        {
            spent.push(self.kept.remove(0).1);
        }
        let ended = self.fresh.iter().position(Worker::has_ended);
        spent.extend(ended.map(|at| self.fresh.remove(at)));
        spent
    }
}

/// Whether a worker that answered so many queries, and kept so many bytes, may serve again.
fn may_serve(served: u64, grown_bytes: u64) -> bool {
    served < SERVED_MAX && grown_bytes <= GROWN_BYTES_MAX
}

/// Gives turns to whom it is. A waiter that left meanwhile is passed over.
fn grant(state: &mut State) {
    while let Some((tenant, ticket)) = state.turns.next() {
        if ticket.send(()).is_err() {
            state.turns.end(&tenant);
        }
    }
}

/// A query that waits; leaves the queue when it is dropped.
struct Waiting {
    shared: Arc<Shared>,
    tenant: Tenant,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.state().turns.leave(&self.tenant, self.id);
    }
}

impl Pool {
    /// Starts the pool; its first workers get ready in the background. Its threads call `at_rest` before they wait.
    ///
    /// # Errors
    /// When its threads cannot be started.
    pub fn start(options: Options, at_rest: fn()) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(FORWARD_THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("sql-forward")
            .on_thread_park(at_rest)
            .on_thread_start(cores::give_way)
            .on_thread_stop(cores::end)
            .enable_all()
            .build()?;
        let state = State {
            turns: Turns::new(options.workers_max),
            fresh: Vec::new(),
            kept: Vec::new(),
            processes: 0,
            is_over: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            starter: Starter::new(options.clone())?,
            options,
            handle: runtime.handle().clone(),
            changed: Notify::new(),
            counts: Counts::default(),
        });
        runtime.spawn(Arc::clone(&shared).keep());
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// What its tasks share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Workers that are ready, queries that run, queries that wait.
    #[must_use]
    pub fn levels(&self) -> (usize, usize, usize) {
        let state = self.shared.state();
        (state.fresh.len() + state.kept.len(), state.turns.running(), state.turns.waiting())
    }

    /// Where the pool's tasks run: threads that never compute, so a timer there fires in time.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.shared.handle
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("counts", self.counts()).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let (fresh, kept) = {
            let mut state = self.shared.state();
            state.is_over = true;
            (std::mem::take(&mut state.fresh), std::mem::take(&mut state.kept))
        };
        // Dropping a worker ends it.
        drop((fresh, kept));
        // A runtime dropped inside another one would block it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn of that tenant, whose statement has `bytes`.
    ///
    /// # Errors
    /// [`Full`]: it does not even wait.
    pub async fn turn(self: &Arc<Self>, tenant: &Tenant, bytes: usize) -> Result<Turn, Full> {
        let (ticket, granted) = oneshot::channel();
        let waiting = {
            let mut state = self.state();
            let id = state.turns.wait(tenant, bytes, ticket)?;
            grant(&mut state);
            Waiting { shared: Arc::clone(self), tenant: tenant.clone(), id }
        };
        let mut granted =
            Granted { shared: Arc::clone(self), tenant: tenant.clone(), receiver: Some(granted) };
        let turn = granted.wait().await;
        drop(waiting);
        Ok(turn)
    }

    /// A worker for that tenant and roles: its own, a fresh one, or one that is started now.
    ///
    /// # Errors
    /// The system's, where none can be started.
    pub async fn worker(self: &Arc<Self>, key: &Key) -> io::Result<Worker> {
        loop {
            let (worker, evicted) = {
                let mut state = self.state();
                let own = state.kept.iter().rposition(|(one, ..)| one == key);
                let worker = match own {
                    Some(at) => Some(state.kept.remove(at).1),
                    None => state.fresh.pop(),
                };
                if worker.is_some() {
                    self.changed.notify_one();
                    (worker, None)
                } else if state.processes < self.options.workers_max {
                    state.processes += 1;
                    (None, None)
                } else if state.kept.is_empty() {
                    // All are being ended: one of them is this query's place.
                    (None, Some(None))
                } else {
                    (None, Some(Some(state.kept.remove(0).1)))
                }
            };
            match (worker, evicted) {
                (Some(worker), _) => {
                    if worker.has_ended() {
                        self.end(worker).await;
                        continue;
                    }
                    return Ok(worker);
                }
                (None, None) => return self.start().await,
                (None, Some(Some(idle))) => {
                    self.counts.retired.fetch_add(1, Ordering::Relaxed);
                    self.end(idle).await;
                }
                (None, Some(None)) => {
                    // Bounded by the query's own time; looked at again, since a wake-up may have been another's.
                    let _ = tokio::time::timeout(Duration::from_millis(5), self.changed.notified()).await;
                }
            }
        }
    }

    /// Starts a worker whose place was taken already.
    async fn start(self: &Arc<Self>) -> io::Result<Worker> {
        let mut place = Place { shared: self, is_kept: false };
        match self.starter.start().await {
            Ok(worker) => {
                place.is_kept = true;
                self.counts.started.fetch_add(1, Ordering::Relaxed);
                Ok(worker)
            }
            Err(error) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(kind = %error.kind(), "a SQL worker does not start");
                Err(error)
            }
        }
    }

    /// Takes a worker back after a query that ended well; keeps it where it may serve again.
    pub async fn release(self: &Arc<Self>, key: Key, mut worker: Worker, is_clean: bool) {
        worker.served += 1;
        if is_clean && may_serve(worker.served, worker.grown_bytes()) {
            let mut state = self.state();
            if !state.is_over {
                state.kept.push((key, worker, Instant::now()));
                self.changed.notify_one();
                return;
            }
        }
        self.counts.retired.fetch_add(1, Ordering::Relaxed);
        self.end(worker).await;
    }

    /// Kills a worker, waits until nothing is left that it held, and says how it had ended.
    pub async fn end(self: &Arc<Self>, mut worker: Worker) -> End {
        worker.kill();
        self.ended(worker).await
    }

    /// Waits until nothing is left that a worker held which ended or was killed.
    ///
    /// Its place comes free also when nobody waits any more: a query whose time is over while it makes room for itself
    /// would keep it for ever otherwise.
    pub async fn ended(self: &Arc<Self>, mut worker: Worker) -> End {
        let shared = Arc::clone(self);
        let (told, end) = oneshot::channel();
        self.handle.spawn_blocking(move || {
            let _place = Place { shared: &shared, is_kept: false };
            let _ = told.send(worker.end());
            // It may wait for a place among the dead: no other starts in its place until then.
            drop(worker);
        });
        end.await.unwrap_or(End::Crashed)
    }

    /// Keeps as many workers ready as are wanted, and ends those that are idle.
    async fn keep(self: Arc<Self>) {
        loop {
            let spent = {
                let mut state = self.state();
                if state.is_over {
                    return;
                }
                state.spent(Instant::now())
            };
            for worker in spent {
                self.counts.retired.fetch_add(1, Ordering::Relaxed);
                self.end(worker).await;
            }
            let is_wanted = {
                let mut state = self.state();
                let is_wanted =
                    state.fresh.len() < self.options.warm && state.processes < self.options.workers_max;
                state.processes += usize::from(is_wanted);
                is_wanted
            };
            if is_wanted {
                let Ok(worker) = self.start().await else {
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                };
                let mut state = self.state();
                if state.is_over {
                    return;
                }
                state.fresh.push(worker);
                self.changed.notify_one();
                continue;
            }
            let _ = tokio::time::timeout(TICK, self.changed.notified()).await;
        }
    }
}

/// A place among the processes while one is started or ended; given back unless one came to be.
struct Place<'a> {
    shared: &'a Shared,
    is_kept: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.shared.state().processes -= 1;
            self.shared.changed.notify_one();
        }
    }
}

/// A turn that may be granted at any moment, also while its waiter leaves: then it is given on.
struct Granted {
    shared: Arc<Shared>,
    tenant: Tenant,
    receiver: Option<oneshot::Receiver<()>>,
}

impl Granted {
    async fn wait(&mut self) -> Turn {
        if let Some(receiver) = &mut self.receiver {
            // The sender lives in the queue until it is used.
            let _ = receiver.await;
        }
        self.receiver = None;
        Turn { shared: Arc::clone(&self.shared), tenant: self.tenant.clone() }
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.close();
            if receiver.try_recv().is_ok() {
                drop(Turn { shared: Arc::clone(&self.shared), tenant: self.tenant.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests;
