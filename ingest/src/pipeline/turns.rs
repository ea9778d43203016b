//! Whose work a lane does next: turns go round the tenants that have a body there, a slice of work at a time (X2).
//!
//! ```text
//!   enter ── a slice ── pass ── a slice ── pass ── … ── dropped
//!              └ holds the turn      └ the other sockets are looked at, then the turn is the next tenant's
//! ```
//! One request holds the turn. Where nobody else waits, passing it costs one look at the sockets and no more. A
//! tenant that sends a hundred large bodies gets a slice, then every other tenant that waits gets one: a small
//! request waits for one slice of each tenant, not for the bodies before it. Stays on its lane's thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use storage::record::Tenant;

/// Bodies of one tenant that a lane has begun and not ended. Chosen: one large body does not hold up that tenant's
/// small ones, and what begun bodies hold in memory stays small.
pub(super) const TENANT_BODIES_MAX: usize = 4;

/// Bodies of all tenants that a lane has begun and not ended. Chosen: eight tenants' worth.
pub(super) const BODIES_MAX: usize = 32;

/// Looks at the lane's other tasks between two slices. Chosen: what came for another request goes as far as it can
/// without this lane's turn: its chunk into a group, the group to its log, the answer of the log to its client. One look
/// is one step of these, and each that came too late would wait for a slice.
pub(super) const LOOKS: usize = 3;

/// A lane's turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    /// Who works now.
    holder: Option<u64>,
    begun: usize,
    /// The tenants that have a body here, the next one first.
    tenants: VecDeque<Line>,
}

/// One tenant's bodies.
#[derive(Debug)]
struct Line {
    tenant: Tenant,
    begun: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    has_begun: bool,
    waker: Option<Waker>,
}

/// A request's right to work on its lane; dropping it is the end of its work.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Rc<Turns>,
    tenant: Tenant,
    id: u64,
    has_begun: bool,
}

impl Turns {
    /// Waits until it is the request's turn.
    pub(super) async fn enter(self: &Rc<Self>, tenant: &Tenant) -> Turn {
        let id = {
            let mut state = self.state.borrow_mut();
            state.last_id += 1;
            state.last_id
        };
        let mut turn = Turn { turns: Rc::clone(self), tenant: tenant.clone(), id, has_begun: false };
        turn.wait().await;
        turn
    }

    /// Bodies that are begun and not ended.
    #[cfg(test)]
    pub(super) fn begun(&self) -> usize {
        self.state.borrow().begun
    }
}

impl Turn {
    /// Ends a slice: the lane looks at its sockets, and the next tenant that waits works before this goes on.
    pub(super) async fn pass(&mut self) {
        // Nobody else begins meanwhile, but who has arrived is in line afterwards.
        for _ in 0..LOOKS {
            tokio::task::yield_now().await;
        }
        if self.turns.state.borrow().is_anybody_waiting() {
            self.wait().await;
        }
    }

    /// Leaves the turn to others for a while, and waits for it again.
    pub(super) async fn pause(&mut self, pause: Duration) {
        {
            let mut state = self.turns.state.borrow_mut();
            if state.holder == Some(self.id) {
                state.holder = None;
            }
            state.grant();
        }
        tokio::time::sleep(pause).await;
        self.wait().await;
    }

