//! From hot chunks to files that a table version names.
//!
//! `plan` decides from plain numbers which tables are due; `run` does the work.

pub mod plan;
pub mod run;
