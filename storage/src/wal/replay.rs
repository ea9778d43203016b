//! Reading a log back: the frames that were written, and how its end is told from damage.
//!
//! The log ends where the next frame does not validate. That is a torn tail, and dropped (W1, W2), unless a
//! later valid frame says in its `durable_seq` that the missing one was synced before: then acknowledged
//! bytes are damaged, and start-up stops and names the place (W2), unless the place is a gap that an operator
//! accepted before (`salvage.rs`).

use std::io;
use std::path::Path;

use super::frame::{self, HEADER_BYTES, Header};
use super::salvage::Gap;
use super::segment;
use super::window::{WINDOW_BYTES, Window};
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::faults::{self, Bug};

/// How a log reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The last frame's number; 0 in a log without frames.
    pub last_seq: u64,
    /// The highest epoch seen.
    pub epoch: u64,
    /// The highest segment number.
    pub last_segment: u64,
    /// Where the last frame ends: segment and offset.
    pub end: (u64, u64),
    /// Where a torn tail begins: segment and offset. Nothing from there on was acknowledged.
    pub torn: Option<(u64, u64)>,
}

impl Summary {
    /// Makes what was read durable and cuts the torn tail off, so that the log can grow behind its last frame.
    ///
    /// A process that was killed may have left frames that only the page cache holds. Frames that come later
    /// vouch for them, so they are synced before. The last segment is written again first: where its sync failed,
    /// the kernel takes pages for clean that never reached the disk, and would sync nothing.
    ///
    /// # Errors
    /// As truncating, deleting and syncing files.
    pub fn settle(&self, disk: &dyn Disk, folder: &Path) -> io::Result<()> {
        if faults::has(Bug::ReplayWithoutSync) {
            return Ok(());
        }
        for number in segment::list(disk, folder)? {
            let path = segment::path(folder, number);
            if number == self.end.0 {
                let (file, mut window) = (disk.open(&path)?, Window::new(disk, path.clone()));
                let mut at = 0;
                while at < self.end.1 {
                    let left = usize::try_from(self.end.1 - at).unwrap_or(WINDOW_BYTES);
                    let bytes = window.get(at, left.min(WINDOW_BYTES))?;
                    if bytes.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    file.write_at(bytes, at)?;
                    at += bytes.len() as u64;
                }
            }
            match self.torn {
                Some((torn, _)) if number > torn => disk.remove(&path)?,
                Some((torn, at)) if number == torn => {
                    let file = disk.open(&path)?;
                    file.set_len(at)?;
                    file.sync_all()?;
                }
                _ => disk.open(&path)?.sync_all()?,
            }
        }
        disk.sync_folder(folder)
    }
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// The frame's first byte in it.
    pub offset: u64,
}

/// What reading a log found.
#[derive(Debug)]
pub enum Outcome {
    /// The log, whole or with a torn tail.
    Read(Summary),
    /// Synced bytes do not read back.
    Damaged(Gap),
}

/// Reads every frame of the log in `folder`, in order.
///
/// `each` gets the frame's place, header and payload.
///
/// # Errors
/// `Kind::Corrupt` naming segment and offset when synced bytes are damaged outside of `gaps`; what `each`
/// returns.
pub fn replay(
    disk: &dyn Disk,
    folder: &Path,
    gaps: &[Gap],
    each: impl FnMut(Place, &Header, &[u8]) -> Result<()>,
) -> Result<Summary> {
    match read(disk, folder, gaps, each)? {
        Outcome::Read(summary) => Ok(summary),
        Outcome::Damaged(gap) => Err(gap.error(folder)),
    }
}

