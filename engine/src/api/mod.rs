//! What the engine itself answers: health, administration, its own description. The only part of the engine that
//! knows response JSON.

mod health;
mod holds;
mod jobs;
mod keys;
mod limits;
mod page;
mod paging;
mod retention;
mod system;
mod tenants;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use ingest::{Correlation, Refusal};
use serde::de::DeserializeOwned;
use storage::record::Tenant;
use storage::{Principal, Role, Roles};

use crate::app::App;
use crate::http::Answer;
use crate::routes::Api;
use crate::state;

pub use health::Readiness;

/// One request to the engine itself.
pub struct Call {
    /// The running engine.
    pub app: Arc<App>,
    /// Who asks; `None` where the route asks for nobody.
    pub principal: Option<Principal>,
    /// The `{…}` segment of the path, decoded.
    pub path_id: Option<String>,
    /// The query string as sent.
    pub query: Option<String>,
    /// The request's headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its ids.
    pub correlation: Arc<Correlation>,
}

/// Answers a request.
///
/// # Errors
/// The refusal, to be rendered as a problem.
pub async fn answer(what: Api, call: Call) -> Result<Answer, Refusal> {
    match what {
        Api::Page => Ok(page::index()),
        Api::Description => Ok(page::openapi()),
        Api::Ping => Ok(health::ping()),
        Api::Health => Ok(health::health()),
        Api::Live => Ok(health::live()),
        Api::Ready => Ok(health::ready(&call.app).await),
        Api::Metrics => Ok(system::metrics(&call).await),
        Api::Status => Ok(system::status(&call).await),
        Api::Flush => system::flush(&call).await,
        Api::DatasetsList => system::datasets(&call).await,
        Api::RetentionList => retention::list(&call).await,
        Api::RetentionSet => retention::set(&call).await,
        Api::RetentionRun => retention::run(&call).await,
        Api::HoldsList => holds::list(&call).await,
        Api::HoldsPlace => holds::place(&call).await,
        Api::HoldsRelease => holds::release(&call).await,
        Api::JobsList => jobs::list(&call),
        Api::JobsAsk => jobs::ask(&call).await,
        Api::JobsGet => jobs::get(&call),
        Api::TenantsList => tenants::list(&call).await,
        Api::TenantsCreate => tenants::create(&call).await,
        Api::KeysList => keys::list(&call).await,
        Api::KeysCreate => keys::create(&call).await,
        Api::KeysRevoke => keys::revoke(&call).await,
        Api::LimitsGet => limits::get(&call).await,
        Api::LimitsSet => limits::set(&call).await,
    }
}

impl Call {
    /// The caller's tenant; that of the system for an operator of none.
    fn own_tenant(&self) -> &Tenant {
        &self.principal.as_ref().expect("the route asks for a role").tenant
    }

    /// What the caller may do.
    fn roles(&self) -> Roles {
        self.principal.as_ref().map_or(Roles::NONE, |principal| principal.roles)
    }

    /// The public id of the caller's key.
    fn subject(&self) -> &str {
        self.principal.as_ref().map_or("", |principal| &principal.subject)
    }

    fn is_operator(&self) -> bool {
        self.roles().has(Role::Operator)
    }

    /// A parameter of the query string, decoded; of two the first.
    fn parameter(&self, name: &str) -> Option<String> {
        let query = self.query.as_deref().unwrap_or_default();
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(have, _)| have == name).map(|(_, value)| value.into_owned())
    }

    /// The body as JSON of exactly these members.
    fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // The library's text may quote values; a member's name or place is enough to find the mistake.
            let text = error.to_string();
            let says = if text.starts_with("missing field") {
                text.split(" at line").next().unwrap_or_default().to_owned()
            } else if text.starts_with("unknown field") {
                "there is a member that is not known".to_owned()
            } else {
                "it is not JSON of the expected shape".to_owned()
            };
            let (line, column) = (error.line(), error.column());
            Refusal::new(400, "invalid_body", format!("{says}, at line {line} column {column}"))
        })
    }

    /// The tenant a change is meant for: the caller's own, or the one an operator names.
    ///
    /// # Errors
    /// 403 for another tenant without being operator; 400 where an operator of no tenant names none.
    async fn tenant(&self, named: Option<&str>) -> Result<Tenant, Refusal> {
        let own = self.own_tenant();
        let Some(named) = named else {
            if own.as_str() == storage::record::SYSTEM_TENANT {
                return Err(Refusal::new(400, "tenant_required", "an operator says which tenant is meant"));
            }
            return Ok(own.clone());
        };
        if named == own.as_str() {
            return Ok(own.clone());
        }
        if !self.is_operator() {
            return Err(Refusal::new(403, "forbidden", "another tenant is an operator's matter"));
        }
        let tenant =
            Tenant::parse(named).map_err(|error| Refusal::new(400, "invalid_tenant", error.context()))?;
        if !self.app.state.has_tenant(&tenant).await {
            return Err(Refusal::new(404, "tenant_not_found", "there is no such tenant"));
        }
        Ok(tenant)
    }
}

/// What a change that was not made means to the caller.
fn not_changed(error: &state::Error) -> Refusal {
    let detail = error.to_string();
    match error {
        state::Error::Exists => Refusal::new(409, "exists", detail),
        state::Error::NotFound => Refusal::new(404, "not_found", detail),
        state::Error::Full(..) => Refusal::new(409, "too_many", detail),
        state::Error::AboveCeiling(_) | state::Error::Forbidden(_) => Refusal::new(403, "forbidden", detail),
        state::Error::Unavailable(_) => Refusal::retry(503, "storage_unavailable", detail, 1),
        state::Error::Corrupt(_) | state::Error::Forged(_) => Refusal::new(500, "corrupt_object", detail),
        state::Error::Newer(_) => Refusal::new(409, "newer_record", detail),
    }
}
