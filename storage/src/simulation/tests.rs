//! Many worlds. `FLOODMARK_SEEDS` says how many of each kind; `FLOODMARK_SEED` plays one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::disk::DiskOdds;
use super::failpoints::Action;
use super::world::{Report, Script, play};

pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays a script for each of many seeds, on every core; returns the sums of what the worlds came to.
fn play_all(what: &str, default: u64, script: impl Fn(u64) -> Script + Sync) -> Report {
    let (first, count) = match number("FLOODMARK_SEED") {
        Some(seed) => (seed, 1),
        None => (number("FLOODMARK_SEED_FROM").unwrap_or(0), number("FLOODMARK_SEEDS").unwrap_or(default)),
    };
    let next = AtomicU64::new(first);
    let started = std::time::Instant::now();
    let total = std::sync::Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let report = play(&script(seed)).unwrap_or_else(|error| panic!("{what}: {error}"));
                    let mut total = total.lock().expect("worlds do not panic here");
                    total.acknowledged += report.acknowledged;
                    total.starts += report.starts;
                    total.injected += report.injected;
                    total.damaged += report.damaged;
                    total.expired += report.expired;
                    for (step, count) in report.passed {
                        *total.passed.entry(step).or_default() += count;
                    }
                }
            });
        }
    });
    let total = total.into_inner().expect("worlds do not panic here");
    println!(
        "{what}: {count} seeds from {first}, {} starts, {} rows acknowledged, {} faults, 0 lost, 0 twice ({:.0} s)",
        total.starts,
        total.acknowledged,
        total.injected,
        started.elapsed().as_secs_f64()
    );
    assert!(total.acknowledged >= count, "{what}: the load did nothing");
    total
}

/// G2: power cuts at any change; nothing synced is lost, nothing is taken for damage that is none.
#[test]
fn power_cuts_lose_nothing_acknowledged() {
    play_all("power cuts", 150, Script::power_cuts);
}

/// G5, in the world: writes, syncs and allocations fail, the log is poisoned, the next start replays.
#[test]
fn a_failing_disk_loses_nothing_acknowledged() {
    let total = play_all("failing disk", 100, |seed| Script {
        disk: DiskOdds { write: seed % 7, sync: seed % 11, full: (seed % 5) * 20 },
        ..Script::power_cuts(seed)
    });
    assert!(number("FLOODMARK_SEED").is_some() || total.injected > 0, "no fault was met");
}

/// G7: the store fails before and after the effect, late, twice, half.
#[test]
fn a_failing_store_loses_nothing_acknowledged() {
    let total = play_all("failing store", 100, |seed| Script {
        store: u16::try_from(seed % 60).expect("below sixty"),
        cuts: seed % 3 == 0,
        ..Script::power_cuts(seed)
    });
    assert!(number("FLOODMARK_SEED").is_some() || total.injected > 0, "no fault was met");
}

/// F20, G7: what was acknowledged at the level `object`, or by a node whose log is in the bucket, outlives the machine;
/// the store fails in every way meanwhile.
#[test]
fn what_was_acknowledged_as_in_the_bucket_outlives_the_machine() {
    let total = play_all("log in the bucket", 40, |seed| Script {
        store: u16::try_from(seed % 8 * 6).expect("below fifty"),
        keeps_house: seed % 4 == 0,
        ..Script::bucket_log(seed)
    });
    assert!(number("FLOODMARK_SEED").is_some() || total.injected > 0, "no fault was met");
}

/// G22: ingest, kills, merges, retention, holds, sweeps, a clock that jumps, and queries all the while, against
/// what clients and operator were told.
#[test]
fn whatever_an_operator_does_the_tables_hold_what_they_should() {
    let total = play_all("operator", 60, |seed| Script {
        keeps_house: true,
        operator: true,
        store: u16::try_from(seed % 4 * 8).expect("below thirty"),
        ..Script::power_cuts(seed)
    });
    println!("operator: {} rows were removed by retention", total.expired);
    assert!(number("FLOODMARK_SEED").is_some() || total.expired > 0, "no retention run removed anything");
}

/// W2, F13: a bit that turns in what was synced stops the next start, or hits what no start needs; never is a row
/// lost without a word.
#[test]
fn rot_is_named() {
    let total =
        play_all("rot", 60, |seed| Script { rot: true, cuts: false, lives: 2, ..Script::power_cuts(seed) });
    println!("rot: {} starts named damage", total.damaged);
    assert!(number("FLOODMARK_SEED").is_some() || total.damaged > 0, "no rot hit anything");
}

/// G9: every step that a world passes, with each thing that can happen there.
#[test]
fn every_step_may_fail() {
    let mut steps: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..8 {
        let script = Script { keeps_house: true, operator: seed % 2 == 0, ..Script::bucket_log(seed) };
        for (step, count) in play(&script).expect("a calm world").passed {
            *steps.entry(step).or_default() += count;
        }
    }
    assert!(steps.len() >= 12, "worlds pass few steps: {steps:?}");
    let first = number("FLOODMARK_SEED_FROM").unwrap_or(0);
    let seeds = number("FLOODMARK_STEP_SEEDS").unwrap_or(1);
    let delay = Action::Delay(Duration::from_secs(20));
    let actions = [Action::Error, Action::Panic, Action::Kill, delay];
    let mut cases = Vec::new();
    for step in steps.keys() {
        for action in actions {
            cases.extend((first..first + seeds).map(|seed| (*step, seed, action)));
        }
    }
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or_default();
        if !text.starts_with("injected at") {
            eprintln!("{info}");
        }
    }));
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((step, seed, action)) =
                    cases.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("few cases"))
                {
                    let fault = Some((*step, seed % 5, *action));
                    let is_of_bucket = step.starts_with("bucket.");
                    let world = if is_of_bucket { Script::bucket_log } else { Script::power_cuts };
                    let script = Script { fault, keeps_house: true, operator: true, ..world(*seed) };
                    play(&script).unwrap_or_else(|error| panic!("{step} {action:?}: {error}"));
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    println!(
        "{} steps x {} actions x {seeds} seeds from {first}, 0 lost, 0 twice: {:?}",
        steps.len(),
        actions.len(),
        steps.keys()
    );
}
