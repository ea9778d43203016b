//! NDJSON and JSON events: no panic, and what is accepted is in the draft, nothing else.
#![no_main]

use ingest::decode::ndjson::{events_json, events_lines};
use ingest::decode::{Context, IdSource, Limits, Precision};
use libfuzzer_sys::fuzz_target;
use storage::record::{Draft, Kind};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { line_bytes_max: 4_096, records_max: 64, attributes_max: 64, ..Limits::default() };
    for decode in [events_lines, events_json] {
        let mut ids = IdSource::default();
        let mut draft = Draft::new(Kind::Events);
        let mut ctx = Context {
            now_ns: 1_780_272_000_000_000_000,
            oldest_ns: i64::MIN,
            limits: &limits,
            precision: Precision::default(),
            ids: &mut ids,
        };
        let accepted = match decode(bytes, &mut ctx, &mut draft) {
            Ok(decoded) => {
                let listed = decoded.rejected.len();
                assert_eq!(
                    listed,
                    (decoded.rejected_count as usize).min(ingest::decode::REJECTED_LISTED_MAX)
                );
                decoded.accepted as usize
            }
            Err(_) => 0,
        };
        assert_eq!(accepted, draft.row_count());
    }
});
