//! Each place of a draft where something may be planted, the rules' actions, and failing closed.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use storage::record::{Clean, Draft, Field, Kind, Type, Value};

use crate::scrub::detectors::Detector;
use crate::scrub::{Action, FieldRule, Report, Rules, RulesConfig, Scrubber, detector_names, scrub};

const SECRETS: [&str; 4] =
    ["jane.doe@example.com", "4111111111111111", "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", "hunter2"];

fn begin(draft: &mut Draft) {
    draft.begin_row();
    draft.set_int(Field::TimeNs, 1);
    draft.set_int(Field::ObservedNs, 1);
}

fn run(rules: &Rules, mut draft: Draft) -> (Clean, Report) {
    scrub(&mut Scrubber::default(), rules, &mut draft).expect("scrubs")
}

/// Every name and value of the chunk as text.
fn everything(clean: &Clean) -> String {
    let batch = clean.batch();
    let mut all = String::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        all.push_str(field.name());
        all.push('\n');
        for row in (0..column.len()).filter(|row| column.is_valid(*row)) {
            let text = match column.data_type() {
                DataType::Binary => {
                    String::from_utf8_lossy(column.as_binary::<i32>().value(row)).into_owned()
                }
                DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
                _ => arrow::util::display::array_value_to_string(column, row).expect("displays"),
            };
            all.push_str(&text);
            all.push('\n');
        }
    }
    all
}

fn holds_nothing(clean: &Clean) {
    let all = everything(clean);
    for secret in SECRETS {
        assert!(!all.contains(secret), "{secret} is left in {all}");
    }
}

fn planted() -> String {
    format!("see {} and {} and {} password={}", SECRETS[0], SECRETS[1], SECRETS[2], SECRETS[3])
}

#[test]
fn every_fixed_field_of_every_kind() {
    let json = serde_json::json!([{ "name": planted(), "attributes": { "password": SECRETS[3], "deep": [[planted()]] } }]);
    for kind in Kind::ALL {
        let mut draft = Draft::new(kind);
        begin(&mut draft);
        let ids = [Field::TraceId, Field::SpanId, Field::ParentSpanId];
        for field in kind.fields().iter().filter(|field| !ids.contains(field)) {
            match field.r#type() {
                // A body's type decides how the body is read: it has its own test.
                Type::Text if *field != Field::BodyType => draft.set_text(*field, &planted()),
                Type::Json => draft.set_text(*field, &json.to_string()),
                _ => {}
            }
        }
        draft.end_row();
        let (clean, report) = run(&Rules::default_on(), draft);
        holds_nothing(&clean);
        assert!(report.columns_rewritten > 0);
    }
}

#[test]
fn attributes_of_every_type() {
    let mut draft = Draft::new(Kind::Events);
    for row in 0..3 {
        begin(&mut draft);
        let _ = draft.attribute("note", Value::Text(&planted()));
        let _ = draft.attribute("url", Value::Text("https://a:hunter2@h/x?email=jane.doe@example.com"));
        let _ = draft.attribute(
            "raw",
            Value::Bytes(&[planted().as_bytes(), &[0xFF, 0xFE], SECRETS[0].as_bytes()].concat()),
        );
        let _ = draft.attribute(
            "list",
            Value::Json(&serde_json::json!([planted(), 4_111_111_111_111_111_u64]).to_string()),
        );
        let _ = draft.attribute("number", Value::Int(if row == 1 { 4_111_111_111_111_111 } else { 7 }));
        let _ = draft.attribute("double", Value::Double(4_111_111_111_111_111.0));
        let _ = draft.attribute("user.password", Value::Text("hunter2"));
        let _ = draft.attribute("pin", Value::Int(4711));
        let _ = draft.attribute("secret", Value::Bool(true));
        let _ = draft.attribute("cookie", Value::Json("[\"hunter2\"]"));
        let _ = draft.attribute("token", Value::Bytes(b"hunter2"));
        let _ = draft.attribute("jane.doe@example.com", Value::Int(5));
        let _ = draft.attribute(
            "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",
            Value::Text("hunter2 is the password: hunter2"),
        );
        // Overflow: another type, a forbidden name.
        let _ = draft.attribute("not a name", Value::Text(&planted()));
        let _ = draft.attribute("client secret", Value::Text("hunter2"));
        let _ = draft.attribute("number", Value::Text(&planted()));
        draft.end_row();
    }
    let (clean, report) = run(&Rules::default_on(), draft);
    let all = everything(&clean);
    let left: Vec<_> =
        SECRETS.iter().filter(|secret| all.replace("hunter2 is", "").contains(**secret)).collect();
    assert!(left.is_empty(), "{left:?} in {all}");
    assert!(!all.contains("4711") && all.contains("[email]") && !all.contains("4.111"), "{all}");
    let field = detector_names().iter().position(|name| *name == "field").expect("is counted");
    assert!(report.hits[field] > 0);
    let overflow = clean.batch().column_by_name("_overflow").expect("has overflow");
    for row in 0..3 {
        let text = overflow.as_string::<i32>().value(row);
        serde_json::from_str::<serde_json::Value>(text).expect("overflow stays JSON");
    }
}

