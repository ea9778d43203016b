//! Generated JSON and text: JSON stays JSON of the same shape, a second pass changes nothing, and bytes
//! without meaning change nothing and break nothing.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::Value as Json;
use storage::record::{Draft, Field, Kind};

use crate::scrub::{Rules, Scrubber, scrub, scrub_text};

/// Compiled once: a case costs what it looks at.
static RULES: LazyLock<Rules> = LazyLock::new(Rules::default_on);

const PLANTED: [&str; 8] = [
    "jane@example.com",
    "4111 1111 1111 1111",
    "x \"password\": \"hunter2\" \\",
    "{\"secret\":\"jane@example.com\"}",
    "-----BEGIN PRIVATE KEY-----\\\"\nMIIE",
    "a\\u0040b.com \u{1F600}é",
    "password=\\\"x",
    "jane%40example.com",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,24}",
        prop::sample::select(PLANTED.to_vec()).prop_map(str::to_owned),
        "[a-z@.\\\\\"%:=4 -]{0,40}"
    ]
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        Just(Json::from(4_111_111_111_111_111_u64)),
        (-1e18..1e18).prop_map(Json::from),
        text().prop_map(Json::from),
    ];
    let key = prop_oneof![
        text(),
        prop::sample::select(vec!["password", "name", "value", "token", "$bytes"]).prop_map(str::to_owned)
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|all| Json::Object(all.into_iter().collect())),
        ]
    })
}

/// The shape alone: containers and their sizes.
fn shape(value: &Json) -> String {
    match value {
        Json::Array(all) => format!("[{}]", all.iter().map(shape).collect::<String>()),
        Json::Object(all) => format!("{{{}}}", all.values().map(shape).collect::<String>()),
        _ => ".".to_owned(),
    }
}

proptest! {
    #[test]
    fn json_keeps_its_shape(value in json()) {
        let mut draft = Draft::new(Kind::Audit);
        draft.begin_row();
        draft.set_int(Field::TimeNs, 1);
        draft.set_int(Field::ObservedNs, 1);
        draft.set_text(Field::Before, &value.to_string());
        draft.end_row();
        let (clean, _) = scrub(&mut Scrubber::default(), &RULES, &mut draft).expect("scrubs");
        let column = clean.batch().column_by_name("before").expect("is there").clone();
        let text = arrow::array::AsArray::as_string::<i32>(&column).value(0);
        let scrubbed: Json = serde_json::from_str(text).expect("stays JSON");
        prop_assert_eq!(shape(&scrubbed), shape(&value));
        prop_assert!(!text.contains("jane@"));
    }

    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        let _ = scrub_text(&RULES, &text);
    }

    #[test]
    fn a_second_pass_changes_nothing(texts in prop::collection::vec(prop::sample::select(PLANTED.to_vec()), 0..4)) {
        let text = texts.join(" ");
        let once = scrub_text(&RULES, &text).into_owned();
        prop_assert_eq!(scrub_text(&RULES, &once), once.as_str());
    }
}

/// 128 KiB of what is costly to give up on: the time is linear or this test does not end.
#[test]
fn hostile_text_is_searched_in_linear_time() {
    #[rustfmt::skip]
    let parts = [
        "cookie:${", "-----BEGIN PRIVATE KEY!", "password=\"${", "a@b.cc.1", "Pz8/", "://a:b@", "[", "{\"a\":", "\\\"", "%25",
        "eyJ.", "4111-", "+1 2", "--token ", "pwd=/", "M.aaaaaa.", "password:", "password: # ",
        "password:\n ", "password: |\n  ", "passwords:\n- a\n", "curl ", "curl -u '", "curl -u a:", "mysql -p\"", "--token '", "-- ", "4111 - ",
        "\\u{", "%u0040", "\u{200b}", "\u{ff14}", "0x6a61", "6a006100", "OBQXG43X",
    ];
    for part in parts {
        let _ = scrub_text(&RULES, &part.repeat((128 << 10) / part.len()));
    }
}

// B1: what stands between a name and its line's end is looked through up to a bound, for each name that a text has.
#[test]
fn a_long_comment_ends_the_search_below_a_name() {
    let below = |comment: usize| format!("password: # {}\n  Zq8vR2tLx9\n", "c".repeat(comment));
    assert!(!scrub_text(&RULES, &below(100)).contains("Zq8vR2tLx9"));
    assert!(scrub_text(&RULES, &below(130)).contains("Zq8vR2tLx9"));
}

/// What a pattern has learnt of texts stays for ever, unless it is forgotten.
#[test]
fn rules_at_rest_forget_what_every_detector_learnt() {
    let rules = Rules::default_on();
    let patterns = || rules.active.iter().flat_map(|(_, detector)| detector.patterns);
    let learnt: Vec<_> = patterns().map(|pattern| Arc::clone(&pattern.get())).collect();
    assert!(learnt.len() >= 10, "{}", learnt.len());
    rules.forget();
    assert!(patterns().zip(&learnt).all(|(pattern, learnt)| !Arc::ptr_eq(learnt, &pattern.get())));
}
