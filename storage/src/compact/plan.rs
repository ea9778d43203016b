//! Which files of a table to merge now.
//!
//! Files are merged within one date, and by size: when enough files of about one size are there, they and all
//! smaller ones become one. A row moves up by at least one tier each time, so it is rewritten as often as there
//! are tiers, which is the logarithm of the target over the size of a seal. A date that gains nothing any more
//! is tidied up once: what is left of it becomes one file, or files that are near the target.

use std::collections::BTreeMap;

use crate::options::Options;

/// Files in one merge at most, and in the merges that share a commit: bounds open files, and with the target the memory of
/// a merge (B1).
pub const FILES_MAX: usize = 128;

/// How much longer a quiet date waits at most before a large file is rewritten for little. Chosen: with the
/// default of ten minutes, a day.
const PATIENCE_MAX: u64 = 144;

/// A live file, as far as merging asks.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its path below the table's root.
    pub path: &'a str,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was made, milliseconds since 1970 UTC; 0 where that is not known.
    pub made_ms: i64,
}

/// What is due in one table.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Places in the list of files, of one date each; the merge of the most files first.
    pub merges: Vec<Vec<usize>>,
    /// Files that wait to be merged; more than the merges name where a date has more than one merge takes.
    pub files_waiting: u64,
    /// Files of the date that has the most.
    pub partition_files_max: u64,
    /// When a date is quiet for long enough, milliseconds since 1970 UTC, if nothing comes in between: until then
    /// the plan of the same files is the same. `None` where time alone changes nothing.
    pub again_ms: Option<i64>,
}

/// Plans the merges of one table, at most one a date; those of quiet dates where they `may_tidy`, else these are said to
/// be due at once.
#[must_use]
pub fn plan(files: &[File<'_>], options: &Options, may_tidy: bool, now_ms: i64) -> Plan {
    let mut partitions: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, file) in files.iter().enumerate() {
        let date = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        partitions.entry(date).or_default().push(at);
    }
    let mut plan = Plan::default();
    for mut partition in partitions.into_values() {
        plan.partition_files_max = plan.partition_files_max.max(partition.len() as u64);
        partition.sort_by_key(|at| (files[*at].bytes, files[*at].path));
        let mut due = crowded(files, &partition, options);
        if due.len() < 2 {
            due = match quiet(files, &partition, options, now_ms) {
                Ok(due) if may_tidy => due,
                Ok(_) => {
                    plan.again_ms = Some(now_ms);
                    Vec::new()
                }
                Err(again_ms) => {
                    plan.again_ms = plan.again_ms.into_iter().chain(again_ms).min();
                    Vec::new()
                }
            };
        }
        let merge = fitting(files, &due, options.compact_bytes_target);
        if merge.len() >= 2 {
            plan.files_waiting += due.len() as u64;
            plan.merges.push(merge.to_vec());
        }
    }
    plan.merges.sort_by_key(|merge| std::cmp::Reverse(merge.len()));
    plan
}

