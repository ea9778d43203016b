//! Tenants: made and listed by an operator.

use ingest::Refusal;
use serde::Deserialize;
use serde_json::json;
use storage::record::Tenant;
use storage::{Role, Roles};

use super::{Call, not_changed, paging};
use crate::clock::{Clock, rfc3339};
use crate::http::{Answer, json as answer};
use crate::state;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    tenant: String,
}

/// Makes a tenant and its first admin key, both or neither.
pub(super) async fn create(call: &Call) -> Result<Answer, Refusal> {
    let wish: Wish = call.json()?;
    let tenant =
        Tenant::parse(&wish.tenant).map_err(|error| Refusal::new(400, "invalid_tenant", error.context()))?;
    let roles = Roles::of(&[Role::Admin]);
    let made = call.app.state.create_tenant(&tenant, roles, None, Clock::now_ns()).await;
    let made = made.map_err(|error| match error {
        state::Error::Exists => Refusal::new(409, "tenant_exists", "there is a tenant of this id"),
        error => not_changed(&error),
    })?;
    tracing::info!(
        correlation_id = %call.correlation.id,
        tenant_id = %tenant,
        user_id = call.subject(),
        "tenant.created"
    );
    Ok(answer(201, &json!({ "tenant": tenant.as_str(), "admin_key": made.text.as_str() })))
}

/// Lists tenants.
pub(super) async fn list(call: &Call) -> Result<Answer, Refusal> {
    let tenants: Vec<_> = call
        .app
        .state
        .tenants()
        .await
        .into_iter()
        .map(|one| {
            let shown = json!({ "tenant": one.tenant, "created_at": rfc3339(one.created_ns) });
            (one.tenant, shown)
        })
        .collect();
    paging::page(call, "tenants", &tenants)
}
