//! Every route there is: one table, from which requests are dispatched, access is decided, and `/openapi.json`
//! and the tests of who may call what are made.

use http::Method;
use storage::record::Kind;
use storage::{Role, Roles};

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a key.
    Public,
    /// Everybody on a loopback bind, elsewhere an operator.
    Metrics,
    /// Who holds one of these roles.
    Roles(Roles),
}

/// What answers a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// Takes records.
    Ingest(ingest::Route),
    /// Reads data.
    Read(query::Endpoint),
    /// The engine itself.
    Api(Api),
}

/// What the engine itself answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `GET /`.
    Page,
    /// `GET /openapi.json`.
    Description,
    /// `GET /healthz`, `/health`.
    Health,
    /// `GET /health/live`, `/system-health/live`.
    Live,
    /// `GET /readyz` and its aliases.
    Ready,
    /// `GET /metrics` and its alias.
    Metrics,
    /// `GET /ping`, for InfluxDB clients.
    Ping,
    /// `GET /api/v1/system/status`.
    Status,
    /// `POST /api/v1/system/flush`.
    Flush,
    /// `GET /api/v1/tenants`.
    TenantsList,
    /// `POST /api/v1/tenants`.
    TenantsCreate,
    /// `GET /api/v1/keys`.
    KeysList,
    /// `POST /api/v1/keys`.
    KeysCreate,
    /// `DELETE /api/v1/keys/{id}`.
    KeysRevoke,
    /// `GET /api/v1/limits`.
    LimitsGet,
    /// `PUT /api/v1/limits`.
    LimitsSet,
    /// `GET /api/v1/datasets`.
    DatasetsList,
    /// `GET /api/v1/retention`.
    RetentionList,
    /// `PUT /api/v1/retention`.
    RetentionSet,
    /// `POST /api/v1/retention/run`.
    RetentionRun,
    /// `GET /api/v1/holds`.
    HoldsList,
    /// `POST /api/v1/holds`.
    HoldsPlace,
    /// `DELETE /api/v1/holds/{id}`.
    HoldsRelease,
    /// `GET /api/v1/jobs`.
    JobsList,
    /// `POST /api/v1/jobs`.
    JobsAsk,
    /// `GET /api/v1/jobs/{id}`.
    JobsGet,
}

impl Api {
    /// Whether it reads a JSON body.
    #[must_use]
    pub fn takes_json(self) -> bool {
        matches!(
            self,
            Self::TenantsCreate
                | Self::KeysCreate
                | Self::LimitsSet
                | Self::RetentionSet
                | Self::RetentionRun
                | Self::HoldsPlace
                | Self::JobsAsk
        )
    }
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    method: Method,
    pattern: &'static str,
    access: Access,
    handler: Handler,
    about: &'static str,
}

impl Route {
    /// The method it takes.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its path; `{name}` stands for one segment.
    #[must_use]
    pub fn pattern(&self) -> &'static str {
        self.pattern
    }

    /// Who may call it.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// What answers it.
    #[must_use]
    pub fn handler(&self) -> Handler {
        self.handler
    }

    /// What it does, in a few words.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.about
    }

    /// Whether it asks for no key, on a loopback bind.
    #[must_use]
    pub fn is_public(&self) -> bool {
        !matches!(self.access, Access::Roles(_))
    }

    /// Whether a key of that one role may call it.
    #[must_use]
    pub fn allows(&self, role: &str) -> bool {
        match self.access {
            Access::Public | Access::Metrics => true,
            Access::Roles(roles) => roles.iter().any(|one| one.as_str() == role),
        }
    }

    /// The `{…}` segment of a path that this route matches; `None` where it does not match.
    fn captures<'p>(&self, path: &'p str) -> Option<Option<&'p str>> {
        let mut captured = None;
        let mut segments = path.split('/');
        for wanted in self.pattern.split('/') {
            let segment = segments.next()?;
            if wanted.starts_with('{') {
                if segment.is_empty() {
                    return None;
                }
                captured = Some(segment);
            } else if wanted != segment {
                return None;
            }
        }
        segments.next().is_none().then_some(captured)
    }
}

