//! What a test planted on its own thread: one world a thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::faults::Bug;

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The step fails.
    Error,
    /// The code panics.
    Panic,
    /// The step takes this long; where nothing can wait, it is only counted.
    Delay(Duration),
    /// The power goes off; nothing has any effect after.
    Kill,
}

#[derive(Default)]
struct Planted {
    bug: Option<Bug>,
    /// Step, how many times it is passed before, what happens then.
    fault: Option<(&'static str, u64, Action)>,
    kill: Option<Rc<dyn Fn()>>,
    passed: BTreeMap<&'static str, u64>,
}

thread_local! {
    static PLANTED: RefCell<Planted> = RefCell::default();
}

/// Plants a bug on this thread.
pub fn plant(bug: Option<Bug>) {
    PLANTED.with_borrow_mut(|planted| planted.bug = bug);
}

/// Arms one fault on this thread; `kill` takes the power away. Steps are counted from here on.
pub fn arm(fault: Option<(&'static str, u64, Action)>, kill: Rc<dyn Fn()>) {
    PLANTED.with_borrow_mut(|planted| {
        planted.fault = fault;
        planted.kill = Some(kill);
    });
}

/// How often each step was passed on this thread since the last call.
pub fn take_passed() -> BTreeMap<&'static str, u64> {
    PLANTED.with_borrow_mut(|planted| std::mem::take(&mut planted.passed))
}

pub fn has(bug: Bug) -> bool {
    PLANTED.with_borrow(|planted| planted.bug == Some(bug))
}

fn due(step: &'static str) -> Option<Action> {
    PLANTED.with_borrow_mut(|planted| {
        *planted.passed.entry(step).or_default() += 1;
        match &mut planted.fault {
            Some((at, 0, action)) if *at == step => {
                let action = *action;
                planted.fault = None;
                Some(action)
            }
            Some((at, left, _)) if *at == step => {
                *left -= 1;
                None
            }
            _ => None,
        }
    })
}

fn power_off() {
    let kill = PLANTED.with_borrow(|planted| planted.kill.clone());
    if let Some(kill) = kill {
        kill();
    }
}

fn injected(step: &str) -> Error {
    Error::new(Kind::Unavailable, format!("injected at {step}"))
}

pub fn at(step: &'static str) -> Result<()> {
    match due(step) {
        None | Some(Action::Delay(_)) => Ok(()),
        Some(Action::Error) => Err(injected(step)),
        Some(Action::Panic) => panic!("injected at {step}"),
        Some(Action::Kill) => {
            power_off();
            Err(injected(step))
        }
    }
}

pub async fn reach(step: &'static str) -> Result<()> {
    match due(step) {
        Some(Action::Delay(time)) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Some(Action::Kill) => {
            power_off();
            std::future::pending().await
        }
        Some(Action::Error) => Err(injected(step)),
        Some(Action::Panic) => panic!("injected at {step}"),
        None => Ok(()),
    }
}