#[test]
fn typed_bodies_keep_their_type_or_lose_it() {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let binary = [&[0u8, 0xFF, 0xFE, 1, 2, 3, 4][..], b" jane.doe@example.com "].concat();
    let mut draft = Draft::new(Kind::Logs);
    for (body, r#type) in [
        ("{\"a\":{\"password\":\"hunter2\"},\"b\":4111111111111111}".to_owned(), "json"),
        ("4111111111111111".to_owned(), "int"),
        (encode(&format!("mail {} now", SECRETS[0])), "bytes"),
        ("12".to_owned(), "int"),
        (base64::engine::general_purpose::STANDARD.encode(binary), "bytes"),
        (
            "{\"a\":[{\"$bytes\":\"AAAA\"},\"4111111111111111\"],\"$bytes\":\"4111111111111111\"}".to_owned(),
            "json",
        ),
    ] {
        begin(&mut draft);
        draft.set_text(Field::Body, &body);
        draft.set_text(Field::BodyType, r#type);
        draft.end_row();
    }
    let (clean, _) = run(&Rules::default_on(), draft);
    let bodies = clean.batch().column_by_name("body").expect("is there").as_string::<i32>().clone();
    let types = clean.batch().column_by_name("body_type").expect("is there").as_string::<i32>().clone();
    assert_eq!(bodies.value(0), "{\"a\":{\"password\":\"[password]\"},\"b\":\"[card]\"}");
    assert_eq!((bodies.value(1), types.is_null(1)), ("[card]", true));
    assert_eq!((bodies.value(2), types.value(2)), (encode("mail [email] now").as_str(), "bytes"));
    assert_eq!((bodies.value(3), types.value(3)), ("12", "int"));
    let decoded = base64::engine::general_purpose::STANDARD.decode(bodies.value(4)).expect("stays base64");
    assert!(decoded.ends_with(b" [email] "));
    assert!(!bodies.value(5).contains("4111"), "{}", bodies.value(5));
}

#[test]
fn clean_columns_are_not_written() {
    let mut draft = Draft::new(Kind::Logs);
    for row in 0..100 {
        begin(&mut draft);
        draft.set_text(Field::Id, "0198c5a2-7c1f-7e3a-9c45-0d0f5f3a1b2c");
        draft.set_text(Field::Body, "05:18:40.664 INFO TraceID: 385a419d9912dfde4448466192acdd09 Get Ads");
        draft.set_text(Field::Resource, "{\"service.name\":\"cart\",\"host.name\":\"a-1\"}");
        let _ = draft.attribute("http.path", Value::Text("/api/v1/orders"));
        let _ = draft.attribute("n", Value::Int(row));
        draft.end_row();
    }
    let text = |draft: &Draft| match draft.column(Field::Body) {
        storage::record::Column::Text(column) => column.bytes().as_ptr(),
        _ => unreachable!("a body is text"),
    };
    let before = text(&draft);
    let rules = Rules::default_on();
    let (clean, report) = run(&rules, draft);
    assert_eq!(report, Report::default());
    // The same bytes at the same place: nothing was copied on the way into the batch.
    let body = clean.batch().column_by_name("body").expect("is there");
    assert_eq!(body.as_string::<i32>().values().as_ptr(), before);
}

/// B1: all rules of a profile become one automaton.
#[test]
fn a_profile_has_so_many_rules() {
    let fields = (0..257).map(|at| FieldRule { key: format!("field{at}"), action: Action::Drop });
    let mut config = RulesConfig { fields: fields.collect(), ..RulesConfig::default() };
    assert!(Rules::compile(&config, None).is_err_and(|error| error.contains("257")));
    config.fields.pop();
    assert!(Rules::compile(&config, None).is_ok());
}

#[test]
fn rules_decide_over_named_fields() {
    let rule = |key: &str, action| FieldRule { key: key.to_owned(), action };
    let config = RulesConfig {
        fields: vec![
            rule("customer_no", Action::Hash),
            rule("session", Action::Tokenise),
            rule("basket", Action::Drop),
            rule("token", Action::Keep),
            rule("actor_id", Action::Hash),
        ],
        ..RulesConfig::default()
    };
    let rules = Rules::compile(&config, Some(&[7; 32])).expect("compiles");
    let mut draft = Draft::new(Kind::Audit);
    for _ in 0..2 {
        begin(&mut draft);
        draft.set_text(Field::ActorId, "c-17");
        draft.set_text(Field::Before, "{\"customerNo\":\"c-17\",\"basket\":[1,2],\"token\":\"keep-me\"}");
        let _ = draft.attribute("customer-no", Value::Text("c-17"));
        let _ = draft.attribute("session", Value::Int(12));
        let _ = draft.attribute("basket", Value::Text("apples"));
        let _ = draft.attribute("token", Value::Text("keep-me"));
        draft.end_row();
    }
    let (clean, _) = run(&rules, draft);
    let batch = clean.batch();
    let value =
        |name: &str| batch.column_by_name(name).expect("is there").as_string::<i32>().value(1).to_owned();
    let hash = value("customer-no");
    assert!(hash.starts_with("hash:") && hash.len() == 37, "{hash}");
    assert_eq!(value("actor_id"), hash);
    assert_eq!(
        value("before"),
        format!("{{\"customerNo\":\"{hash}\",\"basket\":[null,null],\"token\":\"keep-me\"}}")
    );
    assert_eq!(value("token"), "keep-me");
    assert!(batch.column_by_name("basket").expect("is there").is_null(0));
    assert!(value("_overflow").starts_with("{\"session\":\"tok_"));
}

#[test]
fn versions_name_the_content() {
    let default = Rules::default_on().version;
    assert_eq!(default, Rules::default_on().version);
    let off = RulesConfig { detectors: [("phone".to_owned(), false)].into(), ..RulesConfig::default() };
    assert_ne!(default, Rules::compile(&off, None).expect("compiles").version);
    let unknown = RulesConfig { detectors: [("phones".to_owned(), false)].into(), ..RulesConfig::default() };
    assert!(Rules::compile(&unknown, None).is_err());
    let keyless = RulesConfig {
        fields: vec![FieldRule { key: "a_b".to_owned(), action: Action::Hash }],
        ..RulesConfig::default()
    };
    assert!(Rules::compile(&keyless, None).is_err());
}

/// F7: each detector made to panic in turn: what it looked at is masked whole and counted, the rest goes on.
#[test]
fn a_value_that_cannot_be_scrubbed_is_masked_whole_and_the_batch_goes_on() {
    static BROKEN: Detector = Detector {
        name: "broken",
        is_on: true,
        find: |input, _| {
            if input.text.contains("trap") {
                std::panic::resume_unwind(Box::new("broken"));
            }
        },
        patterns: &[],
    };
    let trap = format!("trap {}", planted());
    for place in 0..Rules::default_on().active.len() {
        let mut rules = Rules::default_on();
        rules.active[place].1 = &BROKEN;
        let mut draft = Draft::new(Kind::Audit);
        for message in [trap.as_str(), "fine", trap.as_str(), "as fine"] {
            begin(&mut draft);
            draft.set_text(Field::Message, message);
            draft.set_text(Field::Before, &serde_json::json!({ "a": message }).to_string());
            let _ = draft.attribute("note", Value::Text(message));
            let _ = draft.attribute("raw", Value::Bytes(message.as_bytes()));
            let _ = draft.attribute("list", Value::Json(&serde_json::json!([message]).to_string()));
            let _ = draft.attribute("not a name", Value::Text(message));
            let _ = draft.attribute("trap:jane.doe@example.com", Value::Int(7));
            draft.end_row();
        }
        let (clean, report) = run(&rules, draft);
        holds_nothing(&clean);
        let all = everything(&clean);
        assert!(!all.contains("trap"), "{all}");
        assert!(all.contains("\"[unscrubbed]\"") && all.contains("\nas fine\n"), "{all}");
        assert_eq!(clean.row_count(), 4);
        // Six places; a value that repeats the last one is not looked at again.
        assert!(report.unscrubbed >= 7, "{report:?}");
    }
}
