//! Parquet files: the only place that knows Parquet's layout.
//!
//! `write` encodes sorted rows, `parts` some columns at a time, `sort` says in which order, `statistics` what the log keeps of them; `read`
//! decodes, `cost` tells what that takes, `blocks` and `proven` prove what is read in parts, `check` compares what was
//! encoded with what went in, by the `fingerprint`; `put` names a file and
//! brings it into the store.

mod blocks;
mod check;
mod cost;
mod fingerprint;
mod parts;
mod proven;
mod put;
mod read;
mod sort;
mod statistics;
mod write;

pub use blocks::Blocks;
pub use check::check;
pub use cost::{ColumnCost, Cost};
pub use fingerprint::{Cells, Fingerprint};
pub use parts::{PartsWriter, parts};
pub use proven::{Damaged, OpenFile, Proofs, ProvenStore};
pub use put::{made_ms, path, put};
#[cfg(test)]
pub use read::open;
pub use read::{Opened, Rows, read};
#[cfg(test)]
pub use sort::sort as sort_rows;
pub use sort::{KEYS, OPTIONS, order};
pub use write::{Writer, Written, encoder_bytes, value_bytes, write};
