//! Bugs that are planted on purpose: a suite that does not notice them proves nothing.

use super::bucket_log::two_processes;
use super::disk::DiskOdds;
use super::failpoints::Action;
use super::world::{Script, play};
use crate::faults::Bug;

/// Plays worlds until one notices the bug; returns the seed and what was noticed.
fn noticed(bug: Bug, script: impl Fn(u64) -> Script) -> Option<(u64, String)> {
    (0..400).find_map(|seed| {
        let script = Script { bug: Some(bug), ..script(seed) };
        play(&script).err().map(|error| (seed, error))
    })
}

/// Each planted bug is caught by a world that a correct storage survives.
#[test]
fn every_planted_bug_is_caught() {
    let failing_disk =
        |seed| Script { disk: DiskOdds { write: 0, sync: 30, full: 0 }, ..Script::power_cuts(seed) };
    let failing_store = |seed| Script { store: 40, ..Script::power_cuts(seed) };
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let found = match bug {
            Bug::IgnoreFailedSync => noticed(bug, failing_disk),
            Bug::SkipCommitGuard => noticed(bug, |seed| Script {
                fault: Some(("commit.after_put", seed % 8, Action::Error)),
                ..Script::power_cuts(seed)
            }),
            Bug::TrustTakenNumber => noticed(bug, failing_store),
            Bug::IgnoreDurableMark => {
                noticed(bug, |seed| Script { rot: true, cuts: false, ..Script::power_cuts(seed) })
            }
            Bug::CompactionDropsRow => {
                noticed(bug, |seed| Script { keeps_house: true, ..Script::power_cuts(seed) })
            }
            Bug::AcknowledgeBeforePut => {
                noticed(bug, |seed| Script { store: 40, ..Script::bucket_log(seed) })
            }
            // Lives that are long enough for what was trimmed to be deleted.
            Bug::TrimObjectEarly => noticed(bug, |seed| Script::bucket_log(20 * seed + 4)),
            // Only two processes at once can notice these.
            Bug::TrustTakenObject | Bug::OpenWithoutFence => {
                (0..400).find_map(|seed| Some((seed, two_processes(seed, Some(bug)).err()?)))
            }
            _ => noticed(bug, Script::power_cuts),
        };
        match found {
            Some((seed, error)) => println!("{bug:?}: caught by seed {seed}: {error}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}
