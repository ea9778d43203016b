//! The thread that runs jobs: those that were asked for, and those that are due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use storage::record::TableId;
use storage::{Ended, ErrorKind, Expiry, Refused, Storage, cores};

use super::schedule::{Settings, day_of, minutes_of_day};
use super::{JobRecord, Jobs, Kind, Queued, SCHEDULE, Status, Wish};
use crate::clock::Clock;

/// How often the thread looks what is due, and at the clocks.
const ROUND: Duration = Duration::from_secs(20);

/// Priority given away, so that a job never takes a core from a lane.
const NICE: i32 = 10;

/// Files or datasets that a job's result lists; the report in the store lists all. Results are remembered: this times
/// `KEPT_MAX` is what they take.
const LISTED_MAX: usize = 100;

/// Starts the thread. It ends with the process: whatever it was at is whole or not there, and is found again.
///
/// # Errors
/// When no thread or runtime can be made.
pub fn start(jobs: Arc<Jobs>, storage: Arc<Storage>, settings: &Settings) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_start(cores::give_way)
        .on_thread_stop(cores::end)
        .enable_all()
        .build()?;
    let at_minutes =
        minutes_of_day(&settings.retention_at).expect("the time was checked with the configuration");
    let sweep_every = Duration::from_secs(settings.sweep_minutes.saturating_mul(60));
    std::thread::Builder::new().name("jobs".into()).spawn(move || {
        // A kernel that refuses leaves the thread as important as the others.
        let _ = rustix::process::nice(NICE);
        cores::give_way();
        // A run that was missed while no process lived is made up for.
        let last_ns = jobs.last_scheduled(Kind::Retention).unwrap_or_else(Clock::now_ns);
        let day = day_of(last_ns, at_minutes);
        let runner = Runner { jobs, storage, at_minutes, sweep_every, day, swept: Instant::now() };
        runtime.block_on(runner.run());
    })?;
    Ok(())
}

struct Runner {
    jobs: Arc<Jobs>,
    storage: Arc<Storage>,
    at_minutes: u16,
    sweep_every: Duration,
    /// The day of the last retention run.
    day: i64,
    swept: Instant,
}

impl Runner {
    async fn run(mut self) {
        let queue = Arc::clone(&self.jobs.queue);
        loop {
            match tokio::time::timeout(ROUND, queue.next()).await {
                Ok(job) => {
                    self.one(job).await;
                    crate::allocator::give_back();
                }
                Err(_) => self.due().await,
            }
        }
    }

    /// Begins what is due.
    async fn due(&mut self) {
        let is_believed = self.storage.observe_clock(Instant::now());
        let day = day_of(Clock::now_ns(), self.at_minutes);
        // F27: within the first hour the clock is not believed yet, and the run waits for it; a clock that jumps
        // into another day finds none that believes it.
        if day != self.day && is_believed {
            self.day = day;
            let wish = Wish {
                kind: Kind::Retention,
                scope: None,
                dataset: None,
                is_dry: false,
                asked_by: SCHEDULE.into(),
            };
            if let Err(error) = self.jobs.ask(wish).await {
                tracing::warn!(%error, "the daily retention run was not begun and waits for tomorrow");
            }
        }
        if self.swept.elapsed() >= self.sweep_every {
            self.swept = Instant::now();
            let swept = self.storage.sweep(None, Instant::now()).await;
            tracing::info!(
                files = swept.files,
                orphans = swept.orphans,
                log_objects = swept.log_objects,
                failed = swept.failed,
                "swept"
            );
        }
    }

    async fn one(&self, job: Queued) {
        let Queued { mut record, wish, done } = job;
        record.status = Status::Running;
        record.started_ns = Some(Clock::now_ns());
        self.keep(&record).await;
        match wish.kind {
            Kind::Retention => self.retention(&wish, &mut record).await,
            Kind::Sweep => self.sweep(&wish, &mut record).await,
            Kind::Checkpoint => match self.storage.checkpoint(wish.scope.as_ref()).await {
                Ok(count) => succeed(&mut record, json!({ "checkpoints": count })),
                Err(error) => fail(&mut record, &error),
            },
        }
        record.ended_ns = Some(Clock::now_ns());
        self.keep(&record).await;
        tracing::info!(
            job_id = record.id,
            kind = record.kind.as_str(),
            status = record.status.as_str(),
            tenant_id = record.tenant,
            user_id = record.asked_by,
            detail = record.detail,
            "job.ended"
        );
        // Nobody may wait any more.
        let _ = done.send(record);
    }

    async fn keep(&self, record: &JobRecord) {
        if let Err(error) = self.jobs.keep(record).await {
            tracing::warn!(job_id = record.id, %error, "the job's history misses a step");
        }
    }

