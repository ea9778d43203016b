//! A tenant's rates: shown, and set from the next request on.

use ingest::Refusal;
use ingest::admit::{Policy, Rate};
use serde_json::{Value, json};
use storage::record::Tenant;

use super::{Call, not_changed};
use crate::http::{Answer, json as answer};

/// The longest window, in seconds: a day.
const WINDOW_S_MAX: u32 = 86_400;

/// Shows what holds; `?tenant=` for an operator.
pub(super) async fn get(call: &Call) -> Result<Answer, Refusal> {
    let tenant = call.tenant(call.parameter("tenant").as_deref()).await?;
    let limits = call.app.state.limits(&tenant).await;
    Ok(answer(200, &shown(&tenant, &limits.policy)))
}

/// Sets what holds. What an operator sets is a ceiling for the tenant's own admin.
pub(super) async fn set(call: &Call) -> Result<Answer, Refusal> {
    let policy: Policy = call.json()?;
    for (name, rate) in rates(&policy) {
        if let Some(rate) = rate
            && !(1..=WINDOW_S_MAX).contains(&rate.window_s)
        {
            let detail = format!("{name}.window_s must be 1 to {WINDOW_S_MAX}");
            return Err(Refusal::new(400, "invalid_limit", detail));
        }
    }
    let tenant = call.tenant(call.parameter("tenant").as_deref()).await?;
    let set = call.app.state.set_limits(&tenant, policy, call.is_operator(), |policy| {
        call.app.ingest.admit.set(&tenant, policy);
    });
    set.await.map_err(|error| not_changed(&error))?;
    tracing::info!(
        correlation_id = %call.correlation.id,
        tenant_id = %tenant,
        user_id = call.subject(),
        "limits.changed"
    );
    Ok(answer(200, &shown(&tenant, &policy)))
}

fn rates(policy: &Policy) -> [(&'static str, Option<Rate>); 3] {
    [("requests", policy.requests), ("records", policy.records), ("bytes", policy.bytes)]
}

fn shown(tenant: &Tenant, policy: &Policy) -> Value {
    let mut shown = json!({ "tenant": tenant.as_str() });
    for (name, rate) in rates(policy) {
        shown[name] =
            rate.map_or(Value::Null, |rate| json!({ "quota": rate.quota, "window_s": rate.window_s }));
    }
    shown
}
