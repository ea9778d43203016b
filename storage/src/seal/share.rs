//! How much of what waits in one table a single commit takes: a turn has a bound in bytes, dates and series, so that
//! no table holds up the others for long (B1, X2).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::dates::{SEAL_DATES_MAX, days_of};
use crate::hot::HotChunk;
use crate::table::Published;

/// Bytes of chunks sealed into one commit, but for a chunk that is larger alone. Chosen: half a second's work or so.
pub const SEAL_BYTES_MAX: u64 = 32 << 20;

/// Series of durations folded at once, but for those of a single chunk.
pub const SEAL_SERIES_MAX: usize = 16_384;

/// What a commit takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The first so many chunks that wait.
    pub chunks: usize,
    /// Where it is a part of one chunk: the last day of that part.
    pub last_day: Option<i64>,
}

/// What a tenant's turn has taken so far.
#[derive(Debug, Default)]
pub struct Turn {
    bytes: u64,
    series: usize,
    dates: usize,
}

impl Turn {
    /// The first chunks of a table that still fit; of one that has too many dates alone, its first dates that are not
    /// sealed yet. The first of a turn is taken whatever it holds.
    pub fn share(&mut self, chunks: &[Arc<HotChunk>], published: &Published) -> Share {
        let is_first = self.bytes == 0;
        let mut dates = BTreeSet::new();
        let mut taken = Share { chunks: 0, last_day: None };
        for chunk in chunks {
            let bytes = self.bytes + chunk.bytes();
            let series = self.series + chunk.measurement.series.len();
            let own = days(chunk, published.begun(chunk));
            let left = SEAL_DATES_MAX.saturating_sub(self.dates);
            let fits = bytes <= SEAL_BYTES_MAX && series <= SEAL_SERIES_MAX;
            if taken.chunks == 0 && own.len() > left && left > 0 && (is_first || fits) {
                taken = Share { chunks: 1, last_day: own.iter().nth(left - 1).copied() };
                (self.bytes, self.series, self.dates) = (bytes, series, SEAL_DATES_MAX);
                return taken;
            }
            let all = dates.union(&own).count();
            // The first of all always goes, however large it is.
            let goes = (fits && all <= left) || (is_first && taken.chunks == 0);
            if !goes {
                break;
            }
            dates.extend(own);
            taken.chunks += 1;
            (self.bytes, self.series) = (bytes, series);
        }
        self.dates += dates.len();
        taken
    }
}

/// The UTC days of a chunk's rows behind `after`.
fn days(chunk: &HotChunk, after: Option<i64>) -> BTreeSet<i64> {
    let mut days = days_of(&chunk.batch);
    if let Some(after) = after {
        days.retain(|day| *day > after);
    }
    days
}
