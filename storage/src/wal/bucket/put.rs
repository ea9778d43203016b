//! Putting the log's next object, until it is known whether it stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::time::Instant;

use super::object::{self, Head};
use super::path;
use crate::error::{Error, Kind, Result};
use crate::faults::{self, Bug};
use crate::store::unavailable;

/// The first pause before a put is tried again, and the longest. Chosen: the store's client has tried by itself before.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long a put goes without an answer before the bucket counts as away. Chosen.
const SLOW: Duration = Duration::from_secs(5);

/// The end of a log in the bucket, held by one process.
#[derive(Debug)]
pub struct Putter {
    store: Arc<dyn ObjectStore>,
    folder: String,
    writer: Arc<str>,
    incarnation: [u8; 16],
    /// How often the log was opened, this time included.
    pub epoch: u64,
    /// The next object's number.
    pub next: u64,
    /// Whether this process' opening stands.
    is_open: bool,
    /// Whether the bucket does not answer, for those who would only wait.
    is_away: Arc<AtomicBool>,
}

/// How a put ended.
#[derive(Debug)]
pub enum Put {
    /// The object stands, and is ours.
    Done,
    /// Another process put this object under the number.
    Taken(Bytes),
}

impl Putter {
    /// The end of the log in `folder`: the object behind number `last` is next.
    pub fn new(store: Arc<dyn ObjectStore>, folder: String, writer: Arc<str>, last: u64, epoch: u64) -> Self {
        Self {
            store,
            folder,
            writer,
            incarnation: uuid::Uuid::new_v4().into_bytes(),
            epoch,
            next: last + 1,
            is_open: false,
            is_away: Arc::default(),
        }
    }

    /// Whether a put has been without an answer for some time; shared.
    pub fn is_away(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_away)
    }

    /// Takes the next number with an opening: from then on whoever had the log before is fenced.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the store did not answer so many times.
    pub async fn open(&mut self, tries: u32) -> Result<Put> {
        let put = self.put_next(&[], Some(tries)).await?;
        self.is_open = matches!(put, Put::Done);
        Ok(put)
    }

    /// As after an opening that was never put: what a test plants.
    pub fn without_opening(mut self) -> Self {
        self.is_open = true;
        self
    }

    /// Puts frames as the log's next object and returns its number once it stands; waits as long as that takes.
    ///
    /// # Errors
    /// `Kind::Fenced` when another process has opened this log.
    pub async fn put(&mut self, frames: &[u8]) -> Result<u64> {
        // A log that nobody had opened before is opened by its first frames.
        if !self.is_open {
            if let Put::Taken(_) = self.put_next(&[], None).await? {
                return Err(self.fenced());
            }
            self.is_open = true;
        }
        match self.put_next(frames, None).await? {
            Put::Done => Ok(self.next - 1),
            Put::Taken(_) => Err(self.fenced()),
        }
    }

    fn fenced(&self) -> Error {
        let text = format!(
            "the log {} in the bucket was opened by another process: two of them have one node's name (storage.node)",
            self.writer
        );
        Error::new(Kind::Fenced, text)
    }

    async fn put_next(&mut self, frames: &[u8], tries: Option<u32>) -> Result<Put> {
        let head = Head {
            epoch: self.epoch,
            number: self.next,
            incarnation: self.incarnation,
            writer: &self.writer,
        };
        let bytes = object::encode(&head, frames);
        let begun = Instant::now();
        let mut pause = PAUSE.0;
        for attempt in 1.. {
            match self.watched(&bytes, begun).await {
                Ok(put) => {
                    self.is_away.store(false, Ordering::Relaxed);
                    self.next += 1;
                    return Ok(put);
                }
                Err(error) if tries.is_some_and(|tries| attempt >= tries) => return Err(error),
                Err(error) => tracing::warn!(%error, "an object of the log is put again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
        unreachable!("the loop ends by returning")
    }

    /// One put; the bucket counts as away once all of them together take too long.
    async fn watched(&self, bytes: &Bytes, begun: Instant) -> Result<Put> {
        let mut attempt = std::pin::pin!(self.attempt(bytes));
        tokio::select! {
            biased;
            put = &mut attempt => return put,
            () = tokio::time::sleep_until(begun + SLOW) => {}
        }
        if !self.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!("the bucket does not take the log: writes that need it are told to come back");
        }
        attempt.await
    }

    /// One put. What its answer leaves open, the object itself says: a name is used once, for these bytes or for
    /// another's.
    async fn attempt(&self, bytes: &Bytes) -> Result<Put> {
        let path = path(&self.folder, self.next);
        faults::reach("bucket.put.before").await?;
        let put = self.store.put_opts(&path, PutPayload::from(bytes.clone()), PutMode::Create.into()).await;
        faults::reach("bucket.put.after").await?;
        let error = match put {
            Ok(_) => return Ok(Put::Done),
            Err(object_store::Error::AlreadyExists { .. }) if faults::has(Bug::TrustTakenObject) => {
                return Ok(Put::Done);
            }
            Err(error) => error,
        };
        match self.store.get(&path).await {
            Ok(found) => {
                let found = found.bytes().await.map_err(unavailable)?;
                Ok(if found == bytes { Put::Done } else { Put::Taken(found) })
            }
            Err(object_store::Error::NotFound { .. }) => Err(unavailable(error)),
            Err(error) => Err(unavailable(error)),
        }
    }
}
