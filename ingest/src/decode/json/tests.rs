#![expect(clippy::print_stderr, reason = "a test that skips or counts says so")]

use std::io::Read as _;
use std::path::PathBuf;

use base64::Engine as _;

use super::{ErrorKind, KeySet, Parser, Type, Value};

/// Corpora that are too large for the repository; tests that need them say so and pass where there are none.
fn corpus(name: &str) -> Option<String> {
    let base = std::env::var_os("FLOODMARK_SHARED_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    let Ok(bytes) = std::fs::read(base.join(name)) else {
        eprintln!("skipped: no corpus {name}; set FLOODMARK_SHARED_DATA");
        return None;
    };
    if !name.ends_with(".zst") {
        return Some(String::from_utf8(bytes).expect("the corpus is text"));
    }
    let mut text = String::new();
    zstd::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut text).expect("the corpus is text");
    Some(text)
}

fn validate(bytes: &[u8]) -> Result<(), super::Error> {
    let mut json = Parser::from_bytes(bytes, 64)?;
    json.skip_value()?;
    json.end()
}

fn validated(text: &str) -> Result<usize, super::Error> {
    let mut json = Parser::new(text, 64);
    json.skip_value().map(|range| range.end)
}

fn passed_over(text: &str) -> Result<usize, super::Error> {
    let mut json = Parser::new(text, 64);
    json.pass_over().map(|()| json.offset())
}

fn compact(text: &str) -> String {
    let mut out = Vec::new();
    let mut json = Parser::new(text, 64);
    json.compact_value(&mut out, &mut String::new(), None).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn json_test_suite_is_answered_as_it_demands() {
    let Some(text) = corpus("conformance/json-parsing-jsontestsuite.jsonl.zst") else { return };
    let mut seen = [0; 3];
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(case["bytes_b64"].as_str().unwrap()).unwrap();
        let answer = validate(&bytes);
        match case["expect"].as_str().unwrap() {
            "accept" => assert_eq!(answer, Ok(()), "{id}"),
            "reject" => assert!(answer.is_err(), "{id}"),
            _ => {}
        }
        seen[usize::from(answer.is_ok())] += 1;
        if answer.is_ok() {
            let text = std::str::from_utf8(&bytes).unwrap().trim_start_matches('\u{feff}');
            assert_eq!(passed_over(text), validated(text), "{id}");
            let ours: serde_json::Value = serde_json::from_str(&compact(text)).expect(id);
            if !id.contains("duplicated_key") {
                assert_eq!(ours, serde_json::from_str::<serde_json::Value>(text).unwrap(), "{id}");
            }
        }
    }
    assert!(seen[0] > 128 && seen[1] >= 69, "{seen:?}");
}

#[test]
fn json_transform_suite_loses_nothing() {
    let Some(text) = corpus("conformance/json-transform-jsontestsuite.jsonl") else { return };
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(case["bytes_b64"].as_str().unwrap()).unwrap();
        let id = case["id"].as_str().unwrap();
        match validate(&bytes) {
            Ok(()) if id.starts_with("number") => {
                let sent = String::from_utf8(bytes).unwrap();
                assert_eq!(compact(&sent), sent.trim(), "{id}");
            }
            Ok(()) => {}
            Err(_) => assert!(id.contains("invalid_codepoint"), "{id}"),
        }
    }
}

