//! The node's log in the bucket, as its lanes use it: one object at a time, whatever was gathered meanwhile in the next.
//!
//! A chunk is readable once its object stands, and its waiter is told after. Nothing of it is on the disk. The uploader
//! has a thread of its own: a hand-off costs nothing beside a put.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::FutureExt;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::deployment::Shared;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults::{self, Bug};
use crate::hot::{HotChunk, RETRY_AFTER};
use crate::keeper;
use crate::latency::Measurement;
use crate::memory::Charge;
use crate::record::TableId;
use crate::table::Table;
use crate::wal::bucket::ledger::BucketLedger;
use crate::wal::bucket::put::Putter;
use crate::wal::frame::{self, Header, Meta, PAYLOAD_BYTES_MAX};
use crate::wal::log::Contents;
use crate::writer::{Waiting, admit};

/// Bytes of frames after which an object takes no further one. Chosen: one put of a second or so.
const OBJECT_BYTES_MAX: usize = 8 << 20;

/// Bytes of chunks that are gathered while an object is on its way; above it writes are told to come back.
const GATHERED_BYTES_MAX: u64 = 64 << 20;

/// The log, open for appending.
#[derive(Debug)]
pub struct BucketLog {
    ledger: Arc<BucketLedger>,
    gathered: Mutex<Gathered>,
    due: Notify,
    is_away: Arc<AtomicBool>,
    /// The way to the next object, until the uploader takes it.
    putter: Mutex<Option<Putter>>,
}

#[derive(Debug)]
struct Gathered {
    next_seq: u64,
    next_rows: HashMap<TableId, u64>,
    queue: VecDeque<(Meta, Waiting)>,
    bytes: u64,
    is_poisoned: bool,
}

impl BucketLog {
    /// Goes on behind the last frame; `next_rows` are the numbers of the next row in each table.
    pub fn new(
        ledger: Arc<BucketLedger>,
        putter: Putter,
        last_seq: u64,
        next_rows: HashMap<TableId, u64>,
    ) -> Self {
        let gathered = Gathered {
            next_seq: last_seq + 1,
            next_rows,
            queue: VecDeque::new(),
            bytes: 0,
            is_poisoned: false,
        };
        Self {
            ledger,
            gathered: Mutex::new(gathered),
            due: Notify::new(),
            is_away: putter.is_away(),
            putter: Mutex::new(Some(putter)),
        }
    }

    /// The log's name.
    pub fn writer(&self) -> &Arc<str> {
        &self.ledger.writer
    }

    /// What is in it.
    pub fn ledger(&self) -> &Arc<BucketLedger> {
        &self.ledger
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().expect("no panic happens under this lock")
    }

    /// Gathers a fitted chunk; returns its first row's number, and what tells once its object stands.
    ///
    /// `meta` comes without that number; the charges are the chunk's and its frame's.
    ///
    /// # Errors
    /// `Kind::Busy` where it would only wait: the bucket is away, or slower than what comes in. `Kind::Invalid` when it is
    /// too large for a frame. `Kind::Poisoned` once the log has stopped.
    pub fn gather(
        &self,
        table: Arc<Table>,
        meta: Meta,
        batch: RecordBatch,
        measurement: Measurement,
        [charge, frame]: [Charge; 2],
    ) -> Result<(u64, oneshot::Receiver<Result<()>>)> {
        let bytes = charge.bytes();
        if bytes > PAYLOAD_BYTES_MAX as u64 {
            return Err(Error::new(ErrorKind::Invalid, "chunk exceeds what a frame of the log holds"));
        }
        let mut gathered = self.gathered();
        if gathered.is_poisoned {
            return Err(Error::new(ErrorKind::Poisoned, "the log in the bucket has stopped"));
        }
        if self.is_away.load(Ordering::Relaxed) || gathered.bytes > GATHERED_BYTES_MAX {
            let busy = ErrorKind::Busy { retry_after: RETRY_AFTER };
            return Err(Error::new(busy, "the bucket does not take the log"));
        }
        let seq = gathered.next_seq;
        gathered.next_seq += 1;
        let next_row = gathered.next_rows.entry(meta.table.clone()).or_default();
        let first_seq = *next_row;
        *next_row += meta.row_count;
        gathered.bytes += bytes;
        let (done, waiter) = oneshot::channel();
        let key =
            meta.idempotency.clone().map(|key| (meta.table.tenant.clone(), meta.appended_ns, Arc::new(key)));
        let chunk = HotChunk {
            writer: Arc::clone(self.writer()),
            seq,
            first_seq,
            batch,
            measurement: Arc::new(measurement),
            appended_ns: meta.appended_ns,
            charge,
        };
        gathered.queue.push_back((Meta { first_seq, ..meta }, Waiting { table, chunk, key, frame, done }));
        drop(gathered);
        self.due.notify_one();
        Ok((first_seq, waiter))
    }

