//! Jobs: work beside requests, one at a time on a thread of its own, with a history that survives a restart.
//!
//! A job is kept before it is answered or begun (`record`), runs (`run`), and is kept again as it ended. What is
//! due by itself is in `schedule`. A job that the process did not live to end is told as failed at the next start:
//! each of them can be run again.

mod queue;
mod record;
mod run;
mod schedule;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use storage::record::{Dataset, Tenant};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::state::{self, store::Store};

use queue::{Full, QUEUED_MAX, QUEUED_PER_TENANT_MAX, Queue};
pub use record::{JobRecord, Kind, Status};
pub use run::start;
pub use schedule::{Settings, minutes_of_day};

/// Jobs that are remembered, of all tenants. Past it, who has most loses its oldest.
const KEPT_MAX: usize = 1_000;

/// Jobs of one tenant that are remembered; those for all tenants count as one's.
const KEPT_PER_TENANT_MAX: usize = 50;

/// Who asks for what is due by itself.
const SCHEDULE: &str = "schedule";

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What.
    pub kind: Kind,
    /// Whose tables; `None` = all.
    pub scope: Option<Tenant>,
    /// Which of their datasets, where a retention run is asked for by its name.
    pub dataset: Option<Dataset>,
    /// Whether it only tells what would go.
    pub is_dry: bool,
    /// Public id of the key that asked, or `schedule`.
    pub asked_by: String,
}

/// A job on its way to the thread that runs it.
#[derive(Debug)]
pub struct Queued {
    record: JobRecord,
    wish: Wish,
    /// Told when it ended, if anybody still waits.
    done: oneshot::Sender<JobRecord>,
}

/// Every job that is remembered.
pub struct Jobs {
    store: Arc<Store>,
    records: Mutex<BTreeMap<String, JobRecord>>,
    queue: Arc<Queue<Queued>>,
}

impl Jobs {
    /// Reads the history, and closes what the last process did not live to end.
    ///
    /// # Errors
    /// As for reading any state.
    pub async fn load(store: Arc<Store>) -> Result<Arc<Self>, state::Error> {
        let mut records: BTreeMap<String, JobRecord> = BTreeMap::new();
        // A job that another version knew, or that does not prove, gives no right: no reason not to start.
        let (found, forged) = store.proven::<JobRecord>("jobs").await?;
        for object in forged {
            tracing::error!(object, "a job has no proof that this deployment wrote it: it is left alone");
        }
        for (_, mut record) in found.known {
            if !record.has_ended() {
                record.fail("interrupted", "the process stopped before it ended: run it again");
                record.ended_ns = Some(Clock::now_ns());
                store.replace(&format!("jobs/{}", record.id), &record).await?;
            }
            records.insert(record.id.clone(), record);
        }
        Ok(Arc::new(Self { store, records: Mutex::new(records), queue: Queue::new() }))
    }

    fn records(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, JobRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The jobs of a tenant, or all; newest first.
    pub fn list(&self, tenant: Option<&Tenant>) -> Vec<JobRecord> {
        let is_asked = |record: &&JobRecord| {
            tenant.is_none_or(|tenant| record.tenant.as_deref() == Some(tenant.as_str()))
        };
        self.records().values().rev().filter(is_asked).cloned().collect()
    }

    /// When the last job of that kind was asked for by the schedule, nanoseconds since 1970 UTC.
    fn last_scheduled(&self, kind: Kind) -> Option<i64> {
        let records = self.records();
        let mut newest_first = records.values().rev();
        newest_first.find(|one| one.kind == kind && one.asked_by == SCHEDULE).map(|one| one.created_ns)
    }

    /// Puts a job into the queue; the second is told when it ended.
    ///
    /// # Errors
    /// [`state::Error::Full`] while too many of the tenant, or of all, wait; [`state::Error::Unavailable`]: nothing was
    /// begun.
    pub async fn ask(&self, wish: Wish) -> Result<(JobRecord, oneshot::Receiver<JobRecord>), state::Error> {
        let whose = wish.scope.as_ref().map(|tenant| tenant.as_str().to_owned());
        let place = self.queue.reserve(whose).map_err(|full| match full {
            Full::Share => state::Error::Full("queued jobs of one tenant", QUEUED_PER_TENANT_MAX),
            Full::Whole => state::Error::Full("queued jobs", QUEUED_MAX),
        })?;
        let record = JobRecord::new(&wish, Clock::now_ns());
        self.keep(&record).await?;
        let (done, ended) = oneshot::channel();
        place.send(Queued { record: record.clone(), wish, done });
        Ok((record, ended))
    }

    /// Keeps a job as it is now, and forgets the oldest past the bounds.
    async fn keep(&self, record: &JobRecord) -> Result<(), state::Error> {
        self.store.replace(&format!("jobs/{}", record.id), record).await?;
        let forgotten = {
            let mut records = self.records();
            records.insert(record.id.clone(), record.clone());
            let forgotten = past_bounds(&records, KEPT_PER_TENANT_MAX, KEPT_MAX);
            forgotten.iter().for_each(|id| drop(records.remove(id)));
            forgotten
        };
        for id in forgotten {
            if let Err(error) = self.store.delete(&format!("jobs/{id}")).await {
                tracing::warn!(job_id = id, %error, "an old job stays in the store until the next start");
            }
        }
        Ok(())
    }
}

/// Jobs to forget: those that ended, the oldest first, of tenants with more than `each_max`, then of whoever has most
/// while there are more than `all_max`. One tenant's jobs never push another's few out (X2).
fn past_bounds(records: &BTreeMap<String, JobRecord>, each_max: usize, all_max: usize) -> Vec<String> {
    struct Of<'a> {
        count: usize,
        ended: Vec<&'a str>,
    }
    let mut tenants: BTreeMap<Option<&str>, Of<'_>> = BTreeMap::new();
    for record in records.values().rev() {
        let of =
            tenants.entry(record.tenant.as_deref()).or_insert_with(|| Of { count: 0, ended: Vec::new() });
        of.count += 1;
        if record.has_ended() {
            of.ended.push(&record.id);
        }
    }
    let mut all = records.len();
    let mut forgotten = Vec::new();
    for of in tenants.values_mut() {
        while of.count > each_max
            && let Some(oldest) = of.ended.pop()
        {
            forgotten.push(oldest.to_owned());
            of.count -= 1;
            all -= 1;
        }
    }
    while all > all_max {
        let most = tenants.values_mut().filter(|of| !of.ended.is_empty()).max_by_key(|of| of.count);
        let Some(of) = most else { break };
        let Some(oldest) = of.ended.pop() else { break };
        forgotten.push(oldest.to_owned());
        of.count -= 1;
        all -= 1;
    }
    forgotten
}

#[cfg(test)]
mod tests;
