//! From many small files to few large ones: the same rows, in other files.
//!
//! `plan` decides from plain numbers which files of a date become one, `look` finds the table that is most due, `merge` makes
//! one sorted file of several (`order` says from which input each row comes, `gather` copies columns in that order), `run`
//! brings it into the table.

mod gather;
pub mod look;
pub mod merge;
mod order;
pub mod plan;
pub mod run;

#[cfg(test)]
mod tests;
