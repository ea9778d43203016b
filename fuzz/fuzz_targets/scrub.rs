//! Any bytes as text and as JSON through the scrubber: no panic, and what was JSON is JSON.

#![no_main]

use std::sync::LazyLock;

use arrow::array::AsArray as _;
use ingest::scrub::{Rules, Scrubber, scrub};
use libfuzzer_sys::fuzz_target;
use storage::record::{Draft, Field, Kind, Value};

static RULES: LazyLock<Rules> = LazyLock::new(Rules::default_on);

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok();
    let mut draft = Draft::new(Kind::Audit);
    draft.begin_row();
    draft.set_int(Field::TimeNs, 1);
    draft.set_int(Field::ObservedNs, 1);
    draft.set_text(Field::Message, &text);
    draft.set_text(Field::Before, if is_json { &text } else { "{}" });
    let _ = draft.attribute("raw", Value::Bytes(data));
    let _ = draft.attribute("a b", Value::Text(&text));
    draft.end_row();
    // A panic inside comes back as an error, which is a finding.
    let (clean, _) = scrub(&mut Scrubber::default(), &RULES, &mut draft).expect("nothing panics");
    for column in ["before", "_overflow"] {
        let column = clean.batch().column_by_name(column).expect("was written").as_string::<i32>();
        serde_json::from_str::<serde_json::Value>(column.value(0)).expect("what was JSON is JSON");
    }
});
