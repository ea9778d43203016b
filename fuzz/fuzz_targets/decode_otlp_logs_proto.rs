//! OTLP log records in protobuf: any bytes are decoded or refused, and every accepted record is a row.
#![no_main]

use ingest::decode::otlp::logs_proto;
use ingest::decode::{Context, IdSource, Limits, Precision};
use libfuzzer_sys::fuzz_target;
use storage::record::{Draft, Kind};

fuzz_target!(|body: &[u8]| {
    let limits = Limits::default();
    let mut ids = IdSource::default();
    let mut ctx = Context {
        now_ns: 1_800_000_000_000_000_000,
        oldest_ns: i64::MIN,
        limits: &limits,
        precision: Precision::default(),
        ids: &mut ids,
    };
    let mut draft = Draft::new(Kind::Logs);
    match logs_proto(body, &mut ctx, &mut draft) {
        Ok(decoded) => assert_eq!(decoded.accepted as usize, draft.row_count()),
        Err(_) => assert_eq!(draft.row_count(), 0),
    }
});
