//! Protobuf records: what is stored, what is rejected, what refuses the body.

use storage::record::Kind;

use super::message::{Message, any_deep, any_text, good_log, good_span, key_value, request};
use super::{NOW_NS, decode, decode_within, int, text};
use crate::decode::Limits;
use crate::decode::otlp::notes::OBJECT_LINES_MAX;
use crate::decode::otlp::{logs_proto, traces_proto};

/// Sends a span beside a good one: the good one is stored, the other's code is as expected.
fn check_span(record: &Message, expected: Option<&str>) {
    let (decoded, batch) = decode(traces_proto, Kind::Spans, &request(&[good_span(), record.clone()]).0)
        .unwrap_or_else(|refused| panic!("{refused:?} for {record:02x?}"));
    assert_eq!(decoded.rejected.first().map(|rejected| rejected.code), expected, "{record:02x?}");
    assert_eq!(decoded.accepted + decoded.rejected_count, 2);
    assert_eq!(batch.num_rows(), 2 - usize::from(expected.is_some()));
    assert_eq!(text(&batch, "name", 0), Some("GET /"));
    if let Some(rejected) = decoded.rejected.first() {
        assert_eq!((rejected.index, rejected.line), (1, None));
    }
}

fn check_log(record: &Message, expected: Option<&str>) {
    let (decoded, batch) =
        decode(logs_proto, Kind::Logs, &request(&[record.clone(), good_log()]).0).expect("well-formed");
    assert_eq!(decoded.rejected.first().map(|rejected| rejected.code), expected, "{record:02x?}");
    assert_eq!(batch.num_rows(), 2 - usize::from(expected.is_some()));
}

fn check_refused(record: &Message, expected: &str) {
    let body = request(&[good_span(), record.clone()]);
    let refused = decode(traces_proto, Kind::Spans, &body.0).expect_err("a refused body");
    assert_eq!((refused.status, refused.code), (400, expected), "{record:02x?}");
}

fn with_attribute(key: &str, value: &Message) -> Message {
    good_span().message(9, &key_value(key, value))
}

#[test]
fn a_bad_span_is_rejected_and_its_neighbour_stored() {
    let limits = Limits::default();
    check_span(&good_span(), None);
    // C4
    check_span(&good_span().varint(99, 1).text(100, "later").fixed32(101, 1).fixed64(102, 1), None);
    // C6
    check_span(&with_attribute("deep", &any_deep(limits.depth_max)), None);
    check_span(&with_attribute("deep", &any_deep(limits.depth_max + 1)), Some("too_deep"));
    // C12, C13, C14: a later field replaces an earlier one.
    for (id, code) in [(1, "invalid_trace_id"), (2, "invalid_span_id")] {
        for len in [0, 7, 9, 15, 17, 32] {
            check_span(&good_span().bytes(id, &vec![1; len]), Some(code));
        }
        check_span(&good_span().bytes(id, &[0; 16][..if id == 1 { 16 } else { 8 }]), Some(code));
    }
    check_span(&Message::new().bytes(1, &[1; 16]).fixed64(7, 1).fixed64(8, 2), Some("invalid_span_id"));
    check_span(&good_span().bytes(4, &[1; 7]), Some("invalid_parent_span_id"));
    check_span(&good_span().bytes(4, &[0; 8]), None);
    check_span(&good_span().bytes(4, &[]), None);
    // C18
    let latest = u64::try_from(NOW_NS + limits.future_ns_max).unwrap();
    check_span(&good_span().fixed64(7, latest), None);
    check_span(&good_span().fixed64(7, latest + 1), Some("too_new"));
    check_span(&good_span().fixed64(7, u64::MAX), Some("too_new"));
    check_span(&good_span().fixed64(8, u64::MAX), Some("too_new"));
    // C24
    check_span(&with_attribute("", &any_text("v")), Some("empty_key"));
    check_span(&with_attribute(&"k".repeat(1_024), &any_text("v")), None);
    check_span(&with_attribute(&"k".repeat(1_025), &any_text("v")), Some("key_too_long"));
    check_span(&with_attribute(&"k".repeat(64 << 10), &any_text("v")), Some("key_too_long"));
    // C26
    let large = "v".repeat(1 << 20);
    check_span(&with_attribute("k", &any_text(&large)), None);
    let large = format!("{large}v");
    check_span(&with_attribute("k", &any_text(&large)), Some("value_too_large"));
    check_span(&with_attribute("k", &Message::new().text(7, &large)), Some("value_too_large"));
    let array = Message::new().message(5, &Message::new().message(1, &any_text(&large)));
    check_span(&with_attribute("k", &array), Some("value_too_large"));
    check_span(&good_span().text(5, &large), Some("value_too_large"));
    check_span(&good_span().message(15, &Message::new().text(2, &large)), Some("value_too_large"));
    check_span(&good_span().message(11, &Message::new().text(2, &large)), Some("value_too_large"));
    let event = Message::new().message(3, &key_value("", &any_text("v")));
    check_span(&good_span().message(11, &event), Some("empty_key"));
    check_span(&good_span().message(13, &Message::new().bytes(1, &[1; 15])), Some("invalid_link"));
    let keys = |count| {
        (0..count).fold(good_span(), |span, n| {
            span.message(9, &key_value(&format!("k{n}"), &Message::new().varint(3, n)))
        })
    };
    check_span(&keys(1_024), None);
    check_span(&keys(1_025), Some("too_many_attributes"));
}

