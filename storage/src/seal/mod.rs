//! From hot chunks to files that a table version names.
//!
//! `plan` decides from plain numbers which tables are due, `share` how much of one a commit takes; `run` does the
//! work: `fold` brings durations into the latency table, `files` rows into files, `sorted` their order, and `input` is what they start from. `dates` tells
//! how far a chunk of many dates is.

pub mod dates;
pub mod files;
pub mod fold;
mod input;
pub mod plan;
pub mod run;
mod share;
mod sorted;

#[cfg(test)]
mod tests;