const SEND: Access = Access::Roles(Roles::of(&[Role::Ingest, Role::Admin]));
const READ: Access = Access::Roles(Roles::readers(Kind::Events));
const AUDIT: Access = Access::Roles(Roles::readers(Kind::Audit));
const ADMIN: Access = Access::Roles(Roles::of(&[Role::Admin, Role::Operator]));
const OWN: Access = Access::Roles(Roles::of(&[Role::Admin]));
const SEE_KEYS: Access = Access::Roles(Roles::of(&[Role::Auditor, Role::Admin, Role::Operator]));
const OPERATE: Access = Access::Roles(Roles::of(&[Role::Operator]));

macro_rules! routes {
    ($($method:ident $pattern:literal $access:ident $handler:expr, $about:literal;)*) => {
        vec![$(Route {
            method: Method::$method,
            pattern: $pattern,
            access: $access,
            handler: $handler,
            about: $about,
        },)*]
    };
}

/// Every route, in the order of the HTTP contract.
pub fn routes() -> &'static [Route] {
    use Access::{Metrics as METRICS, Public as PUBLIC};
    use Api as A;
    use Handler::{Api as Own, Ingest, Read};
    use ingest::Route as In;
    use query::Endpoint as Out;
    static ROUTES: std::sync::OnceLock<Vec<Route>> = std::sync::OnceLock::new();
    ROUTES.get_or_init(|| {
        routes! {
            POST "/v1/traces" SEND Ingest(In::OtlpTraces), "takes OTLP spans";
            POST "/v1/logs" SEND Ingest(In::OtlpLogs), "takes OTLP log records";
            POST "/v1/metrics" SEND Ingest(In::OtlpMetrics), "will take OTLP metrics";
            POST "/otlp/v1/traces" SEND Ingest(In::OtlpTraces), "takes OTLP spans";
            POST "/otlp/v1/logs" SEND Ingest(In::OtlpLogs), "takes OTLP log records";
            POST "/otlp/v1/metrics" SEND Ingest(In::OtlpMetrics), "will take OTLP metrics";
            POST "/api/v1/events" SEND Ingest(In::Events), "takes events as NDJSON or JSON";
            POST "/api/v1/audit" SEND Ingest(In::Audit), "takes audit records, all or nothing";
            POST "/write" SEND Ingest(In::WriteV1), "takes InfluxDB line protocol, version 1";
            POST "/api/v2/write" SEND Ingest(In::WriteV2), "takes InfluxDB line protocol, version 2";
            POST "/api/v3/write_lp" SEND Ingest(In::WriteV3), "takes InfluxDB line protocol, version 3";
            GET "/ping" PUBLIC Own(A::Ping), "answers InfluxDB clients that look for a server";
            GET "/api/v1/events" READ Read(Out::Events), "lists events";
            GET "/api/v1/logs" READ Read(Out::Logs), "lists log records";
            GET "/api/v1/traces" READ Read(Out::Traces), "searches traces";
            GET "/api/v1/traces/{trace_id}" READ Read(Out::Trace), "shows one trace";
            GET "/api/v1/correlations/{correlation_id}" READ Read(Out::Correlation), "shows what one id ties together";
            GET "/api/v1/services" READ Read(Out::Services), "lists services";
            POST "/api/v1/sql" READ Read(Out::Sql), "answers one SQL query";
            GET "/api/v1/latency" READ Read(Out::Latency), "answers latency percentiles";
            GET "/api/v1/audit/traces" AUDIT Read(Out::AuditTraces), "lists audit records";
            GET "/audit/traces" AUDIT Read(Out::AuditTraces), "lists audit records";
            GET "/healthz" PUBLIC Own(A::Health), "says that the process runs";
            GET "/health" PUBLIC Own(A::Health), "says that the process runs";
            GET "/health/live" PUBLIC Own(A::Live), "says that the process runs";
            GET "/health/ready" PUBLIC Own(A::Ready), "says whether every dependency works";
            GET "/readyz" PUBLIC Own(A::Ready), "says whether every dependency works";
            GET "/system-health/live" PUBLIC Own(A::Live), "says that the process runs";
            GET "/system-health/ready" PUBLIC Own(A::Ready), "says whether every dependency works";
            GET "/system-health/metrics" METRICS Own(A::Metrics), "exposes metrics to Prometheus";
            GET "/metrics" METRICS Own(A::Metrics), "exposes metrics to Prometheus";
            GET "/api/v1/system/status" ADMIN Own(A::Status), "describes this process";
            POST "/api/v1/system/flush" OPERATE Own(A::Flush), "seals and commits everything acknowledged";
            GET "/api/v1/datasets" READ Own(A::DatasetsList), "lists the tenant's datasets";
            GET "/api/v1/tenants" OPERATE Own(A::TenantsList), "lists tenants";
            POST "/api/v1/tenants" OPERATE Own(A::TenantsCreate), "makes a tenant and its first admin key";
            GET "/api/v1/keys" SEE_KEYS Own(A::KeysList), "lists keys, without their secrets";
            POST "/api/v1/keys" ADMIN Own(A::KeysCreate), "makes a key and shows it this once";
            DELETE "/api/v1/keys/{id}" ADMIN Own(A::KeysRevoke), "revokes a key";
            GET "/api/v1/limits" ADMIN Own(A::LimitsGet), "shows rate limits";
            PUT "/api/v1/limits" ADMIN Own(A::LimitsSet), "sets rate limits";
            GET "/api/v1/retention" OWN Own(A::RetentionList), "lists how long datasets are kept";
            PUT "/api/v1/retention" OWN Own(A::RetentionSet), "sets how long a dataset is kept";
            POST "/api/v1/retention/run" OWN Own(A::RetentionRun), "removes what is past its retention, or tells it";
            GET "/api/v1/holds" OWN Own(A::HoldsList), "lists legal holds";
            POST "/api/v1/holds" OWN Own(A::HoldsPlace), "places a legal hold on a dataset";
            DELETE "/api/v1/holds/{id}" OWN Own(A::HoldsRelease), "releases a legal hold";
            GET "/api/v1/jobs" ADMIN Own(A::JobsList), "lists jobs, newest first";
            POST "/api/v1/jobs" ADMIN Own(A::JobsAsk), "asks for a job";
            GET "/api/v1/jobs/{id}" ADMIN Own(A::JobsGet), "shows one job";
            GET "/openapi.json" PUBLIC Own(A::Description), "describes this interface";
            GET "/" PUBLIC Own(A::Page), "says what this is";
        }
    })
}

