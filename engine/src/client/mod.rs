//! A thin HTTP/1.1 client for the commands that talk to a running server.
//!
//! [`Client`] says where the server is and who asks; a [`Session`] owns one
//! kept-alive connection, so a task that needs its own connection takes its own session and nothing is
//! shared or locked. A [`Call`] is one request, a [`Reply`] one answer read to its end. Retries live in
//! `retry`, compression in `encoding`, the few OTLP messages we write and count in `otlp`.
//!
//! The monotonic clock is read here and in `cli::bench` only: both measure what a wire took.

pub mod encoding;
pub mod error;
pub mod otlp;
pub mod protobuf;
pub mod retry;
pub mod session;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use secrecy::SecretString;

pub use error::{Error, ErrorKind};
pub use session::Session;

/// Where the server is and which key asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) settings: Arc<Settings>,
}

/// What every session of a client shares.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `host:port`, for the socket and the `host` header.
    pub(crate) authority: String,
    /// Path put before every target, without a slash at its end.
    pub(crate) prefix: String,
    pub(crate) key: Option<SecretString>,
    pub(crate) connect_time_max: Duration,
    pub(crate) reply_time_max: Duration,
    pub(crate) reply_bytes_max: usize,
}

/// Time to open a connection. A server that accepts slower than this is not one to load further.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Time from the first byte sent to the last byte of the answer.
const REPLY_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of an answer held in memory; longer ones must be streamed.
const REPLY_BYTES_MAX: usize = 256 << 20;

impl Client {
    /// Points at the server below `url`, such as `http://127.0.0.1:4318`.
    ///
    /// # Errors
    /// `ErrorKind::Usage` when the URL is not plain `http://host[:port][/path]`.
    pub fn new(url: &str, key: Option<SecretString>) -> Result<Self, Error> {
        let (authority, prefix) = split_url(url)?;
        let settings = Settings {
            authority,
            prefix,
            key,
            connect_time_max: CONNECT_TIME_MAX,
            reply_time_max: REPLY_TIME_MAX,
            reply_bytes_max: REPLY_BYTES_MAX,
        };
        Ok(Self { settings: Arc::new(settings) })
    }

    /// Bounds the time from the first byte sent to the last byte of an answer.
    #[must_use]
    pub fn with_reply_time_max(self, reply_time_max: Duration) -> Self {
        let old = &self.settings;
        let settings = Settings {
            authority: old.authority.clone(),
            prefix: old.prefix.clone(),
            key: old.key.clone(),
            connect_time_max: old.connect_time_max,
            reply_time_max,
            reply_bytes_max: old.reply_bytes_max,
        };
        Self { settings: Arc::new(settings) }
    }

    /// Returns a session, which connects on its first call and keeps the connection.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// Returns `host:port` as the user gave it, for messages.
    pub fn authority(&self) -> &str {
        &self.settings.authority
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Path and query below the server's URL, such as `/api/v1/events?atomic=true`.
    pub target: String,
    /// `content-type`, where there is a body.
    pub content_type: Option<&'static str>,
    /// `content-encoding` of the body as it stands.
    pub encoding: encoding::Encoding,
    /// `accept`.
    pub accept: Option<&'static str>,
    /// `idempotency-key`: the same on every attempt, so that a retry is never stored twice.
    pub idempotency_key: Option<String>,
    /// The body, encoded already.
    pub body: Bytes,
}

impl Call {
    /// Asks for `target`.
    pub fn get(target: impl Into<String>) -> Self {
        Self::of(Method::GET, target.into())
    }

    /// Posts `body` of `content_type` to `target`.
    pub fn post(target: impl Into<String>, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut call = Self::of(Method::POST, target.into());
        call.content_type = Some(content_type);
        call.body = body.into();
        call
    }

    /// Puts the JSON `body` to `target`.
    pub fn put(target: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let mut call = Self::of(Method::PUT, target.into());
        call.content_type = Some("application/json");
        call.body = body.into();
        call
    }

    /// Deletes `target`.
    pub fn delete(target: impl Into<String>) -> Self {
        Self::of(Method::DELETE, target.into())
    }

    /// Returns whether doing this twice is the same as once.
    pub fn repeatable(&self) -> bool {
        self.idempotency_key.is_some() || matches!(self.method, Method::GET | Method::PUT | Method::DELETE)
    }

    fn of(method: Method, target: String) -> Self {
        Self {
            method,
            target,
            content_type: None,
            encoding: encoding::Encoding::None,
            accept: None,
            idempotency_key: None,
            body: Bytes::new(),
        }
    }
}

/// One answer, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Splits a URL into `host:port` and the path before every target.
fn split_url(url: &str) -> Result<(String, String), Error> {
    let parsed = url::Url::parse(url).map_err(|error| {
        Error::usage(format!("the server's url cannot be read: {error}; write http://host:port"))
    })?;
    match parsed.scheme() {
        "http" => {}
        "https" => {
            return Err(Error::usage(
                "this client speaks plain http only; put the server's loopback address, or a TLS proxy's \
                 local end, in --url",
            ));
        }
        _ => return Err(Error::usage("the server's url must start with http://")),
    }
    if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() {
        return Err(Error::usage(
            "the server's url may hold no credential and no query; give the key with --key",
        ));
    }
    let host = parsed.host_str().ok_or_else(|| Error::usage("the server's url names no host"))?;
    let port = parsed.port_or_known_default().unwrap_or(80);
    Ok((format!("{host}:{port}"), parsed.path().trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Option<(&str, &str)>) {
        let found = split_url(url).ok();
        let found = found.as_ref().map(|(authority, prefix)| (authority.as_str(), prefix.as_str()));
        assert_eq!(found, expected, "{url}");
    }

    #[test]
    fn urls_split_into_authority_and_prefix() {
        check("http://127.0.0.1:4318", Some(("127.0.0.1:4318", "")));
        check("http://localhost", Some(("localhost:80", "")));
        check("http://[::1]:4318/", Some(("[::1]:4318", "")));
        check("http://gate:80/floodmark/", Some(("gate:80", "/floodmark")));
        check("https://127.0.0.1:4318", None);
        check("127.0.0.1:4318", None);
        check("http://user:pass@host/", None);
        check("http://host/?key=x", None);
        check("ftp://host", None);
    }

    #[test]
    fn only_keyed_posts_are_repeatable() {
        let mut call = Call::post("/api/v1/events", "application/x-ndjson", "{}");
        assert!(!call.repeatable());
        call.idempotency_key = Some("a-1".into());
        assert!(call.repeatable());
        assert!(Call::get("/readyz").repeatable());
    }
}
