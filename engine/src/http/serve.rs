//! One request through the contract's order of refusal: framing, route, credential, role, and then whatever
//! answers the route.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use ingest::admit::{Class, short_of_memory};
use ingest::{Correlation, Dialect, Head, Refusal};
use storage::memory::{Charge, Pool};
use storage::{Principal, Role};

use super::answer::{Answer, Body, finish};
use super::body::Budget;
use super::cors::{allowed_origin, preflight};
use super::unread::Arriving;
use super::wire::Watch;
use super::{body, framing};
use crate::api;
use crate::app::App;
use crate::clock::Clock;
use crate::identity::{Denied, Unusable};
use crate::routes::{Access, Api, Found, Handler, Route, find};

/// Longest body of a query or of administration, in bytes.
const SMALL_BODY_BYTES_MAX: usize = 2 << 20;

/// Answers of the engine itself up to this many bytes are part of what a connection costs.
const CHARGED_BYTES_MIN: usize = 4 << 10;

/// A correlation id for what came without one.
pub fn fresh_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Answers one request. Never fails: what goes wrong is an answer too. `false` where bytes of its body were left
/// unread, and the answer says that the connection closes.
pub async fn answer(
    app: Arc<App>,
    lane: Rc<ingest::Lane>,
    watch: &Rc<Watch>,
    request: Request<Incoming>,
) -> (Response<Body>, bool) {
    let begun_ns = Clock::monotonic_ns();
    let (head, incoming) = request.into_parts();
    let mut body = Arriving::new(incoming, head.version, &head.headers);
    let correlation = Arc::new(Correlation::from_headers(
        &head.headers,
        &app.ingest.scrub.load(),
        |id| app.identity.is_key(id),
        fresh_id,
    ));
    let origin = allowed_origin(&app, &head.headers);
    let is_head = head.method == Method::HEAD;
    let _running = app.metrics.begin();
    let (route, answer) = route_and_answer(&app, lane, watch, head, &mut body, &correlation).await;
    let elapsed_ns = Clock::monotonic_ns().saturating_sub(begun_ns);
    app.metrics.observe(route, answer.status, elapsed_ns);
    if answer.status >= 500 && answer.status != 503 {
        tracing::warn!(
            correlation_id = %correlation.id,
            request_id = %correlation.request_id,
            route = route.map_or("none", Route::pattern),
            status = answer.status,
            "a request failed"
        );
    }
    tracing::debug!(
        correlation_id = %correlation.id,
        request_id = %correlation.request_id,
        route = route.map_or("none", Route::pattern),
        status = answer.status,
        duration_us = elapsed_ns / 1_000,
        "answered"
    );
    let mut response = finish(answer, &correlation, origin);
    if is_head {
        // The length of what a GET would have got, and nothing of it.
        if let Body::Full(bytes) = std::mem::replace(response.body_mut(), Body::Full(Bytes::new())) {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
    }
    let is_whole = body.finish(&mut response, watch.pass.is_proven()).await;
    (response, is_whole)
}

async fn route_and_answer(
    app: &Arc<App>,
    lane: Rc<ingest::Lane>,
    watch: &Rc<Watch>,
    head: Parts,
    body: &mut Arriving,
    correlation: &Arc<Correlation>,
) -> (Option<&'static Route>, Answer) {
    let problem = |refusal: &Refusal| super::problem(refusal, correlation);
    if let Err(refusal) = framing::check(&head) {
        return (None, problem(&refusal));
    }
    if !framing::is_allowed_host(&head, &app.config.settings.allowed_hosts) {
        return (None, problem(&Refusal::new(421, "wrong_host", "this host is not served here")));
    }
    let path = head.uri.path().to_owned();
    let (route, captured) = match find(&head.method, &path) {
        Found::Route(route, captured) => (route, captured.map(decoded)),
        Found::Method(methods) => {
            if head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
                return (None, preflight(app, &head.headers, correlation));
            }
            let mut refusal = Refusal::new(405, "method_not_allowed", "the route exists for other methods");
            let allow = methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ");
            refusal.headers.extend(HeaderValue::from_str(&allow).ok().map(|allow| (ALLOW, allow)));
            return (None, problem(&refusal));
        }
        Found::Nothing => {
            let refusal = Refusal::new(404, "not_found", "there is no such route: see /openapi.json");
            return (None, problem(&refusal));
        }
    };
    let principal = match let_in(app, route, watch, &head, correlation) {
        Ok(principal) => principal,
        Err(refusal) => {
            let dialect = match route.handler() {
                Handler::Ingest(route) => route.dialect(),
                _ => Dialect::Problem,
            };
            return (Some(route), ingest::render(dialect, &head.headers, &refusal, &correlation.id).into());
        }
    };
    let answer = match (route.handler(), principal) {
        (Handler::Ingest(into), Some(principal)) => {
            take(app, lane, into, principal, head, body, correlation).await
        }
        (Handler::Read(endpoint), Some(principal)) => {
            read(app, endpoint, captured, principal, head, body, correlation).await
        }
        (Handler::Api(what), principal) => {
            operate(app, what, captured, principal, head, body, correlation).await
        }
        (Handler::Ingest(_) | Handler::Read(_), None) => unreachable!("routes to data ask for a role"),
    };
    (Some(route), answer)
}

