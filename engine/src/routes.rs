//! Every route there is, in one table: what dispatch, `/openapi.json` and the tests read.
//!
//! A route that is not here does not exist (404). Who may call it is a field, so no route is without an answer
//! to that question.

use std::collections::HashMap;
use std::sync::LazyLock;

use ingest::Route as Ingest;
use query::Endpoint;
use storage::{Role, Roles};

/// HTTP methods that routes answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// GET, and HEAD.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
}

impl Verb {
    /// The method's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    fn of(method: &http::Method) -> Option<Self> {
        match method.as_str() {
            "GET" | "HEAD" => Some(Self::Get),
            "POST" => Some(Self::Post),
            "PUT" => Some(Self::Put),
            "DELETE" => Some(Self::Delete),
            _ => None,
        }
    }
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Anybody on a loopback bind; elsewhere whoever holds one of these.
    OpenOnLoopback(Roles),
    /// Whoever holds one of these.
    Roles(Roles),
}

/// Pages that need no tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `{"status":"ok"}`.
    Health,
    /// `{"status":"alive"}`.
    Live,
    /// Whether requests can be served, by dependency.
    Ready,
    /// Counters and gauges.
    Metrics,
    /// The routes as OpenAPI.
    OpenApi,
    /// What this is.
    Index,
    /// InfluxDB's ping.
    Ping,
}

/// Handlers of administration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// The state of the system.
    Status,
    /// Seals and commits everything acknowledged.
    Flush,
    /// Makes a tenant.
    CreateTenant,
    /// Lists tenants.
    ListTenants,
    /// Makes a key.
    CreateKey,
    /// Lists keys.
    ListKeys,
    /// Revokes a key.
    RevokeKey,
    /// Shows a tenant's limits.
    GetLimits,
    /// Sets a tenant's limits.
    PutLimits,
    /// Lists datasets.
    ListDatasets,
    /// Makes a dataset.
    CreateDataset,
}

/// What answers a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// The lane's ingest pipeline.
    Ingest(Ingest),
    /// The query engine.
    Read(Endpoint),
    /// A handler of administration.
    Api(Api),
    /// A page without a tenant.
    Page(Page),
}

/// What users may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Part of the contract.
    Stable,
    /// Another name of a stable route.
    Alias,
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its method.
    pub verb: Verb,
    /// Its path; `{name}` stands for one segment.
    pub path: &'static str,
    /// Its name in metrics, logs and OpenAPI; aliases share it.
    pub name: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What answers it.
    pub handler: Handler,
    /// What users may rely on.
    pub stability: Stability,
}

const SEND: Access = Access::Roles(Roles::of(&[Role::Ingest, Role::Admin]));
const READ: Access = Access::Roles(Roles::of(&[Role::Analyst, Role::Auditor, Role::Admin]));
const AUDIT: Access = Access::Roles(Roles::of(&[Role::Auditor, Role::Admin]));
const ADMIN: Access = Access::Roles(Roles::of(&[Role::Admin]));
const OPERATOR: Access = Access::Roles(Roles::of(&[Role::Operator]));
const MANAGE: Access = Access::Roles(Roles::of(&[Role::Admin, Role::Operator]));
const SEE: Access = Access::Roles(Roles::of(&[Role::Auditor, Role::Admin, Role::Operator]));
const METRICS: Access = Access::OpenOnLoopback(Roles::of(&[Role::Operator]));

macro_rules! routes {
    ($($verb:ident $path:literal $name:literal $access:expr, $handler:expr, $stability:ident;)*) => {
        &[$(Route {
            verb: Verb::$verb,
            path: $path,
            name: $name,
            access: $access,
            handler: $handler,
            stability: Stability::$stability,
        },)*]
    };
}