/// Where a request goes.
#[derive(Debug)]
pub enum Found<'p> {
    /// To this route, with the segment its pattern captured.
    Route(&'static Route, Option<&'p str>),
    /// Nowhere by this method; by these it would.
    Method(Vec<&'static Method>),
    /// Nowhere.
    Nothing,
}

/// Finds the route of a request. Paths are matched as sent and never normalised: what climbs or hides a
/// separator is nowhere.
#[must_use]
pub fn find<'p>(method: &Method, path: &'p str) -> Found<'p> {
    let lower = path.to_ascii_lowercase();
    if path.contains("..")
        || path.contains("//")
        || path.contains('\\')
        || lower.contains("%2e")
        || lower.contains("%2f")
        || lower.contains("%5c")
        || lower.contains("%00")
    {
        return Found::Nothing;
    }
    let mut methods = Vec::new();
    for route in routes() {
        if let Some(captured) = route.captures(path) {
            // HEAD is GET without a body, and hyper leaves that out.
            if route.method == *method || (*method == Method::HEAD && route.method == Method::GET) {
                return Found::Route(route, captured);
            }
            methods.push(&route.method);
        }
    }
    if methods.is_empty() { Found::Nothing } else { Found::Method(methods) }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Found, find, routes};

    #[test]
    fn no_route_stands_twice() {
        let mut seen: Vec<_> = routes().iter().map(|route| (route.method(), route.pattern())).collect();
        let count = seen.len();
        seen.sort_by_key(|(method, pattern)| (method.to_string(), *pattern));
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn paths_match_as_sent() {
        let check = |method: Method, path: &str, expected: &str| {
            let found = match find(&method, path) {
                Found::Route(route, Some(captured)) => format!("{} {captured}", route.pattern()),
                Found::Route(route, None) => route.pattern().to_owned(),
                Found::Method(methods) => format!("{methods:?}"),
                Found::Nothing => "nothing".into(),
            };
            assert_eq!(found, expected, "{method} {path}");
        };
        check(Method::POST, "/v1/traces", "/v1/traces");
        check(Method::GET, "/v1/traces", "[POST]");
        check(Method::GET, "/api/v1/traces/abc", "/api/v1/traces/{trace_id} abc");
        for nowhere in [
            "/v1/traces/",
            "//v1/traces",
            "/v1/../v1/traces",
            "/v1/%2E%2e/x",
            "/v1\\traces",
            "/api/v1/traces/",
            "/api/v1/traces/a/b",
        ] {
            check(Method::POST, nowhere, "nothing");
        }
    }
}