/// As [`replay`], telling damage apart from errors.
///
/// # Errors
/// `Kind::Unavailable` when files cannot be read; what `each` returns.
pub fn read(
    disk: &dyn Disk,
    folder: &Path,
    gaps: &[Gap],
    mut each: impl FnMut(Place, &Header, &[u8]) -> Result<()>,
) -> Result<Outcome> {
    let read_failed = |error| Error::new(Kind::Unavailable, "log cannot be read").with_source(error);
    let numbers = segment::list(disk, folder).map_err(read_failed)?;
    let mut summary = Summary::default();
    let mut expected: Option<u64> = None;
    let mut hole: Option<Hole> = None;
    for number in numbers {
        summary.last_segment = number;
        let mut window = Window::new(disk, segment::path(folder, number));
        if let Some(hole) = &mut hole {
            if let Some(gap) = hole.proof(number, &mut window, 0).map_err(read_failed)? {
                return Ok(Outcome::Damaged(gap));
            }
            continue;
        }
        let mut at = 0;
        loop {
            let is_here = |gap: &&Gap| {
                let is_ahead = expected.is_none_or(|expected| expected < gap.next_seq);
                gap.segment == number && gap.from == at && is_ahead
            };
            if let Some(gap) = gaps.iter().find(is_here) {
                at = gap.to;
                expected = Some(gap.next_seq);
                continue;
            }
            let Some((header, payload)) = window.frame(at).map_err(read_failed)? else { break };
            let is_next = expected.is_none_or(|expected| header.seq == expected);
            if header.segment != number || !is_next {
                break;
            }
            each(Place { segment: number, offset: at }, &header, payload)?;
            summary.last_seq = header.seq;
            summary.epoch = summary.epoch.max(header.epoch);
            expected = Some(header.seq + 1);
            at += (HEADER_BYTES + payload.len()) as u64;
            summary.end = (number, at);
        }
        if window.has_more(at).map_err(read_failed)? {
            summary.torn = Some((number, at));
            let mut found = Hole { seq: expected.unwrap_or(1), segment: number, at, resumes: None };
            if let Some(gap) = found.proof(number, &mut window, at).map_err(read_failed)? {
                return Ok(Outcome::Damaged(gap));
            }
            hole = Some(found);
        }
        // A segment may end early in zeros: the next one's first frame tells, by its number, whether
        // anything is missing between.
    }
    Ok(Outcome::Read(summary))
}

/// The first place where the next frame does not validate.
struct Hole {
    seq: u64,
    segment: u64,
    at: u64,
    /// The first frame behind it that reads: segment, offset, number.
    resumes: Option<(u64, u64, u64)>,
}

impl Hole {
    /// Looks for a frame that proves the missing one durable; the gap reaches to the next frame that reads.
    fn proof(&mut self, number: u64, window: &mut Window<'_>, from: u64) -> io::Result<Option<Gap>> {
        if faults::has(Bug::IgnoreDurableMark) {
            return Ok(None);
        }
        let mut at = from;
        while let Some(start) = window.next_mark(at)? {
            if let Some((header, _)) = window.frame(start)?
                && header.segment == number
                && header.seq >= self.seq
            {
                let (segment, to, next_seq) = *self.resumes.get_or_insert((number, start, header.seq));
                if header.durable_seq >= self.seq {
                    // Where the next good frame stands in a later segment, the rest of this one is lost.
                    let to = if segment == self.segment { to } else { u64::MAX };
                    return Ok(Some(Gap {
                        segment: self.segment,
                        from: self.at,
                        to,
                        first_seq: self.seq,
                        next_seq,
                        proof: header.seq,
                        proof_segment: number,
                    }));
                }
            }
            at = start + 1;
        }
        Ok(None)
    }
}

/// Reads a payload that passed its checksum, naming the place when it does not decode.
///
/// # Errors
/// `Kind::Corrupt` naming segment and frame.
pub fn decode(place: Place, header: &Header, payload: &[u8]) -> Result<frame::Read> {
    frame::read(header.version, payload).map_err(|error| {
        let Place { segment, offset } = place;
        Error::new(
            Kind::Corrupt,
            format!("log segment {segment}, frame {} at offset {offset} does not decode", header.seq),
        )
        .with_source(error)
    })
}
