//! A lane's door into the log: `append` returns when the chunk survives a crash.
//!
//! Everything here runs on the lane's own thread, and nothing here waits for the disk. A request queues its chunk and
//! waits; one task has a group of what waits written and synced by the log's thread (`wal/committer.rs`), makes its chunks
//! readable and wakes its waiters. What comes meanwhile is the next group.
//! What is to outlive the machine goes to the node's log in the bucket instead (`bucket_log.rs`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
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
use crate::wal::committer::Committer;
use crate::wal::frame::{Meta, PAYLOAD_BYTES_MAX};
use crate::wal::log::{Entry, Failure, Log, Remembered};
use crate::wal::queue::Queue;

/// What a request of one record takes of the memory for hot rows, its frame included: less is not worth a body.
const REQUEST_BYTES: u64 = 16 << 10;

/// Bytes of frames that are written and synced as one group; a larger frame is one alone. Chosen: whoever sends little
/// waits for one group, which takes a disk some milliseconds, and a busy lane's syncs stay few beside what they write.
const GROUP_BYTES_MAX: u64 = 2 << 20;

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
    /// The log's name.
    writer: Arc<str>,
    state: RefCell<LaneState>,
    due: Notify,
}

#[derive(Debug)]
struct LaneState {
    next_rows: HashMap<TableId, u64>,
    queue: Queue<(Meta, Waiting)>,
    is_poisoned: bool,
}

/// A chunk that is on its way into a log.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The table that it belongs to.
    pub table: Arc<Table>,
    /// The chunk; its number in a log of the disk is known once it is written.
    pub chunk: HotChunk,
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

    /// Gives its declared key back: nothing came in under it.
    fn release(&self, shared: &Shared) {
        if let Some((tenant, _, idempotency)) = &self.key {
            shared.keys.release(tenant, &idempotency.key);
        }
    }

    /// Tells the waiter that nobody knows, or that nothing was kept.
    pub fn refuse(self, error: Error) {
        let _ = self.done.send(Err(error));
    }
}

impl Writer {
    /// Opens the lane's log and starts its committing task; must run inside the lane's `LocalSet`.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the log's thread cannot be made.
    pub(crate) fn open(shared: Arc<Shared>, log: Log, next_rows: HashMap<TableId, u64>) -> Result<Self> {
        let writer = Arc::clone(log.writer());
        let committer = Committer::start(log, shared.options.at_rest).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "no thread for a lane's log").with_source(error)
        })?;
        let state = LaneState { next_rows, queue: Queue::default(), is_poisoned: false };
        let lane = Rc::new(Lane { shared, writer, state: RefCell::new(state), due: Notify::new() });
        tokio::task::spawn_local(commit_forever(Rc::downgrade(&lane), committer));
        Ok(Self { lane })
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
        if framed > PAYLOAD_BYTES_MAX as u64 {
            return Err(Error::new(ErrorKind::Invalid, "chunk exceeds what a frame of the log holds"));
        }
        let mut state = self.lane.state.borrow_mut();
        if state.is_poisoned {
            return Err(Error::new(ErrorKind::Poisoned, "the log is poisoned by a failed sync"));
        }
        let first_seq = state.next_rows.get(id).copied().unwrap_or(0);
        state.next_rows.insert(id.clone(), first_seq + row_count);
        let key = idempotency
            .as_ref()
            .map(|idempotency| (id.tenant.clone(), appended_ns, Arc::new(idempotency.clone())));
        let meta =
            Meta { table: id.clone(), kind, first_seq, row_count, scrub_version, appended_ns, idempotency };
        let writer = Arc::clone(&self.lane.writer);
        let chunk = HotChunk {
            writer: Arc::clone(&writer),
            seq: 0,
            first_seq,
            batch,
            measurement: Arc::new(measurement),
            appended_ns,
            charge,
        };
        let (done, waiter) = oneshot::channel();
        state.queue.push(&id.tenant, framed, (meta, Waiting { table, chunk, key, frame, done }));
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

async fn commit_forever(lane: std::rc::Weak<Lane>, mut committer: Committer) {
    loop {
        let Some(strong) = lane.upgrade() else { return };
        let is_due = tokio::time::timeout(HEARTBEAT, strong.due.notified()).await.is_ok();
        // A panic in here leaves the log in a state that nobody knows: as after a failed sync (W3).
        let committing = AssertUnwindSafe(async {
            if is_due {
                // Lets every task that is ready queue its chunk first: they share the sync.
                tokio::task::yield_now().await;
                commit(&strong, &mut committer).await;
            } else {
                mark(&strong, &mut committer).await;
            }
        });
        if committing.catch_unwind().await.is_err() {
            poison(&strong, Vec::new(), &"committing panicked");
        }
        if strong.state.borrow().is_poisoned {
            return;
        }
    }
}

