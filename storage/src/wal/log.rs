//! Group commit: frames gather in memory, one write and one `fdatasync` make them durable.
//!
//! The log belongs to its thread ([`super::committer`]); what others need of it (which segment holds which table up to where)
//! is shared behind a lock taken once a sync.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;

use super::frame::{self, Header, Meta};
use super::segment::{self, Segment};
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::faults::{self, Bug};
use crate::record::{TableId, Tenant};
use crate::writer::Idempotency;

/// Room for frames that a log keeps between commits, in bytes. Chosen: what many usual requests gather at once; more
/// is given back, or each lane would hold its largest body's frame for ever.
const FRAMES_KEPT_BYTES: usize = 1 << 20;

/// A declared key with the time it was acknowledged at.
pub type Remembered = (Tenant, i64, Arc<Idempotency>);

/// What a segment holds, for trimming.
#[derive(Debug, Default)]
pub struct Contents {
    /// The last frame of each table in it.
    pub last_seq: HashMap<TableId, u64>,
    /// Declared keys in it: they outlive the segment.
    pub keys: Vec<Remembered>,
}

impl Contents {
    /// Notes a frame of a newer build: it is in no table that this one trims by.
    pub fn note_newer(&mut self, seq: u64, table: &TableId) {
        self.last_seq.insert(table.clone(), seq);
    }

    /// Notes one frame.
    pub fn note(&mut self, seq: u64, meta: &Meta) {
        self.last_seq.insert(meta.table.clone(), seq);
        if let Some(idempotency) = &meta.idempotency {
            self.keys.push((meta.table.tenant.clone(), meta.appended_ns, Arc::new(idempotency.clone())));
        }
    }
}

/// The part of a log that its lane shares with the keeper.
#[derive(Debug)]
pub struct Ledger {
    /// The log's folder.
    pub folder: PathBuf,
    /// The log's name: the evidence writer.
    pub writer: Arc<str>,
    disk: Arc<dyn Disk>,
    segments: Mutex<HashMap<u64, Contents>>,
    active: AtomicU64,
    bytes: Arc<AtomicU64>,
    segment_bytes: u64,
}

impl Ledger {
    /// A ledger of a log that was read back: what each of its segments holds.
    pub fn new(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        writer: Arc<str>,
        segments: HashMap<u64, Contents>,
        bytes: Arc<AtomicU64>,
        segment_bytes: u64,
    ) -> Self {
        bytes.fetch_add(segments.len() as u64 * segment_bytes, Ordering::Relaxed);
        Self {
            folder,
            writer,
            disk,
            segments: Mutex::new(segments),
            active: AtomicU64::new(u64::MAX),
            bytes,
            segment_bytes,
        }
    }