/// What the head alone decides for every route, in the contract's order: credential, role, tenant header, draining,
/// request rate; and the tenant's share of connections. `None` where the route asks for nobody.
fn let_in(
    app: &App,
    route: &Route,
    watch: &Watch,
    head: &Parts,
    correlation: &Correlation,
) -> Result<Option<Principal>, Refusal> {
    let principal = authorize(app, route, watch, head, correlation)?;
    if let Some(principal) = &principal {
        ingest::check_tenant(&head.headers, &principal.tenant)?;
    }
    if app.ingest.is_draining.load(Ordering::Relaxed) && !route.is_public() {
        return Err(Refusal::retry(503, "draining", "this process is stopping: try another", 1));
    }
    let Some(principal) = principal else { return Ok(None) };
    let class = match route.handler() {
        Handler::Ingest(_) => Class::Ingest,
        Handler::Read(_) => Class::Read,
        Handler::Api(_) => Class::Operate,
    };
    let spent = app.ingest.admit.spend_request(&principal.tenant, class, Clock::monotonic_ns());
    // Who set a limit too low must be able to raise it again: that request counts, and is never refused for it.
    if let Err(denied) = spent
        && !matches!(route.handler(), Handler::Api(Api::LimitsGet | Api::LimitsSet))
    {
        return Err(app.ingest.admit.refusal(&principal.tenant, class, &denied));
    }
    // Once shown, the key is this connection's: it is no stranger's any more.
    watch.pass.prove(app.storage.memory(), &principal.tenant).map_err(|short| {
        let mut refusal = short_of_memory(short, super::strangers::CLIENT_BYTES);
        refusal.headers.push((http::header::CONNECTION, HeaderValue::from_static("close")));
        refusal
    })?;
    Ok(Some(principal))
}

/// Who asks, and whether they may; `None` where the route asks for nobody.
fn authorize(
    app: &App,
    route: &Route,
    watch: &Watch,
    head: &Parts,
    correlation: &Correlation,
) -> Result<Option<Principal>, Refusal> {
    let roles = match route.access() {
        Access::Public => return Ok(None),
        Access::Metrics if app.config.is_loopback() => return Ok(None),
        Access::Metrics => storage::Roles::of(&[Role::Operator]),
        Access::Roles(roles) => roles,
    };
    let (now_ns, monotonic_ns) = (Clock::now_ns(), Clock::monotonic_ns());
    let found =
        app.identity.authenticate(&head.headers, head.uri.query(), watch.pass.peer(), now_ns, monotonic_ns);
    let principal = found.map_err(|denied| {
        app.metrics.authn_failure(denied.as_str());
        denied_refusal(denied)
    })?;
    if !principal.roles.meets(roles) {
        app.metrics.authz_denial();
        tracing::warn!(
            correlation_id = %correlation.id,
            tenant_id = %principal.tenant,
            user_id = %principal.subject,
            route = route.pattern(),
            "authz.denied"
        );
        let needed: Vec<&str> = roles.iter().map(Role::as_str).collect();
        let detail = format!("this needs a key with one of the roles {}", needed.join(", "));
        return Err(Refusal::new(403, "forbidden", detail));
    }
    Ok(Some(principal))
}