    /// Takes out what the next object holds: its frames, and who waits for them.
    fn take(&self, epoch: u64) -> Result<(Vec<u8>, Contents, Vec<Waiting>)> {
        let (mut frames, mut contents, mut taken) = (Vec::new(), Contents::default(), Vec::new());
        while frames.len() < OBJECT_BYTES_MAX {
            // Locked for a moment each: lanes gather while frames are encoded.
            let Some((meta, waiting)) = self.gathered().queue.pop_front() else { break };
            self.gathered().bytes -= waiting.chunk.bytes();
            let header = Header {
                version: frame::VERSION,
                segment: 0,
                seq: waiting.chunk.seq,
                epoch,
                durable_seq: 0,
                payload_len: 0,
                payload_crc: 0,
            };
            frame::encode(&mut frames, header, &meta, &waiting.chunk.batch)?;
            contents.note(waiting.chunk.seq, &meta);
            taken.push(waiting);
        }
        Ok((frames, contents, taken))
    }

    /// Puts what was gathered as one object, makes it readable, wakes the waiters.
    async fn put(&self, shared: &Shared, putter: &mut Putter) -> Result<()> {
        let (frames, contents, mut taken) = self.take(putter.epoch)?;
        if taken.is_empty() {
            return Ok(());
        }
        // The frames' own charges are of this buffer; it is as long as they say at most.
        debug_assert!(frames.len() as u64 <= taken.iter().map(|waiting| waiting.frame.bytes()).sum());
        if faults::has(Bug::AcknowledgeBeforePut) {
            taken.iter_mut().for_each(Waiting::acknowledge);
        }
        let number = match putter.put(&frames).await {
            Ok(number) => number,
            Err(error) => {
                let text = "the log in the bucket was taken over by another process";
                taken.into_iter().for_each(|waiting| waiting.refuse(Error::new(ErrorKind::Fenced, text)));
                return Err(error);
            }
        };
        let bytes = frames.len() as u64;
        self.ledger.note(number, contents, bytes);
        shared.stats.log_objects.fetch_add(1, Ordering::Relaxed);
        shared.stats.log_object_bytes.fetch_add(bytes, Ordering::Relaxed);
        faults::reach("bucket.ack.before_readable").await?;
        admit(shared, taken);
        Ok(())
    }

    /// Stops for good: those who wait learn that nobody knows.
    fn poison(&self, shared: &Shared, error: &dyn std::fmt::Display) {
        let mut gathered = self.gathered();
        gathered.is_poisoned = true;
        gathered.queue.clear();
        drop(gathered);
        shared.poison(error);
    }
}

/// Starts the uploader's thread; it ends when `stopped` turns true.
///
/// # Errors
/// `Kind::Unavailable` when no thread or runtime can be made.
pub fn start(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) -> Result<std::thread::JoinHandle<()>> {
    let unavailable =
        |error| Error::new(ErrorKind::Unavailable, "no thread for the log in the bucket").with_source(error);
    let runtime = keeper::runtime(&shared.options).map_err(unavailable)?;
    let upload = move || {
        runtime.block_on(async {
            tokio::select! {
                () = run(&shared) => {}
                _ = stopped.wait_for(|is_stopped| *is_stopped) => {}
            }
        });
    };
    std::thread::Builder::new().name("uploader".into()).spawn(upload).map_err(unavailable)
}

/// Puts what is gathered, object by object, until another process takes the log over. Once a process.
pub async fn run(shared: &Shared) {
    let log = shared.bucket_log();
    let putter = log.putter.lock().expect("no panic happens under this lock").take();
    let Some(mut putter) = putter else { return };
    let interval = Duration::from_millis(shared.options.wal_object_interval_ms);
    loop {
        log.due.notified().await;
        // Lets every task that is ready gather its chunk first: they share the object.
        tokio::task::yield_now().await;
        let begun = Instant::now();
        // A panic in here leaves it unknown what stands: as after a failed sync of a disk's log (W3).
        match AssertUnwindSafe(log.put(shared, &mut putter)).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return log.poison(shared, &error),
            Err(_) => return log.poison(shared, &"putting the log into the bucket panicked"),
        }
        if !log.gathered().queue.is_empty() {
            log.due.notify_one();
        }
        tokio::time::sleep_until(begun + interval).await;
    }
}

#[cfg(test)]
mod tests;
