//! What each class of line gives: rows, rejections by line, and never a panic.

mod corpus;

use std::collections::BTreeMap;

use storage::record::{Column, Draft, Field, Kind};

use super::lines;
use crate::decode::{Context, Decoded, IdSource, Limits, Precision, Refused};

/// 2026-01-02T03:04:05.678901234Z.
const NOW_NS: i64 = 1_767_323_045_678_901_234;

/// One decoded row: columns by name, attributes as `name`, values in line protocol's own spelling.
type Row = BTreeMap<String, String>;

struct Given {
    precision: Precision,
    limits: Limits,
}

impl Default for Given {
    fn default() -> Self {
        Self { precision: Precision::Nanosecond, limits: Limits::default() }
    }
}

impl Given {
    fn decode(&self, body: &[u8]) -> (Result<Decoded, Refused>, Draft) {
        let mut draft = Draft::new(Kind::Events);
        let mut ids = IdSource::default();
        let mut ctx = Context {
            now_ns: NOW_NS,
            oldest_ns: i64::MIN,
            limits: &self.limits,
            precision: self.precision,
            ids: &mut ids,
        };
        (lines(body, &mut ctx, &mut draft), draft)
    }

    fn rows(&self, body: &[u8]) -> (Decoded, Vec<Row>) {
        let (decoded, draft) = self.decode(body);
        let decoded = decoded.expect("the body is within its limits");
        assert_eq!(decoded.accepted as usize, draft.row_count(), "accepted records are rows");
        (decoded, rows(&draft))
    }
}

fn text(column: &Column, row: usize) -> Option<String> {
    match column {
        Column::Text(column) => column.get(row).map(|text| String::from_utf8(text.to_vec()).expect("UTF-8")),
        Column::Int(column) => column.get(row).map(|int| format!("{int}i")),
        Column::Double(column) => column.get(row).map(|double| format!("{double:?}")),
        Column::Bool(column) => column.get(row).map(|bool| bool.to_string()),
    }
}

/// Ids and times of receipt are checked on their own: they differ from run to run.
fn rows(draft: &Draft) -> Vec<Row> {
    (0..draft.row_count())
        .map(|row| {
            let fixed = [
                Field::TimeNs,
                Field::Source,
                Field::EventType,
                Field::CorrelationId,
                Field::TraceId,
                Field::SpanId,
                Field::DurationNs,
            ];
            let fixed = fixed
                .iter()
                .filter_map(|field| Some((format!("@{}", field.name()), text(draft.column(*field), row)?)));
            let attributes = draft
                .attributes()
                .filter_map(|attribute| Some((attribute.key.to_string(), text(&attribute.column, row)?)));
            let overflow = draft
                .overflow()
                .get(row)
                .map(|json| ("_overflow".to_owned(), String::from_utf8(json.to_vec()).expect("UTF-8")));
            fixed.chain(attributes).chain(overflow).collect()
        })
        .collect()
}

/// Checks one good line: `expected` are all its columns and attributes but time, and `@source` if unknown.
#[track_caller]
fn check(line: &str, expected: &[(&str, &str)]) {
    let (decoded, mut rows) = Given::default().rows(line.as_bytes());
    assert_eq!(decoded.rejected, [], "{line}");
    assert_eq!(rows.len(), 1, "{line}");
    let mut row = rows.remove(0);
    row.remove("@time_ns");
    if row.get("@source").is_some_and(|source| source == "unknown") {
        row.remove("@source");
    }
    let expected: Row =
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    assert_eq!(row, expected, "{line}");
}