fn denied_refusal(denied: Denied) -> Refusal {
    match denied {
        Denied::Unusable(Unusable::Two) => {
            Refusal::new(400, "two_credentials", "send one credential, in one header")
        }
        Denied::Unusable(Unusable::InQuery) => {
            Refusal::new(401, "key_in_query", "a key in the URL is refused: send it as Authorization: Bearer")
        }
        Denied::Unusable(Unusable::Missing) => {
            Refusal::new(401, "unauthorized", "send a key as Authorization: Bearer or X-API-Key")
        }
        Denied::Unusable(Unusable::Malformed) | Denied::Unknown => {
            Refusal::new(401, "unauthorized", "the key is not valid")
        }
        Denied::Throttled { retry_after_s } => Refusal::retry(
            429,
            "too_many_failures",
            "too many failed attempts from this address",
            retry_after_s,
        ),
    }
}

/// Takes records. Once the body is here the request is driven to its end, also when the client has gone (F1).
async fn take(
    app: &Arc<App>,
    lane: Rc<ingest::Lane>,
    route: ingest::Route,
    principal: Principal,
    parts: Parts,
    body: &mut Arriving,
    correlation: &Arc<Correlation>,
) -> Answer {
    let (now_ns, monotonic_ns) = (Clock::now_ns(), Clock::monotonic_ns());
    let query = parts.uri.query().map(str::to_owned);
    let head = Head {
        route,
        principal: &principal,
        headers: &parts.headers,
        query: query.as_deref(),
        correlation,
        now_ns,
        monotonic_ns,
    };
    if let Err(refusal) = lane.check_head(&head).await {
        return ingest::render(route.dialect(), &parts.headers, &refusal, &correlation.id).into();
    }
    let budget = Budget { memory: app.storage.memory(), tenant: &principal.tenant };
    let body::Whole { bytes, charge } = match body::read(body, app.ingest.limits.body_bytes_max, budget).await
    {
        Ok(body) => body,
        Err(refusal) => {
            return ingest::render(route.dialect(), &parts.headers, &refusal, &correlation.id).into();
        }
    };
    let correlation = Arc::clone(correlation);
    let work = tokio::task::spawn_local(async move {
        let _held = charge;
        let head = Head {
            route,
            principal: &principal,
            headers: &parts.headers,
            query: query.as_deref(),
            correlation: &correlation,
            now_ns,
            monotonic_ns,
        };
        lane.handle(head, bytes).await
    });
    match work.await {
        Ok(reply) => reply.into(),
        Err(_) => {
            let refusal = Refusal::retry(503, "internal", "the request was not stored", 1);
            ingest::render(route.dialect(), &HeaderMap::new(), &refusal, "").into()
        }
    }
}