    async fn retention(&self, wish: &Wish, record: &mut JobRecord) {
        if let (Some(tenant), Some(dataset)) = (&wish.scope, &wish.dataset) {
            let table = TableId::new(tenant.clone(), dataset.clone());
            match self.storage.expire(&table, wish.is_dry, Instant::now()).await {
                Ok(Ok(expiry)) => succeed(record, shown(&expiry)),
                // Kept for ever: nothing is past it.
                Ok(Err(Refused::NoPolicy)) => succeed(record, shown(&Expiry::default())),
                Ok(Err(refused)) => record.fail(code(&refused), refused.to_string()),
                Err(error) => fail(record, &error),
            }
            return;
        }
        let is_asked = wish.asked_by != SCHEDULE;
        let (mut rows, mut files, mut bytes, mut datasets) = (0, 0, 0, Vec::new());
        for (table, ended) in self.storage.expire_all(wish.scope.as_ref(), is_asked, Instant::now()).await {
            let mut one = json!({ "tenant": table.tenant.as_str(), "dataset": table.dataset.as_str() });
            match ended {
                Ended::Done(expiry) => {
                    (rows, files, bytes) = (rows + expiry.rows, files + expiry.files, bytes + expiry.bytes);
                    one["rows"] = expiry.rows.into();
                    one["report"] = expiry.report.into();
                }
                // A hold is no failure: it does what it is for.
                Ended::Refused(Refused::Held) => one["held"] = true.into(),
                Ended::Refused(refused) => {
                    one["code"] = code(&refused).into();
                    record.fail(code(&refused), format!("dataset {table}: {refused}"));
                }
                Ended::Failed(error) => {
                    fail(record, &error);
                    one["code"] = record.code.clone().into();
                }
            }
            datasets.push(one);
        }
        datasets.truncate(LISTED_MAX);
        record.result = json!({ "rows": rows, "files": files, "bytes": bytes, "datasets": datasets });
        if record.code.is_none() {
            record.status = Status::Succeeded;
        }
    }

    async fn sweep(&self, wish: &Wish, record: &mut JobRecord) {
        let swept = self.storage.sweep(wish.scope.as_ref(), Instant::now()).await;
        record.result = json!({
            "tables": swept.tables,
            "held": swept.held,
            "files": swept.files,
            "orphans": swept.orphans,
            "bytes": swept.bytes,
            "log_objects": swept.log_objects,
            "half_written": swept.asides,
        });
        if swept.failed > 0 {
            let detail = format!("{} tables could not be swept: see the log", swept.failed);
            record.fail("storage_unavailable", detail);
        } else {
            record.status = Status::Succeeded;
        }
    }
}

fn succeed(record: &mut JobRecord, result: Value) {
    record.status = Status::Succeeded;
    record.result = result;
}

fn fail(record: &mut JobRecord, error: &storage::Error) {
    tracing::warn!(job_id = record.id, %error, "a job failed");
    let code = match error.kind() {
        ErrorKind::Corrupt => "corrupt_object",
        ErrorKind::Bug => "internal",
        _ => "storage_unavailable",
    };
    record.fail(code, error.context());
}

fn code(refused: &Refused) -> &'static str {
    match refused {
        Refused::NoPolicy => "no_retention",
        Refused::Held => "on_hold",
        Refused::Clock => "clock_untrusted",
        Refused::Unusual { .. } => "unusual_volume",
    }
}

fn shown(expiry: &Expiry) -> Value {
    let listed: Vec<Value> = expiry
        .leaving
        .iter()
        .take(LISTED_MAX)
        .map(|file| {
            json!({ "path": file.path, "rows": file.rows, "bytes": file.bytes, "is_whole": file.is_whole })
        })
        .collect();
    json!({
        "rows": expiry.rows,
        "files": expiry.files,
        "bytes": expiry.bytes,
        "is_truncated": listed.len() < expiry.leaving.len(),
        "leaving": listed,
        "report": expiry.report,
    })
}

#[cfg(test)]
mod tests {
    use storage::{Expiry, Leaving};

    use super::shown;

    /// B1: results are remembered, so what they list is bounded, and says so.
    #[test]
    fn a_result_lists_so_many_files() {
        let file = |at: usize| Leaving { path: format!("part-{at}"), rows: 1, bytes: 1, is_whole: true };
        for (count, listed, is_truncated) in [(100, 100, false), (101, 100, true), (1_000, 100, true)] {
            let expiry = Expiry { leaving: (0..count).map(file).collect(), ..Expiry::default() };
            let result = shown(&expiry);
            assert_eq!(result["leaving"].as_array().map(Vec::len), Some(listed), "of {count} files");
            assert_eq!(result["is_truncated"], is_truncated, "of {count} files");
        }
    }
}
