//! Durations as mergeable HDR histograms, exactly once.
//!
//! A [`Measurement`] holds what one chunk contributed, per window and series. It rides with its chunk: it
//! counts when the chunk is durable, it is folded into the `latency` table when the chunk is sealed, and a
//! replay of the log measures the chunk again. So totals equal what was acknowledged.

mod measurement;
pub(crate) mod rollup;
mod sparse;

pub use measurement::{Measure, Measurement, Recorder, Series, WINDOW_NS, new_histogram};
