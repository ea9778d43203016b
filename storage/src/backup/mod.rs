//! A deployment in a folder, and back: `manifest` is what a backup says of itself, `hold` keeps the log still,
//! `copy` takes a backup, `restore` checks one and makes a data folder of it.
//!
//! **Why a backup is of one piece although the engine goes on.** The log is held first: its segments get a second name
//! (a hard link) in `DIR/backup`, so that trimming takes nothing away. Then every table is read, each at one version of
//! its own; before and after each of them new segments are held too. Only then are the held segments copied. So
//! - a row that was acknowledged before the backup began is in a held segment, or it was trimmed before, and then it is
//!   in every version read after (C3);
//! - a row that is in both is told by the table's transaction, as after a crash (A3);
//! - no table holds a frame that the log's copy lacks and that was not trimmed before the backup began, so each row that
//!   came under a declared key is there together with its key (F19), and no key is there without its row.
//!
//! A data file that vanishes before it is copied was compacted away: its table is read again, at its newer version. The
//! copy of a table has one checkpoint and no history. The state under `system/` is copied object by object.
//!
//! **A restore is a new epoch.** Everything goes through the log's replay into the tables; then the folder gets a new
//! name among writers and an empty log, and keeps the declared keys. Rows appended from then on carry new writers' names
//! and numbers: nothing is counted twice with what the old folder went on to write, and nothing is fenced by it (F39).
//!
//! The logs in the object store (`system/wal/`) are copied first of all; what is trimmed of them later is in the tables.
//!
//! With a bucket the tables are in the bucket, and a backup holds state, log and keys alone.

mod copy;
mod hold;
mod manifest;
mod restore;
#[cfg(test)]
mod tests;

pub use copy::take;
pub use manifest::{Manifest, TableCopy, check};
pub(crate) use restore::refuse_unfinished;
pub use restore::{Restored, restore};

/// How far a backup, a check or a restore is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Files that are done.
    pub files: u64,
    /// Bytes that are done.
    pub bytes: u64,
    /// Bytes there are, as far as they are known.
    pub bytes_total: u64,
}
