//! The log of this node in the bucket: read to its end, and taken over (F20, F21).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use super::take::{Holes, Take};
use crate::bucket_log::BucketLog;
use crate::deployment::{Recovery, Shared};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults::{self, Bug};
use crate::latency::Measure;
use crate::store::unavailable;
use crate::wal::bucket::ledger::BucketLedger;
use crate::wal::bucket::put::{Put, Putter};
use crate::wal::bucket::read::{Listed, list, object, others};
use crate::wal::bucket::{folder, object as codec, path};
use crate::wal::frame::{HEADER_BYTES, Header, Read};
use crate::wal::log::{Contents, Remembered};
use crate::wal::replay::{self, Place};

/// Objects that are read at once. Chosen: hides a bucket's latency, holds little memory.
const READ_AHEAD: usize = 8;

/// How often an opening is tried before the start fails. Chosen.
const OPEN_TRIES: u32 = 4;

/// Takes the node's log over: whoever had it acknowledges nothing more, and what that acknowledged is in the hot buffer
/// or in a table. Returns the declared keys it remembers.
///
/// # Errors
/// `Kind::Corrupt` naming the object that does not read; `Kind::Unavailable` when the store does not answer.
pub async fn take_over(
    shared: &Shared,
    measure: Measure,
    recovery: &mut Recovery,
    progress: &impl Fn(Recovery),
) -> Result<Vec<Remembered>> {
    let folder = folder(&shared.bucket_node);
    let listed = list(&*shared.store, &folder).await?;
    recovery.bytes_total += listed.objects.values().sum::<u64>();
    let mut reading = Reading::new(shared, folder, &listed, measure);
    reading.listed(&listed, recovery, progress).await?;
    let putter = reading.end(recovery).await?;
    let mut keys = listed.keys.read(&*shared.store).await?;
    let Reading { folder, writer, take, objects, newest, .. } = reading;
    let (store, bytes) = (Arc::clone(&shared.store), Arc::clone(&shared.bucket_bytes));
    let ledger = BucketLedger::new(store, folder, writer, bytes, listed.keys);
    for (number, (contents, bytes)) in objects {
        ledger.note(number, contents, bytes);
    }
    ledger.note(newest, Contents::default(), 0);
    keys.extend(take.keys);
    let keys = shared.keys.sealed(keys);
    let log = BucketLog::new(Arc::new(ledger), putter, take.last_seq, take.next_rows);
    shared.bucket_log.set(log).expect("a log is taken over once a process");
    warn_of_others(shared).await?;
    Ok(keys)
}

/// Another node's log may be that of a machine that is gone for good.
async fn warn_of_others(shared: &Shared) -> Result<()> {
    for node in others(&*shared.store, &shared.bucket_node).await? {
        let text = "the bucket holds the log of another node; if that machine is gone for good, start once with its name";
        tracing::info!(node, "{text}");
    }
    Ok(())
}

/// One log, while it is read.
struct Reading<'a> {
    shared: &'a Shared,
    folder: String,
    writer: Arc<str>,
    take: Take<'a>,
    objects: HashMap<u64, (Contents, u64)>,
    newest: u64,
    epoch: u64,
    /// The frame that was read last: one that comes again is none.
    last_read: u64,
}

impl<'a> Reading<'a> {
    fn new(shared: &'a Shared, folder: String, listed: &Listed, measure: Measure) -> Self {
        let writer: Arc<str> = format!("{}-bucket", shared.bucket_node).into();
        let holes = if shared.options.salvage { Holes::Named } else { Holes::Refused };
        Self {
            shared,
            folder,
            take: Take::new(shared, Arc::clone(&writer), measure, holes),
            writer,
            objects: HashMap::new(),
            newest: listed.objects.keys().next_back().copied().unwrap_or(0),
            epoch: 0,
            last_read: 0,
        }
    }

