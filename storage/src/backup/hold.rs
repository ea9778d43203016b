//! A second name for log segments, so that they outlive their trimming while a backup is taken.
//!
//! The names stand in `DIR/backup/{lane}`, on the log's own file system: a hard link costs nothing and holds the bytes.
//! They go when the hold is dropped; what a killed backup left goes with the next one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::{unread, unwritten};
use crate::disk::LocalDisk;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::wal::salvage::{self, Gap};
use crate::wal::segment;

/// Segments that are held.
#[derive(Debug)]
pub struct Hold {
    wal: PathBuf,
    folder: PathBuf,
    lanes: BTreeMap<usize, Vec<u64>>,
    /// One backup of a data folder at a time.
    _lock: File,
}

impl Hold {
    /// Holds every segment of the log that there is.
    ///
    /// # Errors
    /// `Kind::Conflict` while another backup is taken; `Kind::Unavailable` as the file system says.
    pub fn begin(data: &Path) -> Result<Self> {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(data.join("backup.lock"))
            .map_err(unwritten)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "another backup of this data folder is being taken",
                ));
            }
            Err(fs::TryLockError::Error(error)) => return Err(unwritten(error)),
        }
        let folder = data.join("backup");
        clear(&folder).and_then(|()| fs::create_dir(&folder)).map_err(unwritten)?;
        let mut hold = Self { wal: data.join("wal"), folder, lanes: BTreeMap::new(), _lock: lock };
        for lane in hold.lanes_now()? {
            let mut held: Vec<u64> = Vec::new();
            for number in segment::list(&LocalDisk, &hold.wal.join(lane.to_string())).map_err(unread)? {
                if hold.link(lane, number).map_err(unwritten)? {
                    held.push(number);
                } else {
                    // The log is trimmed from its beginning on: what is older is in the tables too.
                    held.clear();
                }
            }
            hold.lanes.insert(lane, held);
        }
        Ok(hold)
    }

    /// Holds the segments that came since.
    ///
    /// # Errors
    /// `Kind::Unavailable` when one came and went unseen: the backup is to be taken again.
    pub fn refresh(&mut self) -> Result<()> {
        for lane in self.lanes_now()? {
            let mut held = self.lanes.remove(&lane).unwrap_or_default();
            for number in segment::list(&LocalDisk, &self.wal.join(lane.to_string())).map_err(unread)? {
                if held.last().is_some_and(|last| number <= *last) {
                    continue;
                }
                let follows = held.last().is_none_or(|last| number == last + 1);
                if !follows || !self.link(lane, number).map_err(unwritten)? {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        "the log moved faster than the backup followed, or the engine was started anew: take it again",
                    ));
                }
                held.push(number);
            }
            self.lanes.insert(lane, held);
        }
        Ok(())
    }

    /// The lanes, and which segments of each are held, rising.
    pub fn lanes(&self) -> impl Iterator<Item = (usize, &[u64])> {
        self.lanes.iter().map(|(lane, held)| (*lane, &held[..]))
    }

    /// Where a lane's held segments are.
    pub fn lane(&self, lane: usize) -> PathBuf {
        self.folder.join(lane.to_string())
    }

    /// The gaps that were accepted in a lane's log.
    ///
    /// # Errors
    /// As reading their list.
    pub fn gaps(&self, lane: usize) -> Result<Vec<Gap>> {
        salvage::known(&LocalDisk, &self.wal.join(lane.to_string()))
    }

    fn lanes_now(&self) -> Result<Vec<usize>> {
        let entries = fs::read_dir(&self.wal).map_err(unread)?;
        let mut lanes: Vec<usize> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        lanes.sort_unstable();
        Ok(lanes)
    }

    /// Gives a segment its second name; false where it was trimmed before.
    fn link(&self, lane: usize, number: u64) -> io::Result<bool> {
        fs::create_dir_all(self.lane(lane))?;
        let from = segment::path(&self.wal.join(lane.to_string()), number);
        match fs::hard_link(from, segment::path(&self.lane(lane), number)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // What stays takes room until the next backup, and no more.
        let _ = clear(&self.folder);
    }
}

fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
