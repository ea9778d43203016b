//! JSON records: what is stored, what is rejected, what refuses the body.

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use storage::record::Kind;

use super::{NOW_NS, decode, int, text};
use crate::decode::otlp::{logs_json, traces_json};

const IDS: &str = r#""traceId":"abababababababababababababababab","spanId":"cdcdcdcdcdcdcdcd""#;
const TIMES: &str = r#""startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000000000000500""#;

fn spans(records: &[&str]) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, records.join(","))
}

/// A span in order, with these members besides.
fn with(members: &str) -> String {
    format!(r#"{{{IDS},{TIMES},"name":"GET /"{}{members}}}"#, if members.is_empty() { "" } else { "," })
}

fn with_value(value: &str) -> String {
    with(&format!(r#""attributes":[{{"key":"k","value":{value}}}]"#))
}

/// Sends a span beside a good one: the good one is stored, the other's code is as expected.
fn check(record: &str, expected: Option<&str>) {
    let body = spans(&[&with(""), record]);
    let (decoded, batch) =
        decode(traces_json, Kind::Spans, body.as_bytes()).unwrap_or_else(|e| panic!("{e:?} for {record}"));
    assert_eq!(decoded.rejected.first().map(|rejected| rejected.code), expected, "{record}");
    assert_eq!(batch.num_rows(), 2 - usize::from(expected.is_some()));
    assert_eq!(text(&batch, "name", 0), Some("GET /"));
}

/// Sends a span beside a good one: nothing is stored.
fn check_refused(record: &str, expected: &str) {
    let refused =
        decode(traces_json, Kind::Spans, spans(&[&with(""), record]).as_bytes()).expect_err("a refused body");
    assert_eq!((refused.status, refused.code), (400, expected), "{record}: {}", refused.detail);
}

fn nested(depth: usize) -> String {
    let levels = depth - 1;
    let open = r#"{"arrayValue":{"values":["#.repeat(levels);
    format!(r#"{open}{{"intValue":1}}{}"#, "]}}".repeat(levels))
}

#[test]
fn a_bad_span_is_rejected_and_its_neighbour_stored() {
    check(&with(""), None);
    // C6
    check(&with_value(&nested(64)), None);
    check(&with_value(&nested(65)), Some("too_deep"));
    // C12, C13, C14, C30
    let span = |ids: &str| format!(r#"{{{ids}{TIMES},"name":"x"}}"#);
    let good_span_id = r#""spanId":"cdcdcdcdcdcdcdcd","#;
    for trace_id in [
        "abab",
        "ababababababababababababababab",
        "ababababababababababababababababab",
        "q6urq6urq6urq6urq6urqw==",
        "zzababababababababababababababab",
        "00000000000000000000000000000000",
        "abababababababababababababababa",
        "",
    ] {
        check(&span(&format!(r#""traceId":"{trace_id}",{good_span_id}"#)), Some("invalid_trace_id"));
    }
    check(&span(good_span_id), Some("invalid_trace_id"));
    let good_trace_id = r#""traceId":"ABababababababababababababababAB","#;
    for span_id in ["", "00", "0000000000000000", "cdcdcdcdcdcdcdcdcd", "zdzdzdzdzdzdcdcd", "zc3NzczNzc0="] {
        check(&span(&format!(r#"{good_trace_id}"spanId":"{span_id}","#)), Some("invalid_span_id"));
    }
    check(&span(good_trace_id), Some("invalid_span_id"));
    check(&with(r#""parentSpanId":"00""#), Some("invalid_parent_span_id"));
    check(&with(r#""parentSpanId":"0000000000000000""#), None);
    // C24, C26
    check(&with(r#""attributes":[{"key":"","value":{"intValue":1}}]"#), Some("empty_key"));
    check(&with(r#""attributes":[{"value":{"intValue":1}}]"#), Some("empty_key"));
    let key = "k".repeat(64 << 10);
    check(&with(&format!(r#""attributes":[{{"key":"{key}"}}]"#)), Some("key_too_long"));
    let large = "v".repeat(2 << 20);
    check(&with_value(&format!(r#"{{"stringValue":"{large}"}}"#)), Some("value_too_large"));
    check(
        &with_value(&format!(r#"{{"arrayValue":{{"values":[{{"stringValue":"{large}"}}]}}}}"#)),
        Some("value_too_large"),
    );
    check(&with(&format!(r#""events":[{{"name":"{large}"}}]"#)), Some("value_too_large"));
    check(&with(r#""events":[{"attributes":[{"key":""}]}]"#), Some("empty_key"));
    check(&with(r#""links":[{"traceId":"abc"}]"#), Some("invalid_link"));
    check(&with(r#""links":[{}]"#), None);
}

#[test]
fn a_body_that_is_not_otlp_json_is_refused() {
    // C28
    check_refused(&with(r#""kind":"SPAN_KIND_SERVER""#), "invalid_json");
    check_refused(&with(r#""status":{"code":"STATUS_CODE_ERROR"}"#), "invalid_json");
    check_refused(&with(r#""kind":"2""#), "invalid_json");
    check_refused(&with(r#""kind":2.5"#), "invalid_json");
    // C31
    for value in
        ["1.5", "1e3", "9223372036854775808", r#""9223372036854775808""#, r#""1.5""#, r#""""#, "true"]
    {
        check_refused(&with_value(&format!(r#"{{"intValue":{value}}}"#)), "invalid_json");
    }
    check(&with_value(r#"{"intValue":"-9223372036854775808"}"#), None);
    // C33
    check_refused(&with_value(r#"{"stringValue":"\ud800"}"#), "invalid_json");
    check_refused(&with_value(r#"{"stringValue":"\udc00\ud800"}"#), "invalid_json");
    // C34
    check_refused(&with(r#""kind":1,"kind":1"#), "duplicate_key");
    check_refused(&with(r#""kind":null,"kind":1"#), "duplicate_key");
    check_refused(&with(r#""kind":1,"k\u0069nd":1"#), "duplicate_key");
    check_refused(&with(r#""other":1,"other":2"#), "duplicate_key");
    check_refused(&with(r#""other":[{"a":1,"\u0061":2}]"#), "duplicate_key");
    check_refused(&with_value(r#"{"intValue":1,"intValue":1}"#), "duplicate_key");
    check_refused(&with_value(r#"{"intValue":1,"stringValue":"1"}"#), "invalid_json");
    // C35
    check_refused(&with_value(&nested(200)), "too_deep");
    check_refused(&with_value(&nested(10_000)), "too_deep");
    let deep = format!(r#""other":{}{}"#, "[".repeat(200), "]".repeat(200));
    check_refused(&with(&deep), "too_deep");
    check_refused(&with(&format!(r#""other":{}"#, "[".repeat(1_000_000))), "too_deep");
    for (members, code) in [
        (r#""name":5"#, "duplicate_key"),
        (r#""flags":"x""#, "invalid_json"),
        (r#""flags":4294967296"#, "invalid_json"),
        (r#""flags":-1"#, "invalid_json"),
        (r#""traceState":5"#, "wrong_type"),
        (r#""attributes":{}"#, "wrong_type"),
        (r#""attributes":[null]"#, "wrong_type"),
        (r#""events":[[]]"#, "wrong_type"),
        (r#""status":2"#, "wrong_type"),
        (r#""other":01"#, "invalid_json"),
        (r#""other":[1,]"#, "invalid_json"),
    ] {
        check_refused(&with(members), code);
    }
    check_refused(&with_value(r#"{"bytesValue":"***"}"#), "invalid_json");
    check_refused(&with_value(r#"{"boolValue":"true"}"#), "wrong_type");
    check_refused(&with_value(r#"{"doubleValue":"fast"}"#), "invalid_json");
    check_refused(&with_value(r#"{"doubleValue":1e999}"#), "invalid_json");
    for body in ["[]", "5", "\"x\"", "null", "{", "{}{}", "nope", " "] {
        let refused = decode(traces_json, Kind::Spans, body.as_bytes()).expect_err(body);
        assert_eq!(refused.status, 400, "{body}");
    }
    let refused = decode(traces_json, Kind::Spans, b"{\"a\xff\":1}").expect_err("not UTF-8");
    assert_eq!(refused.code, "invalid_utf8");
}

#[test]
fn a_body_without_records_is_accepted_and_named_if_it_held_something() {
    fn check(body: &str, expected: &[&str]) {
        for (decoder, kind) in [(traces_json as super::Decoder, Kind::Spans), (logs_json, Kind::Logs)] {
            let (decoded, batch) = decode(decoder, kind, body.as_bytes()).expect(body);
            assert_eq!((decoded.accepted, decoded.rejected_count, batch.num_rows()), (0, 0, 0));
            assert_eq!(decoded.warnings, expected, "{body}");
        }
    }
    check("", &[]);
    check("{}", &[]);
    check(" { } \n", &[]);
    // C29, C37
    check(r#"{"resource_spans":[{"scope_spans":[]}]}"#, &["no_records"]);
    check(r#"{"resourceMetrics":[]}"#, &["no_records"]);
    let (decoded, _) = decode(logs_json, Kind::Logs, spans(&[&with("")]).as_bytes()).unwrap();
    assert_eq!((decoded.accepted, &decoded.warnings[..]), (0, &["no_records"][..]));
    let (decoded, _) = decode(traces_json, Kind::Spans, br#"{"resourceSpans":[]}"#).unwrap();
    assert_eq!(decoded.warnings, [""; 0]);
}

#[test]
fn doubles_are_bit_exact() {
    fn check(sent: &str, expected: f64) {
        let body = spans(&[&with_value(&format!(r#"{{"doubleValue":{sent}}}"#))]);
        let (_, batch) = decode(traces_json, Kind::Spans, body.as_bytes()).unwrap();
        let column = batch.column_by_name("k").unwrap().as_primitive::<Float64Type>();
        assert_eq!(column.value(0).to_bits(), expected.to_bits(), "{sent}");
    }
    check("5", 5.0);
    check("-0.0", -0.0);
    check("1e-3", 1e-3);
    check(r#""1.5""#, 1.5);
    check(r#""NaN""#, f64::NAN);
    check(r#""Infinity""#, f64::INFINITY);
    check("5e-324", 5e-324);
}

#[test]
fn odd_records_are_stored_with_a_warning() {
    fn check(record: &str, expected: &[&str], time_ns: i64) {
        let (decoded, batch) = decode(traces_json, Kind::Spans, spans(&[record]).as_bytes()).expect(record);
        assert_eq!((decoded.accepted, &decoded.warnings[..]), (1, expected), "{record}");
        assert_eq!((int(&batch, "time_ns", 0), int(&batch, "duration_ns", 0)), (Some(time_ns), Some(0)));
    }
    check(&format!(r#"{{{IDS},"startTimeUnixNano":9,"endTimeUnixNano":8}}"#), &["end_before_start"], 9);
    check(&format!("{{{IDS}}}"), &["time_missing"], NOW_NS);
    let twice =
        r#""attributes":[{"key":"k","value":{"intValue":1}},{"key":"\u006b","value":{"intValue":2}}]"#;
    check(
        &format!(r#"{{{IDS},"startTimeUnixNano":9,"endTimeUnixNano":9,{twice}}}"#),
        &["duplicate_attribute"],
        9,
    );
}

#[test]
fn a_cut_body_is_refused() {
    let body = include_bytes!("../../../../../tests/fixtures/otlp/traces.json").trim_ascii_end();
    for len in 1..body.len() {
        let refused = decode(traces_json, Kind::Spans, &body[..len]).expect_err("a cut body");
        assert_eq!(refused.status, 400);
    }
    for at in (0..body.len()).step_by(3) {
        for bit in 0..8 {
            let mut body = body.to_vec();
            body[at] ^= 1 << bit;
            let _ = decode(traces_json, Kind::Spans, &body);
        }
    }
}

/// B1: keys that OTLP does not have are remembered to tell duplicates, so there may not be any number of them.
#[test]
fn unknown_fields_of_an_object_are_bounded() {
    let unknown = |count: usize| {
        let fields: Vec<String> = (0..count).map(|at| format!("\"x{at}\":0")).collect();
        with(&fields.join(","))
    };
    check(&unknown(1_024), None);
    let body = spans(&[&unknown(1_025)]);
    let refused = decode(traces_json, Kind::Spans, body.as_bytes()).unwrap_err();
    assert_eq!(refused.status, 400, "{refused:?}");
}