#[test]
fn a_bad_log_record_is_rejected_and_its_neighbour_stored() {
    check_log(&good_log(), None);
    check_log(&good_log().bytes(9, &[1; 15]), Some("invalid_trace_id"));
    check_log(&good_log().bytes(10, &[1; 9]), Some("invalid_span_id"));
    check_log(&good_log().bytes(9, &[0; 15]), Some("invalid_trace_id"));
    check_log(&good_log().bytes(9, &[0; 16]).bytes(10, &[0; 8]), None);
    check_log(&good_log().bytes(9, &[]).bytes(10, &[]), None);
    check_log(&good_log().message(5, &any_text(&"v".repeat((1 << 20) + 1))), Some("value_too_large"));
    check_log(&good_log().message(5, &any_deep(65)), Some("too_deep"));
    check_log(&good_log().fixed64(1, u64::MAX), Some("too_new"));
    check_log(&good_log().fixed64(1, 0).fixed64(11, u64::try_from(NOW_NS).unwrap() * 2), Some("too_new"));
}

#[test]
fn a_malformed_record_refuses_the_body() {
    // C5: each known field, with a wire type it does not have.
    for number in 1..=16 {
        let wrong = match number {
            6 | 10 | 12 | 14 => good_span().fixed64(number, 1),
            7 | 8 => good_span().varint(number, 1),
            16 => good_span().fixed64(number, 1),
            _ => good_span().varint(number, 1),
        };
        check_refused(&wrong, "invalid_protobuf");
    }
    // C7
    check_refused(&with_attribute("deep", &any_deep(2_000)), "too_deep");
    // C9, C10
    check_refused(&good_span().raw(&[0xa0, 0x06]).raw(&[0xff; 10]).raw(&[1]), "invalid_protobuf");
    check_refused(&good_span().raw(&[0x00, 0x01]), "invalid_protobuf");
    check_refused(&good_span().raw(&[0x4a, 0x80, 0x80, 0x80, 0x80, 0x08]), "invalid_protobuf");
    // C11
    for bytes in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xe2\x82"] {
        check_refused(&good_span().bytes(5, bytes), "invalid_utf8");
        check_refused(&good_span().bytes(3, bytes), "invalid_utf8");
        check_refused(&with_attribute("k", &Message::new().bytes(1, bytes)), "invalid_utf8");
        check_refused(&good_span().message(11, &Message::new().bytes(2, bytes)), "invalid_utf8");
    }
    // A fault noted earlier does not hide that the rest of the record is broken.
    check_refused(&good_span().bytes(1, &[1; 15]).raw(&[0x0a, 0x7f]), "invalid_protobuf");
    check_refused(&with_attribute("", &Message::new().varint(1, 1)), "invalid_protobuf");
}