    fn segments(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Contents>> {
        self.segments.lock().expect("no panic happens under this lock")
    }

    fn open_segment(&self, number: u64) {
        self.segments().insert(number, Contents::default());
        self.active.store(number, Ordering::Release);
        self.bytes.fetch_add(self.segment_bytes, Ordering::Relaxed);
    }

    /// Deletes segments of which every frame is in a committed table version, from the beginning of the log on;
    /// returns how many.
    ///
    /// A segment behind one that stays is not deleted: the log would have a gap, which a start takes for damage (W2).
    /// `committed` tells the last frame of this log that a table holds. Declared keys are written beside the
    /// log first, so that they outlive their segment.
    ///
    /// # Errors
    /// As writing and deleting files; nothing is lost, the next round tries again.
    pub fn trim(&self, committed: impl Fn(&TableId) -> u64) -> Result<usize> {
        let active = self.active.load(Ordering::Acquire);
        // C3: trimmed only past what a committed table version proves.
        let is_done = |number: u64, contents: &Contents| {
            let is_in = contents.last_seq.iter().all(|(table, last)| committed(table) >= *last);
            number != active && (is_in || faults::has(Bug::TrimEarly))
        };
        let mut done: Vec<(u64, Vec<Remembered>)> = {
            let segments = self.segments();
            let mut rising: Vec<_> = segments.iter().collect();
            rising.sort_unstable_by_key(|(number, _)| **number);
            let prefix = rising.into_iter().take_while(|(number, contents)| is_done(**number, contents));
            prefix.map(|(number, contents)| (*number, contents.keys.clone())).collect()
        };
        // The newest segment stays while no segment is open: it carries the log's last number.
        if active == u64::MAX
            && let Some(newest) = self.segments().keys().max().copied()
        {
            done.retain(|(number, _)| *number != newest);
        }
        let failed = |error| Error::new(Kind::Unavailable, "log cannot be trimmed").with_source(error);
        for (number, keys) in &done {
            if !faults::has(Bug::ForgetKeys) {
                crate::idempotency::beside::keep_beside(&*self.disk, &self.folder, *number, keys)
                    .map_err(failed)?;
            }
            faults::io("trim.keys_kept").map_err(failed)?;
            match self.disk.remove(&segment::path(&self.folder, *number)) {
                // An attempt that failed behind this step is tried again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(failed)?,
            }
            faults::io("trim.removed").map_err(failed)?;
            // Before the next one goes: after a power cut too, what is missing is the beginning.
            self.disk.sync_folder(&self.folder).map_err(failed)?;
            self.segments().remove(number);
            self.bytes.fetch_sub(self.segment_bytes, Ordering::Relaxed);
        }
        Ok(done.len())
    }
}

/// Why a commit failed.
#[derive(Debug)]
pub enum Failure {
    /// There is no room for another segment; nothing was written.
    Full(io::Error),
    /// Bytes may or may not be on the disk: the descriptor is dead (W3).
    Poisoned(io::Error),
}

/// A chunk that is to be a frame.
#[derive(Debug)]
pub struct Entry {
    /// What the chunk is.
    pub meta: Meta,
    /// The chunk.
    pub batch: RecordBatch,
    /// What its frame takes at most.
    pub frame_bytes: u64,
}

/// A lane's log, open for appending.
#[derive(Debug)]
pub struct Log {
    ledger: Arc<Ledger>,
    segment: Option<Segment>,
    next_segment: u64,
    next_seq: u64,
    epoch: u64,
    durable_seq: u64,
    marked_seq: u64,
    /// Whether a heartbeat was written since the last sync.
    has_heartbeat: bool,
    /// The frames of one group.
    frames: Vec<u8>,
    segment_bytes: u64,
}

impl Log {
    /// Opens a log behind its last frame.
    pub fn new(
        ledger: Arc<Ledger>,
        last_segment: u64,
        last_seq: u64,
        epoch: u64,
        segment_bytes: u64,
    ) -> Self {
        Self {
            ledger,
            segment: None,
            next_segment: last_segment + 1,
            next_seq: last_seq + 1,
            epoch,
            durable_seq: last_seq,
            marked_seq: last_seq,
            has_heartbeat: false,
            frames: Vec::new(),
            segment_bytes,
        }
    }

    /// The log's name.
    pub fn writer(&self) -> &Arc<str> {
        &self.ledger.writer
    }

    /// Whether a call may take as long as a disk does.
    pub fn may_block(&self) -> bool {
        self.ledger.disk.may_block()
    }

    /// Writes a group and makes it durable: one write, one `fdatasync`. Returns each entry's number, contiguous; `None` for
    /// one that does not encode, which is not written.
    ///
    /// # Errors
    /// [`Failure::Full`] when no new segment could be made: nothing was written, and no number is used.
    /// [`Failure::Poisoned`] when a write or sync failed: the log must not be used again (W3).
    pub fn write(&mut self, group: &[Entry]) -> std::result::Result<Vec<Option<u64>>, Failure> {
        let (mut seqs, mut written) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        for entry in group {
            let seq = self.next_seq + written.len() as u64;
            match self.encode(seq, entry) {
                Ok(()) => {
                    seqs.push(Some(seq));
                    written.push((seq, &entry.meta));
                }
                Err(error) => {
                    tracing::error!(%error, "a chunk is not written to the log");
                    seqs.push(None);
                }
            }
        }
        let done = if written.is_empty() { Ok(()) } else { self.commit(&written) };
        self.frames.clear();
        self.frames.shrink_to(FRAMES_KEPT_BYTES);
        done.map(|()| seqs)
    }

    /// Lets go of the room for frames until the next group.
    pub fn rest(&mut self) {
        self.frames = Vec::new();
    }