/// Checks that a line is rejected, alone and between two good ones, which stay.
#[track_caller]
fn check_rejected_by(given: &Given, line: &[u8], code: &str) {
    let shown = String::from_utf8_lossy(&line[..line.len().min(80)]);
    let (decoded, draft) = given.decode(line);
    let decoded = decoded.expect("one bad line does not refuse a body");
    assert_eq!((decoded.accepted, decoded.rejected_count, draft.row_count()), (0, 1, 0), "{shown}");
    assert_eq!(decoded.rejected[0].code, code, "{shown}: {}", decoded.rejected[0].detail);
    assert!(decoded.rejected[0].detail.len() <= 128, "{shown}");

    let body = [b"good a=1\n".as_slice(), line, b"\ngood b=2\n"].concat();
    let (decoded, rows) = given.rows(&body);
    let listed: Vec<_> = decoded.rejected.iter().map(|bad| (bad.index, bad.line, bad.code)).collect();
    assert_eq!(listed, [(1, Some(2), code)], "{shown}");
    assert_eq!(rows.len(), 2, "{shown}");
    assert!(rows[0].contains_key("a") && rows[1].contains_key("b"), "{shown}");
    assert!(rows.iter().all(|row| row["@event_type"] == "good" && row.len() == 4), "{shown}: {rows:?}");
}

#[track_caller]
fn check_rejected(line: &str, code: &str) {
    check_rejected_by(&Given::default(), line.as_bytes(), code);
}

