//! What a request's head alone can refuse, so that a hopeless body is never read.
//!
//! In the order of the HTTP contract: media type and encoding (415), size (413), what headers and query say
//! (400). Whoever answers routes has asked for the tenant header ([`check_tenant`]) and the request rate before;
//! pressure comes after, in the pipeline.

mod query;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName};
use storage::Principal;
use storage::record::{Dataset, Kind, Tenant};

use crate::Route;
use crate::correlate::Correlation;
use crate::decode::{Limits, Precision};
use crate::inflate::Encoding;
use crate::reply::{Refusal, media_type};

/// Longest idempotency key, in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Headers by which clients of other systems choose a tenant. Here they choose nothing (T1).
const TENANT_HEADERS: [HeaderName; 5] = [
    HeaderName::from_static("x-scope-orgid"),
    HeaderName::from_static("x-tenant"),
    HeaderName::from_static("x-tenant-id"),
    HeaderName::from_static("x-p-tenant"),
    HeaderName::from_static("accountid"),
];

/// A request before its body: what the engine knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Where it came in.
    pub route: Route,
    /// Who sends it.
    pub principal: &'a Principal,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its query string, without the question mark.
    pub query: Option<&'a str>,
    /// Its ids.
    pub correlation: &'a Correlation,
    /// Time of receipt, nanoseconds since 1970 UTC.
    pub now_ns: i64,
    /// Time of receipt on a clock that never jumps, nanoseconds since any fixed start: what rates are spent by.
    pub monotonic_ns: u64,
}

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
    /// One JSON object a line.
    JsonLines,
    /// Line protocol, whatever its content type.
    LineProtocol,
}

/// What a good head asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The records' kind.
    pub kind: Kind,
    /// How the body is encoded for the way.
    pub encoding: Encoding,
    /// What it is then.
    pub media: Media,
    /// Where it goes.
    pub dataset: Dataset,
    /// Whether one bad record refuses them all.
    pub is_atomic: bool,
    /// The unit of line protocol's timestamps.
    pub precision: Precision,
    /// Under which key it is to be stored at most once.
    pub idempotency_key: Option<Box<str>>,
    /// Whether the answer is to hold the receipt.
    pub wants_receipt: bool,
}

/// Checks everything that needs no body.
pub(crate) fn check(head: &Head<'_>, limits: &Limits) -> Result<Accepted, Refusal> {
    let Some(kind) = head.route.kind() else {
        return Err(Refusal::new(404, "not_built", "this build takes no metrics"));
    };
    let content_length = content_length(head.headers);
    let media = media(head.route, head.headers, content_length)?;
    let encoding = Encoding::from_headers(head.headers).ok_or_else(|| {
        Refusal::new(415, "unsupported_encoding", "content-encoding is one of gzip, zstd, deflate, identity")
    })?;
    if let Some(len) = content_length
        && len > limits.body_bytes_max as u64
    {
        return Err(body_too_large(len, limits));
    }
    let idempotency_key = idempotency_key(head.headers)?;
    let parameters = query::parse(head.route, head.query.unwrap_or_default())?;
    Ok(Accepted {
        kind,
        encoding,
        media,
        dataset: parameters.dataset.unwrap_or_else(|| Dataset::built_in(kind)),
        is_atomic: parameters.is_atomic || head.route == Route::Audit,
        precision: parameters.precision,
        idempotency_key,
        wants_receipt: wants_receipt(head),
    })
}

/// The refusal of a body of `len` bytes as sent.
pub(crate) fn body_too_large(len: u64, limits: &Limits) -> Refusal {
    let max = limits.body_bytes_max;
    Refusal::new(413, "body_too_large", format!("body of {len} bytes exceeds body_bytes_max {max}"))
}

/// A length that is no number was refused by the framing already.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn media(route: Route, headers: &HeaderMap, content_length: Option<u64>) -> Result<Media, Refusal> {
    if route.is_line_protocol() {
        return Ok(Media::LineProtocol);
    }
    let is_otlp = matches!(route, Route::OtlpTraces | Route::OtlpLogs | Route::OtlpMetrics);
    let sent = media_type(headers).map(str::to_ascii_lowercase);
    match sent.as_deref() {
        // What has no body needs no media type.
        None if content_length == Some(0) && !headers.contains_key(http::header::CONTENT_TYPE) => {
            Ok(if is_otlp { Media::Protobuf } else { Media::JsonLines })
        }
        Some("application/json") => Ok(Media::Json),
        Some("application/x-protobuf") if is_otlp => Ok(Media::Protobuf),
        Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") if !is_otlp => {
            Ok(Media::JsonLines)
        }
        _ => Err(Refusal::new(
            415,
            "unsupported_media_type",
            if is_otlp {
                "content-type is application/x-protobuf or application/json"
            } else {
                "content-type is application/x-ndjson or application/json"
            },
        )),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Box<str>>, Refusal> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    let is_good = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) && !key.contains('\t');
    if !is_good || values.next().is_some() {
        return Err(Refusal::new(
            400,
            "idempotency_key",
            "idempotency-key is sent once, with 1 to 255 printable ASCII characters",
        ));
    }
    Ok(Some(key.into()))
}

/// Checks that a request names no other tenant than its credential's, on any route (T1).
///
/// # Errors
/// 400 `tenant_mismatch`.
pub fn check_tenant(headers: &HeaderMap, tenant: &Tenant) -> Result<(), Refusal> {
    for name in &TENANT_HEADERS {
        for value in headers.get_all(name) {
            if value.as_bytes() != tenant.as_str().as_bytes() {
                return Err(Refusal::new(
                    400,
                    "tenant_mismatch",
                    format!("the tenant comes from the credential; leave {name} out"),
                ));
            }
        }
    }
    Ok(())
}

fn wants_receipt(head: &Head<'_>) -> bool {
    matches!(head.route, Route::Events | Route::Audit)
        && head.headers.get_all("prefer").iter().any(|value| {
            let preferences = value.to_str().unwrap_or_default().split([',', ';']);
            preferences.map(str::trim).any(|one| one.eq_ignore_ascii_case("receipt"))
        })
}

#[cfg(test)]
mod tests;