    fn encode(&mut self, seq: u64, entry: &Entry) -> Result<()> {
        let header = self.header(seq);
        let bytes = usize::try_from(entry.frame_bytes).unwrap_or(0);
        if bytes > FRAMES_KEPT_BYTES {
            // Exactly what is charged for it: doubling would hold as much again.
            self.frames.reserve_exact(bytes);
        }
        frame::encode(&mut self.frames, header, &entry.meta, &entry.batch)
    }

    fn header(&self, seq: u64) -> Header {
        Header {
            version: frame::VERSION,
            segment: self.segment_for_frames(),
            seq,
            epoch: self.epoch,
            durable_seq: self.durable_seq,
            payload_len: 0,
            payload_crc: 0,
        }
    }

    /// The segment that the frames, as many as there are by now, will be written to.
    fn segment_for_frames(&self) -> u64 {
        match &self.segment {
            // A heartbeat is a header: behind the end it would not be on preallocated disk.
            Some(segment) if segment.fits(self.frames.len().max(frame::HEADER_BYTES)) => segment.number(),
            _ => self.next_segment,
        }
    }

    fn commit(&mut self, written: &[(u64, &Meta)]) -> std::result::Result<(), Failure> {
        let number = self.segment_for_frames();
        self.restamp(number);
        if self.segment.as_ref().map(Segment::number) != Some(number) {
            // A heartbeat at the end of the old one was never synced, and frames of the new one will vouch for it.
            if let Some(old) = self.segment.as_ref().filter(|_| self.has_heartbeat) {
                old.sync().map_err(Failure::Poisoned)?;
            }
            let ledger = &*self.ledger;
            // A frame that is larger than a segment has all its disk before it is written, too.
            let bytes = self.segment_bytes.max(self.frames.len() as u64);
            let created = Segment::create(&*ledger.disk, &ledger.folder, number, bytes);
            self.segment = Some(created.map_err(Failure::Full)?);
            self.next_segment = number + 1;
            self.ledger.open_segment(number);
        }
        let segment = self.segment.as_mut().expect("opened above");
        faults::io("wal.write.before").map_err(Failure::Poisoned)?;
        segment.write(&self.frames).map_err(Failure::Poisoned)?;
        faults::io("wal.sync.before").map_err(Failure::Poisoned)?;
        match segment.sync() {
            Err(error) if !faults::has(Bug::IgnoreFailedSync) => return Err(Failure::Poisoned(error)),
            _ => {}
        }
        faults::io("wal.sync.after").map_err(Failure::Poisoned)?;
        self.next_seq += written.len() as u64;
        self.durable_seq = self.next_seq - 1;
        self.has_heartbeat = false;
        faults::step("wal.noted");
        let mut segments = self.ledger.segments();
        let contents = segments.entry(number).or_default();
        written.iter().for_each(|(seq, meta)| contents.note(*seq, meta));
        Ok(())
    }

    /// Frames that were encoded before the segment turned out full name the next one: their headers are made anew.
    fn restamp(&mut self, number: u64) {
        let mut at = 0;
        while at < self.frames.len() {
            let mut header = Header::decode(&self.frames[at..]).expect("this log encoded it");
            if header.segment != number {
                header.segment = number;
                self.frames[at..at + frame::HEADER_BYTES].copy_from_slice(&header.encode());
            }
            at += frame::HEADER_BYTES + header.payload_len as usize;
        }
    }

    /// Writes an empty frame that marks everything before it as synced, unless that is marked; itself it needs no sync
    /// (W2).
    ///
    /// # Errors
    /// As the file system says; the log must not be used again (W3).
    pub fn heartbeat(&mut self) -> io::Result<()> {
        let header = self.header(self.next_seq);
        let is_marked = self.marked_seq >= self.durable_seq;
        let segment = self.segment.as_mut().filter(|segment| segment.number() == header.segment);
        let Some(segment) = segment.filter(|_| !is_marked) else { return Ok(()) };
        faults::io("wal.heartbeat")?;
        segment.write(&header.encode())?;
        self.next_seq += 1;
        self.marked_seq = self.durable_seq;
        self.has_heartbeat = true;
        Ok(())
    }
}

#[cfg(test)]
mod images;
#[cfg(test)]
pub(super) mod tests;
