//! What makes these loads realistic, counted.

use std::collections::{HashMap, HashSet};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::*;

const FROM_NS: u64 = 1_767_225_600_000_000_000;

fn requests(load: Load, batch: u64, count: u64) -> Vec<Vec<u8>> {
    let mut generator = Generator::new(load, batch, 7, FROM_NS);
    (0..count).map(|number| generator.request(number)).collect()
}

fn events(load: Load) -> Vec<serde_json::Value> {
    let text = String::from_utf8(requests(load, 1_000, 20).concat()).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("own JSON")).collect()
}

fn is_near(what: &str, found: f64, expected: f64, at_most: f64) {
    assert!((found / expected - 1.0).abs() < at_most, "{what}: {found} instead of {expected}");
}

#[test]
fn records_of_real_loads_have_the_size_of_the_figures() {
    let sizes =
        [(Load::E, 390.0), (Load::E0, 390.0), (Load::S, 392.0), (Load::L, 308.0)].map(|(load, expected)| {
            let bytes: usize = requests(load, 1_000, 20).iter().map(Vec::len).sum();
            (load, bytes as f64 / 20_000.0, expected)
        });
    let is_near = |size: &f64, expected: &f64| (size / expected - 1.0).abs() < 0.02;
    assert!(sizes.iter().all(|(_, size, expected)| is_near(size, expected)), "{sizes:?}");
}

#[test]
fn one_seed_tells_every_byte() {
    for load in [Load::E, Load::E0, Load::S, Load::L] {
        assert_eq!(requests(load, 100, 3), requests(load, 100, 3), "{load:?}");
        assert_ne!(
            requests(load, 100, 1),
            vec![Generator::new(load, 100, 8, FROM_NS).request(0)],
            "{load:?}"
        );
    }
}

#[test]
fn events_are_skewed_and_their_ids_random() {
    let events = events(Load::E);
    let count = events.len() as f64;
    let share = |key: &str, value: serde_json::Value| {
        events.iter().filter(|event| event[key] == value).count() as f64 / count
    };
    // floor(n^u) is 1 while u < ln 2 / ln n.
    is_near("the first of 100", share("org", "org-0".into()), 2f64.ln() / 100f64.ln(), 0.1);
    is_near("the first of 20", share("service", "checkout".into()), 2f64.ln() / 20f64.ln(), 0.1);
    is_near("the first of 200,000", share("actor", "user-0".into()), 2f64.ln() / 200_000f64.ln(), 0.15);
    is_near("one of four", share("region", "us-east-1".into()), 0.25, 0.1);
    is_near("answered 200", share("status", 200.into()), 0.9, 0.02);
    let actors: HashSet<&str> = events.iter().map(|event| event["actor"].as_str().expect("text")).collect();
    assert!(actors.len() > 5_000, "{} actors: the tail is long", actors.len());

    let mut durations: Vec<f64> =
        events.iter().map(|event| event["duration_ms"].as_f64().expect("a number")).collect();
    durations.sort_by(f64::total_cmp);
    is_near("median", durations[durations.len() / 2], 2.5f64.exp(), 0.05);
    is_near("one deviation", durations[(count * 0.8413) as usize], 3.4f64.exp(), 0.06);

    let mut ids = HashSet::new();
    let mut ones = 0;
    for event in &events {
        let id = u128::from_str_radix(event["trace_id"].as_str().expect("text"), 16).expect("hex");
        ones += u64::from(id.count_ones());
        assert!(ids.insert(id), "{id:x} twice");
    }
    is_near("bits that are set", ones as f64 / count, 64.0, 0.01);
}

