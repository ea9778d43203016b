//! Legal holds: while one is on a dataset, nothing of it is deleted.

use ingest::Refusal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, not_changed, paging, retention};
use crate::clock::{Clock, rfc3339};
use crate::http::{Answer, Body, json as answer};
use crate::state::HoldRecord;

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1_024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    dataset: String,
    reason: String,
}

/// Lists the tenant's holds that are in force.
pub(super) async fn list(call: &Call) -> Result<Answer, Refusal> {
    let holds = call.app.state.holds(call.own_tenant()).await;
    let shown: Vec<(String, Value)> = holds.into_iter().map(|hold| (hold.id.clone(), shown(&hold))).collect();
    paging::page(call, "holds", &shown)
}

/// Places a hold. When this is answered, nothing of the dataset goes any more.
pub(super) async fn place(call: &Call) -> Result<Answer, Refusal> {
    let wish: Wish = call.json()?;
    let table = retention::known(call, &wish.dataset)?;
    let is_good = !wish.reason.trim().is_empty()
        && wish.reason.len() <= REASON_BYTES_MAX
        && !wish.reason.chars().any(char::is_control);
    if !is_good {
        let detail = format!("a reason is 1 to {REASON_BYTES_MAX} bytes without control characters");
        return Err(Refusal::new(400, "invalid_reason", detail));
    }
    let hold = HoldRecord {
        id: uuid::Uuid::now_v7().simple().to_string(),
        tenant: table.tenant.as_str().to_owned(),
        dataset: wish.dataset,
        reason: wish.reason,
        placed_ns: Clock::now_ns(),
        placed_by: call.subject().to_owned(),
        released_ns: None,
        released_by: None,
    };
    let storage = &call.app.storage;
    let placed = call.app.state.place_hold(hold.clone(), |rules| storage.set_policies(rules)).await;
    placed.map_err(|error| not_changed(&error))?;
    // R1: whatever was deleting has seen the hold, or is done, before anybody is told that it holds.
    storage.settle(&table).await;
    tracing::info!(
        correlation_id = %call.correlation.id,
        tenant_id = %table.tenant,
        user_id = call.subject(),
        dataset = %table.dataset,
        hold_id = hold.id,
        "hold.placed"
    );
    Ok(answer(201, &shown(&hold)))
}

/// Releases a hold.
pub(super) async fn release(call: &Call) -> Result<Answer, Refusal> {
    let id = call.path_id.as_deref().unwrap_or_default();
    let tenant = call.own_tenant();
    let storage = &call.app.storage;
    let apply = |rules| storage.set_policies(rules);
    let released = call.app.state.release_hold(tenant, id, call.subject(), Clock::now_ns(), apply).await;
    let hold = released.map_err(|error| not_changed(&error))?;
    tracing::info!(
        correlation_id = %call.correlation.id,
        tenant_id = %tenant,
        user_id = call.subject(),
        dataset = hold.dataset,
        hold_id = hold.id,
        "hold.released"
    );
    Ok(Answer { status: 204, headers: Vec::new(), body: Body::Full(bytes::Bytes::new()) })
}

fn shown(hold: &HoldRecord) -> Value {
    json!({
        "id": hold.id,
        "dataset": hold.dataset,
        "reason": hold.reason,
        "placed_at": rfc3339(hold.placed_ns),
        "placed_by": hold.placed_by,
    })
}
