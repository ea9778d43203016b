//! One request while it is worked on: its turn on the lane, and what it holds of the memory budget.
//!
//! Every allocation by what a client sent is charged before the next slice may make it: inflated text and the
//! frame to the pool of bodies at work, rows to that of hot rows, which is where they go. Rows that would not fit
//! there are refused before they are complete, not after.

use std::rc::Rc;
use std::sync::Arc;

use storage::memory::{Charge, Memory, Pool, Short};
use storage::record::Tenant;

use super::turns::{Turn, Turns};
use crate::decode::Refused;

/// Bytes by which a charge grows, and that a slice may take before it is charged again. Chosen: one look at a
/// shared counter for a quarter of a megabyte, none for an event.
pub(super) const CHARGE_STEP_BYTES: usize = 256 << 10;

/// What one request has of its lane and of the budget.
#[derive(Debug)]
pub struct Work {
    turn: Option<Turn>,
    budget: Option<Budget>,
}

#[derive(Debug)]
struct Budget {
    text: Charge,
    rows: Charge,
}

impl Work {
    /// Waits for the request's turn. It holds nothing yet.
    pub(super) async fn begin(turns: &Rc<Turns>, memory: &Arc<Memory>, tenant: &Tenant) -> Self {
        let turn = turns.enter(tenant).await;
        let empty = |pool| memory.count(pool, Some(tenant), 0);
        Self { turn: Some(turn), budget: Some(Budget { text: empty(Pool::Decode), rows: empty(Pool::Hot) }) }
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

    /// Charges `bytes` of inflated text, or of the frame that takes its place.
    ///
    /// # Errors
    /// As [`refused`].
    pub(crate) fn hold_text(&mut self, bytes: usize) -> Result<(), Refused> {
        self.budget.as_mut().map_or(Ok(()), |budget| hold(&mut budget.text, bytes))
    }

    /// Charges `bytes` of rows, and what the next slice may add to them.
    ///
    /// # Errors
    /// As [`refused`].
    pub(crate) fn hold_rows(&mut self, bytes: usize) -> Result<(), Refused> {
        self.budget.as_mut().map_or(Ok(()), |budget| hold(&mut budget.rows, bytes + CHARGE_STEP_BYTES))
    }

    /// The inflated text is gone.
    pub(super) fn free_text(&mut self) {
        if let Some(budget) = &mut self.budget {
            budget.text.shrink_to(0);
        }
    }

    /// Ends the work: the lane is the next request's, and the rows are charged by whoever takes them. What is given
    /// back is the charge for the frame, to be held until the log has it.
    pub(super) fn end(self) -> Option<Charge> {
        self.budget.map(|budget| budget.text)
    }
}

fn hold(charge: &mut Charge, bytes: usize) -> Result<(), Refused> {
    let (bytes, step) = (bytes as u64, CHARGE_STEP_BYTES as u64);
    if bytes <= charge.bytes() {
        return Ok(());
    }
    charge.grow((bytes - charge.bytes()).next_multiple_of(step)).map_err(refused)
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
