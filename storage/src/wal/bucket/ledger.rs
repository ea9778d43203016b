//! What a log in the bucket holds, and its trimming.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::time::Instant;

use super::keys::KeyFiles;
use super::path;
use crate::error::Result;
use crate::faults::{self, Bug};
use crate::record::TableId;
use crate::store::unavailable;
use crate::wal::log::{Contents, Remembered};

/// How long an object stays that nobody needs. A listing may be that far behind: whoever opens the log by it still
/// finds its end (F20). Chosen: six times what stores are known to be behind.
const GRACE: Duration = Duration::from_secs(60);

/// The part of the log in the bucket that is shared with the keeper.
#[derive(Debug)]
pub struct BucketLedger {
    /// The log's name: the evidence writer.
    pub writer: Arc<str>,
    /// Where it lies.
    pub folder: String,
    store: Arc<dyn ObjectStore>,
    bytes: Arc<AtomicU64>,
    live: Mutex<Live>,
    /// Held while trimming; what outlives its object.
    keys: tokio::sync::Mutex<KeyFiles>,
}

#[derive(Debug, Default)]
struct Live {
    /// Objects with frames, without those that are on their way out.
    objects: BTreeMap<u64, (Contents, u64)>,
    /// The highest number seen: it stays, as the end of the log.
    newest: u64,
    /// What goes when its time has come.
    doomed: VecDeque<(Instant, Path)>,
}

impl BucketLedger {
    /// A ledger of a log in which nothing is known to be; `bytes` counts the frames in it.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        folder: String,
        writer: Arc<str>,
        bytes: Arc<AtomicU64>,
        keys: KeyFiles,
    ) -> Self {
        Self { writer, folder, store, bytes, live: Mutex::default(), keys: tokio::sync::Mutex::new(keys) }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().expect("no panic happens under this lock")
    }

    /// Notes an object that stands, and how many bytes of frames it has.
    pub fn note(&self, number: u64, contents: Contents, bytes: u64) {
        let mut live = self.live();
        live.newest = live.newest.max(number);
        if bytes > 0 {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            live.objects.insert(number, (contents, bytes));
        }
    }

    /// Lets go of objects of which every frame is in a committed table version, from the beginning of the log on, and
    /// deletes those that were let go some time ago; returns how many were let go.
    ///
    /// `committed` tells the last frame of this log that a table holds (C3). Declared keys are put beside the log first.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the store does not answer; nothing is lost, the next round tries again.
    pub async fn trim(&self, committed: impl Fn(&TableId) -> u64) -> Result<usize> {
        let mut files = self.keys.lock().await;
        self.delete_doomed().await?;
        let done: Vec<(u64, Vec<Remembered>, u64)> = {
            let live = self.live();
            let is_done = |number: u64, contents: &Contents| {
                let is_in = contents.last_seq.iter().all(|(table, last)| committed(table) >= *last);
                number != live.newest && (is_in || faults::has(Bug::TrimObjectEarly))
            };
            let prefix =
                live.objects.iter().take_while(|(number, (contents, _))| is_done(**number, contents));
            prefix.map(|(number, (contents, bytes))| (*number, contents.keys.clone(), *bytes)).collect()
        };
        let Some((last, ..)) = done.last() else { return Ok(0) };
        let keys: Vec<Remembered> = done.iter().flat_map(|(_, keys, _)| keys.iter().cloned()).collect();
        faults::reach("bucket.trim.before").await?;
        let replaced = files.keep(&*self.store, &self.folder, *last, &keys).await?;
        faults::reach("bucket.trim.keys_kept").await?;
        let mut live = self.live();
        for (number, _, bytes) in &done {
            live.objects.remove(number);
            self.bytes.fetch_sub(*bytes, Ordering::Relaxed);
        }
        let gone = done.iter().map(|(number, ..)| path(&self.folder, *number)).chain(replaced);
        let at = Instant::now() + GRACE;
        live.doomed.extend(gone.map(|path| (at, path)));
        Ok(done.len())
    }

    async fn delete_doomed(&self) -> Result<()> {
        loop {
            let now = Instant::now();
            let due = self.live().doomed.front().filter(|(at, _)| *at <= now).map(|(_, path)| path.clone());
            let Some(path) = due else { return Ok(()) };
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(unavailable(error)),
            }
            faults::reach("bucket.trim.deleted").await?;
            self.live().doomed.pop_front();
        }
    }

    /// Whether something is to be deleted now.
    pub fn is_due(&self) -> bool {
        self.live().doomed.front().is_some_and(|(at, _)| *at <= Instant::now())
    }
}
