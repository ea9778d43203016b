//! An operator at work while clients send: flushes, retention, holds, sweeps, and a clock that jumps.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock;
use super::oracle::Ledger;
use super::random::Random;
use crate::deployment::{Shared, Storage};
use crate::expire;
use crate::keeper;
use crate::policies::{Rules, cutoff_ns};
use crate::record::TableId;
use crate::sweep;

/// The monotonic clock of the world.
pub fn monotonic() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Acts at random until it is stopped.
///
/// # Panics
/// When a retention run says something that cannot be.
pub async fn operate(
    storage: Arc<Storage>,
    mut random: Random,
    tables: Vec<TableId>,
    ledger: Rc<RefCell<Ledger>>,
) {
    let shared = storage.shared();
    let mut held: HashSet<TableId> = HashSet::new();
    let days = 1 + u32::try_from(random.below(2)).expect("one or two");
    loop {
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        let at = usize::try_from(random.below(tables.len() as u64)).expect("a small index");
        let table = &tables[at];
        match random.below(10) {
            0 => drop(keeper::flush(&shared).await),
            1 => drop(held.insert(table.clone())),
            2 | 3 => drop(held.remove(table)),
            4 => {
                // F27: years ahead, and back again. Nothing is believed of such a clock.
                let years = 10 * 365 * 86_400_000_000_000;
                clock::jump(years);
                expire(&shared, table, days, &ledger, &held).await;
                sweep::run::sweep(&shared, None, monotonic()).await;
                clock::jump(-years);
            }
            5 | 6 => expire(&shared, table, days, &ledger, &held).await,
            _ => drop(sweep::run::sweep(&shared, None, monotonic()).await),
        }
        let retention_days: HashMap<TableId, u32> =
            tables.iter().map(|table| (table.clone(), days)).collect();
        shared.policies.replace(Rules { retention_days, held: held.clone(), ..Rules::default() });
    }
}

async fn expire(
    shared: &Shared,
    table: &TableId,
    days: u32,
    ledger: &Rc<RefCell<Ledger>>,
    held: &HashSet<TableId>,
) {
    let cutoff = cutoff_ns(days, clock::now());
    let is_believed = shared.clock.agrees(clock::now(), monotonic());
    let acknowledged: BTreeSet<String> = {
        let mut ledger = ledger.borrow_mut();
        if is_believed && !held.contains(table) {
            let earlier = ledger.cutoffs.entry(table.clone()).or_insert(i64::MIN);
            // The run takes its own look at the clock, a moment later.
            *earlier = (*earlier).max(cutoff + 60_000_000_000);
        }
        let tried = ledger.tried.get(table);
        let is_old = |id: &&String| tried.is_some_and(|tried| tried[*id] < cutoff);
        let acknowledged = ledger.acknowledged.get(table);
        acknowledged.map(|rows| rows.iter().filter(is_old).cloned().collect()).unwrap_or_default()
    };
    // Refused, or the store failed: nothing is known to be gone.
    if let Ok(Ok(expiry)) = expire::run::by_name(shared, table, false, monotonic()).await {
        assert!(is_believed && !held.contains(table), "{table} was expired against clock or hold");
        assert!(expiry.files == 0 || expiry.report.is_some(), "{table} was expired without a report");
        ledger.borrow_mut().gone.extend(acknowledged);
    }
}
