//! Jobs that wait: so many of each tenant, and each tenant's next in turn.
//!
//! One tenant's hundred jobs are not between another and its one: the thread takes one of each, round and round.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Jobs that wait at once, of all; more are refused.
pub const QUEUED_MAX: usize = 64;

/// Jobs of one tenant that wait at once. What an operator or the schedule asks for all counts as one tenant.
pub const QUEUED_PER_TENANT_MAX: usize = 4;

/// Whose jobs wait; `None` = those for all tenants.
type Whose = Option<String>;

/// The row.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    arrived: Notify,
}

#[derive(Debug)]
struct Waiting<T> {
    /// Jobs by whose they are, the places kept for those on their way among them.
    of: BTreeMap<Whose, Of<T>>,
    /// Whose turn comes next.
    turns: VecDeque<Whose>,
}

#[derive(Debug)]
struct Of<T> {
    jobs: VecDeque<T>,
    kept_places: usize,
}

/// A place in the row, for a job that is being written down.
#[derive(Debug)]
pub struct Place<T> {
    queue: Arc<Queue<T>>,
    whose: Whose,
    is_used: bool,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The tenant has as many as it may.
    Share,
    /// All have.
    Whole,
}

impl<T> Queue<T> {
    /// An empty row.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let waiting = Waiting { of: BTreeMap::new(), turns: VecDeque::new() };
        Arc::new(Self { waiting: Mutex::new(waiting), arrived: Notify::new() })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a place.
    ///
    /// # Errors
    /// [`Full`]: nothing is kept.
    pub fn reserve(self: &Arc<Self>, whose: Whose) -> Result<Place<T>, Full> {
        let mut waiting = self.waiting();
        let count = |of: &Of<T>| of.jobs.len() + of.kept_places;
        let all: usize = waiting.of.values().map(count).sum();
        let of =
            waiting.of.entry(whose.clone()).or_insert_with(|| Of { jobs: VecDeque::new(), kept_places: 0 });
        let full = match () {
            () if count(of) >= QUEUED_PER_TENANT_MAX => Some(Full::Share),
            () if all >= QUEUED_MAX => Some(Full::Whole),
            () => None,
        };
        match full {
            None => of.kept_places += 1,
            Some(full) => {
                waiting.forget(&whose);
                return Err(full);
            }
        }
        drop(waiting);
        Ok(Place { queue: Arc::clone(self), whose, is_used: false })
    }

    /// Waits for the next job in turn.
    pub async fn next(&self) -> T {
        loop {
            let arrived = self.arrived.notified();
            if let Some(job) = self.waiting().take() {
                return job;
            }
            arrived.await;
        }
    }
}

impl<T> Waiting<T> {
    fn take(&mut self) -> Option<T> {
        let whose = self.turns.pop_front()?;
        let of = self.of.get_mut(&whose)?;
        let job = of.jobs.pop_front()?;
        if of.jobs.is_empty() {
            self.forget(&whose);
        } else {
            self.turns.push_back(whose);
        }
        Some(job)
    }

    /// Forgets who has nothing in the row.
    fn forget(&mut self, whose: &Whose) {
        if self.of.get(whose).is_some_and(|of| of.jobs.is_empty() && of.kept_places == 0) {
            self.of.remove(whose);
        }
    }
}

impl<T> Place<T> {
    /// Puts the job into its place.
    pub fn send(mut self, job: T) {
        self.is_used = true;
        let mut waiting = self.queue.waiting();
        let waiting = &mut *waiting;
        let of = waiting.of.get_mut(&self.whose).expect("a place is kept here");
        of.kept_places -= 1;
        if of.jobs.is_empty() {
            waiting.turns.push_back(self.whose.clone());
        }
        of.jobs.push_back(job);
        self.queue.arrived.notify_one();
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        if !self.is_used {
            let mut waiting = self.queue.waiting();
            if let Some(of) = waiting.of.get_mut(&self.whose) {
                of.kept_places -= 1;
            }
            waiting.forget(&self.whose);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, QUEUED_PER_TENANT_MAX, Queue};

    fn whose(tenant: &str) -> Option<String> {
        Some(tenant.to_owned())
    }

    #[test]
    fn each_tenant_has_its_places_and_its_turn() {
        let queue = Queue::new();
        for at in 0..QUEUED_PER_TENANT_MAX {
            queue.reserve(whose("acme")).expect("a place").send(format!("acme {at}"));
        }
        assert_eq!(queue.reserve(whose("acme")).err(), Some(Full::Share));
        queue.reserve(whose("other")).expect("another's place").send("other 0".to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut taken = Vec::new();
        for _ in 0..=QUEUED_PER_TENANT_MAX {
            taken.push(runtime.block_on(queue.next()));
        }
        assert_eq!(taken[..3], ["acme 0", "other 0", "acme 1"], "one of each, in turn");
        assert!(queue.waiting().of.is_empty() && queue.waiting().turns.is_empty());
    }

    #[test]
    fn a_place_that_is_not_used_is_free_again() {
        let queue = Queue::<u8>::new();
        let places: Vec<_> =
            (0..QUEUED_PER_TENANT_MAX).map(|_| queue.reserve(None).expect("a place")).collect();
        assert_eq!(queue.reserve(None).err(), Some(Full::Share));
        drop(places);
        assert!(queue.waiting().of.is_empty());
        assert!(queue.reserve(None).is_ok());
    }

    #[test]
    fn the_row_is_bounded_over_all_tenants() {
        let queue = Queue::<u8>::new();
        let mut held = Vec::new();
        let full = (0..200).find_map(|at: usize| match queue.reserve(whose(&format!("t{}", at / 2))) {
            Ok(place) => {
                held.push(place);
                None
            }
            Err(full) => Some(full),
        });
        assert_eq!((full, held.len()), (Some(Full::Whole), 64));
    }
}
