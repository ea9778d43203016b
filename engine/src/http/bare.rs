//! The refusals that hyper writes by itself, for heads it could not read, made like all others.
//!
//! Such a head never becomes a request, so no service sees it: hyper writes a status line and an empty body. Here
//! that gets the body and the headers that every answer has; the status stays hyper's.

use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use ingest::Correlation;

use super::answer::{Body, finish, problem};
use super::framing;

/// The answer to be written in place of `head`; `None` where that is no refusal of hyper's own.
///
/// Every answer of ours carries a correlation id: a refusal without one is not ours. `is_in_target` says that the head
/// ended within its first line: then what hyper found too long is the target.
pub fn instead_of(head: &[u8], is_in_target: bool, fresh: impl FnOnce() -> String) -> Option<Vec<u8>> {
    let status: u16 = std::str::from_utf8(head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?.parse().ok()?;
    let holds = |text: &[u8]| memchr::memmem::find(head, text).is_some();
    let is_bare = holds(b"content-length: 0\r\n") && head.ends_with(b"\r\n\r\n");
    if !(400..500).contains(&status) || !is_bare || holds(b"x-correlation-id") {
        return None;
    }
    let refusal = match status {
        414 => framing::target_too_long(),
        431 if is_in_target => framing::target_too_long(),
        431 => framing::headers_too_large(),
        _ => framing::closing(
            status,
            "bad_head",
            "the request's head is not HTTP/1.1: a line, a name, a value or a length",
        ),
    };
    let correlation = Correlation::fresh(fresh());
    let mut response = finish(problem(&refusal, &correlation), &correlation, None);
    let Body::Full(body) = std::mem::replace(response.body_mut(), Body::Full(bytes::Bytes::new())) else {
        return None;
    };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let mut out = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&body);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::instead_of;

    #[test]
    fn only_a_bare_refusal_is_made_like_all_others() {
        let check = |head: &str, expected: Option<(&str, &str)>| {
            let made = instead_of(head.as_bytes(), false, || "fresh".into())
                .map(|made| String::from_utf8(made).unwrap());
            assert_eq!(made.is_some(), expected.is_some(), "{head}");
            let (Some(made), Some((line, code))) = (made, expected) else { return };
            let (head, body) = made.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(line), "{head}");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
            assert!(head.contains("x-correlation-id: ") && head.contains("connection: close"), "{head}");
            assert!(head.contains("content-type: application/problem+json"), "{head}");
            assert!(body.contains(&format!("\"code\":\"{code}\"")), "{body}");
        };
        let bare = |line: &str| format!("HTTP/1.1 {line}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        check(&bare("400 Bad Request"), Some(("HTTP/1.1 400 Bad Request\r\n", "bad_head")));
        check(&bare("414 URI Too Long"), Some(("HTTP/1.1 414 URI Too Long\r\n", "target_too_long")));
        check(
            &bare("431 Request Header Fields Too Large"),
            Some(("HTTP/1.1 431 Request Header Fields Too Large\r\n", "headers_too_large")),
        );
        check(&bare("200 OK"), None);
        check("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nx-correlation-id: c\r\n\r\n", None);
        check("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nmore of a body", None);
        let line = "431 Request Header Fields Too Large";
        let made = instead_of(bare(line).as_bytes(), true, || "fresh".into()).unwrap();
        assert!(made.starts_with(b"HTTP/1.1 414 "), "a head that ends within its target");
        check("more of a body", None);
        check("", None);
    }
}
