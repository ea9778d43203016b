//! Turns for typed reads: how many run at once, and whose is next (X2).
//!
//! A tenant holds at most three quarters of the turns, so that one tenant's slow reads never hold all of them. A turn
//! that comes free goes to the waiting tenant that runs the fewest reads. Whoever would wait behind too many others is
//! refused at once.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use storage::record::Tenant;
use tokio::sync::oneshot;

use crate::refusal::Refusal;

/// Reads of one tenant that wait at most.
pub const TENANT_WAITING_MAX: usize = 32;

/// Reads of all tenants that wait at most.
pub const WAITING_MAX: usize = 256;

/// The turns of a process.
pub struct Turns {
    running_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    waiting: usize,
    /// Tenants that run or wait; no others.
    tenants: BTreeMap<Tenant, Line>,
}

#[derive(Default)]
struct Line {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A turn; dropping it gives it on.
pub struct Turn {
    turns: Arc<Turns>,
    /// `None` when it was given on already.
    tenant: Option<Tenant>,
}

impl Turns {
    /// So many turns.
    #[must_use]
    pub fn new(running_max: usize) -> Arc<Self> {
        Arc::new(Self { running_max: running_max.max(1), state: Mutex::default() })
    }

    /// Turns that one tenant may hold.
    fn tenant_max(&self) -> usize {
        (self.running_max * 3 / 4).max(1)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic happens under this lock")
    }