#[test]
fn what_is_odd_is_stored_with_a_warning() {
    fn check(record: &Message, expected: &[&str], time_ns: i64, duration_ns: i64) {
        let (decoded, batch) =
            decode(traces_proto, Kind::Spans, &request(std::slice::from_ref(record)).0).unwrap();
        assert_eq!(decoded.warnings, expected);
        assert_eq!(decoded.accepted, 1);
        assert_eq!(
            (int(&batch, "time_ns", 0), int(&batch, "duration_ns", 0)),
            (Some(time_ns), Some(duration_ns))
        );
    }
    let time_ns = 1_700_000_000_000_000_000;
    check(&good_span(), &[], time_ns, 500);
    check(&good_span().fixed64(8, 5), &["end_before_start"], time_ns, 0);
    check(&good_span().fixed64(8, 0), &["end_before_start"], time_ns, 0);
    check(&good_span().fixed64(7, 0), &["time_missing"], NOW_NS, 0);
    let twice =
        good_span().message(9, &key_value("k", &any_text("1"))).message(9, &key_value("k", &any_text("2")));
    check(&twice, &["duplicate_attribute"], time_ns, 500);
    let (_, batch) = decode(traces_proto, Kind::Spans, &request(&[twice]).0).unwrap();
    assert_eq!(text(&batch, "k", 0), Some("2"));
    // Values outside an enum are its zero.
    let odd = good_span().varint(6, 77).message(15, &Message::new().varint(3, u64::MAX));
    check(&odd, &[], time_ns, 500);
    let (_, batch) = decode(traces_proto, Kind::Spans, &request(&[odd]).0).unwrap();
    assert_eq!(
        (text(&batch, "kind", 0), text(&batch, "status_code", 0)),
        (Some("unspecified"), Some("unset"))
    );
}

#[test]
fn a_log_without_time_takes_the_observed_one_and_then_ours() {
    fn check(time_ns: u64, observed_ns: u64, expected: (i64, i64), warnings: &[&str]) {
        let record = good_log().fixed64(1, time_ns).fixed64(11, observed_ns);
        let (decoded, batch) = decode(logs_proto, Kind::Logs, &request(&[record]).0).unwrap();
        assert_eq!(decoded.warnings, warnings);
        let times = (int(&batch, "time_ns", 0), int(&batch, "observed_time_ns", 0));
        assert_eq!(times, (Some(expected.0), Some(expected.1)));
    }
    check(7, 9, (7, 9), &[]);
    check(7, 0, (7, NOW_NS), &[]);
    check(0, 9, (9, 9), &[]);
    check(0, 0, (NOW_NS, NOW_NS), &["time_missing"]);
}

#[test]
fn severity_has_both_its_forms() {
    fn check(number: u64, name: &str, expected: (Option<&str>, Option<i64>)) {
        let record = good_log().varint(2, number).text(3, name);
        let (_, batch) = decode(logs_proto, Kind::Logs, &request(&[record]).0).unwrap();
        assert_eq!((text(&batch, "severity", 0), int(&batch, "severity_number", 0)), expected);
    }
    check(9, "", (Some("info"), Some(9)));
    check(24, "", (Some("fatal"), Some(24)));
    check(18, "ERROR2", (Some("ERROR2"), Some(18)));
    check(0, "Warning", (Some("Warning"), Some(13)));
    check(0, "chatty", (Some("chatty"), None));
    check(0, "", (None, None));
    check(99, "", (None, Some(99)));
}

