#![expect(clippy::print_stderr, reason = "a test that skips or counts says so")]

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use std::io::Read as _;
use storage::record::{Clean, Draft, Kind};

use super::{audit_json, audit_lines, events_json, events_lines};
use crate::decode::{Context, Decoded, IdSource, Limits, Precision, Refused};

/// 2026-06-01T00:00:00Z
const NOW: i64 = 1_780_272_000_000_000_000;

type Decode = fn(&[u8], &mut Context<'_>, &mut Draft) -> Result<Decoded, Refused>;

fn run(decode: Decode, kind: Kind, limits: &Limits, body: &[u8]) -> (Result<Decoded, Refused>, RecordBatch) {
    let mut draft = Draft::new(kind);
    let mut ids = IdSource::default();
    let mut ctx =
        Context { now_ns: NOW, oldest_ns: i64::MIN, limits, precision: Precision::default(), ids: &mut ids };
    let outcome = decode(body, &mut ctx, &mut draft);
    let accepted = outcome.as_ref().map_or(0, |decoded| decoded.accepted as usize);
    assert_eq!(draft.row_count(), accepted, "what is accepted is stored, and nothing else");
    (outcome, Clean::attest(&mut draft, 0).batch().clone())
}

/// The value of a row's column as JSON text, null where there is none.
fn cell(batch: &RecordBatch, row: usize, name: &str) -> String {
    let Some(column) = batch.column_by_name(name) else { return "null".into() };
    if column.is_null(row) {
        return "null".into();
    }
    if let Some(text) = column.as_string_opt::<i32>() {
        let text = text.value(row);
        let field = batch.schema_ref().field_with_name(name).unwrap();
        return if storage::record::schema::type_of(field) == Some(storage::record::Type::Json) {
            text.to_owned()
        } else {
            format!("{text:?}")
        };
    }
    if let Some(ints) = column.as_primitive_opt::<Int64Type>() {
        return ints.value(row).to_string();
    }
    if let Some(doubles) = column.as_primitive_opt::<Float64Type>() {
        return format!("{:?}", doubles.value(row));
    }
    column.as_boolean().value(row).to_string()
}

fn cells(decode: Decode, kind: Kind, body: &str, expected: &[(&str, &str)]) {
    let (outcome, batch) = run(decode, kind, &Limits::default(), body.as_bytes());
    let decoded = outcome.expect(body);
    assert_eq!((decoded.accepted, &decoded.rejected), (1, &Vec::new()), "{body}");
    for (name, value) in expected {
        assert_eq!(cell(&batch, 0, name), *value, "{name} of {body}");
    }
}

fn event(body: &str, expected: &[(&str, &str)]) {
    cells(events_lines, Kind::Events, body, expected);
    cells(events_json, Kind::Events, &format!(" [ {body} ] "), expected);
}

/// The line is rejected with that code and its good neighbours are stored (table D: "LE").
fn rejected(decode: Decode, kind: Kind, line: &[u8], good: &str, code: &str) {
    let shown = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
    let body = [good.as_bytes(), b"\n\n", line, b"\r\n", good.as_bytes()].concat();
    let (outcome, batch) = run(decode, kind, &Limits::default(), &body);
    let decoded = outcome.expect(&shown);
    assert_eq!((decoded.accepted, decoded.rejected_count, batch.num_rows()), (2, 1, 2), "{shown}");
    let reject = &decoded.rejected[0];
    assert_eq!((reject.code, reject.index, reject.line), (code, 1, Some(3)), "{shown}: {}", reject.detail);
    assert!(reject.detail.len() <= 128 && !reject.detail.is_empty(), "{}", reject.detail);
}

#[test]
fn bad_lines_cost_only_themselves() {
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let keys = |count: usize| {
        let members: Vec<String> = (0..count).map(|n| format!("\"k{n}\":1")).collect();
        format!("{{{}}}", members.join(","))
    };
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let (deep, bomb, wide) = (nested(65), "[".repeat(100_000), keys(1_025));
    let cases: &[(&[u8], &str)] = &[
        (b"[1,2]", "not_object"),
        (b"5", "not_object"),
        (b"\"text\"", "not_object"),
        (b"null", "not_object"),
        (b"true", "not_object"),
        (b"{\"a\":1", "invalid_json"),
        (b"{\"a\":\"b", "invalid_json"),
        (b"{\"a\":1}x", "invalid_json"),
        (b"{\"a\":1}{\"b\":2}", "invalid_json"),
        (b"hello", "invalid_json"),
        (b"{'a':1}", "invalid_json"),
        (b"{\"a\":1,}", "invalid_json"),
        (long.as_bytes(), "line_too_long"),
        (b"{\"a\":\"\xff\"}", "invalid_utf8"),
        (b"{\"a\":\"\xc0\x80\"}", "invalid_utf8"),
        (b"{\"a\":\"\xed\xa0\x80\"}", "invalid_utf8"),
        (b"{\"a\":\"\0\"}", "invalid_json"),
        (b"{\"a\":\"\x1b[31m\"}", "invalid_json"),
        (br#"{"a":"\ud800"}"#, "invalid_json"),
        (deep.as_bytes(), "too_deep"),
        (bomb.as_bytes(), "too_deep"),
        (b"{\"a\":1e999}", "invalid_json"),
        (b"{\"a\":-}", "invalid_json"),
        (b"{\"a\":01}", "invalid_json"),
        (b"{\"a\":.5}", "invalid_json"),
        (b"{\"a\":NaN}", "invalid_json"),
        (b"{\"_seq\":1}", "reserved_field"),
        (b"{\"_leaf\":null}", "reserved_field"),
        (b"{\"_tenant\":\"x\"}", "reserved_field"),
        (b"{\"tenant\":\"x\"}", "reserved_field"),
        (b"{\"tenant_id\":\"x\"}", "reserved_field"),
        (b"{\"\\u005fseq\":1}", "reserved_field"),
        (b"{\"time\":\"2026-02-30T00:00:00Z\"}", "bad_time"),
        (b"{\"time\":\"yesterday\"}", "bad_time"),
        (b"{\"time\":\"\"}", "bad_time"),
        (b"{\"time\":1e20}", "bad_time"),
        (b"{\"time\":100000000000000000000}", "bad_time"),
        (b"{\"time\":\"23:59:60\"}", "bad_time"),
        (b"{\"time\":true}", "bad_time"),
        (b"{\"time\":{}}", "bad_time"),
        (b"{\"timestamp\":[1]}", "bad_time"),
        (b"{\"time\":\"2026-06-01T01:00:01Z\"}", "too_new"),
        (b"{\"time\":\"9999-01-01T00:00:00Z\"}", "too_new"),
        (b"{\"source\":{}}", "wrong_type"),
        (b"{\"message\":[\"a\"]}", "wrong_type"),
        (b"{\"_trace_context\":\"x\"}", "wrong_type"),
        (b"{\"\":1}", "bad_key"),
        (b"{\"\":{\"a\":1}}", "bad_key"),
        (b"{\"payload\":{\"\":1}}", "bad_key"),
        (b"{\"a\":{\"\":{}}}", "bad_key"),
        (wide.as_bytes(), "too_many_attributes"),
    ];
    for (line, code) in cases {
        rejected(events_lines, Kind::Events, line, r#"{"ok":true}"#, code);
    }
    let key = format!("{{\"{}\":1}}", "k".repeat(1_025));
    rejected(events_lines, Kind::Events, key.as_bytes(), "{}", "bad_key");
    event(&nested(64), &[(&vec!["a"; 64].join("."), "1")]);
    event(&keys(1_024), &[("k0", "1")]);
}

#[test]
fn a_body_that_is_no_ndjson_is_refused_whole() {
    let utf16: Vec<u8> = "{\"a\":1}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf16_be: Vec<u8> = "{\"a\":1}\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
    let utf32: Vec<u8> = "{\"a\":1}\n".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    let many = "{}\n".repeat(100_001);
    let elements = format!("[{}1]", "1,".repeat(100_000));
    for (decode, body, status, code) in [
        (events_lines as Decode, &utf16[..], 400, "not_utf8"),
        (events_lines, &utf16_be, 400, "not_utf8"),
        (events_lines, &utf32, 400, "not_utf8"),
        (events_lines, b"\xff\xfe{\0}\0", 400, "not_utf8"),
        (events_lines, b"\xfe\xff\0{\0}", 400, "not_utf8"),
        (events_json, &utf16, 400, "not_utf8"),
        (events_lines, b"[{\"a\":1}]", 400, "array_body"),
        (events_lines, b" [\n{\"a\":1},\n{\"a\":2}\n]\n", 400, "array_body"),
        (events_lines, b"[]", 400, "array_body"),
        (events_lines, many.as_bytes(), 413, "too_many_records"),
        (events_json, elements.as_bytes(), 413, "too_many_records"),
        (events_json, b"[{\"a\":1},{\"a\":}]", 400, "invalid_json"),
        (events_json, b"[{\"a\":1},{\"a\":1e999}]", 400, "invalid_json"),
        (events_json, b"[{\"a\":1}", 400, "invalid_json"),
        (events_json, b"[{\"a\":1}] x", 400, "invalid_json"),
        (events_json, b"{\"a\":1} {\"a\":1}", 400, "invalid_json"),
        (events_json, b"{\"a\":\"\xff\"}", 400, "invalid_utf8"),
        (events_json, b"not json", 400, "invalid_json"),
    ] {
        let (outcome, _) = run(decode, Kind::Events, &Limits::default(), body);
        let refused = outcome.expect_err(code);
        assert_eq!((refused.status, refused.code), (status, code), "{}", refused.detail);
    }
}

#[test]
fn framing_is_forgiving_where_nothing_is_lost() {
    for (decode, body, accepted) in [
        (events_lines as Decode, "", 0),
        (events_lines, "\n\r\n  \n", 0),
        (events_lines, "{}", 1),
        (events_lines, "{}\n", 1),
        (events_lines, "{}\r\n\r\n{}\r\n", 2),
        (events_lines, "\u{feff}{}\n {} \n\t{}", 3),
        (events_lines, "{\n  \"a\": 1\n}\n", 1),
        (events_json, "", 0),
        (events_json, "[]", 0),
        (events_json, "{}", 1),
        (events_json, "\u{feff}[{},{}]", 2),
        (events_json, "{\"a\":1}\n{\"a\":2}\n", 2),
    ] {
        let (outcome, _) = run(decode, Kind::Events, &Limits::default(), body.as_bytes());
        let decoded = outcome.expect(body);
        assert_eq!((decoded.accepted, decoded.rejected_count), (accepted, 0), "{body:?}");
    }
    let many = "{}\n".repeat(100_000);
    let (outcome, _) = run(events_lines, Kind::Events, &Limits::default(), many.as_bytes());
    assert_eq!(outcome.unwrap().accepted, 100_000);
}

#[test]
fn bad_elements_of_an_array_cost_only_themselves() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let long = "x".repeat((1 << 20) + 1);
    let body = format!(r#"[{{"a":1}},5,{{"time":"x"}},{{"a":{deep}}},{{"a":"{long}"}},{{"a":2}}]"#);
    let (outcome, batch) = run(events_json, Kind::Events, &Limits::default(), body.as_bytes());
    let decoded = outcome.unwrap();
    let seen: Vec<_> = decoded.rejected.iter().map(|r| (r.index, r.line, r.code)).collect();
    let expected =
        [(1, None, "not_object"), (2, None, "bad_time"), (3, None, "too_deep"), (4, None, "value_too_large")];
    assert_eq!(seen, expected);
    assert_eq!((cell(&batch, 0, "a"), cell(&batch, 1, "a")), ("1".into(), "2".into()));
}

#[test]
fn an_event_maps_to_its_columns() {
    event(
        r#"{"id":"e1","timestamp":"2026-05-31T23:59:59.123456789Z","source":"checkout","event_type":"order",
            "severity":"ERROR","message":"caf\u00e9","correlation_id":"req-1:a.b_c","trace_id":"0AF7651916CD43DD8448EB211C80319C",
            "span_id":"b7ad6b7169203331","duration_ms":1.5,"payload":{"a":{"b":1},"source":"x","tenant_id":"t"},"n":null}"#
            .replace("\n            ", "")
            .as_str(),
        &[
            ("id", "\"e1\""),
            ("time_ns", "1780271999123456789"),
            ("observed_time_ns", "1780272000000000000"),
            ("source", "\"checkout\""),
            ("event_type", "\"order\""),
            ("severity", "\"ERROR\""),
            ("severity_number", "17"),
            ("message", "\"café\""),
            ("correlation_id", "\"req-1:a.b_c\""),
            ("trace_id", "\"0af7651916cd43dd8448eb211c80319c\""),
            ("span_id", "\"b7ad6b7169203331\""),
            ("duration_ns", "1500000"),
            ("a.b", "1"),
            ("attr.source", "\"x\""),
            ("tenant_id", "\"t\""),
            ("n", "null"),
            ("payload", "null"),
        ],
    );
    event(
        "{}",
        &[("source", "\"unknown\""), ("event_type", "\"event\""), ("time_ns", "1780272000000000000")],
    );
}

#[test]
fn the_first_named_alias_wins_and_the_other_is_an_attribute() {
    for (body, expected) in [
        (r#"{"service":"b","source":"a"}"#, &[("source", "\"a\""), ("service", "\"b\"")][..]),
        (r#"{"service.name":"c","service":"b"}"#, &[("source", "\"b\""), ("service.name", "\"c\"")]),
        (r#"{"service.name":"c"}"#, &[("source", "\"c\""), ("service.name", "null")]),
        (r#"{"service":{"name":"c","version":2}}"#, &[("source", "\"c\""), ("service.version", "2")]),
        (
            r#"{"payload":{"service":"c","service.name":"d"}}"#,
            &[("source", "\"unknown\""), ("service", "\"c\"")],
        ),
        (r#"{"source":null,"service":"b"}"#, &[("source", "\"b\"")]),
        (r#"{"source":"","service":"b"}"#, &[("source", "\"b\"")]),
        (r#"{"name":"n","type":"t"}"#, &[("event_type", "\"t\""), ("name", "\"n\"")]),
        (
            r#"{"type":"t","event_type":"e","name":{"first":"f"}}"#,
            &[("event_type", "\"e\""), ("type", "\"t\""), ("name.first", "\"f\"")],
        ),
        (
            r#"{"timestamp":5,"time":1700000000123}"#,
            &[("time_ns", "1700000000123000000"), ("timestamp", "5")],
        ),
        (r#"{"time":0,"timestamp":"no time"}"#, &[("time_ns", "0"), ("timestamp", "\"no time\"")]),
        (r#"{"duration_ns":7,"duration_ms":1}"#, &[("duration_ns", "1000000"), ("attr.duration_ns", "7")]),
        (r#"{"duration_ns":7,"duration_ms":"1 s"}"#, &[("duration_ns", "7"), ("duration_ms", "\"1 s\"")]),
        (r#"{"duration_ms":-1}"#, &[("duration_ns", "null"), ("duration_ms", "-1")]),
        (
            r#"{"duration_ms":9223372036854775807}"#,
            &[("duration_ns", "null"), ("duration_ms", "9223372036854775807")],
        ),
        (
            r#"{"source":5,"id":1.50,"event_type":true}"#,
            &[("source", "\"5\""), ("id", "\"1.50\""), ("event_type", "\"true\"")],
        ),
        (r#"{"correlation_id":"a b"}"#, &[("correlation_id", "null"), ("attr.correlation_id", "\"a b\"")]),
        (r#"{"trace_id":"xyz","span_id":7}"#, &[("attr.trace_id", "\"xyz\""), ("attr.span_id", "7")]),
        (r#"{"trace_id":"00000000000000000000000000000000"}"#, &[("trace_id", "null")]),
        (r#"{"severity":17}"#, &[("severity", "\"error\""), ("severity_number", "17")]),
        (r#"{"severity":"13"}"#, &[("severity", "\"warn\""), ("severity_number", "13")]),
        (r#"{"severity":"Warning"}"#, &[("severity", "\"Warning\""), ("severity_number", "13")]),
        (r#"{"severity":"odd"}"#, &[("severity", "\"odd\""), ("severity_number", "null")]),
        (r#"{"severity":99}"#, &[("severity", "\"99\""), ("severity_number", "null")]),
        (r#"{"payload":"text"}"#, &[("payload", "\"text\"")]),
        (
            r#"{"_trace_context":{"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331","trace_flags":1}}"#,
            &[
                ("trace_id", "\"0af7651916cd43dd8448eb211c80319c\""),
                ("span_id", "\"b7ad6b7169203331\""),
                ("trace_flags", "1"),
                ("_overflow", "null"),
            ],
        ),
        (
            r#"{"_trace_context":{"span_id":"b7ad6b7169203331"},"span_id":"00f067aa0ba902b7"}"#,
            &[
                ("span_id", "\"00f067aa0ba902b7\""),
                ("_overflow", r#"{"_trace_context.span_id":"b7ad6b7169203331"}"#),
            ],
        ),
    ] {
        event(body, expected);
    }
}

#[test]
fn attributes_keep_their_type_and_every_digit() {
    event(
        r#"{"i":1,"d":1.0,"z":-0.0,"e":1e3,"b":false,"t":"x","u":18446744073709551615,"min":-9223372036854775808,
            "big":123456789012345678901234567890,"l":[ 1 , 2.0, "\u0041\n", {"k" : [] }],"o":{"p":{"q":"r"},"n":null,"e":{}},"a.b":2}"#
            .replace("\n            ", "")
            .as_str(),
        &[
            ("i", "1"),
            ("d", "1.0"),
            ("z", "-0.0"),
            ("e", "1000.0"),
            ("b", "false"),
            ("t", "\"x\""),
            ("_overflow", r#"{"u":18446744073709551615}"#),
            ("min", "-9223372036854775808"),
            ("big", "123456789012345678901234567890"),
            ("l", r#"[1,2.0,"A\n",{"k":[]}]"#),
            ("o.p.q", "\"r\""),
            ("o.n", "null"),
            ("a.b", "2"),
        ],
    );
    // D20: hostile text is text.
    for text in
        ["${jndi:ldap://x}", "'; DROP TABLE events; --", "=cmd|' /C calc'!A0", "\u{1b}[31m\r\n", "<script>"]
    {
        let body = serde_json::json!({ "message": text, "a": text }).to_string();
        event(&body, &[("message", &format!("{text:?}")), ("a", &format!("{text:?}"))]);
    }
}

#[test]
fn the_last_of_a_key_named_twice_stands_and_the_sender_is_told() {
    for (body, name, value, warns) in [
        (r#"{"a":1,"a":2}"#, "a", "2", true),
        (r#"{"source":"a","source":"b"}"#, "source", "\"b\"", true),
        (r#"{"a":1,"payload":{"a":2}}"#, "a", "2", true),
        (r#"{"a":1,"b":{"a":1}}"#, "a", "1", false),
    ] {
        let (outcome, batch) = run(events_lines, Kind::Events, &Limits::default(), body.as_bytes());
        let decoded = outcome.unwrap();
        assert_eq!(decoded.warnings.contains(&"duplicate_key"), warns, "{body}");
        assert_eq!(cell(&batch, 0, name), value, "{body}");
    }
    let (outcome, batch) =
        run(events_lines, Kind::Events, &Limits::default(), br#"{"time":"2016-12-31T23:59:60Z"}"#);
    assert_eq!(outcome.unwrap().warnings, ["leap_second"]);
    assert_eq!(cell(&batch, 0, "time_ns"), "1483228799999999999");
}

const AUDIT: &str = r#"{"actor_type":"user","actor_id":"u1","action":"delete","resource_type":"order"}"#;

/// The smallest audit record with more members.
fn audit_with(members: &str) -> String {
    AUDIT.replace('}', &format!(",{members}}}"))
}

#[test]
fn an_audit_record_maps_to_its_columns() {
    let body = audit_with(
        r#""actor_type":"ai","resource_id":7,"decision_id":"d1","outcome":"allowed","before_state":{"a": [1, 2.0]},
        "after":null,"reason":"because","confidence":1,"request_id":"r","extra":{"x":1}"#,
    )
    .replacen(r#""actor_type":"user","#, "", 1)
    .replace("\n        ", "");
    let expected = [
        ("actor_type", "\"ai\""),
        ("actor_id", "\"u1\""),
        ("action", "\"delete\""),
        ("event_type", "\"delete\""),
        ("source", "\"unknown\""),
        ("resource_type", "\"order\""),
        ("resource_id", "\"7\""),
        ("decision_id", "\"d1\""),
        ("outcome", "\"allowed\""),
        ("before", r#"{"a":[1,2.0]}"#),
        ("after", "null"),
        ("reason", "\"because\""),
        ("confidence", "1.0"),
        ("request_id", "\"r\""),
        ("extra.x", "1"),
    ];
    cells(audit_lines, Kind::Audit, &body, &expected);
    cells(audit_json, Kind::Audit, &body, &expected);
    for (members, name, value) in [
        (r#""before":"text","before_state":{"b":1}"#, "before", "\"text\""),
        (r#""before":"text","before_state":{"b":1}"#, "before_state", r#"{"b":1}"#),
        (r#""before_state":5"#, "before", "5"),
        (r#""before":0,"before_state":5"#, "before_state", "5"),
        (r#""event_type":"e""#, "event_type", "\"e\""),
    ] {
        cells(audit_lines, Kind::Audit, &audit_with(members), &[(name, value)]);
    }
}

#[test]
fn an_audit_record_must_be_whole() {
    for (line, code) in [
        ("{}".to_owned(), "missing_field"),
        (AUDIT.replace("\"u1\"", "null"), "missing_field"),
        (AUDIT.replace("\"u1\"", "\"\""), "missing_field"),
        (AUDIT.replace("\"action\"", "\"verb\""), "missing_field"),
        (AUDIT.replace("\"user\"", "\"ai\""), "missing_field"),
        (audit_with(r#""reason":"x""#).replace("\"user\"", "\"AI\""), "missing_field"),
        (audit_with(r#""confidence":0.5"#).replace("\"user\"", "\"ai\""), "missing_field"),
        (audit_with(r#""confidence":1.01"#), "bad_confidence"),
        (audit_with(r#""confidence":-0.1"#), "bad_confidence"),
        (audit_with(r#""confidence":"0.5""#), "bad_confidence"),
        (audit_with(r#""confidence":[0.5]"#), "bad_confidence"),
        (audit_with(r#""action":"again""#), "duplicate_key"),
        (audit_with(r#""x":1,"x":null"#), "duplicate_key"),
        (audit_with(r#""before":{"a":1,"\u0061":2}"#), "duplicate_key"),
        (audit_with(r#""x":{"y":1,"y":{}}"#), "duplicate_key"),
        (audit_with(r#""x":[{"y":1,"y":1}]"#), "duplicate_key"),
        (audit_with(r#""actor_id":{}"#), "wrong_type"),
        (audit_with(r#""tenant_id":"x""#), "reserved_field"),
        ("[]".to_owned(), "not_object"),
    ] {
        rejected(audit_lines, Kind::Audit, line.as_bytes(), AUDIT, code);
    }
}

#[test]
fn every_truncation_is_answered_without_a_panic() {
    let line = audit_with(
        r#""before":{"a":[1,{"b":"\ud83d\ude00"}]},"time":"2026-01-01T00:00:00.5+01:00","_trace_context":{"trace_id":"x"},"c":-1.5e-3"#,
    );
    for at in 0..line.len() {
        for (decode, kind) in [
            (audit_lines as Decode, Kind::Audit),
            (audit_json, Kind::Audit),
            (events_lines, Kind::Events),
            (events_json, Kind::Events),
        ] {
            let (outcome, _) = run(decode, kind, &Limits::default(), &line.as_bytes()[..at]);
            assert!(outcome.is_err_and(|r| r.status == 400) != (at == 0 || outcome_is_lines(decode)), "{at}");
        }
    }
}

/// Whether the decoder answers a truncated line by rejecting it, not by refusing the body.
fn outcome_is_lines(decode: Decode) -> bool {
    std::ptr::fn_addr_eq(decode, audit_lines as Decode)
        || std::ptr::fn_addr_eq(decode, events_lines as Decode)
}

#[test]
fn fixtures_decode_as_their_names_say() {
    for (name, decode, kind, accepted, rejected) in [
        ("events.ndjson", events_lines as Decode, Kind::Events, 6, 0),
        ("events-bad-lines.ndjson", events_lines, Kind::Events, 2, 6),
        ("audit.ndjson", audit_lines, Kind::Audit, 3, 0),
    ] {
        let path = format!("{}/../tests/fixtures/ndjson/{name}", env!("CARGO_MANIFEST_DIR"));
        let body = std::fs::read(&path).expect("fixtures are part of the repository");
        let (outcome, _) = run(decode, kind, &Limits::default(), &body);
        let decoded = outcome.unwrap();
        assert_eq!(
            (decoded.accepted, decoded.rejected_count),
            (accepted, rejected),
            "{name} {:?}",
            decoded.rejected
        );
    }
}

/// Real data (not in the repository): every record of these is a good event.
#[test]
fn real_logs_are_taken_whole() {
    let base = std::env::var_os("FLOODMARK_SHARED_DATA").map_or_else(
        || std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        std::path::PathBuf::from,
    );
    for name in [
        "logs/nginxplus_status.ndjson.zst",
        "logs/nezha-onlineboutique-2022-08-22.logs.ndjson.zst",
        "audit/cloudtrail-invictus.ndjson.zst",
        "audit/k8s-audit-falco.ndjson",
        "traces/nezha-onlineboutique-2022-08-22.spans.ndjson.zst",
    ] {
        let Ok(mut bytes) = std::fs::read(base.join(name)) else {
            eprintln!("skipped: no corpus {name}; set FLOODMARK_SHARED_DATA");
            continue;
        };
        if name.ends_with(".zst") {
            let mut inflated = Vec::new();
            zstd::Decoder::new(&bytes[..]).unwrap().read_to_end(&mut inflated).unwrap();
            bytes = inflated;
        }
        let (outcome, batch) = run(events_lines, Kind::Events, &Limits::default(), &bytes);
        let decoded = outcome.unwrap();
        eprintln!(
            "{name}: {} bytes, accepted {}, rejected {}, {} columns, warnings {:?}",
            bytes.len(),
            decoded.accepted,
            decoded.rejected_count,
            batch.num_columns(),
            decoded.warnings,
        );
        assert_eq!(decoded.rejected, [], "{name}");
        assert!(decoded.accepted > 0 && decoded.warnings.is_empty(), "{name}: {:?}", decoded.warnings);
    }
}

/// B1: a record of a JSON document has no line, but a bound as if it had a few.
#[test]
fn a_record_of_a_document_is_bounded() {
    let limits = Limits { line_bytes_max: 1_000, ..Limits::default() };
    let (outcome, batch) = run(
        events_json,
        Kind::Events,
        &limits,
        format!("[{{\"a\":1{}}},{{\"b\":1{}}}]", " ".repeat(3_900), " ".repeat(4_100)).as_bytes(),
    );
    let decoded = outcome.unwrap();
    assert_eq!((decoded.accepted, decoded.rejected[0].code, batch.num_rows()), (1, "line_too_long", 1));
}
