//! Deleting what no version names any more: files that left a table, orphans, what half-written puts left.
//!
//! `plan` decides from plain data, `asides` looks through a local folder, `run` deletes.

mod asides;
pub(crate) mod plan;
pub(crate) mod run;
#[cfg(test)]
mod tests;

pub use run::Swept;