#[test]
fn each_type_of_field_is_an_attribute_of_its_type() {
    let m = ("@event_type", "m");
    check("m v=1", &[m, ("v", "1.0")]);
    check("m v=-1.5e3", &[m, ("v", "-1500.0")]);
    check("m v=-0.", &[m, ("v", "-0.0")]);
    check("m v=.5", &[m, ("v", "0.5")]);
    check("m v=-9223372036854775808i,w=007i", &[m, ("v", "-9223372036854775808i"), ("w", "7i")]);
    check("m v=9223372036854775807u", &[m, ("v", "9223372036854775807i")]);
    check("m v=18446744073709551615u", &[m, ("_overflow", r#"{"v":18446744073709551615}"#)]);
    for yes in ["t", "T", "true", "True", "TRUE"] {
        check(&format!("m v={yes}"), &[m, ("v", "true")]);
    }
    for no in ["f", "F", "false", "False", "FALSE"] {
        check(&format!("m v={no}"), &[m, ("v", "false")]);
    }
    check(r#"m v="""#, &[m, ("v", "")]);
    check(r#"m v="a, b=c d",w="é""#, &[m, ("v", "a, b=c d"), ("w", "é")]);
}

#[test]
fn escapes_are_taken_out_and_other_backslashes_stay() {
    check(
        r"wea\ ther\,x,lo\,c\=a\ t=a\,b\=c\ d va\ l\=ue=1i",
        &[("@event_type", "wea ther,x"), ("_overflow", r#"{"lo,c=a t":"a,b=c d","va l=ue":1}"#)],
    );
    let m = ("@event_type", "m");
    check(r"m,dir=C:\Users v=1i", &[m, ("dir", r"C:\Users"), ("v", "1i")]);
    check(r"m,t=a\\,b v=1i", &[m, ("t", r"a\,b"), ("v", "1i")]);
    check(r#"m,t="q" v=1i"#, &[m, ("t", r#""q""#), ("v", "1i")]);
    check(r#"m v="say \"hi\" \\ \n""#, &[m, ("v", r#"say "hi" \ \n"#)]);
    check(r#"m v="\\""#, &[m, ("v", r"\")]);
    check("cpu=load v=1i", &[("@event_type", "cpu=load"), ("v", "1i")]);
}

#[test]
fn a_newline_inside_a_string_is_part_of_it() {
    let m = ("@event_type", "m");
    check("m v=\"a\nb\"", &[m, ("v", "a\nb")]);
    check("m v=\"a\r\n# b\n\nc=1\",w=1i 5", &[m, ("v", "a\r\n# b\n\nc=1"), ("w", "1i")]);
    let (decoded, rows) = Given::default().rows(b"m v=\"1\n2\n3\"\nbad\nm w=1\n");
    assert_eq!((rows.len(), decoded.rejected[0].index, decoded.rejected[0].line), (2, 1, Some(4)));
}

#[test]
fn blank_lines_comments_and_line_ends_are_no_records() {
    for (body, accepted) in [
        ("", 0),
        ("\n", 0),
        ("\r\n\r\n", 0),
        (" \t\n", 0),
        ("# only a comment", 0),
        ("# a \"quote\n  # another\nm v=1", 1),
        ("m v=1\r\nm v=2\r\n", 2),
        ("m v=1\r", 1),
        ("\u{feff}m v=1\n", 1),
        ("  m   v=1   5   \n\nm v=2", 2),
    ] {
        let (decoded, rows) = Given::default().rows(body.as_bytes());
        assert_eq!((decoded.accepted, decoded.rejected_count), (accepted, 0), "{body:?}");
        assert!(rows.iter().all(|row| row["@event_type"] == "m"), "{body:?}");
    }
}

#[test]
fn named_tags_and_fields_are_columns() {
    let m = ("@event_type", "m");
    let v = ("v", "1i");
    check(
        "m,source=a,service=b,service.name=c v=1i",
        &[m, v, ("@source", "a"), ("service", "b"), ("service.name", "c")],
    );
    check("m,service.name=c,service=b v=1i", &[m, v, ("@source", "b"), ("service.name", "c")]);
    check("m,service.name=c v=1i", &[m, v, ("@source", "c")]);
    check("m,host=h source=\"f\"", &[m, ("host", "h"), ("source", "f")]);
    check("m,source=s source=\"f\"", &[m, ("@source", "s"), ("source", "f")]);
    let trace = "0AF7651916cd43dd8448eb211c80319c";
    check(
        &format!("m,correlation_id=a.b_c:d-1,trace_id={trace},span_id=00F067aa0ba902b7 v=1i"),
        &[
            m,
            v,
            ("@correlation_id", "a.b_c:d-1"),
            ("@trace_id", "0af7651916cd43dd8448eb211c80319c"),
            ("@span_id", "00f067aa0ba902b7"),
        ],
    );
    check(
        "m,trace_id=xyz,span_id=0000000000000000 v=1i",
        &[m, v, ("trace_id", "xyz"), ("span_id", "0000000000000000")],
    );
    check("m,correlation_id=a/b v=1i", &[m, v, ("correlation_id", "a/b")]);
    let long = "a".repeat(129);
    check(&format!("m,correlation_id={long} v=1i"), &[m, v, ("correlation_id", &long)]);
    check(
        "m trace_id=\"0af7651916cd43dd8448eb211c80319c\"",
        &[m, ("trace_id", "0af7651916cd43dd8448eb211c80319c")],
    );
}

#[test]
fn durations_are_numbers_of_either_unit() {
    let m = ("@event_type", "m");
    for (field, ns) in [
        ("duration_ms=12.345", "12345000i"),
        ("duration_ms=7i", "7000000i"),
        ("duration_ms=7u", "7000000i"),
        ("duration_ns=1500", "1500i"),
        ("duration_ns=9223372036854775807u", "9223372036854775807i"),
        ("duration_ns=0i", "0i"),
    ] {
        check(&format!("m {field}"), &[m, ("@duration_ns", ns)]);
    }
    check("m duration_ns=5i,duration_ms=1i", &[m, ("@duration_ns", "1000000i"), ("duration_ns", "5i")]);
    check("m duration_ns=5i,duration_ms=\"x\"", &[m, ("@duration_ns", "5i"), ("duration_ms", "x")]);
    for (field, key, kept) in [
        ("duration_ms=-1i", "duration_ms", "-1i"),
        ("duration_ms=-0.5", "duration_ms", "-0.5"),
        ("duration_ms=1e300", "duration_ms", "1e300"),
        ("duration_ms=9223372036854775807i", "duration_ms", "9223372036854775807i"),
        ("duration_ns=t", "duration_ns", "true"),
    ] {
        check(&format!("m {field}"), &[m, (key, kept)]);
    }
}

#[test]
fn a_tag_named_like_a_field_gets_a_prefix_that_is_free() {
    let m = ("@event_type", "m");
    check("m,a=t a=1i", &[m, ("tag.a", "t"), ("a", "1i")]);
    check("m,a=t,tag.a=u a=1i", &[m, ("tag.tag.a", "t"), ("tag.a", "u"), ("a", "1i")]);
    check(
        "m,a=t,tag.a=u a=1i,tag.a=2i",
        &[m, ("tag.tag.a", "t"), ("tag.tag.tag.a", "u"), ("a", "1i"), ("tag.a", "2i")],
    );
    check("m,trace_id=x trace_id=1i", &[m, ("tag.trace_id", "x"), ("trace_id", "1i")]);
}

/// B1: each prefix is a search among all keys, and each key that a sender takes asks for one more.
#[test]
fn a_tag_gets_so_many_prefixes_and_no_more() {
    let taken = |count: usize| (1..=count).map(|n| format!(",{}a=1i", "tag.".repeat(n))).collect::<String>();
    let (decoded, rows) = Given::default().rows(format!("m,a=t a=1i{}", taken(3)).as_bytes());
    assert_eq!((decoded.accepted, rows[0]["tag.tag.tag.tag.a"].as_str()), (1, "t"));
    check_rejected(&format!("m,a=t a=1i{}", taken(4)), "duplicate_tag");
}

#[test]
fn the_last_of_two_equal_fields_wins_with_a_warning() {
    for (line, key, value) in [
        ("m v=1i,v=2i", "v", "2i"),
        ("m v=1i,w=3i,v=\"x\"", "v", "x"),
        ("m duration_ms=1i,duration_ms=2i", "@duration_ns", "2000000i"),
        ("m duration_ms=1i,duration_ms=\"x\"", "duration_ms", "x"),
    ] {
        let (decoded, rows) = Given::default().rows(line.as_bytes());
        assert_eq!(decoded.warnings, ["duplicate_attribute"], "{line}");
        assert_eq!(rows[0][key], value, "{line}");
    }
    let wide: String = (0..200).map(|n| format!("f{n}=1i,")).collect();
    let (decoded, rows) = Given::default().rows(format!("m {wide}f7=2i").as_bytes());
    assert_eq!((decoded.warnings.len(), rows[0]["f7"].as_str(), rows[0].len()), (1, "2i", 203));
}

/// RELIABILITY 3 E: each bad line is rejected and both neighbours are stored.
#[test]
fn a_bad_line_is_rejected_and_its_neighbours_are_stored() {
    for (line, code) in [
        ("cpu", "field_missing"),
        ("cpu,host=a", "field_missing"),
        ("cpu,host=a ", "field_missing"),
        ("cpu 1700000000", "field_invalid"),
        (",host=a v=1", "measurement_missing"),
        ("_system v=1", "reserved"),
        (r"_\ x v=1", "reserved"),
        ("cpu, v=1", "tag_invalid"),
        ("cpu,host v=1", "tag_invalid"),
        ("cpu,=a v=1", "tag_invalid"),
        ("cpu,host= v=1", "value_missing"),
        ("cpu,host=,b=c v=1", "value_missing"),
        ("cpu,a=b=c v=1", "tag_invalid"),
        ("cpu,host=a b v=1", "field_invalid"),
        ("cpu,host=a,host=b v=1", "duplicate_tag"),
        ("cpu v=", "value_missing"),
        ("cpu v=,w=1", "value_missing"),
        ("cpu v=1,", "field_invalid"),
        ("cpu v=1,,w=1", "field_invalid"),
        ("cpu =1", "field_invalid"),
        ("cpu v=maybe", "value_invalid"),
        ("cpu v=tru", "value_invalid"),
        ("cpu v=NaN", "value_invalid"),
        ("cpu v=-inf", "value_invalid"),
        ("cpu v=infinity", "value_invalid"),
        ("cpu v=0x10", "value_invalid"),
        ("cpu v=1.5i", "value_invalid"),
        ("cpu v=i", "value_invalid"),
        ("cpu v=--1", "value_invalid"),
        ("cpu v=1e", "value_invalid"),
        ("cpu v=.", "value_invalid"),
        ("cpu v=1=2", "value_invalid"),
        ("cpu v=9223372036854775808i", "number_out_of_range"),
        ("cpu v=-9223372036854775809i", "number_out_of_range"),
        ("cpu v=18446744073709551616u", "number_out_of_range"),
        ("cpu v=-1u", "number_out_of_range"),
        ("cpu v=1e999", "number_out_of_range"),
        ("cpu v=1\\", "value_invalid"),
        ("cpu,host=a\\", "trailing_backslash"),
        ("cpu v\\", "trailing_backslash"),
        ("cpu\\", "trailing_backslash"),
        ("cpu,host=a\\\r", "trailing_backslash"),
        ("cpu v=\"a\\", "string_unterminated"),
        ("cpu v=\"abc", "string_unterminated"),
        ("cpu v=\"a\"b", "field_invalid"),
        ("cpu v=\"a\"\"b\"", "field_invalid"),
        ("cpu v=1 12.5", "timestamp_invalid"),
        ("cpu v=1 1e9", "timestamp_invalid"),
        ("cpu v=1 +5", "timestamp_invalid"),
        ("cpu v=1 -", "timestamp_invalid"),
        ("cpu v=1 now", "timestamp_invalid"),
        ("cpu v=1 5 6", "timestamp_invalid"),
        ("cpu v=1 w=2", "timestamp_invalid"),
        ("cpu v=1 9223372036854775808", "timestamp_out_of_range"),
        ("cpu v=1 9223372036854775807", "too_new"),
        ("cpu v=1 1767326645678901235", "too_new"),
        ("c\0pu v=1", "control_character"),
        ("c\tpu v=1", "control_character"),
        ("cpu,ho\u{7f}st=a v=1", "control_character"),
        ("cpu,host=a\u{1}b v=1", "control_character"),
        ("cpu v\u{b}=1", "control_character"),
        ("cpu v=1\rw=2", "control_character"),
    ] {
        check_rejected(line, code);
    }
    check_rejected(&format!("{} v=1", "m".repeat(64 << 10)), "measurement_too_long");
    check_rejected(&format!("m,{}=a v=1", "k".repeat(1_025)), "key_too_long");
    check_rejected(&format!("m {}=1", "k".repeat(1_025)), "key_too_long");
    let tags: String = (0..10_000).map(|n| format!(",t{n}=1")).collect();
    check_rejected(&format!("m{tags} v=1"), "too_many_attributes");
    check_rejected(&format!("m v=\"{}\"", "x".repeat(1 << 20)), "line_too_long");
    check_rejected(&format!("m v={}", "1".repeat(1 << 20)), "line_too_long");
    check_rejected(&format!("m,{}", "x".repeat(2 << 20)), "line_too_long");
}

#[test]
fn a_line_that_is_no_text_is_rejected_alone() {
    for line in
        [b"c\xffpu v=1".as_slice(), b"cpu,h=\xc0\x80 v=1", b"cpu v=\"\xed\xa0\x80\"", b"c\xff\\ pu v=1"]
    {
        check_rejected_by(&Given::default(), line, "invalid_utf8");
    }
    // Text beside it is still text, past offsets and escapes.
    let (decoded, rows) = Given::default().rows(b"\xff v=1\nn\\ m,t=\xc3\xa9 v=\"\\\"\"\n");
    assert_eq!((decoded.rejected_count, rows.len()), (1, 1));
    assert_eq!(
        (rows[0]["@event_type"].as_str(), rows[0]["t"].as_str(), rows[0]["v"].as_str()),
        ("n m", "é", "\"")
    );
    // UTF-16 is not line protocol, and none of it becomes a row.
    let utf16: Vec<u8> = "m v=1\nm v=2\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (decoded, rows) = Given::default().rows(&utf16);
    assert_eq!((decoded.accepted, rows.len()), (0, 0));
}

#[test]
fn a_string_that_never_closes_costs_its_own_line_only() {
    for (body, accepted, rejected_lines) in [
        ("m v=\"oops\nm w=1\nm x=\"good\"\n", 2, &[1][..]),
        ("m v=\"oops\nm w=\"\",x=1\n", 1, &[1]),
        ("m v=\"oops\nm v=\"oops\nm v=1\n", 1, &[1, 2]),
        ("m v=\"oops", 0, &[1]),
        ("m v=\"oops\\\"\nm v=1", 1, &[1]),
    ] {
        let (decoded, _) = Given::default().rows(body.as_bytes());
        let lines: Vec<_> = decoded.rejected.iter().filter_map(|bad| bad.line).collect();
        assert_eq!((decoded.accepted, lines.as_slice()), (accepted, rejected_lines), "{body:?}");
    }
}

/// What a sender put in a string never becomes a record, even where the record around it is bad.
#[test]
fn text_of_a_bad_record_is_not_read_as_records() {
    for body in [
        "m a=\"x\nforged v=1\ny\" notatime\ngood v=1",
        "m,t= a=\"x\nforged v=1\n\"\ngood v=1",
        "m,t=1,t=2 a=\"x\nforged v=1\",b=1 5\ngood v=1",
        "m b=oops,a=\"x\nforged v=1\\\"\nforged v=2\"\ngood v=1",
        "m a=\"x\nforged v=1\" 9223372036854775807\ngood v=1",
        "_m a=\"x\nforged v=1\"\ngood v=1",
        "m,esc\\=q\"q,loc=a n=0i,note=\"say \\\"hi\\\"\\\\ \nforged v=1\",ok=T 5\ngood v=1",
    ] {
        let (decoded, rows) = Given::default().rows(body.as_bytes());
        assert_eq!((decoded.accepted, decoded.rejected_count), (1, 1), "{body:?}");
        assert_eq!(rows[0]["@event_type"], "good", "{body:?}");
    }
    let long = format!("m a=\"{}\nforged v=1\n\"\ngood v=1", "x".repeat(1 << 20));
    let (decoded, rows) = Given::default().rows(long.as_bytes());
    assert_eq!((decoded.rejected[0].code, decoded.rejected_count, rows.len()), ("line_too_long", 1, 1));
}

#[test]
fn timestamps_scale_by_precision_and_never_wrap() {
    use Precision::{Auto, Hour, Microsecond, Millisecond, Minute, Nanosecond, Second};
    for (precision, sent, expected) in [
        (Nanosecond, " 1", Ok(1)),
        (Nanosecond, " -9223372036854775808", Ok(i64::MIN)),
        (Microsecond, " 2", Ok(2_000)),
        (Millisecond, " 3", Ok(3_000_000)),
        (Second, " -4", Ok(-4_000_000_000)),
        (Minute, " 5", Ok(300_000_000_000)),
        (Hour, " 6", Ok(21_600_000_000_000)),
        (Second, " 9223372037", Err("timestamp_out_of_range")),
        (Second, " -9223372037", Err("timestamp_out_of_range")),
        (Hour, " 9223372036854775807", Err("timestamp_out_of_range")),
        (Auto, " 1700000000", Ok(1_700_000_000_000_000_000)),
        (Auto, " 1700000000001", Ok(1_700_000_000_001_000_000)),
        (Auto, " 1700000000000001", Ok(1_700_000_000_000_001_000)),
        (Auto, " 1700000000000000001", Ok(1_700_000_000_000_000_001)),
        (Auto, " -4999999999", Ok(-4_999_999_999_000_000_000)),
        (Auto, " 4999999999", Err("too_new")),
        (Auto, " 5000000000", Ok(5_000_000_000_000_000)),
        (Auto, "", Ok(NOW_NS)),
        (Nanosecond, "", Ok(NOW_NS)),
        (Microsecond, "", Ok(1_767_323_045_678_901_000)),
        (Millisecond, "", Ok(1_767_323_045_678_000_000)),
        (Second, "", Ok(1_767_323_045_000_000_000)),
        (Minute, "", Ok(1_767_323_040_000_000_000)),
        (Hour, "", Ok(1_767_322_800_000_000_000)),
    ] {
        let given = Given { precision, ..Given::default() };
        let (decoded, rows) = given.rows(format!("m v=1{sent}").as_bytes());
        let time = rows.first().map(|row| row["@time_ns"].clone());
        let code = decoded.rejected.first().map(|bad| bad.code);
        assert_eq!(
            (time, code),
            (expected.ok().map(|ns| format!("{ns}i")), expected.err()),
            "{precision:?}{sent}"
        );
    }
}

#[test]
fn every_row_has_an_id_of_its_own_and_its_time_of_receipt() {
    let (_, draft) = Given::default().decode(b"m v=1 5\nbad\nm v=2 5");
    let ids: Vec<_> = (0..2).map(|row| text(draft.column(Field::Id), row).expect("an id")).collect();
    assert!(ids.iter().all(|id| id.len() == 36) && ids[0] != ids[1], "{ids:?}");
    for row in 0..2 {
        assert_eq!(text(draft.column(Field::ObservedNs), row), Some(format!("{NOW_NS}i")));
    }
}

#[test]
fn limits_hold_at_their_edges() {
    let limits = Limits {
        records_max: 2,
        line_bytes_max: 13,
        attributes_max: 2,
        key_bytes_max: 3,
        ..Limits::default()
    };
    let given = Given { limits, ..Given::default() };
    assert_eq!(given.rows(b"m v=1\n\n#c\nm v=2\n\n").0.accepted, 2);
    let (refused, draft) = given.decode(b"m v=1\nbad\nm v=3");
    let refused = refused.expect_err("three records");
    assert_eq!(draft.row_count(), 0, "nothing of a refused body stays");
    assert_eq!((refused.status, refused.code), (413, "too_many_records"));
    for (line, code) in [
        ("m v=\"1234567\"\r\n", None),
        ("m v=\"12345678\"\r\n", Some("line_too_long")),
        ("m a=1,b=2", None),
        ("m a=1,b=2,c=3", Some("too_many_attributes")),
        ("mmm vvv=1", None),
        ("mmmm v=1", Some("measurement_too_long")),
        ("m vvvv=1", Some("key_too_long")),
    ] {
        let (decoded, _) = given.rows(line.as_bytes());
        assert_eq!(decoded.rejected.first().map(|bad| bad.code), code, "{line}");
    }
}

#[test]
fn rejections_are_counted_past_those_that_are_listed() {
    let (decoded, rows) = Given::default().rows("bad\nm v=1\n".repeat(250).as_bytes());
    assert_eq!((decoded.rejected_count, decoded.rejected.len(), rows.len()), (250, 100, 250));
    assert_eq!((decoded.rejected[99].index, decoded.rejected[99].line), (198, Some(199)));
}

#[test]
fn a_body_cut_anywhere_never_panics_and_keeps_what_came_before() {
    let body = "m\\ x,source=a,t\\=b=c\\ d v=\"q\\\"\n\\\\\",w=1i,é=2u,duration_ms=1.5 17\r\n# c\nn,a=1 a=t,a=f -5\n";
    for end in 0..=body.len() {
        let (decoded, _) = Given::default().rows(&body.as_bytes()[..end]);
        let whole = u32::from(end >= body.find("\r\n").expect("two lines") - 3);
        assert!(decoded.accepted >= whole, "cut at {end}: {decoded:?}");
    }
}

#[test]
fn hostile_bodies_take_linear_time() {
    // Each would take minutes were any search repeated over the rest of the body.
    let given = Given { limits: Limits { records_max: usize::MAX, ..Limits::default() }, ..Given::default() };
    for unit in [
        "a v=\"\n",
        "a v=\"\\\"\n",
        "a v=\\\"\n",
        "a v=\" \n",
        "a v=\",\n",
        "a v=\"\" x\n",
        "a,",
        "\\ ",
        "a v=\"\\\\\n",
        "#\n",
    ] {
        let body = unit.repeat((1 << 20) / unit.len());
        let (decoded, _) = given.decode(body.as_bytes());
        decoded.expect("the body is within its limits");
    }
    let wide: String = (0..900)
        .map(|n| format!("middle{n:03}__,"))
        .map(|key| format!("prefix__{}=1,", key.trim_end_matches(',')))
        .collect();
    let body = format!("m {}\n", wide.trim_end_matches(',')).repeat(100);
    assert_eq!(given.rows(body.as_bytes()).0.accepted, 100);
}
