//! Reading a log back: the frames that were written, and how its end is told from damage.
//!
//! The log ends where the next frame does not validate. That is a torn tail, and dropped (W1, W2), unless a
//! later valid frame says in its `durable_seq` that the missing one was synced before: then acknowledged
//! bytes are damaged, and start-up stops and names the place (W2).

use std::path::Path;

use super::frame::{self, HEADER_BYTES, Header};
use super::segment;
use crate::error::{Error, Kind, Result};

/// How a log reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The last frame's number; 0 in a log without frames.
    pub last_seq: u64,
    /// The highest epoch seen.
    pub epoch: u64,
    /// The highest segment number.
    pub last_segment: u64,
    /// Where a torn tail begins: segment and offset. Nothing from there on was acknowledged.
    pub torn: Option<(u64, u64)>,
}

impl Summary {
    /// Cuts the torn tail off, so that the log can grow behind its last good frame.
    ///
    /// # Errors
    /// As truncating, deleting and syncing files.
    pub fn cut_torn_tail(&self, folder: &Path) -> std::io::Result<()> {
        let Some((number, at)) = self.torn else { return Ok(()) };
        let file = std::fs::File::options().write(true).open(segment::path(folder, number))?;
        file.set_len(at)?;
        file.sync_all()?;
        for later in segment::list(folder)?.into_iter().filter(|later| *later > number) {
            std::fs::remove_file(segment::path(folder, later))?;
        }
        crate::store::sync_folder(folder)
    }
}

/// Reads every frame of the log in `folder`, in order.
///
/// `each` gets the segment's number, the header and the payload.
///
/// # Errors
/// `Kind::Corrupt` naming segment and offset when synced bytes are damaged; what `each` returns.
pub fn replay(folder: &Path, mut each: impl FnMut(u64, &Header, &[u8]) -> Result<()>) -> Result<Summary> {
    let read_failed = |error| Error::new(Kind::Unavailable, "log cannot be read").with_source(error);
    let numbers = segment::list(folder).map_err(read_failed)?;
    let mut summary = Summary::default();
    let mut expected: Option<u64> = None;
    let mut hole: Option<Hole> = None;
    for number in numbers {
        summary.last_segment = number;
        let bytes = segment::read(folder, number).map_err(read_failed)?;
        if let Some(hole) = &hole {
            hole.check(number, &bytes, 0)?;
            continue;
        }
        let mut at = 0;
        while let Some((header, payload)) = Header::frame(&bytes[at..]) {
            let is_next = expected.is_none_or(|expected| header.seq == expected);
            if header.segment != number || !is_next {
                break;
            }
            each(number, &header, payload)?;
            summary.last_seq = header.seq;
            summary.epoch = summary.epoch.max(header.epoch);
            expected = Some(header.seq + 1);
            at += HEADER_BYTES + payload.len();
        }
        if bytes[at..].iter().any(|byte| *byte != 0) {
            summary.torn = Some((number, at as u64));
            let found = Hole { seq: expected.unwrap_or(1), segment: number, at };
            found.check(number, &bytes, at)?;
            hole = Some(found);
        }
        // A segment may end early in zeros: the next one's first frame tells, by its number, whether
        // anything is missing between.
    }
    Ok(summary)
}

/// The first place where the next frame does not validate.
struct Hole {
    seq: u64,
    segment: u64,
    at: usize,
}

impl Hole {
    /// Looks for a frame that proves the missing one durable.
    fn check(&self, number: u64, bytes: &[u8], from: usize) -> Result<()> {
        let mut at = from;
        while let Some(found) = memchr::memmem::find(&bytes[at..], b"FMW1") {
            let start = at + found;
            if let Some((header, _)) = Header::frame(&bytes[start..])
                && header.segment == number
                && header.durable_seq >= self.seq
            {
                return Err(Error::new(
                    Kind::Corrupt,
                    format!(
                        "log segment {} is damaged at offset {}: frame {} was synced before frame {} of \
                         segment {number} was written, and does not read back",
                        self.segment, self.at, self.seq, header.seq
                    ),
                ));
            }
            at = start + 1;
        }
        Ok(())
    }
}

/// Reads a payload that passed its checksum, naming the place when it does not decode.
///
/// # Errors
/// `Kind::Corrupt` naming segment and frame.
pub fn decode(
    segment: u64,
    header: &Header,
    payload: &[u8],
) -> Result<(frame::Meta, arrow::array::RecordBatch)> {
    frame::decode(payload).map_err(|error| {
        Error::new(Kind::Corrupt, format!("log segment {segment}, frame {} does not decode", header.seq))
            .with_source(error)
    })
}
