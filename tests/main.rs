//! What crosses a crate, in one binary: `cargo test -p tests` for all, `… -- spine` for one room.

mod bad_input;
mod harness;
mod isolation;
mod kill;
mod latency;
mod scrub;
mod spine;
mod sync_fault;
mod tidy;
