//! Parquet files: the only place that knows Parquet's layout.

mod read;
mod sort;
mod write;

pub use read::{Rows, open, read};
pub use write::{Written, write};
