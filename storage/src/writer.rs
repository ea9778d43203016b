//! A lane's door into the log: `append` returns when the chunk survives a crash.
//!
//! Everything here runs on the lane's own thread. A request gathers its frame and waits; when the lane has
//! decoded everything its sockets had ready, one task writes all frames, syncs once, makes the chunks readable
//! and wakes the waiters. Between the socket and the synced reply nothing is handed to another thread.
//! What is to outlive the machine goes to the node's log in the bucket instead (`bucket_log.rs`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::deployment::Shared;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults::{self, Bug};
use crate::hot::{HotChunk, RETRY_AFTER, frame_bytes, held_bytes, refused};
use crate::memory::{Charge, Memory, Pool, Short};
use crate::options::WalPlace;
use crate::principal::Acknowledgement;
use crate::record::{Clean, TableId, Tenant};
use crate::seal::dates::{DAYS_WAITING_MAX, days_of};
use crate::table::Table;
use crate::wal::frame::Meta;
use crate::wal::log::{Failure, Log, Remembered};

/// What a request of one record takes of the memory for hot rows, its frame included: less is not worth a body.
const REQUEST_BYTES: u64 = 16 << 10;

/// Nanoseconds in a day.
const DAY_NS: i64 = 86_400_000_000_000;

/// How long the log may stay without a mark behind its last synced frame (F13).
const HEARTBEAT: Duration = Duration::from_millis(500);

/// What a client declared to be sent at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's key, 1 to 255 bytes; kept as its keyed hash.
    pub key: Box<str>,
    /// BLAKE3 of route, query and inflated body, shortened.
    pub fingerprint: [u8; 16],
    /// The reply's status.
    pub status: u16,
    /// The reply's body, given again as it is.
    pub reply: Box<[u8]>,
}

/// What is known of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is ours to write, and reserved until it is appended or released.
    New,
    /// It was acknowledged: answer the same again.
    Replayed(Arc<Idempotency>),
    /// It was acknowledged, or is on its way, for another payload.
    Mismatch,
    /// The same key is on its way right now.
    InFlight,
}

/// Where a chunk stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The log that holds it.
    pub writer: Arc<str>,
    /// The first row's number.
    pub first_seq: u64,
    /// Rows in the chunk.
    pub row_count: u64,
}

/// One lane's log. Stays on the lane's thread.
#[derive(Clone, Debug)]
pub struct Writer {
    lane: Rc<Lane>,
}

#[derive(Debug)]
struct Lane {
    shared: Arc<Shared>,
    state: RefCell<LaneState>,
    due: Notify,
}

#[derive(Debug)]
struct LaneState {
    log: Log,
    next_rows: HashMap<TableId, u64>,
    waiting: Vec<Waiting>,
    is_poisoned: bool,
}

/// A chunk that is on its way into a log.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The table that it belongs to.
    pub table: Arc<Table>,
    /// The chunk.
    pub chunk: Arc<HotChunk>,
    /// The key that it came under.
    pub key: Option<Remembered>,
    /// The memory of its frame, until that is written.
    pub frame: Charge,
    /// Who waits for it.
    pub done: oneshot::Sender<Result<()>>,
}

impl Waiting {
    /// Tells the waiter now; a second time it is told nothing.
    pub fn acknowledge(&mut self) {
        let _ = std::mem::replace(&mut self.done, oneshot::channel().0).send(Ok(()));
    }

    /// Tells the waiter that nobody knows, or that nothing was kept.
    pub fn refuse(self, error: Error) {
        let _ = self.done.send(Err(error));
    }
}

impl Writer {
    /// Opens the lane's log and starts its committing task; must run inside the lane's `LocalSet`.
    pub(crate) fn open(shared: Arc<Shared>, log: Log, next_rows: HashMap<TableId, u64>) -> Self {
        let state = LaneState { log, next_rows, waiting: Vec::new(), is_poisoned: false };
        let lane = Rc::new(Lane { shared, state: RefCell::new(state), due: Notify::new() });
        tokio::task::spawn_local(commit_forever(Rc::downgrade(&lane)));
        Self { lane }
    }

    /// Appends a chunk and waits until it survives what `level` says: `Durable` a crash of this machine, `Object` its
    /// loss, `Buffered` nothing, and does not wait.
    ///
    /// Concurrent callers share one sync, or one object. The chunk is readable before this returns, where it waits.
    /// Invariant A1 rests on this function. Dropping the future does not undo the append.
    ///
    /// # Errors
    /// `Kind::Busy` when a budget is full, or the bucket away that the level needs, `Kind::Share` when the tenant holds
    /// its share of one, `Kind::TooLarge` when the chunk alone is more than that, and `Kind::Conflict` when the
    /// dataset holds another kind of rows: nothing was written. `Kind::Poisoned` when a write or sync failed and
    /// `Kind::Fenced` when another process took the log over: whether it was written is unknown until a process has
    /// read the log.
    pub async fn append_at(
        &self,
        level: Acknowledgement,
        table: &TableId,
        chunk: Clean,
        idempotency: Option<Idempotency>,
    ) -> Result<Receipt> {
        if self.lane.shared.is_full() {
            return Err(Error::new(ErrorKind::Busy { retry_after: RETRY_AFTER }, "a disk budget is full"));
        }
        let (receipt, done) = self.gather(level, table, chunk, idempotency)?;
        if level != Acknowledgement::Buffered {
            done.await.map_err(|_| Error::new(ErrorKind::Poisoned, "the log stopped before the sync"))??;
        }
        Ok(receipt)
    }

