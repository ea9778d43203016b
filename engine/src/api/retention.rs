//! How long a tenant's datasets are kept: shown, set, and carried out by name.

use std::time::Duration;

use ingest::Refusal;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use storage::record::{Dataset, TableId};
use tokio::sync::oneshot;

use super::{Call, jobs, not_changed, paging};
use crate::http::{Answer, json as answer};
use crate::jobs::{JobRecord, Kind, Status, Wish};

/// How long an answer waits for a run before it tells the job instead. Chosen: below what clients wait.
const WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    dataset: String,
    /// `null` is a policy, its absence a mistake.
    #[serde(deserialize_with = "present")]
    days: Option<i64>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Option::deserialize(from)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    dataset: String,
    #[serde(default)]
    dry_run: bool,
}

/// Lists every dataset of the tenant and how many days it is kept; `null` = for ever.
pub(super) async fn list(call: &Call) -> Result<Answer, Refusal> {
    let tenant = call.own_tenant();
    let policies = call.app.state.retention(tenant).await;
    let mut names: Vec<String> =
        call.app.storage.datasets(tenant).iter().map(|(dataset, _)| dataset.as_str().to_owned()).collect();
    names.extend(BUILT_IN.map(str::to_owned));
    names.extend(policies.days.keys().cloned());
    names.sort();
    names.dedup();
    let shown: Vec<(String, Value)> = names
        .into_iter()
        .map(|name| {
            let shown = json!({ "dataset": name, "days": policies.days.get(&name) });
            (name, shown)
        })
        .collect();
    paging::page(call, "retention", &shown)
}

/// Sets how long a dataset is kept, from the next record and the next run on.
pub(super) async fn set(call: &Call) -> Result<Answer, Refusal> {
    let policy: Policy = call.json()?;
    let table = known(call, &policy.dataset)?;
    let floor = call.app.config.settings.storage.retention_days_min;
    let days = match policy.days {
        None => None,
        Some(days) if days < i64::from(floor) => {
            let detail = format!("days {days} is below retention_days_min {floor}; null keeps for ever");
            return Err(Refusal::new(422, "below_floor", detail));
        }
        Some(days) => Some(u32::try_from(days).map_err(|_| {
            Refusal::new(400, "invalid_body", "days exceeds 4294967295; null keeps for ever")
        })?),
    };
    let storage = &call.app.storage;
    let set = call.app.state.set_retention(&table, days, |rules| storage.set_policies(rules)).await;
    set.map_err(|error| not_changed(&error))?;
    tracing::info!(
        correlation_id = %call.correlation.id,
        tenant_id = %table.tenant,
        user_id = call.subject(),
        dataset = %table.dataset,
        days,
        "retention.changed"
    );
    Ok(answer(200, &json!({ "dataset": policy.dataset, "days": days })))
}

/// Removes what is past its retention, or tells what would go; with the job where it takes long.
pub(super) async fn run(call: &Call) -> Result<Answer, Refusal> {
    let run: Run = call.json()?;
    let table = known(call, &run.dataset)?;
    let wish = Wish {
        kind: Kind::Retention,
        scope: Some(table.tenant.clone()),
        dataset: Some(table.dataset.clone()),
        is_dry: run.dry_run,
        asked_by: call.subject().to_owned(),
    };
    tracing::info!(
        correlation_id = %call.correlation.id,
        tenant_id = %table.tenant,
        user_id = call.subject(),
        dataset = %table.dataset,
        is_dry = run.dry_run,
        "retention.run"
    );
    let (record, ended) = call.app.jobs.ask(wish).await.map_err(|error| jobs::not_queued(&error))?;
    let Some(ended) = soon(ended).await else {
        return Ok(answer(202, &jobs::brief(&record)));
    };
    if ended.status == Status::Succeeded {
        return Ok(answer(200, &ended.result));
    }
    let detail = ended.detail.clone();
    Err(match ended.code.as_deref() {
        Some("on_hold") => Refusal::new(409, "on_hold", detail),
        Some("clock_untrusted") => Refusal::new(409, "clock_untrusted", detail),
        Some("storage_unavailable") => Refusal::retry(503, "storage_unavailable", detail, 1),
        Some("corrupt_object") => Refusal::new(500, "corrupt_object", detail),
        _ => Refusal::new(500, "internal", "the run failed: see the job"),
    })
}

/// The job once it has ended; `None` where that takes long, or where nobody is left to end it.
async fn soon(ended: oneshot::Receiver<JobRecord>) -> Option<JobRecord> {
    tokio::time::timeout(WAIT_MAX, ended).await.ok()?.ok()
}

/// Datasets that every tenant has, whether anything was sent to them or not.
const BUILT_IN: [&str; 7] = ["_system", "audit", "events", "latency", "logs", "metrics", "spans"];

/// The caller's table of that name.
///
/// # Errors
/// 404 for a dataset that is neither built in nor there.
pub(super) fn known(call: &Call, dataset: &str) -> Result<TableId, Refusal> {
    let tenant = call.own_tenant();
    let unknown = || Refusal::new(404, "dataset_not_found", "there is no such dataset");
    let dataset = Dataset::parse(dataset).map_err(|_| unknown())?;
    let is_there = BUILT_IN.contains(&dataset.as_str())
        || call.app.storage.datasets(tenant).iter().any(|(have, _)| *have == dataset);
    if is_there { Ok(TableId::new(tenant.clone(), dataset)) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::Instant;

    /// B1: a run that takes hours, or waits behind others, holds no connection for so long.
    #[tokio::test(start_paused = true)]
    async fn a_run_that_takes_long_is_not_waited_for() {
        let (_runs, ended) = oneshot::channel();
        let begun = Instant::now();
        assert!(super::soon(ended).await.is_none());
        assert_eq!(begun.elapsed().as_secs(), 10);
        let (gone, ended) = oneshot::channel();
        drop(gone);
        assert!(super::soon(ended).await.is_none());
        assert!(begun.elapsed() < Duration::from_secs(11), "nobody is left to end it");
    }
}