/// The files of the highest tier that has enough, and all smaller ones; or all small ones where together they
/// make a whole file. `partition` is sorted by size.
fn crowded(files: &[File<'_>], partition: &[usize], options: &Options) -> Vec<usize> {
    let half = options.compact_bytes_target / 2;
    let small = &partition[..partition.partition_point(|at| files[*at].bytes < half)];
    // Tiers are powers of the number of files that are merged: so many of one make one of the next.
    let tier = |at: &usize| files[*at].bytes.max(1).ilog(options.compact_files_min as u64);
    let total: u64 = small.iter().map(|at| files[*at].bytes).sum();
    if total >= options.compact_bytes_target {
        return small.to_vec();
    }
    let highest =
        small.chunk_by(|a, b| tier(a) == tier(b)).rfind(|like| like.len() >= options.compact_files_min);
    let Some(highest) = highest else { return Vec::new() };
    small.iter().copied().filter(|at| tier(at) <= tier(&highest[0])).collect()
}

/// The files below the target, where the date has been quiet for long enough; or when it will have been, if ever.
///
/// How long is enough grows with the size of the largest over all the others: a late event a quarter of an hour
/// must not rewrite a hundred megabytes each time.
fn quiet(
    files: &[File<'_>],
    partition: &[usize],
    options: &Options,
    now_ms: i64,
) -> Result<Vec<usize>, Option<i64>> {
    let newest_ms = partition.iter().map(|at| files[*at].made_ms).max().unwrap_or(now_ms);
    // A clock that jumped back makes files look young: they wait, and are merged when enough are there.
    let quiet_ms = u64::try_from(now_ms.saturating_sub(newest_ms)).unwrap_or(0);
    let mut due = fitting(files, partition, options.compact_bytes_target);
    let mut again_ms = None;
    while let [rest @ .., largest] = due
        && !rest.is_empty()
    {
        let rest_bytes: u64 = rest.iter().map(|at| files[*at].bytes).sum();
        let patience = (files[*largest].bytes / rest_bytes.max(1)).clamp(1, PATIENCE_MAX);
        let enough_ms = options.compact_quiet_ms.saturating_mul(patience);
        if quiet_ms >= enough_ms {
            return Ok(due.to_vec());
        }
        let enough_ms = newest_ms.saturating_add(i64::try_from(enough_ms).unwrap_or(i64::MAX));
        again_ms = Some(again_ms.map_or(enough_ms, |known: i64| known.min(enough_ms)));
        due = rest;
    }
    Err(again_ms)
}

/// The smallest files that fit into one.
fn fitting<'a>(files: &[File<'_>], due: &'a [usize], bytes_target: u64) -> &'a [usize] {
    let mut bytes = 0;
    let fits = due.iter().take(FILES_MAX).take_while(|at| {
        bytes += files[**at].bytes;
        bytes <= bytes_target
    });
    &due[..fits.count()]
}

#[cfg(test)]
mod tests {
    use super::{FILES_MAX, File, Plan, plan};
    use crate::options::Options;

    const MIB: u64 = 1 << 20;
    const MINUTE_MS: i64 = 60_000;

    fn options() -> Options {
        Options {
            compact_files_min: 4,
            compact_quiet_ms: 600_000,
            compact_bytes_target: 128 * MIB,
            ..Options::default()
        }
    }

    /// Files of one date, the newest as old as said: which places are merged.
    fn check(sizes: &[u64], quiet_ms: i64, expected: &[usize]) {
        let paths: Vec<String> =
            (0..sizes.len()).map(|n| format!("date=2026-01-01/{n:05}.parquet")).collect();
        let files: Vec<_> =
            paths.iter().zip(sizes).map(|(path, bytes)| File { path, bytes: *bytes, made_ms: 0 }).collect();
        let merges = plan(&files, &options(), true, quiet_ms).merges;
        let expected: Vec<Vec<usize>> =
            if expected.is_empty() { Vec::new() } else { vec![expected.to_vec()] };
        assert_eq!(merges, expected, "{sizes:?} after {quiet_ms} ms");
    }

    #[test]
    fn enough_files_of_one_tier_are_merged_with_all_smaller_ones() {
        check(&[], 0, &[]);
        check(&[10, 10, 10], 0, &[]);
        check(&[10, 11, 12, 13], 0, &[0, 1, 2, 3]);
        // One of another tier does not make up the number, but goes along where it is smaller.
        check(&[10, 11, 12, 100], 0, &[]);
        check(&[1, 100, 110, 120, 130], 0, &[0, 1, 2, 3, 4]);
        check(&[10, 11, 12, 13, 4_000], 0, &[0, 1, 2, 3]);
        // Of two tiers the higher one.
        check(&[10, 11, 12, 13, 100, 110, 120, 130], 0, &[0, 1, 2, 3, 4, 5, 6, 7]);
        // The tier of a file of no bytes.
        check(&[0, 0, 1, 1], 0, &[0, 1, 2, 3]);
    }

    #[test]
    fn a_merge_stays_below_its_bounds() {
        let half = 64 * MIB;
        // Half the target and more is left alone.
        check(&[half; 8], 0, &[]);
        check(&[half - 1; 4], 0, &[0, 1]);
        check(&[30 * MIB; 6], 0, &[0, 1, 2, 3]);
        // Together they make a whole file, though no tier has enough.
        check(&[2 * MIB, 60 * MIB, 61 * MIB, 62 * MIB], 0, &[0, 1, 2]);
        let many: Vec<usize> = (0..FILES_MAX).collect();
        check(&[10; 300], 0, &many);
    }

    #[test]
    fn a_quiet_date_is_tidied_up() {
        check(&[10, 100], 10 * MINUTE_MS - 1, &[]);
        check(&[100, 100], 10 * MINUTE_MS, &[0, 1]);
        check(&[100], 1_000 * MINUTE_MS, &[]);
        check(&[30 * MIB, 40 * MIB, 50 * MIB], 20 * MINUTE_MS, &[0, 1, 2]);
        // A small remainder joins a large file, but only after a time that grows with what is rewritten for it.
        check(&[10 * MIB, 100 * MIB], 99 * MINUTE_MS, &[]);
        check(&[10 * MIB, 100 * MIB], 100 * MINUTE_MS, &[0, 1]);
        check(&[1, 1, 100 * MIB], 10 * MINUTE_MS, &[0, 1]);
        check(&[1, 100 * MIB], 24 * 60 * MINUTE_MS - 1, &[]);
        check(&[1, 100 * MIB], 24 * 60 * MINUTE_MS, &[0, 1]);
        // Nothing fits: it stays as it is, for ever.
        check(&[70 * MIB, 70 * MIB], i64::MAX, &[]);
        check(&[2 * MIB, 127 * MIB, 200 * MIB], i64::MAX, &[]);
        // A clock that jumped back.
        check(&[10, 10], -5 * MINUTE_MS, &[]);
    }

    #[test]
    fn quiet_dates_wait_while_they_may_not_be_tidied_up() {
        let paths: Vec<_> = (0..4).map(|n| format!("date=a/{n}")).collect();
        let files: Vec<_> = paths.iter().map(|path| File { path, bytes: 10, made_ms: 0 }).collect();
        let now_ms = 10 * MINUTE_MS;
        let plan = |count: usize, may_tidy| plan(&files[..count], &options(), may_tidy, now_ms);
        assert_eq!(plan(3, true).merges, [vec![0, 1, 2]]);
        let waits = Plan { partition_files_max: 3, again_ms: Some(now_ms), ..Plan::default() };
        assert_eq!(plan(3, false), waits);
        assert_eq!(plan(4, false), plan(4, true), "what is crowded is merged");
    }

    /// The plan of the same files stays the same until it says that it may not.
    #[test]
    fn a_plan_says_when_it_may_change() {
        let check = |sizes: &[u64], expected: Option<i64>| {
            let paths: Vec<String> = (0..sizes.len()).map(|n| format!("date=a/{n:05}")).collect();
            let file = |(path, bytes)| -> File<'_> { File { path, bytes, made_ms: 1_000 } };
            let files: Vec<_> =
                paths.iter().zip(sizes).map(|(path, bytes)| file((path.as_str(), *bytes))).collect();
            let early = plan(&files, &options(), true, 1_000);
            assert_eq!(early.again_ms, expected, "{sizes:?}");
            let Some(again_ms) = expected else { return };
            assert_eq!(plan(&files, &options(), true, again_ms - 1), early, "{sizes:?}");
            assert!(!plan(&files, &options(), true, again_ms).merges.is_empty(), "{sizes:?}");
        };
        check(&[10], None);
        check(&[70 * MIB, 70 * MIB], None);
        check(&[10; 4], None);
        check(&[10; 3], Some(1_000 + 10 * MINUTE_MS));
        check(&[10 * MIB, 100 * MIB], Some(1_000 + 100 * MINUTE_MS));
        check(&[1, 1, 100 * MIB], Some(1_000 + 10 * MINUTE_MS));
        check(&[1, 100 * MIB], Some(1_000 + 24 * 60 * MINUTE_MS));
    }

    #[test]
    fn dates_are_apart_and_the_largest_number_comes_first() {
        let file = |path, bytes| File { path, bytes, made_ms: 0 };
        let files = [
            file("date=a/1", 10),
            file("date=b/1", 10),
            file("date=a/2", 10),
            file("date=b/2", 10),
            file("date=a/3", 10),
            file("date=b/3", 10),
            file("date=b/4", 10),
            file("date=a/4", 10),
            file("date=b/5", 10),
            file("date=c/1", 10),
        ];
        let expected = Plan {
            merges: vec![vec![1, 3, 5, 6, 8], vec![0, 2, 4, 7]],
            files_waiting: 9,
            partition_files_max: 5,
            again_ms: None,
        };
        assert_eq!(plan(&files, &options(), true, 0), expected);
    }

    /// Seals of one size, merged whenever something is due: bytes written grow with the logarithm, and the number
    /// of files stays small.
    #[test]
    fn write_amplification_is_logarithmic() {
        let seal = 100_000;
        for seals in [64_usize, 1_024, 16_384] {
            let mut live: Vec<(String, u64)> = Vec::new();
            let (mut made, mut rewritten, mut live_max) = (0, 0, 0);
            for _ in 0..seals {
                live.push((format!("date=a/{made:09}"), seal));
                made += 1;
                loop {
                    let files: Vec<_> =
                        live.iter().map(|(path, bytes)| File { path, bytes: *bytes, made_ms: 0 }).collect();
                    let Some(merge) = plan(&files, &options(), true, 0).merges.into_iter().next() else {
                        break;
                    };
                    let bytes: u64 = merge.iter().map(|at| live[*at].1).sum();
                    rewritten += bytes;
                    let mut at = 0;
                    live.retain(|_| (!merge.contains(&at), at += 1).0);
                    live.push((format!("date=a/{made:09}"), bytes));
                    made += 1;
                }
                live_max = live_max.max(live.iter().filter(|(_, bytes)| *bytes < 64 * MIB).count());
            }
            let written = rewritten as f64 / (seals as u64 * seal) as f64;
            let tiers = ((seals as f64).ln() / 4_f64.ln()).min(6.0);
            assert!(written <= tiers, "{seals} seals were rewritten {written} times each");
            assert!(live_max <= 4 * 7, "{live_max} small files");
            assert_eq!(live.iter().map(|(_, bytes)| bytes).sum::<u64>(), seals as u64 * seal);
        }
    }
}
