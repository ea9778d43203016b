//! One request through the contract's order of refusal: framing, route, credential, role, and then whatever
//! answers the route.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONTENT_LENGTH, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use ingest::{Correlation, Dialect, Head, Refusal};
use storage::{Principal, Role};

use super::answer::{Answer, Body, finish};
use super::{body, framing};
use crate::api;
use crate::app::App;
use crate::clock::Clock;
use crate::identity::{Denied, Unusable};
use crate::routes::{Access, Found, Handler, Route, find};

/// Longest body of a query or of administration, in bytes.
const SMALL_BODY_BYTES_MAX: usize = 2 << 20;

/// A correlation id for what came without one.
pub fn fresh_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Answers one request. Never fails: what goes wrong is an answer too.
pub async fn answer(
    app: Arc<App>,
    lane: Rc<ingest::Lane>,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let begun_ns = Clock::monotonic_ns();
    let correlation = Arc::new(Correlation::from_headers(
        request.headers(),
        &app.ingest.scrub.load(),
        |id| app.identity.is_key(id),
        fresh_id,
    ));
    let origin = allowed_origin(&app, request.headers());
    let method = request.method().clone();
    let is_head = method == Method::HEAD;
    let _running = app.metrics.begin();
    let (route, answer) = route_and_answer(&app, lane, peer, request, &correlation).await;
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
        if let Body::Full(bytes) = std::mem::replace(response.body_mut(), Body::Full(bytes::Bytes::new())) {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
    }
    response
}

