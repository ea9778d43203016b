//! API keys: made, listed without their secrets, revoked.
//!
//! Nobody grants what they do not hold: an admin makes keys of its own tenant, but no operator's; an operator
//! makes a tenant's keys too, because it makes tenants.

use ingest::Refusal;
use serde::Deserialize;
use serde_json::{Value, json};
use storage::record::Tenant;
use storage::{Acknowledgement, Role, Roles};

use super::{Call, not_changed, paging};
use crate::clock::{Clock, rfc3339};
use crate::http::{Answer, json as answer};
use crate::state::{KeyRecord, KeyWish};

/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    name: String,
    role: String,
    tenant: Option<String>,
    acknowledgement: Option<String>,
    expires_at: Option<String>,
}

/// Makes a key and shows it, this once.
pub(super) async fn create(call: &Call) -> Result<Answer, Refusal> {
    let wish: Wish = call.json()?;
    if wish.name.is_empty() || wish.name.len() > NAME_BYTES_MAX || wish.name.chars().any(char::is_control) {
        let detail = format!("name must be 1 to {NAME_BYTES_MAX} bytes without control characters");
        return Err(Refusal::new(400, "invalid_name", detail));
    }
    let role = Role::ALL.into_iter().find(|role| role.as_str() == wish.role).ok_or_else(|| {
        Refusal::new(400, "invalid_role", "role must be ingest, analyst, auditor, admin or operator")
    })?;
    if role == Role::Operator && !call.is_operator() {
        return Err(Refusal::new(403, "forbidden", "an operator's key is made by an operator"));
    }
    let acknowledgement = match wish.acknowledgement.as_deref() {
        None => Acknowledgement::Durable,
        Some(name) => {
            Acknowledgement::ALL.into_iter().find(|level| level.as_str() == name).ok_or_else(|| {
                let detail = "acknowledgement must be durable, object or buffered";
                Refusal::new(400, "invalid_acknowledgement", detail)
            })?
        }
    };
    let now_ns = Clock::now_ns();
    let expires_ns = match wish.expires_at.as_deref() {
        None => None,
        Some(text) => Some(expiry(text, now_ns)?),
    };
    // An operator belongs to no tenant unless it says so.
    let tenant = match (&wish.tenant, role) {
        (None, Role::Operator) => Tenant::system(),
        (named, _) => call.tenant(named.as_deref()).await?,
    };
    let wish = KeyWish { name: wish.name, tenant, roles: Roles::of(&[role]), acknowledgement, expires_ns };
    let made = call.app.state.create_key(&wish, now_ns).await.map_err(|error| not_changed(&error))?;
    tracing::info!(
        correlation_id = %call.correlation.id,
        tenant_id = %wish.tenant,
        user_id = call.subject(),
        key_id = %made.record.id,
        role = role.as_str(),
        "key.created"
    );
    let shown = json!({
        "id": made.record.id,
        "key": made.text.as_str(),
        "role": role.as_str(),
        "tenant": wish.tenant.as_str(),
        "name": made.record.name,
        "expires_at": made.record.expires_ns.map(rfc3339),
    });
    Ok(answer(201, &shown))
}

fn expiry(text: &str, now_ns: i64) -> Result<i64, Refusal> {
    let refuse = |detail: &str| Refusal::new(400, "invalid_expiry", detail);
    let at: jiff::Timestamp = text.parse().map_err(|_| refuse("expires_at must be a time as RFC 3339"))?;
    let ns = i64::try_from(at.as_nanosecond()).map_err(|_| refuse("expires_at is out of range"))?;
    if ns <= now_ns {
        return Err(refuse("expires_at must lie in the future"));
    }
    Ok(ns)
}

/// Lists keys without their secrets: of the own tenant, of the one an operator names, or all where an operator
/// belongs to none.
pub(super) async fn list(call: &Call) -> Result<Answer, Refusal> {
    let named = call.parameter("tenant");
    let is_of_no_tenant = call.own_tenant().as_str() == storage::record::SYSTEM_TENANT;
    let tenant = match named {
        None if is_of_no_tenant => None,
        named => Some(call.tenant(named.as_deref()).await?),
    };
    let keys: Vec<_> = call
        .app
        .state
        .keys(tenant.as_ref())
        .await
        .into_iter()
        .map(|key| (key.id.clone(), shown(&key)))
        .collect();
    paging::page(call, "keys", &keys)
}

fn shown(key: &KeyRecord) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "role": key.main_role(),
        "roles": key.roles,
        "tenant": key.tenant,
        "acknowledgement": key.acknowledgement.as_str(),
        "created_at": rfc3339(key.created_ns),
        "expires_at": key.expires_ns.map(rfc3339),
    })
}

/// Revokes a key from the next request on.
pub(super) async fn revoke(call: &Call) -> Result<Answer, Refusal> {
    let id = call.path_id.as_deref().unwrap_or_default();
    let tenant = (!call.is_operator()).then_some(call.own_tenant());
    let revoked = call.app.state.revoke(id, tenant, call.roles(), Clock::now_ns()).await;
    revoked.map_err(|error| not_changed(&error))?;
    tracing::info!(
        correlation_id = %call.correlation.id,
        tenant_id = %call.own_tenant(),
        user_id = call.subject(),
        "key.revoked"
    );
    Ok(Answer { status: 204, headers: Vec::new(), body: crate::http::Body::Full(bytes::Bytes::new()) })
}
