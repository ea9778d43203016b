//! Protobuf and JSON of the same content make the same rows.

use arrow::array::RecordBatch;
use storage::record::Kind;

use super::message::{Message, any_text, good_span, key_value};
use super::{Decoder, decode};
use crate::decode::otlp::{logs_json, logs_proto, traces_json, traces_proto};

/// The batch without the ids that we made.
fn sent(batch: &RecordBatch) -> RecordBatch {
    let id = batch.schema().index_of("id").expect("every row has an id");
    let others: Vec<usize> = (0..batch.num_columns()).filter(|column| *column != id).collect();
    batch.project(&others).expect("its own columns")
}

fn check(kind: Kind, proto: Decoder, message: &Message, json: Decoder, text: &str) {
    let (proto, proto_batch) = decode(proto, kind, &message.0).expect("protobuf");
    let (json, json_batch) = decode(json, kind, text.as_bytes()).expect("JSON");
    assert_eq!(proto, json);
    assert_eq!(proto.rejected, []);
    assert_eq!(sent(&proto_batch), sent(&json_batch));
}

fn int(value: i64) -> Message {
    Message::new().varint(3, value.cast_unsigned())
}

fn double(value: f64) -> Message {
    Message::new().fixed64(4, value.to_bits())
}

fn bool(value: bool) -> Message {
    Message::new().varint(2, value.into())
}

fn array(values: &[Message]) -> Message {
    Message::new().message(5, &values.iter().fold(Message::new(), |array, value| array.message(1, value)))
}

fn map(values: &[Message]) -> Message {
    Message::new().message(6, &values.iter().fold(Message::new(), |map, value| map.message(1, value)))
}

#[test]
fn spans_agree() {
    let resource = Message::new()
        .message(1, &key_value("service.name", &any_text("cart")))
        .message(1, &key_value("host", &any_text("h\n")))
        .varint(2, 7);
    let scope =
        Message::new().text(1, "lib").text(2, "1.2").message(3, &key_value("s", &bool(true))).varint(4, 3);
    let event = Message::new()
        .fixed64(1, 1_700_000_000_000_000_007)
        .text(2, "eA")
        .message(
            3,
            &key_value(
                "n",
                &map(&[
                    key_value("a", &int(1)),
                    key_value("a", &array(&[bool(true), Message::new()])),
                    Message::new().text(1, "b"),
                ]),
            ),
        )
        .message(3, &key_value("m", &double(2.0)))
        .varint(4, 2);
    let link = Message::new()
        .bytes(1, &[0x11; 16])
        .bytes(2, &[0x22; 8])
        .text(3, "k=v")
        .message(4, &key_value("l", &Message::new()))
        .varint(5, 4)
        .fixed32(6, 256);
    let attributes = [
        ("text", any_text("café 😀")),
        ("int", int(-5)),
        ("big", int(i64::MAX)),
        ("double", double(1.5)),
        ("infinite", double(f64::NEG_INFINITY)),
        ("bool", bool(false)),
        ("bytes", Message::new().bytes(7, &[1, 2, 255])),
        ("array", array(&[any_text("x"), Message::new().bytes(7, &[1])])),
        ("map", map(&[])),
        ("null", Message::new()),
        ("absent", Message::new()),
        ("name", any_text("named like a column")),
    ];
    let span = good_span()
        .text(3, "a=b")
        .bytes(4, &[0xef; 8])
        .varint(6, 2)
        .varint(10, 1)
        .message(11, &event)
        .message(11, &Message::new().text(2, "bare"))
        .varint(12, 2)
        .message(13, &link)
        .varint(14, 3)
        .message(15, &Message::new().text(2, "boom \"quoted\"").varint(3, 2))
        .fixed32(16, 257);
    let span = attributes.iter().fold(span, |span, (key, value)| span.message(9, &key_value(key, value)));
    let spans = Message::new()
        .message(1, &scope)
        .message(2, &span)
        .message(2, &good_span())
        .text(3, "https://example.test/scope");
    let group =
        Message::new().message(1, &resource).message(2, &spans).text(3, "https://example.test/resource");
    let text = include_str!("../../../../../tests/fixtures/otlp/traces.json");
    check(Kind::Spans, traces_proto, &Message::new().message(1, &group), traces_json, text);
}

#[test]
fn log_records_agree() {
    let whole = Message::new()
        .fixed64(1, 1_700_000_000_000_000_000)
        .fixed64(11, 1_700_000_000_000_000_009)
        .varint(2, 17)
        .text(3, "ERROR")
        .text(12, "cart.failed")
        .message(5, &any_text("it \"failed\"\n"))
        .message(6, &key_value("n", &int(3)))
        .varint(7, 2)
        .fixed32(8, 1)
        .bytes(9, &[0xab; 16])
        .bytes(10, &[0xcd; 8]);
    let observed = Message::new()
        .fixed64(11, 1_700_000_000_000_000_009)
        .varint(2, 9)
        .bytes(9, &[])
        .message(5, &map(&[key_value("a", &double(0.1)), key_value("b", &array(&[]))]));
    let named = Message::new()
        .fixed64(1, 1_700_000_000_000_000_000)
        .text(3, "Warning")
        .message(5, &Message::new().bytes(7, &[1, 2]));
    let resource = Message::new().message(1, &key_value("service.name", &any_text("cart")));
    let logs = Message::new()
        .message(1, &Message::new().text(1, "lib"))
        .message(2, &whole)
        .message(2, &observed)
        .message(2, &named);
    let group = Message::new().message(1, &resource).message(2, &logs);
    let text = include_str!("../../../../../tests/fixtures/otlp/logs.json");
    check(Kind::Logs, logs_proto, &Message::new().message(1, &group), logs_json, text);
}