async fn route_and_answer(
    app: &Arc<App>,
    lane: Rc<ingest::Lane>,
    peer: IpAddr,
    request: Request<Incoming>,
    correlation: &Arc<Correlation>,
) -> (Option<&'static Route>, Answer) {
    let problem = |refusal: &Refusal| super::problem(refusal, correlation);
    if let Err(refusal) = framing::check(&request) {
        return (None, problem(&refusal));
    }
    if !framing::is_allowed_host(&request, &app.config.settings.allowed_hosts) {
        return (None, problem(&Refusal::new(421, "wrong_host", "this host is not served here")));
    }
    let path = request.uri().path().to_owned();
    let (route, captured) = match find(request.method(), &path) {
        Found::Route(route, captured) => (route, captured.map(decoded)),
        Found::Method(methods) => {
            if request.method() == Method::OPTIONS
                && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            {
                return (None, preflight(app, request.headers(), correlation));
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
    let dialect = match route.handler() {
        Handler::Ingest(route) => route.dialect(),
        _ => Dialect::Problem,
    };
    let principal = match authorize(app, route, peer, request.headers(), request.uri().query(), correlation) {
        Ok(principal) => principal,
        Err(refusal) => {
            let reply = ingest::render(dialect, request.headers(), &refusal, &correlation.id);
            return (Some(route), reply.into());
        }
    };
    if app.ingest.is_draining.load(Ordering::Relaxed) && !route.is_public() {
        let refusal = Refusal::retry(503, "draining", "this process is stopping: try another", 1);
        return (Some(route), ingest::render(dialect, request.headers(), &refusal, &correlation.id).into());
    }
    let answer = match (route.handler(), principal) {
        (Handler::Ingest(into), Some(principal)) => {
            take(app, lane, into, principal, request, correlation).await
        }
        (Handler::Read(endpoint), Some(principal)) => {
            read(app, endpoint, captured, principal, request, correlation).await
        }
        (Handler::Api(what), principal) => {
            operate(app, what, captured, principal, request, correlation).await
        }
        (Handler::Ingest(_) | Handler::Read(_), None) => unreachable!("routes to data ask for a role"),
    };
    (Some(route), answer)
}

/// Who asks, and whether they may; `None` where the route asks for nobody.
fn authorize(
    app: &App,
    route: &Route,
    peer: IpAddr,
    headers: &HeaderMap,
    query: Option<&str>,
    correlation: &Correlation,
) -> Result<Option<Principal>, Refusal> {
    let roles = match route.access() {
        Access::Public => return Ok(None),
        Access::Metrics if app.config.is_loopback() => return Ok(None),
        Access::Metrics => storage::Roles::of(&[Role::Operator]),
        Access::Roles(roles) => roles,
    };
    let found = app.identity.authenticate(headers, query, peer, Clock::now_ns(), Clock::monotonic_ns());
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
    request: Request<Incoming>,
    correlation: &Arc<Correlation>,
) -> Answer {
    let (parts, incoming) = request.into_parts();
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
    if let Err(refusal) = lane.check_head(&head) {
        return ingest::render(route.dialect(), &parts.headers, &refusal, &correlation.id).into();
    }
    let body = match body::read(incoming, app.ingest.limits.body_bytes_max).await {
        Ok(body) => body,
        Err(refusal) => {
            return ingest::render(route.dialect(), &parts.headers, &refusal, &correlation.id).into();
        }
    };
    let correlation = Arc::clone(correlation);
    let work = tokio::task::spawn_local(async move {
        let head = Head {
            route,
            principal: &principal,
            headers: &parts.headers,
            query: query.as_deref(),
            correlation: &correlation,
            now_ns,
            monotonic_ns,
        };
        lane.handle(head, body).await
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
    request: Request<Incoming>,
    correlation: &Correlation,
) -> Answer {
    let (parts, incoming) = request.into_parts();
    if endpoint == query::Endpoint::Sql && !is_json(&parts.headers) {
        let refusal = Refusal::new(415, "unsupported_media_type", "send the query as application/json");
        return super::problem(&refusal, correlation);
    }
    let body = match body::read(incoming, SMALL_BODY_BYTES_MAX).await {
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
    what: crate::routes::Api,
    path_id: Option<String>,
    principal: Option<Principal>,
    request: Request<Incoming>,
    correlation: &Arc<Correlation>,
) -> Answer {
    let (parts, incoming) = request.into_parts();
    if what.takes_json() && !is_json(&parts.headers) {
        let refusal = Refusal::new(415, "unsupported_media_type", "send the body as application/json");
        return super::problem(&refusal, correlation);
    }
    let body = match body::read(incoming, SMALL_BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(refusal) => return super::problem(&refusal, correlation),
    };
    let call = api::Call {
        app: Arc::clone(app),
        principal,
        path_id,
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        body,
        correlation: Arc::clone(correlation),
    };
    match app.control.spawn(api::answer(what, call)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(refusal)) => super::problem(&refusal, correlation),
        Err(_) => super::problem(&Refusal::retry(503, "internal", "the request failed", 1), correlation),
    }
}

/// A path segment as text. What is no UTF-8 names nothing, and so finds nothing.
fn decoded(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn is_json(headers: &HeaderMap) -> bool {
    ingest::reply::media_type(headers)
        .is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json"))
}

/// The origin to name in the answer, where it is on the list.
fn allowed_origin(app: &App, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let text = origin.to_str().ok()?;
    app.config.settings.allowed_origins.iter().any(|one| one == text).then(|| origin.clone())
}

/// Answers a browser that asks before it sends (CORS).
fn preflight(app: &App, headers: &HeaderMap, correlation: &Correlation) -> Answer {
    if allowed_origin(app, headers).is_none() {
        return super::problem(
            &Refusal::new(403, "origin_not_allowed", "this origin is not on the list"),
            correlation,
        );
    }
    let pair = |name: &'static str, value: &'static str| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    let allowed = "content-type, content-encoding, authorization, traceparent, tracestate, baggage, x-api-key, \
                   x-correlation-id, x-request-id, idempotency-key";
    Answer {
        status: 204,
        headers: vec![
            pair("access-control-allow-methods", "GET, POST, PUT, DELETE"),
            pair("access-control-allow-headers", allowed),
            pair("access-control-max-age", "600"),
        ],
        body: Body::Full(bytes::Bytes::new()),
    }
}
