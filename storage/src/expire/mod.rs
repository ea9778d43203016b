//! The end of a row's retention: whole files first, rows at the edge.
//!
//! `plan` decides from plain data, `edge` reads and rewrites the files in which only some rows are past it,
//! `report` says what goes before it goes (E2), `run` does it.

mod edge;
mod plan;
mod report;
pub(crate) mod run;
#[cfg(test)]
mod tests;

pub use report::Leaving;
pub use run::{Ended, Expiry, Refused};
