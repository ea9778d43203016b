//! What browsers ask for before they send, and whether their page may read the answer (CORS).

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName, HeaderValue};
use ingest::{Correlation, Refusal};

use super::answer::{Answer, Body};
use crate::app::App;

/// The origin to name in the answer, where it is on the list.
pub fn allowed_origin(app: &App, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let text = origin.to_str().ok()?;
    app.config.settings.allowed_origins.iter().any(|one| one == text).then(|| origin.clone())
}

/// Answers a browser that asks before it sends (CORS).
pub fn preflight(app: &App, headers: &HeaderMap, correlation: &Correlation) -> Answer {
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