    /// Reads that run, and reads that wait.
    #[cfg(test)]
    fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.running, state.waiting)
    }

    /// Waits for a turn. Dropping the future leaves the line.
    ///
    /// # Errors
    /// 503 where too many wait: `share_exceeded` for a tenant whose own reads are too many, else `pressure`.
    pub async fn take(self: &Arc<Self>, tenant: &Tenant) -> Result<Turn, Refusal> {
        let receiver = {
            let mut state = self.state();
            let State { running, waiting, tenants } = &mut *state;
            // Whoever left the line is still counted until here: a line is short.
            if let Some(line) = tenants.get_mut(tenant) {
                let before = line.waiting.len();
                line.waiting.retain(|sender| !sender.is_closed());
                *waiting -= before - line.waiting.len();
            }
            let own = tenants.get(tenant).map_or(0, |line| line.running);
            if *running < self.running_max && own < self.tenant_max() {
                *running += 1;
                tenants.entry(tenant.clone()).or_default().running += 1;
                return Ok(Turn { turns: Arc::clone(self), tenant: Some(tenant.clone()) });
            }
            if tenants.get(tenant).map_or(0, |line| line.waiting.len()) >= TENANT_WAITING_MAX {
                return Err(Refusal::new(
                    503,
                    "share_exceeded",
                    format!(
                        "{TENANT_WAITING_MAX} reads of this tenant wait already; try again when some have ended"
                    ),
                ));
            }
            if *waiting >= WAITING_MAX {
                return Err(Refusal::new(
                    503,
                    "pressure",
                    format!("{WAITING_MAX} reads wait already; try again in a moment"),
                ));
            }
            let (sender, receiver) = oneshot::channel();
            *waiting += 1;
            tenants.entry(tenant.clone()).or_default().waiting.push_back(sender);
            receiver
        };
        receiver.await.map_err(|_| Refusal::bug())
    }

    /// Gives turns to who waits, as long as there are both.
    fn give_on(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            if state.running >= self.running_max {
                return;
            }
            let tenant_max = self.tenant_max();
            let next = state
                .tenants
                .iter()
                .filter(|(_, line)| !line.waiting.is_empty() && line.running < tenant_max)
                .min_by_key(|(_, line)| line.running)
                .map(|(tenant, _)| tenant.clone());
            let Some(tenant) = next else { return };
            let line = state.tenants.get_mut(&tenant).expect("it was just found");
            let sender = line.waiting.pop_front().expect("somebody waits");
            line.running += 1;
            state.running += 1;
            state.waiting -= 1;
            drop(state);
            // Who has left the line gives the turn back by dropping it, not under the lock.
            let turn = Turn { turns: Arc::clone(self), tenant: Some(tenant.clone()) };
            if let Err(mut unused) = sender.send(turn) {
                unused.tenant = None;
                self.give_back(&tenant);
            }
        }
    }

    fn give_back(&self, tenant: &Tenant) {
        let mut state = self.state();
        state.running -= 1;
        if let Some(line) = state.tenants.get_mut(tenant) {
            line.running -= 1;
            if line.running == 0 && line.waiting.is_empty() {
                state.tenants.remove(tenant);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(tenant) = self.tenant.take() {
            self.turns.give_back(&tenant);
            self.turns.give_on();
        }
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("running_max", &self.running_max).finish_non_exhaustive()
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use storage::record::Tenant;

    use super::Turns;

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    /// X2: a tenant that fills its turns and its line leaves a turn for the next tenant, and is the one refused.
    #[tokio::test]
    async fn one_tenant_never_holds_every_turn() {
        let turns = Turns::new(4);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(turns.take(&tenant("heavy")).await.unwrap());
        }
        let wait = || {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move { turns.take(&tenant("heavy")).await })
        };
        let waiting: Vec<_> = (0..32).map(|_| wait()).collect();
        while turns.counts().1 < 32 {
            tokio::task::yield_now().await;
        }
        let refused = turns.take(&tenant("heavy")).now_or_never().expect("it does not wait").unwrap_err();
        assert_eq!((refused.status, refused.code), (503, "share_exceeded"));
        let light = turns.take(&tenant("light")).await.unwrap();
        assert_eq!(turns.counts().0, 4);
        drop((light, held));
        for one in waiting {
            drop(one.await.unwrap().unwrap());
        }
        assert_eq!(turns.counts(), (0, 0));
        assert!(turns.state().tenants.is_empty(), "nothing is remembered of who has left");
    }

    /// X2: a turn that comes free goes to the tenant that runs the fewest, not to the longest line.
    #[tokio::test]
    async fn a_free_turn_goes_to_who_runs_the_fewest() {
        let turns = Turns::new(2);
        let first = turns.take(&tenant("heavy")).await.unwrap();
        let second = turns.take(&tenant("other")).await.unwrap();
        let wait = |name: &'static str| {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move { turns.take(&tenant(name)).await.unwrap() })
        };
        let heavy: Vec<_> = (0..5).map(|_| wait("heavy")).collect();
        while turns.counts().1 < 5 {
            tokio::task::yield_now().await;
        }
        let light = wait("light");
        while turns.counts().1 < 6 {
            tokio::task::yield_now().await;
        }
        drop(second);
        drop(light.await.unwrap());
        drop(first);
        for one in heavy {
            drop(one.await.unwrap());
        }
        assert_eq!(turns.counts(), (0, 0));
    }

    /// B1: the line of all tenants ends, and who leaves it does not count.
    #[tokio::test]
    async fn the_line_of_all_tenants_is_bounded() {
        let turns = Turns::new(1);
        let held = turns.take(&tenant("t0")).await.unwrap();
        let waiting: Vec<_> = (0..256)
            .map(|at| {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move { turns.take(&tenant(&format!("t{}", at % 100))).await })
            })
            .collect();
        while turns.counts().1 < 256 {
            tokio::task::yield_now().await;
        }
        let refused = turns.take(&tenant("new")).now_or_never().expect("it does not wait").unwrap_err();
        assert_eq!((refused.status, refused.code), (503, "pressure"));
        for one in &waiting {
            one.abort();
        }
        for one in waiting {
            let _ = one.await;
        }
        drop(held);
        assert_eq!(turns.counts(), (0, 0));
        drop(turns.take(&tenant("new")).await.unwrap());
    }
}
