//! What crosses a crate, in one binary: `cargo test --workspace --test it` for all, `… -- spine` for one room.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what it counted and what it skipped"
)]

mod adversary;
mod backup;
mod bad_input;
mod bounds;
mod bucket;
mod edge;
mod full_disk;
mod harness;
mod hostile;
mod isolation;
mod kill;
mod latency;
mod memory;
mod old_data;
mod payloads;
mod retention;
mod salvage;
mod scrub;
mod spine;
mod sql_workers;
mod sync_fault;
mod tidy;
