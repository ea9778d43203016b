//! One answer, in the words of whoever asked: OTLP's status, InfluxDB's JSON of three generations, or
//! problem details (RFC 9457).
//!
//! Stages speak of a [`Refusal`]; only here does it become bytes. Successes are rendered beside it, so that a
//! route's dialect is decided in one place. Details never hold payload (P2).

mod influx;
mod otlp;
mod problem;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::decode::{Decoded, Refused, Rejected};
pub use otlp::Signal;

/// The header every answer carries.
pub const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// The header of an answer that was given before.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The code of a line-protocol request whose good lines are kept although it is answered with 400.
pub const PARTIAL_WRITE: &str = "partial_write";

/// Seconds after which a client may try again for which there was no memory. Chosen: a seal takes about as long.
const BUSY_RETRY_AFTER_S: u32 = 2;

/// Bytes of a detail that an answer holds at most. OTLP allows 4 MiB a response; nobody reads more than this.
const DETAIL_BYTES_MAX: usize = 2_048;

/// How a route's clients expect to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OTLP/HTTP: protobuf or JSON, as the request's content type says.
    Otlp(Signal),
    /// InfluxDB 1: `{"error"}`.
    InfluxV1,
    /// InfluxDB 2: `{"code","message"}`.
    InfluxV2,
    /// InfluxDB 3: `{"error","data"}`.
    InfluxV3,
    /// Our own API: problem details.
    Problem,
}

/// A request that is not fulfilled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// A stable code.
    pub code: &'static str,
    /// What is wrong and what to do about it, without payload.
    pub detail: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// After how many seconds, at least 1.
    pub retry_after: Option<u32>,
    /// How many records are bad.
    pub rejected_count: u32,
    /// The first of them.
    pub rejected: Vec<Rejected>,
    /// Headers that belong to this refusal (rate limits).
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// A refusal for good.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), ..Self::default() }
    }

    /// A refusal for now; waits of less than a second count as one.
    pub fn retry(status: u16, code: &'static str, detail: impl Into<String>, retry_after_s: u32) -> Self {
        let retry_after = Some(retry_after_s.max(1));
        Self { status, code, detail: detail.into(), retryable: true, retry_after, ..Self::default() }
    }

    /// A refusal because of bad records, which it lists.
    pub fn of_records(code: &'static str, detail: impl Into<String>, decoded: Decoded) -> Self {
        Self {
            rejected_count: decoded.rejected_count,
            rejected: decoded.rejected,
            ..Self::new(400, code, detail)
        }
    }

    /// The status in words, the same for every refusal of that status.
    #[must_use]
    pub fn title(&self) -> &'static str {
        http::StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Error")
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        if refused.status == 503 {
            return Self::retry(503, refused.code, refused.detail, BUSY_RETRY_AFTER_S);
        }
        Self::new(refused.status, refused.code, refused.detail)
    }
}

/// What goes back on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// All headers, content type among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// An answer of that content type, with the correlation id that every answer carries.
    #[must_use]
    pub fn new(status: u16, content_type: Option<&'static str>, body: Bytes, correlation_id: &str) -> Self {
        let mut headers = Vec::with_capacity(4);
        if let Some(content_type) = content_type {
            headers.push((CONTENT_TYPE, HeaderValue::from_static(content_type)));
        }
        if let Ok(id) = HeaderValue::from_str(correlation_id) {
            headers.push((CORRELATION_ID, id));
        }
        Self { status, headers, body }
    }

    /// The value of a header, for tests and logs.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).and_then(|(_, value)| value.to_str().ok())
    }
}