#[test]
fn events_rise_in_time_and_say_what_the_load_says() {
    let mut last = 0;
    for (number, event) in events(Load::E).iter().enumerate() {
        assert_eq!(event.as_object().map(serde_json::Map::len), Some(16));
        let time: jiff::Timestamp = event["time"].as_str().expect("text").parse().expect("a time");
        let after = time.as_nanosecond() - i128::from(FROM_NS) - number as i128 * 1_000_000;
        assert!((0..=900_000).contains(&after) && time.as_nanosecond() > last, "{event}");
        last = time.as_nanosecond();
        let actor: u64 = event["actor"].as_str().and_then(|text| text[5..].parse().ok()).expect("a number");
        let ip: Vec<u64> = event["ip"]
            .as_str()
            .expect("text")
            .split('.')
            .map(|part| part.parse().expect("a number"))
            .collect();
        assert_eq!((ip[0], ip[2], ip[1] < 4), (203, actor % 256, true), "{event}");
        assert!(
            event["msg"]
                .as_str()
                .expect("text")
                .contains(&format!(" by user{actor}@example.com completed in "))
        );
    }
    for event in events(Load::E0) {
        let message = event["msg"].as_str().expect("text");
        assert!(!message.contains('@') && message.contains(" of example completed in "), "{message}");
    }
}

#[test]
fn spans_lie_within_their_parents() {
    let mut traces: HashMap<Vec<u8>, Vec<(Span, String)>> = HashMap::new();
    for bytes in requests(Load::S, 1_000, 5) {
        let request = ExportTraceServiceRequest::decode(&bytes[..]).expect("own protobuf");
        for group in request.resource_spans {
            let resource = group.resource.expect("a resource").attributes;
            assert_eq!(resource.len(), 7);
            let service = format!("{:?}", resource[0].value);
            for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                assert_eq!(span.attributes.len(), 10);
                traces.entry(span.trace_id.clone()).or_default().push((span, service.clone()));
            }
        }
    }
    assert_eq!(traces.len(), 250);
    let mut roots = Vec::new();
    for spans in traces.values() {
        assert_eq!(spans.len(), 20);
        let services: HashSet<&String> = spans.iter().map(|(_, service)| service).collect();
        assert!(services.len() <= 5, "{services:?}");
        let by_id: HashMap<&[u8], &Span> = spans.iter().map(|(span, _)| (&span.span_id[..], span)).collect();
        assert_eq!(by_id.len(), 20);
        for span in by_id.values() {
            let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
            if span.parent_span_id.is_empty() {
                roots.push(end - start);
                continue;
            }
            let parent = by_id[&span.parent_span_id[..]];
            let (from, to) = (parent.start_time_unix_nano, parent.end_time_unix_nano);
            assert!(start >= from && start <= from + (to - from) / 2 && end <= to && start <= end);
        }
    }
    assert_eq!(roots.len(), 250);
    roots.sort_unstable();
    is_near("median of the roots", roots[125] as f64, 17.5f64.exp(), 0.2);
}

#[test]
fn lines_walk_and_change_their_types() {
    let text = String::from_utf8(requests(Load::L, 5_000, 8).concat()).expect("text");
    let mut walks: HashMap<&str, Vec<f64>> = HashMap::new();
    let mut types: HashMap<(&str, &str), bool> = HashMap::new();
    let mut times = HashSet::new();
    for line in text.lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        assert_eq!((parts[0].matches('=').count(), parts[1].matches('=').count()), (10, 8), "{line}");
        let doubles = parts[1].split(',').filter(|field| !field.ends_with('i')).count();
        assert_eq!(doubles, 4, "{line}");
        let name = parts[0].split(',').next().expect("a name");
        for field in parts[1].split(',') {
            let (key, value) = field.split_once('=').expect("a field");
            types.insert((name, key), value.ends_with('i'));
            if key == "total" {
                walks
                    .entry(parts[0])
                    .or_default()
                    .push(value.trim_end_matches('i').parse().expect("a number"));
            }
        }
        times.insert(parts[2]);
    }
    assert_eq!((walks.len(), times.len()), (20_000, 2));
    assert!(walks.values().all(|walk| walk.len() == 2 && (walk[0] - walk[1]).abs() <= 10.01));
    assert_ne!(types[&("cpu", "total")], types[&("mem", "total")]);
}