#[test]
fn what_is_no_json_is_refused_with_its_place() {
    for (text, kind, offset) in [
        ("", ErrorKind::Invalid, 0),
        ("{", ErrorKind::Invalid, 1),
        ("{]", ErrorKind::Invalid, 1),
        ("[}", ErrorKind::Invalid, 1),
        ("[1,]", ErrorKind::Invalid, 3),
        ("[,1]", ErrorKind::Invalid, 1),
        ("[1 2]", ErrorKind::Invalid, 3),
        ("[[] []]", ErrorKind::Invalid, 4),
        ("{\"a\":1,}", ErrorKind::Invalid, 7),
        ("{\"a\" 1}", ErrorKind::Invalid, 5),
        ("{\"a\":1}}", ErrorKind::Invalid, 7),
        ("{\"a\":{}\"b\":1}", ErrorKind::Invalid, 7),
        ("{a:1}", ErrorKind::Invalid, 1),
        ("\"abc", ErrorKind::Invalid, 4),
        ("\"abcdefgh\u{1}\"", ErrorKind::Invalid, 9),
        ("\"a\nb\"", ErrorKind::Invalid, 2),
        ("\"\u{0}\"", ErrorKind::Invalid, 1),
        (r#""\x""#, ErrorKind::Invalid, 1),
        (r#""\u12g4""#, ErrorKind::Invalid, 1),
        (r#""\ud800""#, ErrorKind::Invalid, 1),
        (r#""\udc00""#, ErrorKind::Invalid, 1),
        (r#""\ud800\ud800""#, ErrorKind::Invalid, 1),
        (r#""\ud800\u0041""#, ErrorKind::Invalid, 1),
        ("\"\\", ErrorKind::Invalid, 1),
        ("01", ErrorKind::Invalid, 0),
        ("-", ErrorKind::Invalid, 1),
        (".5", ErrorKind::Invalid, 0),
        ("5.", ErrorKind::Invalid, 2),
        ("+1", ErrorKind::Invalid, 0),
        ("1e", ErrorKind::Invalid, 2),
        ("1e999", ErrorKind::Invalid, 0),
        ("-1e999", ErrorKind::Invalid, 0),
        ("NaN", ErrorKind::Invalid, 0),
        ("nul", ErrorKind::Invalid, 0),
        ("True", ErrorKind::Invalid, 0),
        ("1 2", ErrorKind::Invalid, 2),
        ("\u{a0}1", ErrorKind::Invalid, 0),
    ] {
        let error = validate(text.as_bytes()).expect_err(text);
        assert_eq!((error.kind, error.offset), (kind, offset), "{text:?}: {error}");
    }
    let long = "9".repeat(400);
    assert_eq!(validate(long.as_bytes()).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(validate(b"\"\xc0\x80\"").unwrap_err().kind, ErrorKind::NotUtf8);
}

#[test]
fn a_value_that_is_passed_over_ends_where_it_ends() {
    for text in [
        r#"{"a":"}]{[","b":["\\",{"c":"\""}],"eight bytes on":"and more \\\" text"} ,1"#,
        "[] ]",
        " [1,[2,{}],\"\u{e9}\u{2028}\"]\n}",
        "\"text\",",
        "17 ",
        "null]",
    ] {
        assert_eq!(passed_over(text), validated(text), "{text}");
    }
    for text in ["{\"a\":[1,2", "[\"open", "[\"open\\", "[\"open\\\"", "", "{"] {
        assert!(passed_over(text).is_err(), "{text}");
    }
}

#[test]
fn nesting_is_allowed_up_to_the_limit_and_no_further() {
    for (depth, allowed) in [(1, true), (64, true), (65, false), (100_000, false)] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let inner = if open == "[" { "" } else { "1" };
            let text = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
            let answer = validate(text.as_bytes());
            assert_eq!(answer.is_ok(), allowed, "{depth}");
            assert!(answer.is_ok() || answer.unwrap_err().kind == ErrorKind::TooDeep);
        }
    }
    // Deeper than the bits that need no allocation, kinds mixed: every end must match its beginning.
    let open: String = (0..1_000).map(|n| if n % 3 == 0 { "{\"k\":" } else { "[" }).collect();
    let close: String = (0..1_000).rev().map(|n| if n % 3 == 0 { "}" } else { "]" }).collect();
    let text = format!("{open}1{close}");
    assert_eq!(Parser::new(&text, 1_000).skip_value(), Ok(0..text.len()));
    assert!(Parser::new(&text.replace("1}", "1]"), 1_000).skip_value().is_err());
}

#[test]
fn strings_say_what_they_say() {
    for (text, said) in [
        (r#""""#, ""),
        (r#""abcdefghijklmnopq""#, "abcdefghijklmnopq"),
        (r#""a\"b\\c\/d\b\f\n\r\t""#, "a\"b\\c/d\u{8}\u{c}\n\r\t"),
        (r#""\u0041\u00e9\u2603\ud83d\ude00""#, "Aé☃😀"),
        (r#""é☃😀 raw""#, "é☃😀 raw"),
        (r#""\u0000""#, "\0"),
        ("\"\u{7f}\u{80}\"", "\u{7f}\u{80}"),
    ] {
        let mut scratch = String::from("before");
        let value = Parser::new(text, 1).string().unwrap();
        assert_eq!(value.text(&mut scratch), said);
        assert_eq!(value.to_cow(), said);
    }
    // Each special byte is found at each place of a word.
    for at in 0..20 {
        let text = format!("\"{}\\n{}\"", "x".repeat(at), "ÿ".repeat(9));
        assert_eq!(
            Parser::new(&text, 1).string().unwrap().to_cow(),
            format!("{}\n{}", "x".repeat(at), "ÿ".repeat(9))
        );
        let text = format!("\"{}\u{1f}{}\"", "\u{80}".repeat(at), "x".repeat(9));
        assert_eq!(Parser::new(&text, 1).string().unwrap_err().offset, 1 + 2 * at);
    }
}

#[test]
fn numbers_have_the_type_of_their_spelling() {
    for (text, int, uint, double) in [
        ("0", Some(0), Some(0), 0.0_f64),
        ("-0", Some(0), None, -0.0),
        ("-0.0", None, None, -0.0),
        ("1.0", None, None, 1.0),
        ("1e2", None, None, 100.0),
        ("9223372036854775807", Some(i64::MAX), Some(i64::MAX as u64), 9_223_372_036_854_775_807.0),
        ("-9223372036854775808", Some(i64::MIN), None, -9_223_372_036_854_775_808.0),
        ("18446744073709551615", None, Some(u64::MAX), 18_446_744_073_709_551_615.0),
        ("18446744073709551616", None, None, 18_446_744_073_709_551_616.0),
        ("1e-400", None, None, 0.0),
    ] {
        let number = Parser::new(text, 1).number().unwrap();
        assert_eq!(number.as_i64(), int, "{text}");
        assert!(number.as_u64() == uint || text == "-0", "{text}");
        assert_eq!(number.as_f64().to_bits(), double.to_bits(), "{text}");
        assert_eq!(number.as_str(), text);
    }
}

#[test]
fn members_are_walked_in_the_order_of_the_text() {
    let text =
        r#" { "a" : [ 1 , {"x":[]} , "s" ] , "b" : {} , "c" : true , "d":null, "e" : { "f" : -1.5e3 } } "#;
    let mut json = Parser::new(text, 8);
    json.object().unwrap();
    assert_eq!(json.key().unwrap().unwrap().raw(), "a");
    json.array().unwrap();
    assert!(json.element().unwrap());
    assert_eq!(json.number().unwrap().as_i64(), Some(1));
    assert!(json.element().unwrap());
    assert_eq!(json.raw_value().unwrap(), r#"{"x":[]}"#);
    assert!(json.element().unwrap());
    assert_eq!(json.peek().unwrap(), Type::Text);
    assert_eq!(json.object().unwrap_err().kind, ErrorKind::WrongType);
    assert_eq!(json.string().unwrap().raw(), "s");
    assert!(!json.element().unwrap());
    assert_eq!(json.key().unwrap().unwrap().raw(), "b");
    assert!(matches!(json.next().unwrap(), Value::Object));
    assert!(json.key().unwrap().is_none());
    assert_eq!(json.key().unwrap().unwrap().raw(), "c");
    assert!(json.bool().unwrap());
    assert_eq!(json.key().unwrap().unwrap().raw(), "d");
    assert!(json.null().unwrap());
    assert_eq!(json.key().unwrap().unwrap().raw(), "e");
    assert!(!json.null().unwrap());
    json.skip_value().unwrap();
    assert!(json.key().unwrap().is_none());
    assert_eq!(json.depth(), 0);
    json.end().unwrap();
    assert_eq!(compact(text), r#"{"a":[1,{"x":[]},"s"],"b":{},"c":true,"d":null,"e":{"f":-1.5e3}}"#);
    assert_eq!(
        compact(r#"[ [ ] , [ [ ] , 1 ] , "bob\u0040example.com\u0000\/" ]"#),
        r#"[[],[[],1],"bob@example.com\u0000/"]"#
    );
}

#[test]
fn duplicate_keys_are_found_in_their_own_object_only() {
    let mut keys = KeySet::default();
    for (text, duplicates) in [
        (r#"{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}"#.to_owned(), 0),
        (r#"{"a":1,"b":{"x":1,"x":1},"\u0061":2}"#.to_owned(), 2),
        (
            format!("{{{}\"k7\":0,\"k99\":0}}", (0..100).map(|n| format!("\"k{n}\":0,")).collect::<String>()),
            2,
        ),
    ] {
        keys.clear();
        Parser::new(&text, 8).compact_value(&mut Vec::new(), &mut String::new(), Some(&mut keys)).unwrap();
        assert_eq!(keys.duplicates(), duplicates, "{text}");
    }
}