/// What a fulfilled request says of itself, without headers: what is stored for its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Renders a refusal as the route's clients expect it.
///
/// `headers` are the request's: OTLP is answered in its own content type.
#[must_use]
pub fn render(dialect: Dialect, headers: &HeaderMap, refusal: &Refusal, correlation_id: &str) -> Reply {
    let content_type = content_type(dialect, headers, refusal.status);
    let body = refusal_body(dialect, headers, refusal, correlation_id);
    let mut reply = Reply::new(refusal.status, Some(content_type), body, correlation_id);
    if refusal.status == 401 {
        reply.headers.push((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        if matches!(dialect, Dialect::InfluxV1 | Dialect::InfluxV2 | Dialect::InfluxV3) {
            reply.headers.push((WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"floodmark\"")));
        }
    }
    if let Some(seconds) = refusal.retry_after {
        reply.headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
    }
    match refusal.code {
        "unsupported_encoding" => {
            reply.headers.push((ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, deflate, identity")));
        }
        // B36: the next request must find another process.
        "draining" => reply.headers.push((CONNECTION, HeaderValue::from_static("close"))),
        _ => {}
    }
    reply.headers.extend(refusal.headers.iter().cloned());
    reply
}

/// The body of a refusal alone.
#[must_use]
pub fn refusal_body(dialect: Dialect, headers: &HeaderMap, refusal: &Refusal, correlation_id: &str) -> Bytes {
    match dialect {
        Dialect::Otlp(_) if is_protobuf(headers) => otlp::status_protobuf(refusal),
        Dialect::Otlp(_) => otlp::status_json(refusal),
        Dialect::InfluxV1 => influx::v1(refusal),
        Dialect::InfluxV2 => influx::v2(refusal),
        Dialect::InfluxV3 => influx::v3(refusal),
        Dialect::Problem => problem::body(refusal, correlation_id),
    }
}

/// What a request was answered with whose good records are kept: 200 or 204, 202 when it is only buffered.
#[must_use]
pub fn success(dialect: Dialect, headers: &HeaderMap, decoded: &Decoded, is_buffered: bool) -> Outcome {
    let (status, body) = match dialect {
        Dialect::Otlp(_) if is_protobuf(headers) => (200, otlp::response_protobuf(decoded)),
        Dialect::Otlp(signal) => (200, otlp::response_json(signal, decoded)),
        Dialect::InfluxV1 | Dialect::InfluxV2 | Dialect::InfluxV3 => (204, Bytes::new()),
        Dialect::Problem => (200, problem::accepted(decoded, None)),
    };
    Outcome { status: if is_buffered { 202 } else { status }, body }
}

/// The body of an accepted event or audit request with the receipt that it asked for.
#[must_use]
pub fn accepted_with_receipt(decoded: &Decoded, receipt: &storage::Receipt) -> Bytes {
    problem::accepted(decoded, Some(receipt))
}

/// The content type of an answer.
#[must_use]
pub fn content_type(dialect: Dialect, headers: &HeaderMap, status: u16) -> &'static str {
    match dialect {
        Dialect::Otlp(_) if is_protobuf(headers) => "application/x-protobuf",
        Dialect::Problem if status >= 400 => "application/problem+json",
        _ => "application/json",
    }
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/x-protobuf"))
}

/// The request's media type without its parameters; `None` where it is absent, sent twice or not text.
#[must_use]
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let value = values.next()?.to_str().ok()?;
    let media_type = value.split(';').next().unwrap_or_default().trim();
    (values.next().is_none() && !media_type.is_empty()).then_some(media_type)
}

/// A detail of bounded length, cut between characters.
fn bounded(detail: &str) -> &str {
    detail.get(..detail.floor_char_boundary(DETAIL_BYTES_MAX)).unwrap_or_default()
}

/// Bad records in one sentence: where each is and what is wrong with it.
fn summary(rejected: &[Rejected], listed_max: usize) -> String {
    let mut out = String::new();
    for one in rejected.iter().take(listed_max) {
        let comma = if out.is_empty() { "" } else { "; " };
        let (word, at) = one.line.map_or(("record", one.index), |line| ("line", line));
        out.push_str(&format!("{comma}{word} {at}: {}: {}", one.code, one.detail));
    }
    out
}

#[cfg(test)]
mod tests;