    /// Joins the line of its tenant and waits until it holds the turn.
    async fn wait(&mut self) {
        {
            let mut state = self.turns.state.borrow_mut();
            let waiting = Waiting { id: self.id, has_begun: self.has_begun, waker: None };
            state.line(&self.tenant).waiting.push_back(waiting);
            if state.holder == Some(self.id) {
                state.holder = None;
            }
            state.grant();
        }
        let (turns, id) = (Rc::clone(&self.turns), self.id);
        poll_fn(move |cx| {
            let mut state = turns.state.borrow_mut();
            if state.holder == Some(id) {
                return Poll::Ready(());
            }
            state.waiting(id).waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.has_begun = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state.borrow_mut();
        let was_granted = state.holder == Some(self.id);
        if was_granted {
            state.holder = None;
        }
        let line = state.line(&self.tenant);
        line.waiting.retain(|waiting| waiting.id != self.id);
        if self.has_begun || was_granted {
            line.begun -= 1;
            state.begun -= 1;
        }
        state.tenants.retain(|line| line.begun > 0 || !line.waiting.is_empty());
        state.grant();
    }
}

impl State {
    fn line(&mut self, tenant: &Tenant) -> &mut Line {
        let at = match self.tenants.iter().position(|line| line.tenant == *tenant) {
            Some(at) => at,
            None => {
                let line = Line { tenant: tenant.clone(), begun: 0, waiting: VecDeque::new() };
                self.tenants.push_back(line);
                self.tenants.len() - 1
            }
        };
        self.tenants.get_mut(at).expect("it was found there, or put there")
    }

    fn waiting(&mut self, id: u64) -> &mut Waiting {
        let mut all = self.tenants.iter_mut().flat_map(|line| &mut line.waiting);
        all.find(|waiting| waiting.id == id).expect("who waits is in line")
    }

    fn is_anybody_waiting(&self) -> bool {
        self.tenants.iter().any(|line| !line.waiting.is_empty())
    }

    /// Gives a free turn to the next tenant's first body that may go on, or begin.
    fn grant(&mut self) {
        if self.holder.is_some() {
            return;
        }
        let may_begin = self.begun < BODIES_MAX;
        for at in 0..self.tenants.len() {
            let Some(line) = self.tenants.get_mut(at) else { return };
            let may_begin = may_begin && line.begun < TENANT_BODIES_MAX;
            let Some(first) = line.waiting.iter().position(|waiting| waiting.has_begun || may_begin) else {
                continue;
            };
            let next = line.waiting.remove(first).expect("it was found there");
            if !next.has_begun {
                line.begun += 1;
                self.begun += 1;
            }
            self.holder = Some(next.id);
            // Behind every other tenant from here on.
            let line = self.tenants.remove(at).expect("it was found there");
            self.tenants.push_back(line);
            if let Some(waker) = next.waker {
                waker.wake();
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use storage::record::Tenant;

    use super::Turns;

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).expect("a good id")
    }

    fn run(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, test());
    }

    /// X2: a body's slices, named, in the order in which they were worked on.
    async fn order(bodies: &[(&str, &'static str, usize)]) -> Vec<&'static str> {
        let (turns, log) = (Rc::new(Turns::default()), Rc::new(RefCell::new(Vec::new())));
        let first = turns.enter(&tenant("other")).await;
        let tasks: Vec<_> = bodies
            .iter()
            .map(|(name, label, slices)| {
                let (turns, log, tenant) = (Rc::clone(&turns), Rc::clone(&log), tenant(name));
                let (label, slices) = (*label, *slices);
                tokio::task::spawn_local(async move {
                    let mut turn = turns.enter(&tenant).await;
                    for slice in 0..slices {
                        if slice > 0 {
                            turn.pass().await;
                        }
                        log.borrow_mut().push(label);
                    }
                })
            })
            .collect();
        // Everybody is in line before anybody works.
        tokio::task::yield_now().await;
        drop(first);
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(turns.begun(), 0);
        Rc::into_inner(log).expect("the tasks are done").into_inner()
    }

    #[test]
    fn a_small_body_waits_for_one_slice_of_a_heavy_tenant() {
        run(async || {
            let mut bodies = vec![("heavy", "h", 10); 50];
            bodies.push(("small", "s", 1));
            let order = order(&bodies).await;
            assert_eq!(order.len(), 501);
            assert!(order.iter().position(|label| *label == "s").expect("it ran") <= 2, "{:?}", &order[..9]);
        });
    }

    #[test]
    fn tenants_take_turns_and_one_alone_is_not_held_up() {
        run(async || {
            let taken = order(&[("a", "a", 3), ("b", "b", 3)]).await;
            assert_eq!(taken, ["a", "b", "a", "b", "a", "b"]);
            assert_eq!(order(&[("a", "a", 3)]).await, ["a"; 3]);
        });
    }

    /// B1: bodies that are begun hold memory, so how many may be is bounded, a tenant's and all.
    #[test]
    fn begun_bodies_are_bounded() {
        run(async || {
            let turns = Rc::new(Turns::default());
            let most = Rc::new(RefCell::new((0, 0)));
            let body = |name: String| {
                let (turns, most) = (Rc::clone(&turns), Rc::clone(&most));
                tokio::task::spawn_local(async move {
                    let mut turn = turns.enter(&tenant(&name)).await;
                    for _ in 0..200 {
                        turn.pass().await;
                        let begun = turns.begun();
                        let own = turns.state.borrow_mut().line(&tenant(&name)).begun;
                        let mut most = most.borrow_mut();
                        *most = (most.0.max(begun), most.1.max(own));
                    }
                })
            };
            let tasks: Vec<_> = (0..200).map(|at| body(format!("t{}", at % 20))).collect();
            for task in tasks {
                task.await.expect("no panic");
            }
            assert_eq!(*most.borrow(), (32, 4));
        });
    }

    /// A client that leaves while its request waits, or works, takes no turn with it.
    #[test]
    fn who_leaves_gives_the_turn_back() {
        run(async || {
            let turns = Rc::new(Turns::default());
            for leaves_at in 0..4 {
                let (turns, entered) = (Rc::clone(&turns), Rc::new(RefCell::new(false)));
                let first = turns.enter(&tenant("a")).await;
                let task = {
                    let (turns, entered) = (Rc::clone(&turns), Rc::clone(&entered));
                    tokio::task::spawn_local(async move {
                        let mut turn = turns.enter(&tenant("b")).await;
                        *entered.borrow_mut() = true;
                        loop {
                            turn.pass().await;
                        }
                    })
                };
                if leaves_at > 0 {
                    tokio::task::yield_now().await;
                }
                drop(first);
                for _ in 1..leaves_at {
                    tokio::task::yield_now().await;
                }
                task.abort();
                let _ = task.await;
                assert_eq!(*entered.borrow(), leaves_at > 1, "{leaves_at}");
                let _last = turns.enter(&tenant("c")).await;
            }
            assert_eq!(turns.begun(), 0);
        });
    }
}
