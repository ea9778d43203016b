//! Stages `scrub` and `measure`: a decoded chunk to a clean one, and what it adds to latency.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use ingest::decode::{self, Context, IdSource, Limits, Precision};
use ingest::measure::measure;
use ingest::scrub::{Rules, Scrubber, scrub};
use storage::record::{Draft, Kind};

use crate::bodies::{self, Body};
use crate::decode::{Decoder, NOW_NS, RECORD_COUNT};

/// A body of each kind, and its decoder.
pub fn chunks() -> [(&'static str, Kind, Body, Decoder); 3] {
    [
        ("line_protocol", Kind::Events, bodies::lines(RECORD_COUNT), decode::line_protocol::lines),
        ("ndjson", Kind::Events, bodies::events(RECORD_COUNT), decode::ndjson::events_lines),
        ("otlp", Kind::Spans, bodies::spans_proto(RECORD_COUNT), decode::otlp::traces_proto),
    ]
}

/// The body's records as a draft.
pub fn decoded(kind: Kind, body: &Body, decode: Decoder) -> Draft {
    let limits = Limits::default();
    let mut ids = IdSource::default();
    let mut ctx = Context {
        now_ns: NOW_NS,
        oldest_ns: i64::MIN,
        limits: &limits,
        precision: Precision::Nanosecond,
        ids: &mut ids,
    };
    let mut draft = Draft::new(kind);
    let decoded = decode(&body.bytes, &mut ctx, &mut draft).expect("the body is good");
    assert_eq!(decoded.accepted as usize, body.record_count);
    draft
}

/// What is counted per iteration.
pub fn throughput(body: &Body) -> Throughput {
    Throughput::ElementsAndBytes { elements: body.record_count as u64, bytes: body.bytes.len() as u64 }
}

/// Times scrubbing under the rules that are on by default; the bodies hold little that they hit.
pub fn stage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scrub");
    let rules = Rules::default_on();
    let mut scrubber = Scrubber::default();
    for (name, kind, body, decode) in chunks() {
        group.throughput(throughput(&body));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || decoded(kind, &body, decode),
                |mut draft| black_box(scrub(&mut scrubber, &rules, &mut draft).expect("it can be scrubbed")),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// Times the recording of a clean chunk's durations.
pub fn measure_stage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("measure");
    for (name, kind, body, decode) in chunks() {
        let mut draft = decoded(kind, &body, decode);
        let (clean, _) =
            scrub(&mut Scrubber::default(), &Rules::default_on(), &mut draft).expect("it can be scrubbed");
        group.throughput(throughput(&body));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(measure(kind, black_box(clean.batch()))));
        });
    }
    group.finish();
}
