//! Text that is made to break a scrubber: escapes cut off before multi-byte characters, triggers of every detector
//! beside them, encodings within encodings. Nothing panics, and what was JSON is JSON.

use std::sync::LazyLock;

use proptest::prelude::*;
use storage::record::{Draft, Field, Kind, Value};

use crate::scrub::{Report, Rules, Scrubber, find, scrub};

static RULES: LazyLock<Rules> = LazyLock::new(Rules::default_on);

/// Escapes that end too early, and what begins a detector.
const PIECES: &[&str] = &[
    "\\u",
    "\\u0",
    "\\u00",
    "\\u004",
    "\\u0040",
    "\\ud83d",
    "\\ud83d\\u",
    "\\ud83d\\ud",
    "\\ud83d\\ude00",
    "\\u{",
    "\\u{4",
    "\\u{40}",
    "\\U0000",
    "\\x",
    "\\x4",
    "\\x{",
    "\\",
    "\\\\",
    "\\1",
    "\\10",
    "%",
    "%4",
    "%40",
    "%u",
    "%u00",
    "%u0040",
    "%c3",
    "%c3%a9",
    "%f0%9f",
    "&",
    "&#",
    "&#x",
    "&#x4",
    "&#64;",
    "&amp",
    "\u{20ac}",
    "\u{e9}",
    "\u{1f600}",
    "\u{200b}",
    "\u{2009}",
    "\u{664}",
    "\u{ff14}",
    "\u{1d7d2}",
    "\"",
    "'",
    "`",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "=",
    "@",
    "<",
    ">",
    "\n",
    "\r\n",
    " ",
    "-",
    "\0",
    "password",
    "password:",
    "password=",
    "password=\"",
    "\"password\":",
    "\"name\":\"password\",\"value\":",
    "password:\n  ",
    "password: |\n  ",
    "<password>",
    "Cookie: ",
    "Authorization: Bearer ",
    "basic ",
    "?sig=",
    "--password ",
    "--token '",
    "mysql -p",
    "curl -u a:",
    "curl -u '",
    "sshpass -p ",
    "://a:",
    "://a:b@",
    "-----BEGIN PRIVATE KEY-----",
    "-----END ",
    "eyJ",
    "eyJhbGciOiJIUzI1NiJ9.",
    "AKIA",
    "ghp_",
    "hooks.slack.com/services/",
    "-us1",
    "Q~",
    ".atlasv1.",
    "12345678:",
    "DE89",
    "iban ",
    "4111",
    "4111 - ",
    "4111/1111/",
    "111111111111",
    "714-67-",
    "714 - 67 - 1330",
    "ssn ",
    "+33 6 62",
    "(272) ",
    "phone=",
    "jane@",
    "jane@example.com",
    "git@",
    "$bytes",
    "{\"$bytes\":\"",
    "cGFzc3dvcmQ9aHVudGVyMg",
    "70617373776f72643d",
    "6a0061006e00",
    "OBQXG43XN5ZGI",
    "0x",
    "1.2.3.4",
    "2001:db8::",
    "::",
    "${",
    "{{",
    "%s",
    "***",
    "xxxxxxxx",
];

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(PIECES.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,3}",
        1 => "[0-9a-fA-F]{0,20}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// The text as it is, within JSON, and within JSON within JSON.
fn nested() -> impl Strategy<Value = String> {
    (text(), 0..4_u8).prop_map(|(text, form)| match form {
        0 => text,
        1 => format!("{{\"{text}\":0}}"),
        2 => serde_json::json!({ &text: [&text, { "a": &text }] }).to_string(),
        _ => serde_json::json!({ "a": serde_json::json!({ &text: &text }).to_string() }).to_string(),
    })
}

fn scrubbed(text: &str) -> Report {
    let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok();
    let mut draft = Draft::new(Kind::Audit);
    draft.begin_row();
    draft.set_int(Field::TimeNs, 1);
    draft.set_int(Field::ObservedNs, 1);
    draft.set_text(Field::Message, text);
    draft.set_text(Field::Before, if is_json { text } else { "{}" });
    let _ = draft.attribute("raw", Value::Bytes(text.as_bytes()));
    let _ = draft.attribute(text, Value::Text(text));
    draft.end_row();
    let (clean, report) = scrub(&mut Scrubber::default(), &RULES, &mut draft).expect("nothing panics");
    for name in ["before", "_overflow"] {
        if let Some(column) = clean.batch().column_by_name(name) {
            let column = arrow::array::AsArray::as_string::<i32>(column);
            serde_json::from_str::<serde_json::Value>(column.value(0)).expect("what was JSON is JSON");
        }
    }
    report
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in nested()) {
        prop_assert_eq!(scrubbed(&text).unscrubbed, 0, "{:?} could not be scrubbed", text);
        for found in find(&RULES, &text) {
            prop_assert!(found.range.start < found.range.end && found.range.end <= text.len());
            prop_assert!(text.is_char_boundary(found.range.start) && text.is_char_boundary(found.range.end));
        }
    }
}

/// B1: each layer of escapes is one more pass over the text, and a sender writes as many as it likes.
#[test]
fn so_many_layers_of_escapes_are_undone() {
    let wrapped = |layers: usize| format!("jane%{}40example.com", "25".repeat(layers - 1));
    for layers in 1..=4 {
        assert_eq!(find(&RULES, &wrapped(layers)).len(), 1, "{layers} layers");
    }
    assert!(find(&RULES, &wrapped(5)).is_empty());
}

/// Every escape, cut off at every place, before characters of every length.
#[test]
fn an_escape_cut_off_before_a_character_is_text() {
    for escape in [
        "\\u0040",
        "\\ud83d\\ude00",
        "\\u{40}",
        "\\U00000040",
        "\\x40",
        "%40",
        "%u0040",
        "%f0%9f%98%80",
        "&#x40;",
        "&commat;",
    ] {
        for len in 0..=escape.len() {
            for c in ['z', '\u{e9}', '\u{20ac}', '\u{1f600}'] {
                let part = &escape[..len];
                for text in [
                    format!("{{\"{part}{c}abcd\":0}}"),
                    format!("{{\"{part}z{c}abcd\":\"{part}{c}\"}}"),
                    format!("password=\"{part}{c}"),
                    format!("{{\"password\":\"{part}{c}\",\"a\":\"jane@example.com {part}{c}\"}}"),
                ] {
                    assert_eq!(scrubbed(&text).unscrubbed, 0, "{text}");
                }
            }
        }
    }
}
