//! Stage `decode`: a body's bytes to a draft's columns, ours against the textbook's.

mod line_protocol;
mod ndjson;
mod otlp;

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use ingest::decode::{self, Context, Decoded, IdSource, Limits, Precision, Refused};
use storage::record::{Draft, Kind};

use crate::bodies::{self, Body};

/// Time of receipt; the bodies' times lie just before it.
pub const NOW_NS: i64 = bodies::FIRST_NS + 3_600_000_000_000;

/// Records in a body. Chosen: what agents send at once by default.
pub const RECORD_COUNT: usize = 1_000;

pub type Decoder = fn(&[u8], &mut Context<'_>, &mut Draft) -> Result<Decoded, Refused>;

/// Times every decoder.
pub fn stage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let formats: [(&str, Kind, Body, Decoder, Decoder); 4] = [
        (
            "line_protocol",
            Kind::Events,
            bodies::lines(RECORD_COUNT),
            decode::line_protocol::lines,
            line_protocol::textbook,
        ),
        (
            "ndjson",
            Kind::Events,
            bodies::events(RECORD_COUNT),
            decode::ndjson::events_lines,
            ndjson::textbook,
        ),
        (
            "otlp_proto",
            Kind::Spans,
            bodies::spans_proto(RECORD_COUNT),
            decode::otlp::traces_proto,
            otlp::textbook_proto,
        ),
        (
            "otlp_json",
            Kind::Spans,
            bodies::spans_json(RECORD_COUNT),
            decode::otlp::traces_json,
            otlp::textbook_json,
        ),
    ];
    for (format, kind, body, ours, textbook) in formats {
        compare(&mut group, format, kind, &body, [("ours", ours), ("textbook", textbook)]);
    }
    group.finish();
}

/// Times decoders of one format on one body, as bytes and as records a second.
///
/// The draft is emptied between bodies and keeps its keys, as a lane's does.
fn compare(
    group: &mut BenchmarkGroup<'_, WallTime>,
    format: &str,
    kind: Kind,
    body: &Body,
    decoders: [(&str, Decoder); 2],
) {
    let limits = Limits::default();
    let bytes = u64::try_from(body.bytes.len()).expect("a body fits 64 bits");
    let elements = u64::try_from(body.record_count).expect("records fit 64 bits");
    group.throughput(Throughput::ElementsAndBytes { elements, bytes });
    let mut shapes = Vec::new();
    for (name, decode) in decoders {
        let mut draft = Draft::new(kind);
        let mut ids = IdSource::default();
        let mut ctx = Context {
            now_ns: NOW_NS,
            oldest_ns: i64::MIN,
            limits: &limits,
            precision: Precision::Nanosecond,
            ids: &mut ids,
        };
        let decoded = decode(&body.bytes, &mut ctx, &mut draft).expect("the body is good");
        assert_eq!((decoded.accepted as usize, decoded.rejected_count), (body.record_count, 0), "{name}");
        shapes.push((draft.row_count(), draft.attributes().count()));
        group.bench_function(format!("{format}/{name}"), |bencher| {
            bencher.iter(|| {
                draft.reset();
                black_box(decode(black_box(&body.bytes), &mut ctx, &mut draft))
            });
        });
    }
    assert_eq!(shapes[0], shapes[1], "both leave the same rows and columns");
}
