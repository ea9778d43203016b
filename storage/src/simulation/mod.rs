//! The real storage code in a seeded world: a disk that loses what was not synced, a store that fails before and
//! after the effect, a clock that costs nothing (docs/decisions/0008-simulation.md).
//!
//! A seed is a world: it is printed where a world goes wrong, and `FLOODMARK_SEED=n` plays it alone.

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
mod world;
