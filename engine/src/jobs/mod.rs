//! Jobs: work beside requests, one at a time on a thread of its own, with a history that survives a restart.
//!
//! A job is kept before it is answered or begun (`record`), runs (`run`), and is kept again as it ended. What is
//! due by itself is in `schedule`. A job that the process did not live to end is told as failed at the next start:
//! each of them can be run again.

mod record;
mod run;
mod schedule;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use storage::record::{Dataset, Tenant};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::state::{self, store::Store};

pub use record::{JobRecord, Kind, Status};
pub use run::start;
pub use schedule::{Settings, minutes_of_day};

/// Jobs that are remembered, of all tenants.
const KEPT_MAX: usize = 200;

/// Jobs that wait at once; more are refused.
const QUEUED_MAX: usize = 16;

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
    queue: mpsc::Sender<Queued>,
}

impl Jobs {
    /// Reads the history, and closes what the last process did not live to end.
    ///
    /// # Errors
    /// As for reading any state.
    pub async fn load(store: Arc<Store>) -> Result<(Arc<Self>, mpsc::Receiver<Queued>), state::Error> {
        let (queue, queued) = mpsc::channel(QUEUED_MAX);
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
        Ok((Arc::new(Self { store, records: Mutex::new(records), queue }), queued))
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
    /// [`state::Error::Full`] while too many wait; [`state::Error::Unavailable`]: nothing was begun.
    pub async fn ask(&self, wish: Wish) -> Result<(JobRecord, oneshot::Receiver<JobRecord>), state::Error> {
        let Ok(place) = self.queue.try_reserve() else {
            return Err(state::Error::Full("queued jobs", QUEUED_MAX));
        };
        let record = JobRecord::new(&wish, Clock::now_ns());
        self.keep(&record).await?;
        let (done, ended) = oneshot::channel();
        place.send(Queued { record: record.clone(), wish, done });
        Ok((record, ended))
    }

    /// Keeps a job as it is now, and forgets the oldest past the bound.
    async fn keep(&self, record: &JobRecord) -> Result<(), state::Error> {
        self.store.replace(&format!("jobs/{}", record.id), record).await?;
        let forgotten: Vec<String> = {
            let mut records = self.records();
            records.insert(record.id.clone(), record.clone());
            let excess = records.len().saturating_sub(KEPT_MAX);
            let ended: Vec<String> =
                records.values().filter(|one| one.has_ended()).map(|one| one.id.clone()).collect();
            let forgotten = ended.into_iter().take(excess);
            forgotten.inspect(|id| drop(records.remove(id))).collect()
        };
        for id in forgotten {
            if let Err(error) = self.store.delete(&format!("jobs/{id}")).await {
                tracing::warn!(job_id = id, %error, "an old job stays in the store until the next start");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