    /// Appends a chunk at the level `Durable`.
    ///
    /// # Errors
    /// As [`Self::append_at`].
    pub async fn append(
        &self,
        table: &TableId,
        chunk: Clean,
        idempotency: Option<Idempotency>,
    ) -> Result<Receipt> {
        self.append_at(Acknowledgement::Durable, table, chunk, idempotency).await
    }

    /// The event time before which the dataset takes nothing: by its retention, or `past_days_max`, whichever is
    /// later.
    #[must_use]
    pub fn oldest_ns(&self, table: &TableId, now_ns: i64) -> Option<i64> {
        let shared = &self.lane.shared;
        let floor_ns = now_ns.saturating_sub(i64::from(shared.options.past_days_max).saturating_mul(DAY_NS));
        Some(shared.policies.oldest_ns(table, now_ns).map_or(floor_ns, |oldest_ns| oldest_ns.max(floor_ns)))
    }

    fn gather(
        &self,
        level: Acknowledgement,
        id: &TableId,
        chunk: Clean,
        idempotency: Option<Idempotency>,
    ) -> Result<(Receipt, oneshot::Receiver<Result<()>>)> {
        let shared = &self.lane.shared;
        let (kind, batch, scrub_version, measurement) = chunk.into_parts();
        let table = shared.table(id, kind)?;
        let batch = table.fit(batch);
        // X2: each day becomes a file, which takes as long with one row as with thousands. Rows of one day are the
        // ordinary case and always taken.
        if days_of(&batch).len() > 1 && shared.tables.days_waiting(&id.tenant) > DAYS_WAITING_MAX {
            let text = format!(
                "the tenant's unsealed records are of more than {DAYS_WAITING_MAX} days: send records of one day, or wait until they are sealed"
            );
            return Err(Error::new(ErrorKind::Share { retry_after: RETRY_AFTER }, text));
        }
        let appended_ns = shared.steady_ns();
        let row_count = batch.num_rows() as u64;
        let idempotency = idempotency.map(|record| shared.keys.seal(&id.tenant, record));
        // B1, X2: chunk and frame are counted as this tenant's before either is kept.
        let reply_bytes = idempotency.as_ref().map_or(0, |idempotency| idempotency.reply.len());
        let (held, framed) = (held_bytes(&batch, &measurement), frame_bytes(&batch, reply_bytes));
        let take = |pool, bytes| {
            shared.memory.take(pool, Some(&id.tenant), bytes).map_err(|short| refused(short, bytes))
        };
        let (charge, frame) = (take(Pool::Hot, held)?, take(Pool::Decode, framed)?);
        if level == Acknowledgement::Object || shared.options.wal_place == WalPlace::Bucket {
            let meta = Meta {
                table: id.clone(),
                kind,
                first_seq: 0,
                row_count,
                scrub_version,
                appended_ns,
                idempotency,
            };
            let (first_seq, done) =
                shared.bucket_log().gather(table, meta, batch, measurement, [charge, frame])?;
            let writer = Arc::clone(shared.bucket_log().writer());
            return Ok((Receipt { writer, first_seq, row_count }, done));
        }
        let mut state = self.lane.state.borrow_mut();
        if state.is_poisoned {
            return Err(Error::new(ErrorKind::Poisoned, "the log is poisoned by a failed sync"));
        }
        let first_seq = state.next_rows.get(id).copied().unwrap_or(0);
        let key = idempotency
            .as_ref()
            .map(|idempotency| (id.tenant.clone(), appended_ns, Arc::new(idempotency.clone())));
        let meta =
            Meta { table: id.clone(), kind, first_seq, row_count, scrub_version, appended_ns, idempotency };
        let seq = state.log.gather(meta, &batch)?;
        state.next_rows.insert(id.clone(), first_seq + row_count);
        let writer = Arc::clone(state.log.writer());
        let measurement = Arc::new(measurement);
        let chunk = Arc::new(HotChunk {
            writer: Arc::clone(&writer),
            seq,
            first_seq,
            batch,
            measurement,
            appended_ns,
            charge,
        });
        let (done, waiter) = oneshot::channel();
        state.waiting.push(Waiting { table, chunk, key, frame, done });
        self.lane.due.notify_one();
        Ok((Receipt { writer, first_seq, row_count }, waiter))
    }

