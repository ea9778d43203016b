//! A node's log in the bucket, for what its own disk is not trusted with (F20).
//!
//! Objects of frames under `system/wal/{node}/{number}`, one after the other, each by create-if-absent. Whoever opens
//! the log reads it to its end and takes the next number with an *opening*: an object without frames, of a higher
//! epoch, that is never deleted. A process that was thought dead finds that number taken, its own next one, and
//! acknowledges nothing more: it is fenced (F21). docs/decisions/0009-log-in-the-bucket.md has the reasons.
//!
//! `object` is the codec, `put` the way in, `read` the way back, `ledger` what is trimmed, `keys` what outlives that.

pub mod keys;
pub mod ledger;
pub mod object;
pub mod put;
pub mod read;

use object_store::path::Path;

/// The folder of all nodes' logs.
pub const ROOT: &str = "system/wal";

/// Where a node's log lies.
pub fn folder(node: &str) -> String {
    format!("{ROOT}/{node}")
}

/// The path of an object of a log.
pub fn path(folder: &str, number: u64) -> Path {
    Path::from(format!("{folder}/{number:020}"))
}
