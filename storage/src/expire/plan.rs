//! Which files are past their retention, wholly or in part; and whether a run removes more than it usually does.

use std::sync::Arc;

use crate::reader::DataFile;

/// Runs whose volume counts as usual. Chosen: a week of daily runs, so that every weekday is among them.
pub const RUNS_KEPT: usize = 7;

/// What may be past its retention.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Every row is.
    pub whole: Vec<Arc<DataFile>>,
    /// Some row is, by the file's bounds, and some may not be.
    pub edge: Vec<Arc<DataFile>>,
}

/// Parts files by a cutoff: rows before it are past their retention, rows at it are not.
pub fn plan<'a>(files: impl IntoIterator<Item = &'a Arc<DataFile>>, cutoff_ns: i64) -> Plan {
    let mut plan = Plan::default();
    for file in files {
        let (first, last) = file.time_ns;
        if last < cutoff_ns {
            plan.whole.push(Arc::clone(file));
        } else if first < cutoff_ns {
            plan.edge.push(Arc::clone(file));
        }
    }
    plan
}

/// Whether a scheduled run would remove more than twice what it usually does (F27).
///
/// Usual is the most of the last runs that removed anything; with none there is nothing to compare.
pub fn is_unusual(rows: u64, last: &[u64]) -> bool {
    last.iter().max().is_some_and(|most| rows > most.saturating_mul(2))
}

/// The volumes to compare the next run with.
pub fn with_run(mut last: Vec<u64>, rows: u64) -> Vec<u64> {
    if rows > 0 {
        last.push(rows);
    }
    last.split_off(last.len().saturating_sub(RUNS_KEPT))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{is_unusual, plan, with_run};
    use crate::reader::DataFile;

    #[test]
    fn files_part_at_the_cutoff() {
        let check = |bounds: (i64, i64), expected: &str| {
            let file = DataFile {
                path: "date=1970-01-01/a.parquet".into(),
                bytes: 1,
                rows: 1,
                time_ns: bounds,
                source: None,
                digest: None,
                blocks: None,
                stats: None,
            };
            let plan = plan(&[Arc::new(file)], 100);
            let found = match (plan.whole.len(), plan.edge.len()) {
                (1, 0) => "whole",
                (0, 1) => "edge",
                _ => "kept",
            };
            assert_eq!(found, expected, "{bounds:?}");
        };
        check((0, 99), "whole");
        check((0, 100), "edge");
        check((99, 200), "edge");
        check((100, 100), "kept");
        check((100, 200), "kept");
        // A file whose bounds nobody knows is read.
        check((i64::MIN, i64::MAX), "edge");
    }

    /// F27: the scheduled job does not remove more than twice its usual volume.
    #[test]
    fn an_unusual_volume_is_told() {
        assert!(!is_unusual(u64::MAX, &[]), "nothing to compare");
        assert!(!is_unusual(20, &[3, 10]));
        assert!(is_unusual(21, &[3, 10]));
        let mut last = Vec::new();
        for rows in [9, 0, 1, 2, 3, 4, 5, 6, 7] {
            last = with_run(last, rows);
        }
        assert_eq!(last, [1, 2, 3, 4, 5, 6, 7], "runs that removed nothing do not count");
    }
}
