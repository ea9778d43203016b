use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use storage::record::{Kind, Tenant};
use storage::{Acknowledgement, Principal, Role, Roles};

use super::{Accepted, Head, Media, check, check_tenant};
use crate::Route;
use crate::correlate::Correlation;
use crate::decode::{Limits, Precision};
use crate::inflate::Encoding;
use crate::reply::Refusal;

fn run(route: Route, query: Option<&str>, pairs: &[(&str, &str)]) -> Result<Accepted, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::try_from(*name).expect("a header name");
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
    }
    let principal = Principal {
        tenant: Tenant::parse("acme").expect("a good id"),
        roles: Roles::of(&[Role::Ingest]),
        subject: Arc::from("key"),
        acknowledgement: Acknowledgement::Durable,
    };
    let correlation = Correlation { id: "c".into(), request_id: "c".into(), trace: None };
    let head = Head {
        route,
        principal: &principal,
        headers: &headers,
        query,
        correlation: &correlation,
        now_ns: 0,
        monotonic_ns: 0,
    };
    check(&head, &Limits::default())
}

fn refused(route: Route, query: Option<&str>, pairs: &[(&str, &str)], expected: (u16, &str)) {
    let refusal = run(route, query, pairs).expect_err("refused");
    assert_eq!((refusal.status, refusal.code), expected, "{route:?} {query:?} {pairs:?}");
}

const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

#[test]
fn media_types_by_route() {
    for (route, pairs, media) in [
        (Route::OtlpTraces, &[PROTO][..], Media::Protobuf),
        (Route::OtlpLogs, &[("content-type", "Application/JSON; charset=utf-8")], Media::Json),
        (Route::OtlpLogs, &[("content-length", "0")], Media::Protobuf),
        (Route::Events, &[LINES], Media::JsonLines),
        (Route::Events, &[("content-type", "application/ndjson")], Media::JsonLines),
        (Route::Events, &[("content-type", "application/jsonl")], Media::JsonLines),
        (Route::Audit, &[JSON], Media::Json),
        (Route::WriteV1, &[], Media::LineProtocol),
        (Route::WriteV2, &[("content-type", "text/plain; charset=utf-8")], Media::LineProtocol),
        (Route::WriteV3, &[("content-type", "application/octet-stream")], Media::LineProtocol),
    ] {
        assert_eq!(run(route, None, pairs).map(|a| a.media), Ok(media), "{route:?} {pairs:?}");
    }
    for (route, pairs) in [
        (Route::OtlpTraces, &[][..]),
        (Route::OtlpTraces, &[("content-type", "text/plain")]),
        (Route::OtlpTraces, &[LINES]),
        (Route::OtlpTraces, &[PROTO, PROTO]),
        (Route::Events, &[]),
        (Route::Events, &[PROTO]),
        (Route::Events, &[("content-type", "")]),
        (Route::Audit, &[("content-type", "application/x-www-form-urlencoded")]),
        (Route::Audit, &[("content-type", ""), ("content-length", "0")]),
    ] {
        refused(route, None, pairs, (415, "unsupported_media_type"));
    }
    refused(Route::OtlpMetrics, None, &[PROTO], (404, "not_built"));
}

/// The contract's order: 415 before 413 before 400.
#[test]
fn the_first_thing_wrong_in_contract_order_is_named() {
    let too_long = ("content-length", "10485761");
    let bad_key = ("idempotency-key", "");
    let brotli = ("content-encoding", "br");
    let all = [("content-type", "text/html"), brotli, too_long, bad_key];
    let query = Some("atomic=perhaps");
    refused(Route::Events, query, &all, (415, "unsupported_media_type"));
    refused(Route::Events, query, &[JSON, brotli, too_long, bad_key], (415, "unsupported_encoding"));
    refused(Route::Events, query, &[JSON, too_long, bad_key], (413, "body_too_large"));
    refused(Route::Events, query, &[JSON, bad_key], (400, "idempotency_key"));
    refused(Route::Events, query, &[JSON], (400, "bad_parameter"));
    assert!(run(Route::Events, None, &[JSON, ("content-length", "10485760")]).is_ok());
}

/// B30.
#[test]
fn idempotency_keys_have_a_form() {
    let (longest, too_long) = ("k".repeat(255), "k".repeat(256));
    for good in ["a", "9b2e-77", "\"quoted\"", "has space", &longest] {
        let got = run(Route::WriteV2, None, &[("idempotency-key", good)]).expect("good");
        assert_eq!(got.idempotency_key.as_deref(), Some(good));
    }
    for bad in [&[""][..], &[&too_long], &["tab\tin it"], &["caf\u{e9}"], &["a", "a"]] {
        let pairs: Vec<_> = bad.iter().map(|key| ("idempotency-key", *key)).collect();
        refused(Route::WriteV2, None, &pairs, (400, "idempotency_key"));
    }
}

