//! The write-ahead log: one per lane, each with a thread that writes and syncs it.
//!
//! A lane decodes what its sockets have ready and queues it; the thread appends once and syncs once for all that waits.
//! `queue` says whose is next, `committer` is the thread, `log` the group commit, `frame` the codec, `segment` the file,
//! `replay` the way back through a `window`, `salvage` the way on after damage.
//! `bucket` is the same for a node whose disk is not trusted.

pub mod bucket;
pub mod committer;
pub mod frame;
pub mod log;
pub mod queue;
pub mod replay;
pub mod salvage;
pub mod segment;
mod window;
