//! What is refused before anybody asks who is there: framing, paths, hosts, foreign origins.

use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING};
use http::{HeaderMap, Version};
use ingest::Refusal;

/// Header lines of one request.
pub const HEADER_FIELDS_MAX: usize = 64;

/// Bytes of a header block.
pub const HEADER_BYTES_MAX: usize = 16 << 10;

/// Bytes of a request target.
pub const TARGET_BYTES_MAX: usize = 8 << 10;

/// Whether the framing of a request is good: 400, 414, 431.
///
/// # Errors
/// The refusal; the connection is to be closed after it.
pub fn check_framing(version: Version, uri: &http::Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let target_bytes = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target_bytes > TARGET_BYTES_MAX {
        return Err(Refusal::new(
            414,
            "target_too_long",
            format!("target of {target_bytes} bytes exceeds {TARGET_BYTES_MAX}"),
        ));
    }
    if headers.len() > HEADER_FIELDS_MAX {
        return Err(Refusal::new(
            431,
            "too_many_headers",
            format!("{} header fields exceed {HEADER_FIELDS_MAX}", headers.len()),
        ));
    }
    // As on the wire of HTTP/1: name, colon, space, value, line end.
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > HEADER_BYTES_MAX {
        return Err(Refusal::new(
            431,
            "headers_too_large",
            format!("header block of {bytes} bytes exceeds {HEADER_BYTES_MAX}"),
        ));
    }
    if headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING) {
        return Err(bad("a body has either a length or a transfer encoding"));
    }
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && version == Version::HTTP_11) {
        return Err(bad("a request names one host"));
    }
    Ok(())
}

fn bad(detail: &'static str) -> Refusal {
    Refusal::new(400, "bad_framing", detail)
}

/// Whether a path can be routed as it stands. What some other server would rewrite is no path here (404).
#[must_use]
pub fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    path.starts_with('/')
        && !["//", "..", "\\", "/./", "%2e", "%2f", "%5c", "%00"].iter().any(|bad| lower.contains(bad))
        && !path.ends_with("/.")
}

/// Whether the request's host is one of the allowed (421 otherwise); an empty list allows any.
#[must_use]
pub fn is_host_allowed(allowed: &[String], uri: &http::Uri, headers: &HeaderMap) -> bool {
    if allowed.is_empty() {
        return true;
    }
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let Some(host) = authority.or_else(|| headers.get(HOST)?.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    allowed.iter().any(|one| one.eq_ignore_ascii_case(name) || one.eq_ignore_ascii_case(host))
}

/// What a browser's page of another origin may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cross {
    /// Not from a page of another origin.
    No,
    /// From an origin that is not on the list: the answer allows nothing.
    Unlisted,
    /// From this origin, which is on the list.
    Listed(HeaderValue),
}

/// Tells where a request's page comes from.
#[must_use]
pub fn cross_origin(allowed: &[String], headers: &HeaderMap) -> Cross {
    let Some(origin) = headers.get(ORIGIN) else { return Cross::No };
    if allowed.iter().any(|one| one.as_bytes() == origin.as_bytes()) {
        Cross::Listed(origin.clone())
    } else {
        Cross::Unlisted
    }
}

/// Whether a request asks what it may send.
#[must_use]
pub fn is_preflight(method: &http::Method, headers: &HeaderMap) -> bool {
    method == http::Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key("access-control-request-method")
}

/// Headers of the answer to a preflight of a listed origin.
#[must_use]
pub fn preflight_headers(allowed_methods: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![
        (
            HeaderName::from_static("access-control-allow-headers"),
            // What OpenTelemetry's browser exporter and our own pages send.
            HeaderValue::from_static(
                "authorization, content-type, content-encoding, accept, x-api-key, x-correlation-id, \
                 x-request-id, traceparent, tracestate, idempotency-key, prefer",
            ),
        ),
        (HeaderName::from_static("access-control-max-age"), HeaderValue::from_static("600")),
    ];
    if let Ok(methods) = HeaderValue::from_str(allowed_methods) {
        headers.push((HeaderName::from_static("access-control-allow-methods"), methods));
    }
    headers
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

    use super::{Cross, check_framing, cross_origin, is_host_allowed, is_plain};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_str(value).expect("a value"),
            );
        }
        map
    }

    /// RELIABILITY B15, B22, B24, and the limits of the contract.
    #[test]
    fn framing_is_checked_by_its_limits() {
        let check = |target: &str, map: &HeaderMap, version: Version, expected: Option<u16>| {
            let uri: Uri = target.parse().expect("a target");
            let got = check_framing(version, &uri, map).err().map(|refusal| refusal.status);
            assert_eq!(got, expected, "{} bytes of target, {} headers", target.len(), map.len());
        };
        let one = headers(&[("host", "a")]);
        check("/", &one, Version::HTTP_11, None);
        check(&format!("/{}", "a".repeat(8191)), &one, Version::HTTP_11, None);
        check(&format!("/{}", "a".repeat(8192)), &one, Version::HTTP_11, Some(414));
        let mut many = one.clone();
        (0..63).for_each(|at| drop(many.append("x", HeaderValue::from(at))));
        check("/", &many, Version::HTTP_11, None);
        many.append("x", HeaderValue::from(1));
        check("/", &many, Version::HTTP_11, Some(431));
        let large = headers(&[("host", "a"), ("x", &"a".repeat(16 << 10))]);
        check("/", &large, Version::HTTP_11, Some(431));
        check("/", &headers(&[]), Version::HTTP_11, Some(400));
        check("/", &headers(&[]), Version::HTTP_10, None);
        check("/", &headers(&[]), Version::HTTP_2, None);
        check("/", &headers(&[("host", "a"), ("host", "b")]), Version::HTTP_11, Some(400));
        let both = headers(&[("host", "a"), ("content-length", "1"), ("transfer-encoding", "chunked")]);
        check("/", &both, Version::HTTP_11, Some(400));
    }

    /// RELIABILITY B2.
    #[test]
    fn paths_that_others_would_rewrite_are_none() {
        for good in ["/", "/v1/traces", "/api/v1/traces/abc", "/a.b/c"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["//v1/logs", "/v1/../admin", "/v1/%2e%2e/x", "/v1/%2E", "/a\\b", "/a%5Cb", "/a/./b", "/a%2fb", "*"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }

    #[test]
    fn hosts_and_origins_are_those_of_the_list() {
        let list = ["floodmark.example".to_owned(), "[::1]".to_owned()];
        let uri: Uri = "/".parse().expect("a target");
        let check = |host: &str, expected: bool| {
            assert_eq!(is_host_allowed(&list, &uri, &headers(&[("host", host)])), expected, "{host}");
        };
        check("floodmark.example", true);
        check("Floodmark.Example:4318", true);
        check("[::1]:4318", true);
        check("evil.example", false);
        check("floodmark.example.evil", false);
        assert!(is_host_allowed(&[], &uri, &headers(&[])));

        let origins = ["https://a.example".to_owned()];
        assert_eq!(cross_origin(&origins, &headers(&[])), Cross::No);
        assert_eq!(cross_origin(&origins, &headers(&[("origin", "https://b.example")])), Cross::Unlisted);
        assert_eq!(cross_origin(&origins, &headers(&[("origin", "null")])), Cross::Unlisted);
        let listed = cross_origin(&origins, &headers(&[("origin", "https://a.example")]));
        assert_eq!(listed, Cross::Listed(HeaderValue::from_static("https://a.example")));
    }
}
