//! The JSON parser: no panic, and whatever it takes it can write and take again, to the same bytes.
#![no_main]

use ingest::decode::json::Parser;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut json) = Parser::from_bytes(bytes, 64) else { return };
    let mut first = Vec::new();
    let mut scratch = String::new();
    let Ok(()) = json.compact_value(&mut first, &mut scratch, None) else { return };
    let text = std::str::from_utf8(&first).expect("compact text is UTF-8");
    let mut second = Vec::new();
    let mut again = Parser::new(text, 64);
    again.compact_value(&mut second, &mut scratch, None).expect("compact text is JSON");
    again.end().expect("compact text is one value");
    assert_eq!(first, second);
});