#[test]
fn a_body_keeps_its_type() {
    fn check(value: &Message, expected: (Option<&str>, Option<&str>)) {
        let record = good_log().message(5, value);
        let (_, batch) = decode(logs_proto, Kind::Logs, &request(&[record]).0).unwrap();
        assert_eq!((text(&batch, "body", 0), text(&batch, "body_type", 0)), expected);
    }
    check(&any_text("a \"b\""), (Some("a \"b\""), None));
    check(&any_text(""), (Some(""), None));
    check(&Message::new().varint(3, u64::MAX), (Some("-1"), Some("int")));
    check(&Message::new().varint(2, 1), (Some("true"), Some("bool")));
    check(&Message::new().fixed64(4, 1f64.to_bits()), (Some("1.0"), Some("double")));
    check(&Message::new().bytes(7, &[1, 2]), (Some(r#"{"$bytes":"AQI="}"#), Some("bytes")));
    let array = Message::new().message(1, &any_text("x")).message(1, &Message::new());
    check(&Message::new().message(5, &array), (Some(r#"["x",null]"#), Some("json")));
    check(&Message::new().message(5, &Message::new()), (Some("[]"), Some("json")));
    let map = Message::new()
        .message(1, &key_value("a", &Message::new().varint(3, 1)))
        .message(1, &key_value("a", &Message::new().message(6, &Message::new())));
    check(&Message::new().message(6, &map), (Some(r#"{"a":{}}"#), Some("json")));
    check(&Message::new(), (None, None));
}

#[test]
fn resource_and_scope_are_found_wherever_they_stand() {
    let scope = Message::new()
        .text(1, "lib")
        .text(2, "1.2")
        .message(3, &key_value("s", &Message::new().varint(2, 1)))
        .varint(4, 3);
    let spans = Message::new().message(2, &good_span()).text(3, "https://scope").message(1, &scope);
    let resource = Message::new()
        .varint(2, 7)
        .message(1, &key_value("service.name", &any_text("cart")))
        .message(1, &key_value("host", &any_text("h\n")));
    let last = Message::new().message(2, &spans).text(3, "https://res").message(1, &resource);
    let bare = Message::new().message(2, &Message::new().message(2, &good_span()));
    let body = Message::new().message(1, &last).message(1, &bare);
    let (decoded, batch) = decode(traces_proto, Kind::Spans, &body.0).unwrap();
    assert_eq!((decoded.accepted, decoded.warnings.len()), (2, 0));
    assert_eq!(text(&batch, "source", 0), Some("cart"));
    assert_eq!(
        text(&batch, "resource", 0),
        Some(
            r#"{"service.name":"cart","host":"h\n","$schema_url":"https://res","$dropped_attributes_count":7}"#
        )
    );
    assert_eq!(text(&batch, "scope_name", 0), Some("lib"));
    assert_eq!(text(&batch, "scope_version", 0), Some("1.2"));
    assert_eq!(
        text(&batch, "scope", 0),
        Some(r#"{"s":true,"$schema_url":"https://scope","$dropped_attributes_count":3}"#)
    );
    assert_eq!(text(&batch, "source", 1), Some("unknown"));
    for column in ["resource", "scope_name", "scope_version", "scope"] {
        assert_eq!(text(&batch, column, 1), None, "{column}");
    }
}

#[test]
fn a_resource_that_cannot_be_stored_rejects_its_records_only() {
    let bad = Message::new().message(1, &key_value("", &any_text("v")));
    let spans = Message::new().message(2, &good_span()).message(2, &good_span());
    let group = Message::new().message(1, &bad).message(2, &spans);
    let body = Message::new().message(1, &group).and(&request(&[good_span()]));
    let (decoded, batch) = decode(traces_proto, Kind::Spans, &body.0).unwrap();
    assert_eq!((decoded.accepted, decoded.rejected_count), (1, 2));
    assert!(decoded.rejected.iter().all(|rejected| rejected.code == "empty_key"));
    assert_eq!(text(&batch, "source", 0), Some("shop"));
}

#[test]
fn bounds_of_a_request_refuse_it() {
    let body = request(&[good_span(), good_span(), good_span()]);
    let limits = Limits { records_max: 3, ..Limits::default() };
    assert!(decode_within(&limits, traces_proto, Kind::Spans, &body.0).is_ok());
    let limits = Limits { records_max: 2, ..Limits::default() };
    let refused = decode_within(&limits, traces_proto, Kind::Spans, &body.0).unwrap_err();
    assert_eq!((refused.status, refused.code), (413, "too_many_records"));
    // A resource of 1 MiB that stands in each of a thousand rows.
    let resource = Message::new().message(1, &key_value("k", &any_text(&"v".repeat(1 << 20))));
    let spans = (0..1_000).fold(Message::new(), |spans, _| spans.message(2, &good_span()));
    let body = Message::new().message(1, &Message::new().message(1, &resource).message(2, &spans));
    let refused = decode(traces_proto, Kind::Spans, &body.0).unwrap_err();
    assert_eq!((refused.status, refused.code), (413, "rows_too_large"));
    // An empty event takes two bytes in the body and seventy in the row.
    let events = (0..10_000).fold(good_span(), |span, _| span.message(11, &Message::new()));
    let limits = Limits { inflated_bytes_max: 100 << 10, ..Limits::default() };
    let refused = decode_within(&limits, traces_proto, Kind::Spans, &request(&[events]).0).unwrap_err();
    assert_eq!((refused.status, refused.code), (413, "rows_too_large"));
}

/// B1: text that grows far beyond what was sent is given up before it is large, and costs its own records.
#[test]
fn text_that_outgrows_its_body_costs_its_record_alone() {
    let rejected_as_too_large = |record: Message| {
        let (decoded, batch) = decode(traces_proto, Kind::Spans, &request(&[record, good_span()]).0).unwrap();
        assert_eq!((decoded.accepted, decoded.rejected_count, batch.num_rows()), (1, 1, 1));
        assert_eq!(decoded.rejected[0].code, "value_too_large");
        batch.get_array_memory_size()
    };
    // 5 MiB of events as text, of 150 KB sent.
    let events = (0..76_000).fold(good_span(), |span, _| span.message(11, &Message::new()));
    assert!(rejected_as_too_large(events) < 1 << 20);
    // 2 MiB of events as text, of 60 KB sent: below the bound of one span, above that of such a body.
    let events = (0..30_000).fold(good_span(), |span, _| span.message(11, &Message::new()));
    assert!(rejected_as_too_large(events) < 1 << 20);
    // An array of empty values.
    let empty = Message::new();
    let elements = (0..1_000_000).fold(Message::new(), |array, _| array.message(1, &empty));
    let array = Message::new().message(5, &elements);
    assert!(rejected_as_too_large(good_span().message(9, &key_value("k", &array))) < 1 << 20);
    // A resource larger than several values may be.
    let value = any_text(&"v".repeat(1 << 20));
    let resource = (0..=OBJECT_LINES_MAX)
        .fold(Message::new(), |resource, at| resource.message(1, &key_value(&format!("k{at}"), &value)));
    let spans = Message::new().message(2, &good_span());
    let body = Message::new().message(1, &Message::new().message(1, &resource).message(2, &spans));
    let (decoded, _) = decode(traces_proto, Kind::Spans, &body.0).unwrap();
    assert_eq!((decoded.accepted, decoded.rejected[0].code), (0, "value_too_large"));
}

/// B1: each value within its bound, and together too much for one row; the body is large enough to pay for it.
#[test]
fn events_and_links_of_one_span_have_a_length() {
    let attribute = key_value("k", &any_text(&"v".repeat(900 << 10)));
    let event = Message::new().message(3, &attribute);
    let link = Message::new().message(4, &attribute);
    let many = |count: usize| (0..count).fold(good_span(), |span, _| span.message(11, &event));
    // `check_span` would print megabytes where this fails.
    let code = |span: Message| {
        let (decoded, _) = decode(traces_proto, Kind::Spans, &request(&[span]).0).unwrap();
        decoded.rejected.first().map(|rejected| rejected.code)
    };
    assert_eq!(code(many(4)), None);
    assert_eq!(code(many(5)), Some("value_too_large"));
    assert_eq!(code(many(4).message(13, &link)), Some("value_too_large"));
}

#[test]
fn a_body_without_records_is_accepted_and_named_if_it_held_something() {
    fn check(body: &Message, expected: &[&str]) {
        let (decoded, batch) = decode(traces_proto, Kind::Spans, &body.0).unwrap();
        assert_eq!((decoded.accepted, decoded.rejected_count, batch.num_rows()), (0, 0, 0));
        assert_eq!(decoded.warnings, expected);
    }
    check(&Message::new(), &[]);
    check(&request(&[]), &[]);
    check(&Message::new().text(9, "what is this"), &["no_records"]);
}

#[test]
fn the_other_signal_is_no_message_of_this_one() {
    // C37
    assert!(decode(logs_proto, Kind::Logs, &request(&[good_span()]).0).is_err());
    assert!(decode(traces_proto, Kind::Spans, &request(&[good_log()]).0).is_err());
}

#[test]
fn every_rejected_record_is_counted_and_a_hundred_listed() {
    let mut records = vec![good_span(); 3];
    records.extend(vec![good_span().bytes(1, &[]); 150]);
    let (decoded, _) = decode(traces_proto, Kind::Spans, &request(&records).0).unwrap();
    assert_eq!((decoded.accepted, decoded.rejected_count, decoded.rejected.len()), (3, 150, 100));
    assert_eq!(decoded.rejected[99].index, 102);
}

#[test]
fn a_whole_span_is_stored_whole() {
    let event = Message::new()
        .message(3, &key_value("n", &Message::new().varint(3, 5)))
        .fixed64(1, 1_700_000_000_000_000_007)
        .text(2, "e\"1")
        .varint(4, 2);
    let link = Message::new()
        .bytes(1, &[0x11; 16])
        .bytes(2, &[0x22; 8])
        .text(3, "k=v")
        .message(4, &key_value("l", &Message::new()))
        .varint(5, 4)
        .fixed32(6, 256);
    let span = good_span()
        .text(3, "a=b")
        .bytes(4, &[0xef; 8])
        .varint(6, 2)
        .varint(10, 1)
        .message(11, &event)
        .message(13, &link)
        .message(11, &Message::new())
        .varint(12, 2)
        .varint(14, 3)
        .message(15, &Message::new().text(2, "boom").varint(3, 2))
        .fixed32(16, 257);
    let (_, batch) = decode(traces_proto, Kind::Spans, &request(&[span]).0).unwrap();
    for (column, expected) in [
        ("trace_id", "abababababababababababababababab"),
        ("span_id", "cdcdcdcdcdcdcdcd"),
        ("parent_span_id", "efefefefefefefef"),
        ("name", "GET /"),
        ("kind", "server"),
        ("trace_state", "a=b"),
        ("status_code", "error"),
        ("status_message", "boom"),
        ("severity", "error"),
        (
            "events",
            concat!(
                r#"[{"time":"2023-11-14T22:13:20.000000007Z","name":"e\"1","attributes":{"n":5},"#,
                r#""dropped_attributes_count":2},"#,
                r#"{"time":"1970-01-01T00:00:00.000000000Z","name":"","attributes":{}}]"#
            ),
        ),
        (
            "links",
            concat!(
                r#"[{"trace_id":"11111111111111111111111111111111","span_id":"2222222222222222","#,
                r#""trace_state":"k=v","attributes":{"l":null},"dropped_attributes_count":4,"flags":256}]"#
            ),
        ),
    ] {
        assert_eq!(text(&batch, column, 0), Some(expected), "{column}");
    }
    for (column, expected) in [
        ("flags", 257),
        ("dropped_attributes_count", 1),
        ("dropped_events_count", 2),
        ("dropped_links_count", 3),
        ("severity_number", 17),
        ("observed_time_ns", NOW_NS),
    ] {
        assert_eq!(int(&batch, column, 0), Some(expected), "{column}");
    }
    assert_eq!(text(&batch, "id", 0).map(str::len), Some(36));
}

#[test]
fn a_cut_body_is_refused_or_holds_fewer_records() {
    let groups = [request(&[good_span(), with_attribute("k", &any_deep(3))]), request(&[good_span()])];
    let body = groups[0].clone().and(&groups[1]).0;
    for len in 0..body.len() {
        match decode(traces_proto, Kind::Spans, &body[..len]) {
            Ok((decoded, _)) => assert!(len == 0 || (len == groups[0].0.len() && decoded.accepted == 2)),
            Err(refused) => assert_eq!(refused.status, 400),
        }
    }
    // No byte, whatever it becomes, is more than another body.
    for at in 0..body.len() {
        for bit in 0..8 {
            let mut body = body.clone();
            body[at] ^= 1 << bit;
            let _ = decode(traces_proto, Kind::Spans, &body);
            let _ = decode(logs_proto, Kind::Logs, &body);
        }
    }
}
