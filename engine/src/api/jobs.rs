//! Jobs: asked for, and looked at. An admin sees and asks for its own tenant's, an operator for all.

use ingest::Refusal;
use serde::Deserialize;
use serde_json::{Value, json};
use storage::record::Tenant;

use super::{Call, not_changed, paging};
use crate::clock::rfc3339;
use crate::http::{Answer, json as answer};
use crate::jobs::{JobRecord, Kind, Wish};
use crate::state;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    kind: String,
    tenant: Option<String>,
}

/// Lists jobs, newest first.
pub(super) fn list(call: &Call) -> Result<Answer, Refusal> {
    let jobs: Vec<(String, Value)> =
        call.app.jobs.list(seen(call)).iter().map(|job| (falling(&job.id), shown(job))).collect();
    paging::page(call, "jobs", &jobs)
}

/// Shows one job.
pub(super) fn get(call: &Call) -> Result<Answer, Refusal> {
    let id = call.path_id.as_deref().unwrap_or_default();
    let jobs = call.app.jobs.list(seen(call));
    let job = jobs.iter().find(|job| job.id == id);
    job.map(|job| answer(200, &shown(job)))
        .ok_or_else(|| Refusal::new(404, "job_not_found", "there is no such job"))
}

/// Asks for a job.
pub(super) async fn ask(call: &Call) -> Result<Answer, Refusal> {
    let asked: Asked = call.json()?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == asked.kind).ok_or_else(|| {
        let names: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
        Refusal::new(400, "unknown_kind", format!("kind is one of {}", names.join(", ")))
    })?;
    let scope = match asked.tenant.as_deref() {
        None if call.is_operator() => None,
        named => Some(call.tenant(named).await?),
    };
    let asked_by = call.subject().to_owned();
    let wish = Wish { kind, scope, dataset: None, is_dry: false, asked_by };
    let (record, _) = call.app.jobs.ask(wish).await.map_err(|error| not_queued(&error))?;
    tracing::info!(
        correlation_id = %call.correlation.id,
        tenant_id = record.tenant,
        user_id = call.subject(),
        job_id = record.id,
        kind = kind.as_str(),
        "job.asked"
    );
    Ok(answer(202, &brief(&record)))
}

/// Whose jobs the caller sees; `None` = everybody's.
fn seen(call: &Call) -> Option<&Tenant> {
    (!call.is_operator()).then(|| call.own_tenant())
}

/// What a job that was not queued means to the caller.
pub(super) fn not_queued(error: &state::Error) -> Refusal {
    match error {
        state::Error::Full(..) => Refusal::retry(503, "jobs_busy", error.to_string(), 5),
        other => not_changed(other),
    }
}

/// A job as it is answered when it was asked for.
pub(super) fn brief(job: &JobRecord) -> Value {
    json!({ "id": job.id, "kind": job.kind.as_str(), "status": job.status.as_str() })
}

fn shown(job: &JobRecord) -> Value {
    json!({
        "id": job.id,
        "kind": job.kind.as_str(),
        "status": job.status.as_str(),
        "tenant": job.tenant,
        "dataset": job.dataset,
        "asked_by": job.asked_by,
        "created_at": rfc3339(job.created_ns),
        "started_at": job.started_ns.map(rfc3339),
        "ended_at": job.ended_ns.map(rfc3339),
        "code": job.code,
        "detail": job.detail,
        "result": job.result,
    })
}

/// Text that falls as the id rises, so that a list in its order is newest first.
fn falling(id: &str) -> String {
    id.bytes()
        .map(|digit| char::from_digit(15 - char::from(digit).to_digit(16).unwrap_or(0), 16).unwrap_or('0'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::falling;

    #[test]
    fn the_newest_job_comes_first() {
        assert_eq!(falling("0f9"), "f06");
        assert!(falling("0199") > falling("019a"));
    }
}