/// The table.
static ROUTES: &[Route] = routes! {
    Post "/v1/traces" "otlp_traces" SEND, Handler::Ingest(Ingest::OtlpTraces), Stable;
    Post "/v1/logs" "otlp_logs" SEND, Handler::Ingest(Ingest::OtlpLogs), Stable;
    Post "/otlp/v1/traces" "otlp_traces" SEND, Handler::Ingest(Ingest::OtlpTraces), Alias;
    Post "/otlp/v1/logs" "otlp_logs" SEND, Handler::Ingest(Ingest::OtlpLogs), Alias;
    Post "/api/v1/events" "events" SEND, Handler::Ingest(Ingest::Events), Stable;
    Post "/api/v1/audit" "audit" SEND, Handler::Ingest(Ingest::Audit), Stable;
    Post "/write" "write_v1" SEND, Handler::Ingest(Ingest::WriteV1), Stable;
    Post "/api/v2/write" "write_v2" SEND, Handler::Ingest(Ingest::WriteV2), Stable;
    Post "/api/v3/write_lp" "write_v3" SEND, Handler::Ingest(Ingest::WriteV3), Stable;

    Get "/api/v1/events" "search_events" READ, Handler::Read(Endpoint::Events), Stable;
    Get "/api/v1/logs" "search_logs" READ, Handler::Read(Endpoint::Logs), Stable;
    Get "/api/v1/traces" "search_traces" READ, Handler::Read(Endpoint::Traces), Stable;
    Get "/api/v1/traces/{trace_id}" "get_trace" READ, Handler::Read(Endpoint::Trace), Stable;
    Get "/api/v1/correlations/{correlation_id}" "get_correlation" READ, Handler::Read(Endpoint::Correlation), Stable;
    Get "/api/v1/services" "list_services" READ, Handler::Read(Endpoint::Services), Stable;
    Post "/api/v1/sql" "sql" READ, Handler::Read(Endpoint::Sql), Stable;
    Get "/api/v1/latency" "latency" READ, Handler::Read(Endpoint::Latency), Stable;
    Get "/api/v1/audit/traces" "audit_traces" AUDIT, Handler::Read(Endpoint::AuditTraces), Stable;
    Get "/audit/traces" "audit_traces" AUDIT, Handler::Read(Endpoint::AuditTraces), Alias;

    Get "/healthz" "health" Access::Open, Handler::Page(Page::Health), Stable;
    Get "/readyz" "ready" Access::Open, Handler::Page(Page::Ready), Stable;
    Get "/metrics" "metrics" METRICS, Handler::Page(Page::Metrics), Stable;
    Get "/health" "health" Access::Open, Handler::Page(Page::Health), Alias;
    Get "/health/live" "live" Access::Open, Handler::Page(Page::Live), Stable;
    Get "/health/ready" "ready" Access::Open, Handler::Page(Page::Ready), Alias;
    Get "/system-health/live" "live" Access::Open, Handler::Page(Page::Live), Alias;
    Get "/system-health/ready" "ready" Access::Open, Handler::Page(Page::Ready), Alias;
    Get "/system-health/metrics" "metrics" METRICS, Handler::Page(Page::Metrics), Alias;
    Get "/ping" "ping" Access::Open, Handler::Page(Page::Ping), Stable;
    Get "/openapi.json" "openapi" Access::Open, Handler::Page(Page::OpenApi), Stable;
    Get "/" "index" Access::Open, Handler::Page(Page::Index), Stable;

    Get "/api/v1/system/status" "system_status" MANAGE, Handler::Api(Api::Status), Stable;
    Post "/api/v1/system/flush" "system_flush" OPERATOR, Handler::Api(Api::Flush), Stable;
    Post "/api/v1/tenants" "create_tenant" OPERATOR, Handler::Api(Api::CreateTenant), Stable;
    Get "/api/v1/tenants" "list_tenants" OPERATOR, Handler::Api(Api::ListTenants), Stable;
    Post "/api/v1/keys" "create_key" MANAGE, Handler::Api(Api::CreateKey), Stable;
    Get "/api/v1/keys" "list_keys" SEE, Handler::Api(Api::ListKeys), Stable;
    Delete "/api/v1/keys/{id}" "revoke_key" MANAGE, Handler::Api(Api::RevokeKey), Stable;
    Get "/api/v1/limits" "get_limits" SEE, Handler::Api(Api::GetLimits), Stable;
    Put "/api/v1/limits" "put_limits" MANAGE, Handler::Api(Api::PutLimits), Stable;
    Get "/api/v1/datasets" "list_datasets" READ, Handler::Api(Api::ListDatasets), Stable;
    Post "/api/v1/datasets" "create_dataset" ADMIN, Handler::Api(Api::CreateDataset), Stable;
};

/// Every route.
#[must_use]
pub fn routes() -> &'static [Route] {
    ROUTES
}

/// What a method and path come to.
#[derive(Debug)]
pub enum Found<'a> {
    /// A route, and the segment that its `{name}` stands for, as sent.
    Route(&'static Route, Option<&'a str>),
    /// The path exists, under these methods only.
    OtherMethod(Vec<&'static str>),
    /// There is no such path.
    Nothing,
}

