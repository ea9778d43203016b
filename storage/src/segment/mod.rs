//! Parquet files: the only place that knows Parquet's layout.

mod sort;
mod write;

pub use write::{Written, write};
