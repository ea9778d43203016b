use http::{HeaderMap, HeaderName, HeaderValue};
use storage::record::{Column, Draft, Field, Kind};

use super::{Correlation, TraceParent, fill};
use crate::scrub::{Rules, RulesConfig};

const PARENT: &str = "00-12345678901234567890123456789012-1234567890123456-01";
const TRACE: &str = "12345678901234567890123456789012";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::try_from(*name).expect("a header name");
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
    }
    headers
}

#[test]
fn the_first_header_that_may_be_echoed_wins() {
    let long = "a".repeat(129);
    for (pairs, id, request_id) in [
        (&[][..], "fresh", "fresh"),
        (&[("x-correlation-id", "c-1")], "c-1", "c-1"),
        (&[("x-correlation-id", "c-1"), ("x-request-id", "r:1")], "c-1", "r:1"),
        (&[("x-request-id", "r:1"), ("traceparent", PARENT)], "r:1", "r:1"),
        (&[("traceparent", PARENT)], TRACE, TRACE),
        (
            &[("x-correlation-id", "has space"), ("x-request-id", "r_1~"), ("traceparent", PARENT)],
            TRACE,
            TRACE,
        ),
        (&[("x-correlation-id", "")], "fresh", "fresh"),
        (&[("x-correlation-id", "\u{e9}")], "fresh", "fresh"),
        (&[("x-correlation-id", "<script>")], "fresh", "fresh"),
        (&[("x-correlation-id", &long)], "fresh", "fresh"),
        (&[("x-correlation-id", &long[1..])], &long[1..], &long[1..]),
        (&[("x-correlation-id", "a"), ("x-correlation-id", "b")], "fresh", "fresh"),
    ] {
        let rules = Rules::default_on();
        let got = Correlation::from_headers(&headers(pairs), &rules, |_| false, || "fresh".into());
        assert_eq!((got.id.as_str(), got.request_id.as_str()), (id, request_id), "{pairs:?}");
    }
}

/// P2: an id is echoed and logged. What is or looks like a secret counts as absent, whichever header it is in.
#[test]
fn an_id_that_is_a_secret_is_neither_echoed_nor_stored() {
    let rules = Rules::compile(&RulesConfig::default(), Some(&[7; 32])).expect("compiles");
    let known = "0123456789-configured-key-0123456789";
    for secret in [
        "fm_adm_0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ123456",
        "fm_adm_0123",
        "0b7hJq2xVw9sT4kLm8nR1cYz5dFg3aEu",
        "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",
        known,
        "sent-as-credential",
    ] {
        let check = |pairs: &[(&str, &str)], id: &str, request_id: &str| {
            let mut pairs = pairs.to_vec();
            pairs.push(("authorization", "Bearer sent-as-credential"));
            let got =
                Correlation::from_headers(&headers(&pairs), &rules, |id| id == known, || "fresh".into());
            assert_eq!((got.id.as_str(), got.request_id.as_str()), (id, request_id), "{pairs:?}");
        };
        check(&[("x-correlation-id", secret)], "fresh", "fresh");
        check(&[("x-request-id", secret)], "fresh", "fresh");
        check(&[("x-correlation-id", secret), ("x-request-id", "r-1")], "r-1", "r-1");
        check(&[("x-correlation-id", "c-1"), ("x-request-id", secret)], "c-1", "c-1");
        check(&[("x-correlation-id", secret), ("traceparent", PARENT)], TRACE, TRACE);
    }
    let card = headers(&[("x-correlation-id", "order-4111-1111-1111-1111")]);
    let read = || Correlation::from_headers(&card, &rules, |_| false, || "fresh".into());
    assert!(read().id.starts_with("tok_") && read() == read(), "one sender's id stays one: {}", read().id);
    let state =
        headers(&[("traceparent", PARENT), ("tracestate", "v=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")]);
    let got = Correlation::from_headers(&state, &rules, |_| false, || "fresh".into());
    assert_eq!(got.trace.and_then(|trace| trace.state), None);
}

