//! The real storage code in a seeded world: a disk that loses what was not synced, a store that fails before and
//! after the effect, a clock that costs nothing (docs/decisions/0008-simulation.md).
//!
//! A seed is a world: it is printed where a world goes wrong, and `FLOODMARK_SEED=n` plays it alone.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what it counted and which seed went wrong"
)]
#![allow(
    clippy::await_holding_refcell_ref,
    reason = "the oracle reads a store in memory, which never waits: nobody else runs meanwhile"
)]

mod bucket_log;
mod bugs;
mod clients;
pub mod clock;
pub mod disk;
mod ending;
pub mod failpoints;
mod operator;
mod oracle;
mod outage;
pub mod random;
pub mod store;
mod tests;
pub mod world;
