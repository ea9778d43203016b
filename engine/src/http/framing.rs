//! What a request's head must be before anything else is asked: lengths, hosts, framing.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Version};
use ingest::Refusal;

/// Longest request target, in bytes.
const TARGET_BYTES_MAX: usize = 8 << 10;

/// Header fields of a request.
const HEADERS_MAX: usize = 64;

/// Names and values of all header fields, in bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// Checks a head.
///
/// # Errors
/// 414, 431, or 400 with `Connection: close`, since what follows on such a connection cannot be trusted.
pub fn check(head: &Parts) -> Result<(), Refusal> {
    let uri = &head.uri;
    if uri.path_and_query().map_or(0, |target| target.as_str().len()) > TARGET_BYTES_MAX {
        return Err(target_too_long());
    }
    let headers = &head.headers;
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(headers_too_large());
    }
    if headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING) {
        return Err(closing(400, "ambiguous_length", "both Content-Length and Transfer-Encoding are given"));
    }
    let hosts = headers.get_all(HOST).iter().count();
    let needs_host = head.version == Version::HTTP_11 && uri.host().is_none();
    if hosts > 1 || (needs_host && hosts == 0) {
        return Err(closing(400, "bad_host", "exactly one Host header is needed"));
    }
    Ok(())
}

/// The refusal of a target past its bound.
pub fn target_too_long() -> Refusal {
    closing(414, "target_too_long", "the request target exceeds 8192 bytes")
}

/// The refusal of header fields past their bounds.
pub fn headers_too_large() -> Refusal {
    closing(431, "headers_too_large", "more than 64 header fields or 16384 bytes of them")
}

/// A refusal after which the connection closes: what follows on it cannot be trusted.
pub fn closing(status: u16, code: &'static str, detail: &str) -> Refusal {
    let mut refusal = Refusal::new(status, code, detail);
    refusal.headers.push((http::header::CONNECTION, HeaderValue::from_static("close")));
    refusal
}

/// Whether the request's host is one of `allowed`; everything is where the list is empty.
pub fn is_allowed_host(head: &Parts, allowed: &[String]) -> bool {
    if allowed.is_empty() {
        return true;
    }
    let header = head.headers.get(HOST).and_then(|value| value.to_str().ok());
    let host = head.uri.host().or(header).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    allowed.iter().any(|one| one.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::{check, is_allowed_host};

    #[test]
    fn heads_are_bounded_and_unambiguous() {
        let expect = |headers: &[(&str, &str)], target: &str, expected: u16| {
            let mut request = Request::builder().uri(target);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            let got = check(&head).map_or_else(|refusal| refusal.status, |()| 200);
            assert_eq!(got, expected, "{headers:?}");
        };
        expect(&[("host", "a")], "/x", 200);
        expect(&[], "/x", 400);
        expect(&[("host", "a"), ("host", "b")], "/x", 400);
        expect(&[("host", "a"), ("content-length", "1"), ("transfer-encoding", "chunked")], "/x", 400);
        expect(&[("host", "a"), ("x", &"y".repeat(17 << 10))], "/x", 431);
        expect(&[("host", "a")], &format!("/{}", "x".repeat(9 << 10)), 414);
    }

    #[test]
    fn a_host_list_is_a_list_of_names() {
        let request = |host: &str| Request::builder().header("host", host).body(()).unwrap().into_parts().0;
        let allowed = ["example.org".to_owned()];
        assert!(is_allowed_host(&request("Example.org:4318"), &allowed));
        assert!(!is_allowed_host(&request("evil.org"), &allowed));
        assert!(is_allowed_host(&request("evil.org"), &[]));
    }
}
