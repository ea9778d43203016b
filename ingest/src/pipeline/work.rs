//! One request while it is worked on: its turn on the lane, and what it holds of the memory budget.
//!
//! Every allocation by what a client sent is charged before the next slice may make it: inflated text to the pool of
//! bodies at work, rows to that of hot rows, which is where they go. Rows that would not fit
//! there are refused before they are complete, not after. Where the memory for rows is short the body waits a while
//! first: sealing makes room, and its sender is slowed down rather than refused.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use storage::memory::{Charge, Memory, Pool, Short};
use storage::record::Tenant;

use super::turns::{Turn, Turns};
use crate::decode::Refused;

/// Bytes by which a charge grows, and that a slice may take before it is charged again. Chosen: one look at a
/// shared counter for a quarter of a megabyte, none for an event.
pub(super) const CHARGE_STEP_BYTES: usize = 256 << 10;

/// How long a request waits for memory, all its waits together, before it is refused. Chosen: longer than a seal
/// under full load takes, shorter than a client's patience.
pub(super) const PACE_MAX: Duration = Duration::from_secs(4);

/// How often a request that waits looks whether there is memory.
pub(super) const PACE_STEP: Duration = Duration::from_millis(10);

/// What one request has of its lane and of the budget.
#[derive(Debug)]
pub struct Work {
    turn: Option<Turn>,
    budget: Option<Budget>,
}

#[derive(Debug)]
struct Budget {
    memory: Arc<Memory>,
    tenant: Tenant,
    text: Charge,
    rows: Charge,
    /// How long the request has waited for memory.
    paced: Duration,
}

impl Work {
    /// Waits for the request's turn. It holds nothing yet.
    pub(super) async fn begin(turns: &Rc<Turns>, memory: &Arc<Memory>, tenant: &Tenant) -> Self {
        let turn = turns.enter(tenant).await;
        let empty = |pool| memory.count(pool, Some(tenant), 0);
        let (text, rows) = (empty(Pool::Decode), empty(Pool::Hot));
        let budget =
            Budget { memory: Arc::clone(memory), tenant: tenant.clone(), text, rows, paced: Duration::ZERO };
        Self { turn: Some(turn), budget: Some(budget) }
    }

    /// Work that is neither charged nor waits.
    #[cfg(test)]
    pub(super) fn unbounded() -> Self {
        Self { turn: None, budget: None }
    }

    /// Ends a slice: others get their turn.
    pub(crate) async fn pass(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.pass().await;
        }
    }

    /// Charges `bytes` of inflated text.
    ///
    /// # Errors
    /// As [`refused`].
    pub(crate) fn hold_text(&mut self, bytes: usize) -> Result<(), Refused> {
        let Some(budget) = &mut self.budget else { return Ok(()) };
        let missing = missing(&budget.text, bytes);
        hold(&mut budget.text, missing)
    }

    /// Charges `bytes` of rows, and what the next slice may add to them; waits a while where there is no room, and
    /// leaves the lane to others meanwhile.
    ///
    /// # Errors
    /// As [`refused`].
    pub(crate) async fn hold_rows(&mut self, bytes: usize) -> Result<(), Refused> {
        let (Some(budget), Some(turn)) = (&mut self.budget, &mut self.turn) else { return Ok(()) };
        let missing = missing(&budget.rows, bytes + CHARGE_STEP_BYTES);
        let is_short = |budget: &Budget| {
            let short = budget.memory.refusal(Pool::Hot, &budget.tenant, missing);
            matches!(short, Some(Short::Share | Short::Whole))
                && budget.rows.bytes() + missing <= budget.memory.alone_max(Pool::Hot)
        };
        while missing > 0 && budget.paced < PACE_MAX && is_short(budget) {
            turn.pause(PACE_STEP).await;
            budget.paced += PACE_STEP;
        }
        hold(&mut budget.rows, missing)
    }

    /// The inflated text is gone.
    pub(super) fn free_text(&mut self) {
        if let Some(budget) = &mut self.budget {
            budget.text.shrink_to(0);
        }
    }
}

/// What a charge lacks to `bytes`, in whole steps.
fn missing(charge: &Charge, bytes: usize) -> u64 {
    (bytes as u64).saturating_sub(charge.bytes()).next_multiple_of(CHARGE_STEP_BYTES as u64)
}

fn hold(charge: &mut Charge, missing: u64) -> Result<(), Refused> {
    if missing == 0 { Ok(()) } else { charge.grow(missing).map_err(refused) }
}

/// What a budget that does not lend means to the sender.
fn refused(short: Short) -> Refused {
    match short {
        Short::Never { alone_max } => Refused::too_large(
            "body_too_large",
            format!(
                "the body takes more memory than one tenant may hold, {alone_max} bytes: send it in parts"
            ),
        ),
        Short::Share => Refused::busy(
            "share_exceeded",
            "this tenant holds its share of the memory for bodies and unsealed rows: send less at once",
        ),
        Short::Whole => Refused::busy("pressure", "a memory budget is full"),
    }
}
