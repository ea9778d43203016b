//! Which files of a table may be deleted (R1).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::clock_trust;
use crate::commit::State;

/// Files of one table that are remembered as orphans at once (B1); the others are looked at once these are gone.
const ORPHANS_MAX: usize = 10_000;

/// How ages are judged in one sweep.
#[derive(Clone, Copy, Debug)]
pub struct Ages {
    /// The monotonic clock.
    pub at: Instant,
    /// The wall clock, milliseconds since 1970 UTC; `None` while it is not believed.
    pub now_ms: Option<i64>,
    /// How long a file stays after it was named last.
    pub grace: Duration,
}

impl Ages {
    /// Whether the grace is over for something stamped `stamp_ms` that an earlier sweep saw first at `seen`.
    ///
    /// What this process has watched for the whole grace is old whatever the wall clock says. A stamp counts
    /// only by a believed clock, and only from the second look on: whoever made it may have had a wrong one.
    fn is_over(self, stamp_ms: i64, seen: Instant) -> bool {
        let watched = self.at.saturating_duration_since(seen);
        let grace_ms = i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX);
        let is_old = self.now_ms.is_some_and(|now_ms| now_ms.saturating_sub(stamp_ms) >= grace_ms);
        watched >= self.grace || (watched >= clock_trust::APART && is_old)
    }
}

/// A file below a table's root, as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path below the root.
    pub path: String,
    /// When it was put, by the store's clock, milliseconds since 1970 UTC.
    pub modified_ms: i64,
    /// Its size.
    pub bytes: u64,
}

/// What may go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Files that a version removed.
    pub tombstoned: Vec<String>,
    /// Files that no version ever named.
    pub orphans: Vec<String>,
}

/// When a sweep saw each file first. By a hash of its path, which nobody outside chooses: a table that is attacked has tens
/// of thousands, for a day.
#[derive(Debug, Default)]
pub struct Seen(HashMap<u64, Instant>);

impl Seen {
    /// Bytes of memory that it takes, about.
    pub fn held_bytes(&self) -> usize {
        self.0.capacity() * (size_of::<(u64, Instant)>() + 1)
    }
}

fn hash(path: &str) -> u64 {
    let digest = blake3::hash(path.as_bytes());
    u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("it has 32 bytes"))
}

/// Decides what may go, and remembers in `seen` what this sweep saw for the next one.
///
/// A file goes that no version names and no open snapshot of this process, and whose grace is over. `state` must
/// be newer than `listed`: a file that was committed meanwhile is named by it.
pub fn plan(state: &State, listed: &[Listed], seen: &mut Seen, ages: Ages) -> Plan {
    let before = std::mem::take(seen);
    let mut look = |path: &str| -> Instant {
        let path = hash(path);
        *seen.0.entry(path).or_insert_with(|| before.0.get(&path).copied().unwrap_or(ages.at))
    };
    let mut plan = Plan::default();
    for tombstone in state.tombstones.iter() {
        let first = look(&tombstone.path);
        let is_pinned = tombstone.pin.strong_count() > 0;
        if !is_pinned && ages.is_over(tombstone.removed_ms, first) {
            plan.tombstoned.push(tombstone.path.to_string());
        }
    }
    let is_orphan = |file: &&Listed| {
        file.path.starts_with("date=")
            && !state.files.contains(&file.path)
            && !state.tombstones.contains(&file.path)
    };
    for file in listed.iter().filter(is_orphan).take(ORPHANS_MAX) {
        let first = look(&file.path);
        if ages.is_over(file.modified_ms, first) {
            plan.orphans.push(file.path.clone());
        }
    }
    plan.tombstoned.sort();
    plan.orphans.sort();
    plan
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Ages, Listed, Seen, plan};
    use crate::commit::State;

    const HOUR_MS: i64 = 3_600_000;

    fn check(watched_hours: u64, age_hours: i64, is_believed: bool, expected: bool) {
        let seen = Instant::now();
        let ages = Ages {
            at: seen + Duration::from_secs(watched_hours * 3_600),
            now_ms: is_believed.then_some(age_hours * HOUR_MS),
            grace: Duration::from_secs(24 * 3_600),
        };
        let found = ages.is_over(0, seen);
        assert_eq!(found, expected, "watched {watched_hours} h, {age_hours} h old, believed {is_believed}");
    }

    /// R1: an age counts by a believed clock and a second look, or by watching alone.
    #[test]
    fn the_grace_is_over_by_two_looks_or_by_watching() {
        check(1, 24, true, true);
        check(1, 23, true, false);
        check(0, 24, true, false);
        check(0, 10 * 8_760, true, false);
        check(23, 10 * 8_760, false, false);
        check(24, 0, false, true);
        // A stamp from a clock that was ahead does not keep a file for ever.
        check(24, -10 * 8_760, true, true);
    }

    /// B1: those beyond wait until these are gone.
    #[test]
    fn few_orphans_are_remembered() {
        let file = |at: u32| Listed { path: format!("date=2026-01-02/{at}"), modified_ms: 0, bytes: 1 };
        let listed: Vec<_> = (0..10_010).map(file).collect();
        let (mut seen, at) = (Seen::default(), Instant::now());
        let mut look = |hours: u64| {
            let at = at + Duration::from_secs(hours * 3_600);
            let ages = Ages { at, now_ms: None, grace: Duration::from_secs(24 * 3_600) };
            (plan(&State::empty(), &listed, &mut seen, ages).orphans.len(), seen.0.len())
        };
        assert_eq!(look(0), (0, 10_000));
        assert_eq!(look(24), (10_000, 10_000));
        assert!(seen.held_bytes() < 10_000 * 64, "{} bytes", seen.held_bytes());
    }
}
