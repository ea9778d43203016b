//! The seeded dice behind the faulty store, and the state that all of its requests share.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{Error, Result};
use tokio::time::{Instant, sleep};

use super::fault::{Counts, Fault, Odds, Request};
use super::{DELAY_MS_MAX, STALE_MS_MAX};

/// Refusals in a row at most, once one conditional write was refused.
const STORM_MAX: u64 = 5;

/// How a write goes, drawn before it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Well,
    Before,
    After,
    Later { wait: Duration, lands_without_power: bool },
}

/// What the requests of one store share.
#[derive(Debug)]
pub struct World {
    dice: Mutex<Dice>,
    is_out: AtomicBool,
    is_off: AtomicBool,
}

#[derive(Debug)]
struct Dice {
    state: u64,
    odds: Odds,
    counts: Counts,
    /// Conditional writes that are still to be refused.
    storm: u64,
    /// What was written lately, oldest first.
    recent: Vec<(Path, Instant)>,
}

impl Dice {
    /// Splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn hits(&mut self, fault: Fault) -> bool {
        // Drawn even where the odds are nought, so that other odds do not shift the draws behind them.
        let is_hit = self.below(1_000) < u64::from(self.odds.of(fault));
        if is_hit {
            self.counts.injected(fault);
        }
        is_hit
    }
}

/// An error of this store, as a client of a bucket reports it.
pub fn failed(what: &'static str) -> Error {
    Error::Generic { store: "faulty", source: what.into() }
}

impl World {
    pub fn new(seed: u64, odds: Odds) -> Self {
        let dice = Dice { state: seed, odds, counts: Counts::default(), storm: 0, recent: Vec::new() };
        Self { dice: Mutex::new(dice), is_out: AtomicBool::new(false), is_off: AtomicBool::new(false) }
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().expect("no panic under this lock")
    }

    pub fn set_odds(&self, odds: Odds) {
        let mut dice = self.dice();
        dice.odds = odds;
        dice.storm = 0;
    }

    pub fn set_outage(&self, on: bool) {
        self.is_out.store(on, Ordering::SeqCst);
    }

    pub fn power_off(&self) {
        self.is_off.store(true, Ordering::SeqCst);
    }

    pub fn counts(&self) -> Counts {
        self.dice().counts
    }

    pub fn hits(&self, fault: Fault) -> bool {
        self.dice().hits(fault)
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.dice().below(bound)
    }

    /// Never returns once the power is off: whoever waits for an answer waits for ever.
    pub async fn hang_without_power(&self) {
        if self.is_off.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
    }

    /// The way to the store: counted, delayed, refused.
    pub async fn enter(&self, request: Request) -> Result<()> {
        self.hang_without_power().await;
        let (wait, refusal, lands_without_power) = {
            let mut dice = self.dice();
            dice.counts.requested(request);
            let wait = if dice.hits(Fault::Delay) { dice.below(DELAY_MS_MAX) } else { 0 };
            let refusal = dice.hits(Fault::Refuse).then(|| dice.below(4));
            (wait, refusal, dice.below(2) == 0)
        };
        if wait > 0 {
            sleep(Duration::from_millis(wait)).await;
            // A request that was under way when the power went may still have reached the store.
            if !lands_without_power {
                self.hang_without_power().await;
            }
        }
        if self.is_out.load(Ordering::SeqCst) {
            return Err(failed("connection refused"));
        }
        match refusal {
            None => Ok(()),
            Some(0) => Err(failed("500 internal error")),
            Some(1) => Err(failed("503 slow down")),
            Some(2) => Err(failed("429 too many requests")),
            Some(_) => Err(Error::Unauthenticated { path: String::new(), source: "token expired".into() }),
        }
    }

    /// Refuses a conditional write though nothing stands in its way, some times in a row.
    pub fn conflict(&self, location: &Path) -> Result<()> {
        let mut dice = self.dice();
        if dice.storm > 0 {
            dice.storm -= 1;
            dice.counts.injected(Fault::Conflict);
        } else if dice.hits(Fault::Conflict) {
            dice.storm = dice.below(STORM_MAX);
        } else {
            return Ok(());
        }
        let path = location.to_string();
        Err(if dice.below(2) == 0 {
            Error::AlreadyExists { path, source: "409 conflicting request".into() }
        } else {
            Error::Precondition { path, source: "412 precondition failed".into() }
        })
    }

    pub fn fate(&self) -> Fate {
        let mut dice = self.dice();
        if dice.hits(Fault::FailBefore) {
            Fate::Before
        } else if dice.hits(Fault::FailAfter) {
            Fate::After
        } else if dice.hits(Fault::LandLater) {
            let wait = Duration::from_millis(dice.below(DELAY_MS_MAX));
            Fate::Later { wait, lands_without_power: dice.below(2) == 0 }
        } else {
            Fate::Well
        }
    }

    /// Carries out a write as its fate is.
    pub async fn write<T: Send + 'static>(
        self: &std::sync::Arc<Self>,
        effect: BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let fate = self.fate();
        match fate {
            Fate::Before => return Err(failed("connection reset before the request was sent")),
            Fate::Later { wait, lands_without_power } => {
                let world = std::sync::Arc::clone(self);
                tokio::spawn(async move {
                    sleep(wait).await;
                    if lands_without_power || !world.is_off.load(Ordering::SeqCst) {
                        // Nobody waits for how it ends.
                        let _ = effect.await;
                    }
                });
                return Err(failed("request timed out"));
            }
            Fate::Well | Fate::After => {}
        }
        let result = effect.await;
        self.hang_without_power().await;
        if fate == Fate::After && result.is_ok() {
            return Err(failed("connection reset before the answer came"));
        }
        result
    }

    /// Notes that an object was written now, for listings that are behind.
    pub fn landed(&self, location: &Path) {
        let mut dice = self.dice();
        let now = Instant::now();
        dice.recent.retain(|(_, at)| now.duration_since(*at) < Duration::from_millis(STALE_MS_MAX));
        dice.recent.push((location.clone(), now));
    }

    /// What a listing omits: everything since one moment, so that what it shows was true once.
    pub fn omitted(&self) -> Vec<Path> {
        let mut dice = self.dice();
        if !dice.hits(Fault::StaleList) {
            return Vec::new();
        }
        let behind = Duration::from_millis(dice.below(STALE_MS_MAX));
        let now = Instant::now();
        let recent = dice.recent.iter().filter(|(_, at)| now.duration_since(*at) <= behind);
        recent.map(|(path, _)| path.clone()).collect()
    }
}
