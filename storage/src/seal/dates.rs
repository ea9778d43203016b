//! How far a chunk of many dates is sealed: a few dates a commit, so that nobody waits for all of them (X2).
//!
//! A date is a file, and a file takes as long with one row as with thousands. A chunk is sealed date by date, in
//! rising order; each commit tells in one transaction of its log which chunk was begun and up to which date. Until
//! the last one is in, the chunk stays hot and logged, and its rows of those dates are read from the files alone.

use std::collections::{BTreeSet, HashMap};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::Int64Type;

use crate::commit::State;

/// UTC dates that one commit takes of a table. Chosen: at some 6 ms a file on a disk, half a second.
pub const SEAL_DATES_MAX: usize = 64;

/// UTC days that a tenant's unsealed rows have in all its tables; past it no chunk of several days is taken until some
/// are sealed (X2). Chosen: a body may hold years, and what waits is sealed within some ten seconds.
pub const DAYS_WAITING_MAX: usize = 2_048;

/// UTC dates that there are at all: an event time has 64 bits of nanoseconds.
pub const DAYS_MAX: usize = 213_504;

/// Nanoseconds in a day.
const DAY_NS: i64 = 86_400_000_000_000;

/// Bits of a day in the transaction's version: 64 bits of nanoseconds reach 106,752 days before and after 1970.
const DAY_BITS: u32 = 18;

/// The UTC day of an event time, in days since 1970.
pub fn day_of(time_ns: i64) -> i64 {
    time_ns.div_euclid(DAY_NS)
}

/// The UTC days of a chunk's rows.
pub fn days_of(batch: &RecordBatch) -> BTreeSet<i64> {
    let times = batch.column_by_name("time_ns").expect("every chunk has its times");
    let times = times.as_primitive::<Int64Type>();
    let bounds = min(times).zip(max(times)).map(|(low, high)| (day_of(low), day_of(high)));
    match bounds {
        // Nearly always: a look at two numbers instead of one at each row.
        Some((low, high)) if low == high => BTreeSet::from([low]),
        _ => times.values().iter().map(|time_ns| day_of(*time_ns)).collect(),
    }
}

/// The UTC days of what waits in one table: as many files as sealing it makes.
#[derive(Debug, Default)]
pub struct Days {
    /// Chunks that have rows of a day.
    chunks: HashMap<i64, u32>,
}

impl Days {
    /// A chunk of these days waits.
    pub fn add(&mut self, days: &BTreeSet<i64>) {
        for day in days {
            *self.chunks.entry(*day).or_default() += 1;
        }
    }

    /// It does not wait any more.
    pub fn remove(&mut self, days: &BTreeSet<i64>) {
        for day in days {
            if let Some(chunks) = self.chunks.get_mut(day) {
                *chunks -= 1;
                if *chunks == 0 {
                    self.chunks.remove(day);
                }
            }
        }
        if self.chunks.is_empty() {
            self.chunks = HashMap::new();
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.chunks.len()
    }
}

/// The partition value of a day.
pub fn date_of(day: i64) -> String {
    jiff::Timestamp::from_second(day * 86_400)
        .expect("nanoseconds in 64 bits lie between 1677 and 2262")
        .strftime("%Y-%m-%d")
        .to_string()
}

/// A chunk of which a table holds the first dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The chunk's frame in its log.
    pub seq: u64,
    /// The last day that the table holds of it.
    pub last_day: i64,
}

/// The transaction that tells how far the chunk behind a log's last one is sealed.
pub fn dates_app(writer: &str) -> String {
    format!("{writer}:dates")
}

impl Begun {
    /// The version of the transaction: it rises with each commit.
    pub fn version(self) -> i64 {
        let day = self.last_day + (1 << (DAY_BITS - 1));
        let seq = i64::try_from(self.seq).expect("fewer than 2^45 frames");
        (seq << DAY_BITS) | day
    }

    fn of_version(version: i64) -> Self {
        let day = (version & ((1 << DAY_BITS) - 1)) - (1 << (DAY_BITS - 1));
        Self { seq: u64::try_from(version >> DAY_BITS).unwrap_or(0), last_day: day }
    }

    /// What is begun and not whole, by log.
    pub fn all(state: &State) -> HashMap<String, Self> {
        let begun = state.txns.iter().filter_map(|(app, version)| {
            let writer = app.strip_suffix(":dates")?;
            let begun = Self::of_version(*version);
            (begun.seq > state.last_seq(writer)).then(|| (writer.to_owned(), begun))
        });
        begun.collect()
    }

    /// The last chunk of a log that was begun, whether it is whole since or not; 0 where none was.
    pub fn last_seq(state: &State, writer: &str) -> u64 {
        state.txns.get(&dates_app(writer)).map_or(0, |version| Self::of_version(*version).seq)
    }
}

#[cfg(test)]
mod tests {
    use super::{Begun, date_of, day_of};

    #[test]
    fn a_chunk_and_a_day_are_one_number_that_rises() {
        let days = [day_of(i64::MIN), -1, 0, 1, 20_000, day_of(i64::MAX)];
        let mut before = i64::MIN;
        for seq in [0, 1, 2, 1 << 40] {
            for last_day in days {
                let begun = Begun { seq, last_day };
                assert_eq!(Begun::of_version(begun.version()), begun);
                assert!(begun.version() > before);
                before = begun.version();
            }
        }
        assert_eq!((date_of(day_of(-1)), date_of(day_of(0))), ("1969-12-31".into(), "1970-01-01".into()));
        assert_eq!(date_of(day_of(i64::MIN)), "1677-09-21");
    }
}