/// The W3C trace-context cases, each by its own verdict: what must start a new trace is no `TraceParent`.
#[test]
fn w3c_cases() {
    for (value, is_same) in [
        (PARENT, true),
        ("00-12345678901234567890123456789012-1234567890123456-01.", false),
        ("00-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like", false),
        ("cc-12345678901234567890123456789012-1234567890123456-01", true),
        ("cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like", true),
        ("cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be-like", false),
        ("ff-12345678901234567890123456789012-1234567890123456-01", false),
        (".0-12345678901234567890123456789012-1234567890123456-01", false),
        ("0.-12345678901234567890123456789012-1234567890123456-01", false),
        ("000-12345678901234567890123456789012-1234567890123456-01", false),
        ("0000-12345678901234567890123456789012-1234567890123456-01", false),
        ("0-12345678901234567890123456789012-1234567890123456-01", false),
        ("00-00000000000000000000000000000000-1234567890123456-01", false),
        ("00-.2345678901234567890123456789012-1234567890123456-01", false),
        ("00-1234567890123456789012345678901.-1234567890123456-01", false),
        ("00-ABCDEF78901234567890123456789012-1234567890123456-01", false),
        ("00-123456789012345678901234567890123-1234567890123456-01", false),
        ("00-1234567890123456789012345678901-1234567890123456-01", false),
        ("00-12345678901234567890123456789012-0000000000000000-01", false),
        ("00-12345678901234567890123456789012-.234567890123456-01", false),
        ("00-12345678901234567890123456789012-12345678901234567-01", false),
        ("00-12345678901234567890123456789012-123456789012345-01", false),
        ("00-12345678901234567890123456789012-1234567890123456-.0", false),
        ("00-12345678901234567890123456789012-1234567890123456-0.", false),
        ("00-12345678901234567890123456789012-1234567890123456-001", false),
        ("00-12345678901234567890123456789012-1234567890123456-1", false),
        (" 00-12345678901234567890123456789012-1234567890123456-01", true),
        ("\t 00-12345678901234567890123456789012-1234567890123456-01 \t", true),
        ("", false),
    ] {
        let got = TraceParent::from_headers(&headers(&[("traceparent", value)]));
        assert_eq!(got.is_some_and(|parent| parent.trace_id == TRACE), is_same, "{value}");
    }
    let twice = headers(&[("traceparent", PARENT), ("traceparent", PARENT)]);
    assert_eq!(TraceParent::from_headers(&twice), None);
}

#[test]
fn trace_state_is_forwarded_only_where_it_is_well_formed() {
    let many: Vec<String> = (1..=33).map(|n| format!("bar{n:02}={n:02}")).collect();
    for (values, expected) in [
        (&["foo=1"][..], Some("foo=1")),
        (&["foo=1 \t , \t bar=2, \t baz=3"], Some("foo=1,bar=2,baz=3")),
        (&["foo=1,bar=2", "rojo=1"], Some("foo=1,bar=2,rojo=1")),
        (&["foo=1", ""], Some("foo=1")),
        (&[""], None),
        (&["foo =1"], None),
        (&["FOO=1"], None),
        (&["foo.bar=1"], None),
        (&["foo@=1,bar=2"], None),
        (&["@foo=1,bar=2"], None),
        (&["foo@@bar=1,bar=2"], None),
        (&["0foo@bar=1"], Some("0foo@bar=1")),
        (&["foo=bar=baz"], None),
        (&["foo=,bar=3"], None),
        (&[&many[..32].join(",")], Some(many[..32].join(",").as_str())),
        (&[&many.join(",")], None),
    ] {
        let mut pairs = vec![("traceparent", PARENT)];
        pairs.extend(values.iter().map(|value| ("tracestate", *value)));
        let got = TraceParent::from_headers(&headers(&pairs)).expect("the parent is good");
        assert_eq!(got.state.as_deref(), expected, "{values:?}");
    }
    assert_eq!(TraceParent::from_headers(&headers(&[("tracestate", "foo=1")])), None);
}

#[test]
fn rows_get_their_own_id_first_then_their_trace_then_the_request() {
    let correlation = Correlation { id: "request".into(), request_id: "request".into(), trace: None };
    for kind in [Kind::Events, Kind::Audit, Kind::Logs, Kind::Spans] {
        let mut draft = Draft::new(kind);
        let key = "0b7hJq2xVw9sT4kLm8nR1cYz5dFg3aEu";
        for (own, trace) in
            [(None, None), (Some("own"), Some(TRACE)), (None, Some(TRACE)), (None, None), (Some(key), None)]
        {
            draft.begin_row();
            draft.set_int(Field::TimeNs, 1);
            if let Some(own) = own {
                draft.set_text(Field::CorrelationId, own);
            }
            if let Some(trace) = trace {
                draft.set_text(Field::TraceId, trace);
            }
            draft.end_row();
        }
        fill(&mut draft, &correlation);
        let Column::Text(column) = draft.column(Field::CorrelationId) else { panic!("text") };
        let got: Vec<_> =
            (0..5).map(|row| column.get(row).map(|b| String::from_utf8_lossy(b).into_owned())).collect();
        let want = ["request", "own", TRACE, "request", "request"].map(|id| Some(id.to_owned()));
        assert_eq!(got, want, "{kind:?}");
    }
}