/// Reads data, on the query runtime; leaving cancels the work.
async fn read(
    app: &App,
    endpoint: query::Endpoint,
    path_id: Option<String>,
    principal: Principal,
    parts: Parts,
    body: &mut Arriving,
    correlation: &Correlation,
) -> Answer {
    if endpoint == query::Endpoint::Sql && !is_json(&parts.headers) {
        let refusal = Refusal::new(415, "unsupported_media_type", "send the query as application/json");
        return super::problem(&refusal, correlation);
    }
    let budget = Budget { memory: app.storage.memory(), tenant: &principal.tenant };
    let body::Whole { bytes: body, charge: _held } =
        match body::read(body, SMALL_BODY_BYTES_MAX, budget).await {
            Ok(body) => body,
            Err(refusal) => return super::problem(&refusal, correlation),
        };
    let accept = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let question = query::Request {
        endpoint,
        path_id,
        query: parts.uri.query().map(str::to_owned),
        accept,
        body,
        principal,
        now_ns: Clock::now_ns(),
        correlation_id: correlation.id.clone(),
    };
    match app.query.answer(question).await {
        Ok(answer) => {
            let mut headers = answer.headers;
            headers.push((http::header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type)));
            let body = match answer.body {
                query::Body::Full(bytes) => Body::Full(bytes),
                query::Body::Stream(pieces) => Body::Stream(pieces),
            };
            Answer { status: answer.status, headers, body }
        }
        Err(refused) => {
            let refusal = match refused.status {
                503 => Refusal::retry(503, refused.code, refused.detail, 1),
                status => Refusal::new(status, refused.code, refused.detail),
            };
            super::problem(&refusal, correlation)
        }
    }
}

/// The engine's own answers, on the control runtime.
async fn operate(
    app: &Arc<App>,
    what: Api,
    path_id: Option<String>,
    principal: Option<Principal>,
    parts: Parts,
    body: &mut Arriving,
    correlation: &Arc<Correlation>,
) -> Answer {
    if what.takes_json() && !is_json(&parts.headers) {
        let refusal = Refusal::new(415, "unsupported_media_type", "send the body as application/json");
        return super::problem(&refusal, correlation);
    }
    let tenant = principal.as_ref().map(|principal| principal.tenant.clone());
    let (mut bytes, mut held) = (Bytes::new(), None);
    // Routes that ask for nobody read nothing that is sent.
    if let Some(tenant) = &tenant {
        let budget = Budget { memory: app.storage.memory(), tenant };
        match body::read(body, SMALL_BODY_BYTES_MAX, budget).await {
            Ok(whole) => (bytes, held) = (whole.bytes, whole.charge),
            Err(refusal) => return super::problem(&refusal, correlation),
        }
    }
    // X2: what changes state waits in one row for all; each tenant has its places in it.
    let place = match &tenant {
        Some(tenant) if parts.method != Method::GET => match app.admin_turns.enter(tenant) {
            Some(place) => Some(place),
            None => {
                let detail = "too many changes of this tenant are under way: send them one after the other";
                return super::problem(&Refusal::retry(503, "share_exceeded", detail, 1), correlation);
            }
        },
        _ => None,
    };
    let call = api::Call {
        app: Arc::clone(app),
        principal,
        path_id,
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        body: bytes,
        correlation: Arc::clone(correlation),
    };
    let work = app.control.spawn(async move {
        let _held = (held, place);
        api::answer(what, call).await
    });
    let answer = match work.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(refusal)) => super::problem(&refusal, correlation),
        Err(_) => super::problem(&Refusal::retry(503, "internal", "the request failed", 1), correlation),
    };
    charged(app, tenant.as_ref(), answer).unwrap_or_else(|refusal| super::problem(&refusal, correlation))
}

/// Charges an answer until its last byte is handed over: a client that does not read it holds memory.
fn charged(
    app: &App,
    tenant: Option<&storage::record::Tenant>,
    mut answer: Answer,
) -> Result<Answer, Refusal> {
    struct Held(Bytes, #[expect(dead_code, reason = "held as long as the bytes are")] Charge);
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    if let Body::Full(bytes) = &mut answer.body
        && bytes.len() > CHARGED_BYTES_MIN
    {
        let len = bytes.len() as u64;
        let charge = app.storage.memory().take(Pool::Edge, tenant, len);
        let charge = charge.map_err(|short| short_of_memory(short, len))?;
        answer.body = Body::Full(Bytes::from_owner(Held(std::mem::take(bytes), charge)));
    }
    Ok(answer)
}

/// A path segment as text. What is no UTF-8 names nothing, and so finds nothing.
fn decoded(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn is_json(headers: &HeaderMap) -> bool {
    ingest::reply::media_type(headers)
        .is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json"))
}
