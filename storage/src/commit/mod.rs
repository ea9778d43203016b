//! One Delta table per tenant and dataset: the only place that knows Delta.
//!
//! The log is written by hand: a blind append is `commitInfo`, `txn`s and `add`s put with create-if-absent on
//! the next number (C1, C2). Protocol: reader version 1, writer version 2, as published in the Delta
//! transaction log protocol. `action` is the codec, `load` reads, `log` appends, `checkpoint` keeps opening cheap,
//! `clean` keeps the log short, `state` is what a table looks like in memory, `folders` how its versions share it.

mod action;
mod checkpoint;
mod clean;
#[cfg(test)]
mod conformance;
mod folders;
mod load;
mod log;
pub mod packed;
mod state;
mod statistics;
#[cfg(test)]
mod tests;

pub use clean::Kept;
pub use folders::place;
pub use log::{Change, Committed, Operation, TableLog};
pub use state::State;
#[cfg(test)]
pub use state::{Tombstone, state_of};
