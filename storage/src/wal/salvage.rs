//! Going on after damage: what cannot be read is named, written down and left out; everything else comes back.
//!
//! A gap is accepted once, by an operator who asked for it. It is kept beside the log (`gaps.json`), so that
//! later starts know the place and go on over it, and damage that is new still stops them (W2).

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::frame::HEADER_BYTES;
use super::replay::{Outcome, decode, read};
use crate::disk::{Disk, is_odd, read_small, replace};
use crate::error::{Error, Kind, Result};

/// A stretch of a log that was synced and does not read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The damaged segment.
    pub segment: u64,
    /// Where in it the damage begins, in bytes.
    pub from: u64,
    /// Where in it the next frame begins that reads; the end where that is in a later segment.
    pub to: u64,
    /// The first frame that is missing.
    pub first_seq: u64,
    /// The first frame behind the gap.
    pub next_seq: u64,
    /// The frame that proves the missing ones synced.
    pub proof: u64,
    /// The segment of that frame.
    pub proof_segment: u64,
}

impl Gap {
    /// The error that stops a start, naming the place and what to do.
    pub fn error(&self, folder: &Path) -> Error {
        Error::new(
            Kind::Corrupt,
            format!(
                "log {} is damaged: segment {} at offset {} should hold frame {}, which was synced before frame \
                 {} of segment {} was written, and does not read back. Restore the file from a copy if there is \
                 one; to go on without frames {} to {}, start with --salvage",
                folder.file_name().and_then(|name| name.to_str()).unwrap_or_default(),
                self.segment,
                self.from,
                self.first_seq,
                self.proof,
                self.proof_segment,
                self.first_seq,
                self.next_seq - 1
            ),
        )
    }
}

/// The file beside a log that lists the gaps accepted in it.
pub const NAME: &str = "gaps.json";

/// Bytes of that file: tens of thousands of gaps.
const GAPS_BYTES_MAX: u64 = 16 << 20;

fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// Writes the list of gaps beside a log, durably.
///
/// # Errors
/// `Kind::Unavailable` when it cannot be written.
pub fn keep(disk: &dyn Disk, folder: &Path, gaps: &[Gap]) -> Result<()> {
    let text = serde_json::to_vec_pretty(gaps).expect("plain data becomes JSON");
    replace(disk, &path(folder), &text)
        .map_err(|error| Error::new(Kind::Unavailable, "gaps cannot be written down").with_source(error))
}

/// The gaps that were accepted in this log.
///
/// # Errors
/// `Kind::Corrupt` when the list is not what was written, `Kind::Unavailable` when it does not read.
pub fn known(disk: &dyn Disk, folder: &Path) -> Result<Vec<Gap>> {
    match read_small(disk, &path(folder), GAPS_BYTES_MAX) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            let text = format!("{} does not read", path(folder).display());
            Error::new(Kind::Corrupt, text).with_source(error)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => {
            let text = format!("{} cannot be read", path(folder).display());
            let is_theirs = is_odd(&error) || error.kind() == io::ErrorKind::FileTooLarge;
            let kind = if is_theirs { Kind::Corrupt } else { Kind::Unavailable };
            Err(Error::new(kind, text).with_source(error))
        }
    }
}

/// Accepts every gap there is in the log in `folder`, durably, and returns those that are new.
///
/// # Errors
/// `Kind::Unavailable` when files cannot be read or written.
pub fn accept(disk: &dyn Disk, folder: &Path) -> Result<Vec<Gap>> {
    let mut gaps = known(disk, folder)?;
    let before = gaps.len();
    loop {
        let mut broken = None;
        let outcome = read(disk, folder, &gaps, |place, header, payload| {
            // A frame that passes its checksum and is not what was written is a gap of its own.
            if !payload.is_empty()
                && let Err(error) = decode(place, header, payload)
            {
                broken = Some(Gap {
                    segment: place.segment,
                    from: place.offset,
                    to: place.offset + (HEADER_BYTES + payload.len()) as u64,
                    first_seq: header.seq,
                    next_seq: header.seq + 1,
                    proof: header.seq,
                    proof_segment: place.segment,
                });
                return Err(error);
            }
            Ok(())
        });
        match (outcome, broken) {
            (Ok(Outcome::Damaged(gap)), _) | (Err(_), Some(gap)) => gaps.push(gap),
            (Ok(Outcome::Read(_)), _) => break,
            (Err(error), None) => return Err(error),
        }
    }
    if gaps.len() > before {
        let text = serde_json::to_vec_pretty(&gaps).expect("plain data becomes JSON");
        replace(disk, &path(folder), &text).map_err(|error| {
            Error::new(Kind::Unavailable, "gaps cannot be written down").with_source(error)
        })?;
    }
    Ok(gaps.split_off(before))
}

#[cfg(test)]
mod tests {
    use super::{Gap, keep, known};
    use crate::disk::LocalDisk;
    use crate::error::Kind;
    use crate::fixture::OddDisk;

    // B1: a start does not read whatever stands there into memory.
    #[test]
    fn a_list_of_gaps_that_is_too_long_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let gap = Gap { segment: 1, from: 2, to: 3, first_seq: 4, next_seq: 5, proof: 6, proof_segment: 7 };
        keep(&LocalDisk, folder.path(), std::slice::from_ref(&gap)).unwrap();
        assert_eq!(known(&OddDisk::stretched(16 << 20), folder.path()).unwrap(), [gap]);
        assert_eq!(
            known(&OddDisk::stretched((16 << 20) + 1), folder.path()).unwrap_err().kind(),
            Kind::Corrupt
        );
    }
}