    /// Reads what was listed; what is gone meanwhile was trimmed by the process that had the log before.
    async fn listed(
        &mut self,
        listed: &Listed,
        recovery: &mut Recovery,
        progress: &impl Fn(Recovery),
    ) -> Result<()> {
        let (store, folder) = (Arc::clone(&self.shared.store), self.folder.clone());
        let numbers: Vec<u64> = listed.objects.keys().copied().collect();
        let mut found = stream::iter(numbers)
            .map(|number| {
                let (store, folder) = (Arc::clone(&store), folder.clone());
                async move { Ok::<_, Error>((number, object(&*store, &folder, number).await?)) }
            })
            .buffered(READ_AHEAD);
        while let Some((number, bytes)) = found.try_next().await? {
            let Some(bytes) = bytes else { continue };
            self.object(number, &bytes, recovery)?;
            recovery.bytes_done = (recovery.bytes_done + bytes.len() as u64).min(recovery.bytes_total);
            progress(*recovery);
        }
        Ok(())
    }

    /// Goes on to the log's end, where a listing was behind or somebody still writes, and takes the next number.
    ///
    /// A log that was never used is opened by its first frames, where only this data folder can use it.
    async fn end(&mut self, recovery: &mut Recovery) -> Result<Putter> {
        loop {
            let next = self.newest + 1;
            if let Some(bytes) = object(&*self.shared.store, &self.folder, next).await? {
                self.object(next, &bytes, recovery)?;
                continue;
            }
            faults::reach("bucket.open.before").await?;
            let (store, writer) = (Arc::clone(&self.shared.store), Arc::clone(&self.writer));
            let mut putter = Putter::new(store, self.folder.clone(), writer, self.newest, self.epoch + 1);
            if next == 1 && self.shared.options.node.is_none() {
                return Ok(putter);
            }
            if faults::has(Bug::OpenWithoutFence) {
                return Ok(putter.without_opening());
            }
            match putter.open(OPEN_TRIES).await? {
                Put::Done => {
                    self.newest = next;
                    return Ok(putter);
                }
                Put::Taken(bytes) => self.object(next, &bytes, recovery)?,
            }
        }
    }

    fn object(&mut self, number: u64, bytes: &Bytes, recovery: &mut Recovery) -> Result<()> {
        self.newest = self.newest.max(number);
        match self.frames(number, bytes, recovery) {
            Err(error) if error.kind() == ErrorKind::Corrupt && self.shared.options.salvage => {
                tracing::error!(%error, "an object of the log cannot be read and is left out");
                Ok(())
            }
            read => read,
        }
    }

    fn frames(&mut self, number: u64, bytes: &Bytes, recovery: &mut Recovery) -> Result<()> {
        let damaged = || {
            let text = format!(
                "{} is not what was put there: it holds acknowledged rows. Restore it from a version or copy of the \
                 bucket if there is one; to go on without it, start with --salvage",
                path(&self.folder, number)
            );
            Error::new(ErrorKind::Corrupt, text)
        };
        let (head, frames) = codec::decode(bytes).ok_or_else(damaged)?;
        if head.number != number || head.writer != &*self.writer {
            return Err(damaged());
        }
        self.epoch = self.epoch.max(head.epoch);
        let mut contents = Contents::default();
        let mut at = 0;
        while at < frames.len() {
            let (header, payload) = Header::frame(&frames[at..]).ok_or_else(damaged)?;
            let place = Place { segment: number, offset: at as u64 };
            at += HEADER_BYTES + payload.len();
            let is_new = header.seq > self.last_read;
            self.last_read = self.last_read.max(header.seq);
            match replay::decode(place, &header, payload)? {
                Read::Known(meta, batch) => {
                    contents.note(header.seq, &meta);
                    if is_new {
                        self.take.frame(header.seq, &meta, batch, recovery)?;
                    }
                }
                Read::Newer(envelope) => {
                    contents.note_newer(header.seq, &envelope.table);
                    if is_new {
                        self.take.newer(header.seq, &envelope);
                    }
                }
            }
        }
        if !frames.is_empty() {
            self.objects.insert(number, (contents, frames.len() as u64));
        }
        Ok(())
    }
}

/// Removes the node's log, of which everything is in the tables.
///
/// # Errors
/// `Kind::Unavailable` when the store does not answer.
pub async fn remove(shared: &Shared) -> Result<()> {
    let prefix = ObjectPath::from(folder(&shared.bucket_node));
    let listed: Vec<_> = shared.store.list(Some(&prefix)).try_collect().await.map_err(unavailable)?;
    for object in listed {
        shared.store.delete(&object.location).await.map_err(unavailable)?;
    }
    Ok(())
}