/// A19, T1: equal is ignored, anything else refused.
#[test]
fn tenant_headers_select_nothing() {
    let acme = Tenant::parse("acme").expect("a good id");
    let check = |pairs: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::try_from(*name).expect("a header name");
            headers.append(name, HeaderValue::from_str(value).expect("a header value"));
        }
        check_tenant(&headers, &acme).map_err(|refusal| (refusal.status, refusal.code))
    };
    for name in ["X-Scope-OrgID", "X-Tenant", "X-Tenant-ID", "X-P-Tenant", "AccountID"] {
        assert_eq!(check(&[(name, "acme")]), Ok(()), "{name}");
        for other in ["other", "", "Acme", "acme,other", "42"] {
            assert_eq!(check(&[(name, other)]), Err((400, "tenant_mismatch")), "{name} {other}");
        }
        assert_eq!(check(&[(name, "acme"), (name, "other")]), Err((400, "tenant_mismatch")));
    }
}

#[test]
fn precision_is_that_of_the_route() {
    use Precision::{Auto, Hour, Microsecond, Millisecond, Minute, Nanosecond, Second};
    for (route, query, expected) in [
        (Route::WriteV1, "", Some(Nanosecond)),
        (Route::WriteV1, "db=x&precision=n", Some(Nanosecond)),
        (Route::WriteV1, "precision=%C2%B5", Some(Microsecond)),
        (Route::WriteV1, "precision=u", Some(Microsecond)),
        (Route::WriteV1, "precision=m", Some(Minute)),
        (Route::WriteV1, "precision=h", Some(Hour)),
        (Route::WriteV1, "precision=", Some(Nanosecond)),
        (Route::WriteV1, "precision=auto", None),
        (Route::WriteV1, "precision=fortnight", None),
        (Route::WriteV2, "precision=ms", Some(Millisecond)),
        (Route::WriteV2, "precision=m", None),
        (Route::WriteV2, "precision=n", None),
        (Route::WriteV3, "", Some(Auto)),
        (Route::WriteV3, "precision=auto", Some(Auto)),
        (Route::WriteV3, "precision=second", Some(Second)),
        (Route::WriteV3, "precision=u", Some(Microsecond)),
        (Route::WriteV3, "precision=NS", None),
    ] {
        match expected {
            Some(precision) => {
                assert_eq!(run(route, Some(query), &[]).expect("good").precision, precision, "{query}");
            }
            None => refused(route, Some(query), &[], (400, "bad_parameter")),
        }
    }
}

#[test]
fn queries_are_read_strictly() {
    for (route, query, code) in [
        (Route::WriteV1, "db=../../etc", Some("bad_parameter")),
        (Route::WriteV1, "db=%2e%2e%2f", Some("bad_parameter")),
        (Route::WriteV2, "bucket=a%00b", Some("bad_parameter")),
        (Route::WriteV2, "org=a%0Ab", Some("bad_parameter")),
        (Route::WriteV2, "bucket=other-tenant&org=x", None),
        (Route::WriteV3, "db=%zz", Some("bad_parameter")),
        (Route::WriteV3, "db=%f", Some("bad_parameter")),
        (Route::WriteV3, "db=%ff", Some("bad_parameter")),
        (Route::WriteV3, "accept_partial=maybe", Some("bad_parameter")),
        (Route::Events, "dataset=orders&dataset=events", Some("bad_parameter")),
        (Route::Events, "dataset=spans", Some("dataset_kind")),
        (Route::Events, "dataset=metrics", Some("dataset_kind")),
        (Route::Events, "dataset=_system", Some("dataset_kind")),
        (Route::Events, "dataset=evidence", Some("bad_dataset")),
        (Route::Events, "dataset=../x", Some("bad_dataset")),
        (Route::Events, "dataset=", Some("bad_dataset")),
        (Route::Events, "unknown=1&&", None),
    ] {
        let got = run(route, Some(query), &[JSON]).err().map(|refusal| refusal.code);
        assert_eq!(got, code, "{query}");
    }
    let got =
        run(Route::Events, Some("dataset=orders&atomic=true"), &[JSON, ("prefer", "receipt")]).expect("good");
    assert_eq!((got.dataset.as_str(), got.is_atomic, got.wants_receipt), ("orders", true, true));
    let got = run(Route::Audit, None, &[LINES, ("content-encoding", "gzip")]).expect("good");
    assert_eq!((got.kind, got.is_atomic, got.encoding), (Kind::Audit, true, Encoding::Gzip));
    let got = run(Route::WriteV3, Some("accept_partial=false&db=x"), &[]).expect("good");
    assert_eq!((got.dataset.as_str(), got.is_atomic), ("events", true));
}
