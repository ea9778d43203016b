//! F20, F24: writers that race, crash and try again on a store that fails by a seed. When the faults end the
//! table holds each change exactly once, and nothing that a writer was told is refused.
//!
//! `FLOODMARK_SEEDS` says how many seeds run; `FLOODMARK_SEED` runs one of them alone.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use object_store::memory::InMemory;
use tokio::time::{sleep, timeout};

use super::tables::{Store, append, commits, compact, file, log};
use crate::commit::{Change, State};
use crate::error::Kind as ErrorKind;
use crate::reader::DataFile;
use crate::simulation::store::{Counts, DELAY_MS_MAX, Fault, FaultyStore, Odds};

const SEEDS: u64 = 300;
const WRITERS: usize = 3;
const APPENDS: i64 = 4;

/// A writer gives up an attempt, as a crash does, after this at most.
const PATIENCE_MS_MAX: u64 = 60_000;

/// One append of one writer.
type Id = (usize, i64);

/// What the writers know among themselves: a file's rows, and which files the table was said to refuse.
#[derive(Default)]
struct Ledger {
    rows: Mutex<HashMap<String, Vec<Id>>>,
    refused: Mutex<Vec<String>>,
}

impl Ledger {
    fn rows(&self, path: &str) -> Vec<Id> {
        self.rows.lock().unwrap()[path].clone()
    }
}

/// One writer's life, with choices of its own.
struct Writer<'a> {
    number: usize,
    store: &'a Store,
    ledger: &'a Ledger,
    choices: u64,
    /// Files written so far: their names are the seed's, so that a seed is the same life each time.
    files: u64,
    state: State,
}

impl Writer<'_> {
    /// The multiplier and the increment are Knuth's; the low bits are thrown away.
    fn below(&mut self, bound: u64) -> u64 {
        self.choices =
            self.choices.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.choices >> 33) % bound
    }

    /// A file of these rows.
    fn write(&mut self, rows: Vec<Id>) -> DataFile {
        self.files += 1;
        let path = format!("date=2026-01-01/{}-{}.parquet", self.number, self.files);
        self.ledger.rows.lock().unwrap().insert(path.clone(), rows);
        DataFile { path, ..file() }
    }

    /// Tries once, for as long as patience lasts; `None` where its end is unknown.
    async fn attempt(&mut self, change: &Change) -> Option<bool> {
        let patience = Duration::from_millis(1 + self.below(PATIENCE_MS_MAX));
        let log = log(self.store);
        match timeout(patience, log.commit(self.state.clone(), change)).await {
            Ok(Ok(committed)) => {
                self.state = committed.state;
                return Some(committed.is_in);
            }
            Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            Err(_) => {}
        }
        sleep(Duration::from_millis(self.below(20_000))).await;
        // After a crash the table is read anew; otherwise the writer goes on from what it knew.
        if self.below(2) == 0
            && let Ok(loaded) = timeout(patience, log.load()).await
        {
            match loaded {
                Ok(state) => self.state = state,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
        }
        None
    }

    async fn append(&mut self, number: i64) {
        loop {
            // A seal writes its file anew at each attempt.
            let file = self.write(vec![(self.number, number)]);
            let change = append(&format!("w{}", self.number), number, file);
            if let Some(is_in) = self.attempt(&change).await {
                assert!(is_in, "an append was refused");
                return;
            }
        }
    }

    /// Rewrites two files, whoever wrote them; the same change is tried a few times and then given up.
    async fn compact(&mut self) {
        let mut live: Vec<_> = self.state.files.iter().map(|file| file.path.clone()).collect();
        if live.len() < 2 {
            return;
        }
        let removes: Vec<_> = (0..2)
            .map(|_| {
                let at = self.below(live.len() as u64);
                live.swap_remove(usize::try_from(at).unwrap())
            })
            .collect();
        let file = self.write(removes.iter().flat_map(|path| self.ledger.rows(path)).collect());
        let change = compact(removes, file);
        for _ in 0..3 {
            match self.attempt(&change).await {
                Some(true) => return,
                Some(false) => {
                    self.ledger.refused.lock().unwrap().push(change.adds[0].path.clone());
                    return;
                }
                None => {}
            }
        }
    }

    async fn live(mut self) {
        for number in 1..=APPENDS {
            self.append(number).await;
            match self.below(4) {
                0 | 1 => self.compact().await,
                // A checkpoint is a convenience: the table is as good without.
                2 => {
                    drop(timeout(Duration::from_secs(60), log(self.store).checkpoint(&mut self.state)).await);
                }
                _ => {}
            }
        }
    }
}