/// Has everything that waits written and synced, group by group; makes each readable and wakes its waiters.
async fn commit(lane: &Lane, committer: &mut Committer) {
    loop {
        let group = lane.state.borrow_mut().queue.take(GROUP_BYTES_MAX);
        if group.is_empty() {
            return;
        }
        let (mut entries, mut waiting) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        for (meta, waits) in group {
            entries.push(Entry { meta, batch: waits.chunk.batch.clone(), frame_bytes: waits.frame.bytes() });
            waiting.push(waits);
        }
        if faults::has(Bug::AcknowledgeBeforeSync) {
            waiting.iter_mut().for_each(Waiting::acknowledge);
        }
        let written = committer.commit(entries).await;
        let stats = &lane.shared.stats;
        stats.syncs.fetch_add(1, Ordering::Relaxed);
        stats.synced_frames.fetch_add(waiting.len() as u64, Ordering::Relaxed);
        match written {
            Ok(seqs) => {
                faults::step("ack.before_readable");
                admit(&lane.shared, numbered(&lane.shared, waiting, seqs));
            }
            Err(Failure::Full(error)) => return give_up(lane, waiting, &error),
            // W3: what the kernel did with the pages is unknown. Nobody is told that it is safe, and the process
            // ends; the replay finds out.
            Err(Failure::Poisoned(error)) => return poison(lane, waiting, &error),
        }
    }
}

/// Those of a group that were written, each with its number; the others are refused.
fn numbered(shared: &Shared, waiting: Vec<Waiting>, seqs: Vec<Option<u64>>) -> Vec<Waiting> {
    let mut written = Vec::with_capacity(waiting.len());
    for (mut waits, seq) in waiting.into_iter().zip(seqs) {
        match seq {
            Some(seq) => {
                waits.chunk.seq = seq;
                written.push(waits);
            }
            None => {
                waits.release(shared);
                waits.refuse(Error::new(ErrorKind::Bug, "the records do not become a frame of the log"));
            }
        }
    }
    written
}

/// There is no room for another segment: nothing of the group was written, and nothing of what waits could be.
fn give_up(lane: &Lane, group: Vec<Waiting>, error: &std::io::Error) {
    tracing::warn!(%error, "no room for another log segment");
    let mut state = lane.state.borrow_mut();
    let queued = state.queue.take_all().into_iter().map(|(_, waits)| waits);
    let refused: Vec<_> = group.into_iter().chain(queued).collect();
    for waits in refused {
        // Every row of the table from the first of these on: their numbers are given again.
        let next_row = state.next_rows.entry(waits.table.id.clone()).or_default();
        *next_row = waits.chunk.first_seq.min(*next_row);
        waits.release(&lane.shared);
        let busy = ErrorKind::Busy { retry_after: RETRY_AFTER };
        waits.refuse(Error::new(busy, "no room for another log segment"));
    }
}

/// Ends the log: whether those of the group were written is unknown.
fn poison(lane: &Lane, group: Vec<Waiting>, error: &dyn std::fmt::Display) {
    let mut state = lane.state.borrow_mut();
    state.is_poisoned = true;
    let queued = state.queue.take_all().into_iter().map(|(_, waits)| waits);
    for waits in group.into_iter().chain(queued) {
        waits.refuse(Error::new(ErrorKind::Poisoned, "the log did not sync"));
    }
    lane.shared.poison(error);
}

/// Makes chunks readable whose frames are where their level wants them, then tells their waiters (A3 before A1's reply).
pub(crate) fn admit(shared: &Shared, admitted: Vec<Waiting>) {
    let now_ns = shared.steady_ns();
    shared.keys.remember(now_ns, admitted.iter().filter_map(|waiting| waiting.key.clone()));
    for waiting in admitted {
        waiting.table.push(Arc::new(waiting.chunk));
        drop(waiting.frame);
        // A waiter that left lost its reply, not its chunk.
        let _ = waiting.done.send(Ok(()));
    }
}

/// Marks the last synced frames as such, so that later damage to them is told from a torn tail.
async fn mark(lane: &Lane, committer: &mut Committer) {
    if let Err(error) = committer.heartbeat().await {
        poison(lane, Vec::new(), &error);
    }
}
