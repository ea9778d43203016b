//! One Delta table per tenant and dataset: the only place that knows Delta.
//!
//! The log is written by hand: a blind append is `commitInfo`, `txn`s and `add`s put with create-if-absent on
//! the next number (C1, C2). Protocol: reader version 1, writer version 2, as published in the Delta
//! transaction log protocol. `action` is the codec, `log` reads and appends, `checkpoint` keeps opening cheap,
//! `state` is what a table looks like in memory.

mod action;
mod checkpoint;
#[cfg(test)]
mod conformance;
mod log;
mod state;

pub use log::{Change, Committed, Operation, TableLog};
pub use state::State;