/// One seed's life; returns the faults that were met.
async fn survive(seed: u64) -> Counts {
    let inner: Store = Arc::new(InMemory::new());
    // A checkpoint that is cut on its way up is the reader's matter, not the protocol's.
    let odds = Odds::all(5 + u16::try_from(seed % 8).unwrap() * 15).with(Fault::Truncate, 0);
    let faulty = FaultyStore::new(Arc::clone(&inner), seed, odds);
    let store: Store = Arc::<FaultyStore>::clone(&faulty);
    let ledger = Ledger::default();
    let writers = (0..WRITERS).map(|number| {
        let choices = seed.wrapping_mul(WRITERS as u64).wrapping_add(number as u64);
        Writer { number, store: &store, ledger: &ledger, choices, files: 0, state: State::empty() }.live()
    });
    join_all(writers).await;
    // What was reported as failed and is still under way lands now or never.
    sleep(Duration::from_millis(2 * DELAY_MS_MAX)).await;

    let state = log(&inner).load().await.unwrap();
    let texts = commits(&inner).await;
    assert_eq!(state.version, Some(i64::try_from(texts.len()).unwrap() - 1), "a commit is in no table");
    let mut counts: BTreeMap<Id, usize> = BTreeMap::new();
    for id in state.files.iter().flat_map(|file| ledger.rows(&file.path)) {
        *counts.entry(id).or_default() += 1;
    }
    let expected = (0..WRITERS).flat_map(|writer| (1..=APPENDS).map(move |number| ((writer, number), 1)));
    assert_eq!(counts, expected.collect(), "lost (missing) or doubled (above 1)");
    for path in &*ledger.refused.lock().unwrap() {
        assert!(!texts.iter().any(|text| text.contains(path)), "{path} was refused and is in a commit");
    }
    faulty.counts()
}

fn run(seed: u64) -> Counts {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(survive(seed))))
        .unwrap_or_else(|_| panic!("seed {seed} failed: FLOODMARK_SEED={seed} runs it alone"))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
#[expect(clippy::print_stderr, reason = "a simulation says how much of the world it saw")]
fn every_change_survives_a_faulty_store_exactly_once() {
    if let Some(seed) = number("FLOODMARK_SEED") {
        run(seed);
        return;
    }
    let seeds = number("FLOODMARK_SEEDS").unwrap_or(SEEDS);
    let begun = Instant::now();
    // A seed's world is one thread; the worlds share nothing.
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let worlds: Vec<_> = (0..threads)
        .map(|first| {
            std::thread::spawn(move || {
                let mut met = [0; Fault::ALL.len()];
                for seed in (first..seeds).step_by(usize::try_from(threads).unwrap()) {
                    let counts = run(seed);
                    for fault in Fault::ALL {
                        met[fault as usize] += counts.faults(fault);
                    }
                }
                met
            })
        })
        .collect();
    let mut met = [0; Fault::ALL.len()];
    for world in worlds {
        let part = world.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        met.iter_mut().zip(part).for_each(|(all, part)| *all += part);
    }
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("{seeds} seeds in {seconds:.1} s; faults met: {:?} = {met:?}", Fault::ALL);
    // Sometimes: a world in which a fault never occurs says nothing about it.
    let never: Vec<_> =
        Fault::ALL.iter().filter(|fault| **fault != Fault::Truncate && met[**fault as usize] == 0).collect();
    assert!(seeds < SEEDS || never.is_empty(), "never met: {never:?}");
}