    /// Reserves an idempotency key of a tenant, or tells what is known of it.
    #[must_use]
    pub fn reserve(&self, tenant: &Tenant, key: &str, fingerprint: [u8; 16]) -> Known {
        self.lane.shared.keys.reserve(tenant, key, fingerprint)
    }

    /// Gives a reserved key back when its request was not stored.
    pub fn release(&self, tenant: &Tenant, key: &str) {
        self.lane.shared.keys.release(tenant, key);
    }

    /// The one budget of the process's memory: what a request takes before it is appended comes from it too.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.lane.shared.memory
    }

    /// Whether a tenant's request would be refused for want of memory alone, which sealing sets free in a moment.
    #[must_use]
    pub fn waits_for_memory(&self, tenant: &Tenant) -> bool {
        let shared = &self.lane.shared;
        !shared.is_full() && shared.memory.refusal(Pool::Hot, tenant, REQUEST_BYTES).is_some()
    }

    /// Why what a tenant sends now would be refused, before anything of it is read: a budget is full
    /// (`Kind::Busy`), or the tenant holds its share of one (`Kind::Share`).
    #[must_use]
    pub fn pressure(&self, tenant: &Tenant) -> Option<Error> {
        let shared = &self.lane.shared;
        if shared.is_full() {
            return Some(Error::new(ErrorKind::Busy { retry_after: RETRY_AFTER }, "a disk budget is full"));
        }
        let short = shared.memory.refusal(Pool::Hot, tenant, REQUEST_BYTES)?;
        Some(refused(if short == Short::Share { short } else { Short::Whole }, 0))
    }
}

async fn commit_forever(lane: std::rc::Weak<Lane>) {
    loop {
        let Some(strong) = lane.upgrade() else { return };
        let is_due = tokio::time::timeout(HEARTBEAT, strong.due.notified()).await.is_ok();
        if is_due {
            // Lets every task that is ready gather its frame first: they share the sync.
            tokio::task::yield_now().await;
            // A panic in here leaves the log in a state that nobody knows: as after a failed sync (W3).
            if std::panic::catch_unwind(AssertUnwindSafe(|| commit(&strong))).is_err() {
                strong.shared.poison(&"committing panicked");
                return;
            }
        } else {
            mark(&strong);
        }
    }
}

/// Writes and syncs what was gathered, makes it readable, wakes the waiters.
fn commit(lane: &Lane) {
    let mut state = lane.state.borrow_mut();
    if state.is_poisoned || state.waiting.is_empty() {
        return;
    }
    let mut waiting = std::mem::take(&mut state.waiting);
    if faults::has(Bug::AcknowledgeBeforeSync) {
        waiting.iter_mut().for_each(Waiting::acknowledge);
    }
    let result = state.log.commit();
    lane.shared.stats.syncs.fetch_add(1, Ordering::Relaxed);
    lane.shared.stats.synced_frames.fetch_add(waiting.len() as u64, Ordering::Relaxed);
    match result {
        Ok(()) => {
            faults::step("ack.before_readable");
            admit(&lane.shared, waiting);
        }
        Err(Failure::Full(error)) => {
            state.log.abandon();
            tracing::warn!(%error, "no room for another log segment");
            for waiting in waiting.into_iter().rev() {
                // The row numbers are given back, newest first.
                state.next_rows.insert(waiting.table.id.clone(), waiting.chunk.first_seq);
                if let Some((tenant, _, idempotency)) = &waiting.key {
                    lane.shared.keys.release(tenant, &idempotency.key);
                }
                let busy = ErrorKind::Busy { retry_after: RETRY_AFTER };
                waiting.refuse(Error::new(busy, "no room for another log segment"));
            }
        }
        Err(Failure::Poisoned(error)) => {
            // W3: what the kernel did with the pages is unknown. Nobody is told that it is safe, and the
            // process ends; the replay finds out.
            state.is_poisoned = true;
            for waiting in waiting {
                waiting.refuse(Error::new(ErrorKind::Poisoned, "the log did not sync"));
            }
            lane.shared.poison(&error);
        }
    }
}

/// Makes chunks readable whose frames are where their level wants them, then tells their waiters (A3 before A1's reply).
pub(crate) fn admit(shared: &Shared, admitted: Vec<Waiting>) {
    let now_ns = shared.steady_ns();
    shared.keys.remember(now_ns, admitted.iter().filter_map(|waiting| waiting.key.clone()));
    for waiting in admitted {
        waiting.table.push(waiting.chunk);
        drop(waiting.frame);
        // A waiter that left lost its reply, not its chunk.
        let _ = waiting.done.send(Ok(()));
    }
}

/// Marks the last synced frames as such, so that later damage to them is told from a torn tail.
fn mark(lane: &Lane) {
    let mut state = lane.state.borrow_mut();
    if !state.is_poisoned
        && state.log.wants_heartbeat()
        && let Err(error) = state.log.heartbeat()
    {
        state.is_poisoned = true;
        lane.shared.poison(&error);
    }
}
