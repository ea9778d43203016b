//! Every record of the file is in exactly one request, whole, and no request is over its bounds.

use super::*;

const WIDE: Bounds = Bounds { records_max: 1000, bytes_max: 1 << 20 };

/// Cuts `text` and returns each batch as text with its count and first line.
fn cut(protocol: Protocol, form: Form, bounds: Bounds, text: &str) -> Vec<(String, u64, u64)> {
    // A reader of three bytes at a time meets every boundary.
    let reader = io::BufReader::with_capacity(3, text.as_bytes());
    let mut splitter = Splitter::new(reader, protocol, form, bounds);
    let mut batches = Vec::new();
    while let Some(batch) = splitter.next_batch().expect("within bounds") {
        batches.push((String::from_utf8(batch.body).expect("text"), batch.records, batch.first_line));
    }
    batches
}

fn check(protocol: Protocol, form: Form, bounds: Bounds, text: &str, expected: &[(&str, u64, u64)]) {
    let found = cut(protocol, form, bounds, text);
    let found: Vec<_> = found.iter().map(|(body, records, line)| (body.as_str(), *records, *line)).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn rows_are_cut_by_count_and_keep_their_line_numbers() {
    let two = Bounds { records_max: 2, bytes_max: 1 << 20 };
    check(Protocol::Ndjson, Form::Rows, two, "{}\n\n{}\n{}", &[("{}\n\n{}\n", 2, 1), ("{}", 1, 4)]);
    check(Protocol::Ndjson, Form::Rows, two, "", &[]);
    check(Protocol::Ndjson, Form::Rows, two, "\n \n", &[]);
    check(Protocol::Audit, Form::Rows, two, "{}\r\n{}\r\n", &[("{}\r\n{}\r\n", 2, 1)]);
}

#[test]
fn rows_are_cut_by_bytes_but_one_row_always_goes() {
    let small = Bounds { records_max: 9, bytes_max: 8 };
    check(
        Protocol::Lines,
        Form::Rows,
        small,
        "a b=1\na b=2\nabcdefgh i=1234\n",
        &[("a b=1\n", 1, 1), ("a b=2\n", 1, 2), ("abcdefgh i=1234\n", 1, 3)],
    );
}

#[test]
fn comments_are_no_records() {
    check(Protocol::Lines, Form::Rows, WIDE, "# x\na b=1\n#y\n", &[("# x\na b=1\n#y\n", 1, 1)]);
}

#[test]
fn a_newline_in_quotes_does_not_end_a_line() {
    let one = Bounds { records_max: 1, bytes_max: 1 << 20 };
    check(
        Protocol::Lines,
        Form::Rows,
        one,
        "a b=\"x\ny\",c=1\na\"q b=2\na b=\"\\\"\"\na b=3\n",
        &[("a b=\"x\ny\",c=1\n", 1, 1), ("a\"q b=2\n", 1, 3), ("a b=\"\\\"\"\n", 1, 4), ("a b=3\n", 1, 5)],
    );
}

#[test]
fn a_newline_in_quotes_does_not_end_a_last_line_without_its_own() {
    let text = "m,t=a v=\"x \\\"\n y\",n=1i 7";
    check(Protocol::Lines, Form::Rows, WIDE, text, &[(text, 1, 1)]);
}

#[test]
fn a_quote_that_never_closes_ends_at_its_line() {
    let one = Bounds { records_max: 1, bytes_max: 1 << 20 };
    check(Protocol::Lines, Form::Rows, one, "a b=\"x\na b=2\n", &[("a b=\"x\n", 1, 1), ("a b=2\n", 1, 2)]);
}

#[test]
fn text_is_wrapped_and_escaped() {
    check(
        Protocol::Text,
        Form::Rows,
        WIDE,
        "GET \"/\" \\x\r\n\nb",
        &[("{\"message\":\"GET \\\"/\\\" \\\\x\"}\n\n{\"message\":\"b\"}\n", 2, 1)],
    );
}

#[test]
fn documents_become_arrays() {
    let two = Bounds { records_max: 2, bytes_max: 1 << 20 };
    check(
        Protocol::Ndjson,
        Form::Document,
        two,
        "[{\"a\": 1.10},\n {}, 3]",
        &[("[{\"a\": 1.10},{}]", 2, 0), ("[3]", 1, 0)],
    );
    check(Protocol::Ndjson, Form::Document, two, "{\n\"a\":1\n}", &[("[{\n\"a\":1\n}]", 1, 0)]);
    let mut broken = Splitter::new(&b"[{}"[..], Protocol::Ndjson, Form::Document, two);
    assert!(broken.next_batch().is_err());
}

#[test]
fn otlp_lines_are_requests_and_cut_when_large() {
    let request = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"n":1},{"n":2},{"n":3}]}]}]}"#;
    let text = format!("{request}\n\nbroken\n{{}}\n{request}");
    check(
        Protocol::OtlpTraces,
        Form::Rows,
        WIDE,
        &text,
        &[(request, 3, 1), ("broken", 1, 3), (request, 3, 5)],
    );
    let two = Bounds { records_max: 2, bytes_max: 1 << 20 };
    let parts = cut(Protocol::OtlpTraces, Form::Document, two, request);
    let counts: Vec<u64> = parts.iter().map(|(_, records, _)| *records).collect();
    assert_eq!(counts, [2, 1]);
    assert!(parts[0].0.contains("{\"n\":1},{\"n\":2}"), "{}", parts[0].0);
}

#[test]
fn protobuf_is_cut_within_bounds() {
    let mut request = crate::client::protobuf::Writer::new();
    otlp::group(&mut request, &[], "shop", |scope| {
        for _ in 0..5 {
            scope.message(otlp::RECORD, |span| span.text(5, "x"));
        }
    });
    let bytes = request.into_bytes();
    let two = Bounds { records_max: 2, bytes_max: 1 << 20 };
    let mut splitter = Splitter::new(&bytes[..], Protocol::OtlpTraces, Form::Protobuf, two);
    let mut counts = Vec::new();
    while let Some(batch) = splitter.next_batch().expect("own bytes") {
        assert_eq!(otlp::record_count(&batch.body), Some(batch.records));
        counts.push(batch.records);
    }
    assert_eq!(counts, [2, 2, 1]);
}
