//! The write-ahead log: one per lane, so that nothing is handed over between the socket and the sync.
//!
//! A lane decodes everything its sockets had ready, then appends once, syncs once and answers all. `frame`
//! is the codec, `segment` the file, `log` the group commit, `replay` the way back through a `window`, `salvage` the way on
//! after damage.
//! `bucket` is the same for a node whose disk is not trusted.

pub mod bucket;
pub mod frame;
pub mod log;
pub mod replay;
pub mod salvage;
pub mod segment;
mod window;