struct Index {
    exact: HashMap<&'static str, Vec<&'static Route>>,
    /// By what stands before the parameter; no route has anything behind it.
    prefixes: Vec<(&'static str, &'static Route)>,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut index = Index { exact: HashMap::new(), prefixes: Vec::new() };
    for route in ROUTES {
        match route.path.split_once('{') {
            Some((prefix, _)) => index.prefixes.push((prefix, route)),
            None => index.exact.entry(route.path).or_default().push(route),
        }
    }
    index
});

/// Finds the route of a request.
#[must_use]
pub fn find<'a>(method: &http::Method, path: &'a str) -> Found<'a> {
    let verb = Verb::of(method);
    let mut candidates: Vec<(&'static Route, Option<&str>)> = Vec::new();
    if let Some(exact) = INDEX.exact.get(path) {
        if let Some(route) = exact.iter().find(|route| Some(route.verb) == verb) {
            return Found::Route(route, None);
        }
        candidates.extend(exact.iter().map(|route| (*route, None)));
    }
    for (prefix, route) in &INDEX.prefixes {
        if let Some(segment) = path.strip_prefix(prefix)
            && !segment.is_empty()
            && !segment.contains('/')
        {
            candidates.push((route, Some(segment)));
        }
    }
    if let Some((route, segment)) = candidates.iter().find(|(route, _)| Some(route.verb) == verb) {
        return Found::Route(route, *segment);
    }
    if candidates.is_empty() {
        return Found::Nothing;
    }
    let mut allowed: Vec<&'static str> = Vec::new();
    for (route, _) in candidates {
        allowed.push(route.verb.as_str());
        if route.verb == Verb::Get {
            allowed.push("HEAD");
        }
    }
    Found::OtherMethod(allowed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::Method;
    use storage::{Role, Roles};

    use super::{Access, Found, Handler, find, routes};

    #[test]
    fn no_route_stands_twice_and_each_says_who_may_call_it() {
        let mut seen = HashSet::new();
        for route in routes() {
            assert!(seen.insert((route.verb, route.path)), "{} stands twice", route.path);
            match route.access {
                Access::Open => assert!(matches!(route.handler, Handler::Page(_)), "{} is open", route.path),
                Access::OpenOnLoopback(roles) | Access::Roles(roles) => {
                    assert_ne!(roles, Roles::NONE, "{}", route.path);
                }
            }
        }
    }

    /// The table of roles: operators read no data, ingest keys send only, nobody but admins does both.
    #[test]
    fn routes_keep_the_roles_apart() {
        for route in routes() {
            let Access::Roles(roles) = route.access else { continue };
            let (sends, reads) =
                (matches!(route.handler, Handler::Ingest(_)), matches!(route.handler, Handler::Read(_)));
            assert_eq!(roles.has(Role::Ingest), sends, "{}", route.path);
            assert!(!(roles.has(Role::Operator) && (sends || reads)), "{}", route.path);
            assert!(!(roles.has(Role::Analyst) && sends), "{}", route.path);
        }
    }

    #[test]
    fn paths_and_methods_are_told_apart() {
        let check = |method: Method, path: &str, expected: &str| {
            let got = match find(&method, path) {
                Found::Route(route, segment) => format!("{} {}", route.name, segment.unwrap_or("-")),
                Found::OtherMethod(allowed) => allowed.join(","),
                Found::Nothing => "nothing".into(),
            };
            assert_eq!(got, expected, "{method} {path}");
        };
        check(Method::POST, "/v1/traces", "otlp_traces -");
        check(Method::GET, "/v1/traces", "POST");
        check(Method::POST, "/v1/metrics", "nothing");
        check(Method::GET, "/api/v1/events", "search_events -");
        check(Method::PUT, "/api/v1/events", "POST,GET,HEAD");
        check(Method::HEAD, "/healthz", "health -");
        check(Method::GET, "/api/v1/traces/abc", "get_trace abc");
        check(Method::GET, "/api/v1/traces/abc/def", "nothing");
        check(Method::GET, "/api/v1/traces/", "nothing");
        check(Method::POST, "/api/v1/keys/x", "DELETE");
        check(Method::GET, "/v1/traces/", "nothing");
        check(Method::PATCH, "/", "GET,HEAD");
    }
}
