//! Measures what bodies of the worst shapes take in memory from their bytes to the acknowledged chunk, counted by
//! the allocator, and fails where one takes more than it may.
//!
//! ```text
//!   cargo run --release --example body_memory -p ingest      prints the table of docs/PERFORMANCE.md
//! ```
//! A body may take [`BYTES_PER_BYTE_MAX`] for each inflated byte, or [`BYTES_PER_RECORD_MAX`] for each record where
//! that is more, beside [`BYTES_FREE`] that any request may take.

#![allow(clippy::print_stdout, reason = "it is a report")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use ingest::scrub::Rules;
use ingest::{Correlation, Head, Lane, Limits, Route, Shared};
use storage::record::Tenant;
use storage::{Acknowledgement, Options, Principal, Role, Roles, Storage};

/// Memory for each inflated byte of a body.
const BYTES_PER_BYTE_MAX: usize = 40;

/// Memory for each record of a body, where that is more.
const BYTES_PER_RECORD_MAX: usize = 400;

/// Memory that any request may take: first room of buffers, keys, the frame's header.
const BYTES_FREE: usize = 2 << 20;

const NOW_NS: i64 = 1_800_000_000_000_000_000;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it is; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Where it grows in place, as large ones do, there are never both.
        if size > layout.size() {
            grown(size - layout.size());
        } else {
            NOW.fetch_sub(layout.size() - size, Relaxed);
        }
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

fn grown(bytes: usize) {
    let now = NOW.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Case {
    door: &'static str,
    shape: &'static str,
    route: Route,
    media: &'static str,
    body: Vec<u8>,
    records: usize,
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field of a protobuf message, of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2], &varint(bytes.len())[..], bytes].concat()
}

fn key_value(key: &str, value: &str) -> Vec<u8> {
    [field(1, key.as_bytes()), field(2, &field(1, value.as_bytes()))].concat()
}

fn lines() -> Vec<(&'static str, String, usize)> {
    let object = |members: &[String]| format!("{{{}}}\n", members.join(","));
    let repeat = |line: &str, count: usize| (line.repeat(count), count);
    let mut shapes = Vec::new();
    let mut add = |shape, (body, records): (String, usize)| shapes.push((shape, body, records));
    add("empty records", repeat("{}\n", 100_000));
    let wide: Vec<String> = (0..300).map(|key| format!("\"k{key}\":1")).collect();
    add("300 attributes once, then empty", (object(&wide) + &"{}\n".repeat(99_999), 100_000));
    add("300 attributes in each 300th record", {
        let block = object(&wide) + &"{}\n".repeat(299);
        (block.repeat(300), 90_000)
    });
    let one = |at: usize| object(&[format!("\"k{}\":1", at % 512)]);
    add("one of 512 keys a record", ((0..100_000).map(one).collect(), 100_000));
    let full: Vec<String> = (0..1_000).map(|key| format!("\"k{key}\":1")).collect();
    add("1,000 attributes a record", repeat(&object(&full), 400));
    let distinct = |at: usize| object(&[format!("\"key{at:x}\":1")]);
    add("a new key a record", ((0..100_000).map(distinct).collect(), 100_000));
    let many = |at: usize| {
        object(&(0..1_000).map(|key| format!("\"{:x}\":1", at * 1_000 + key)).collect::<Vec<_>>())
    };
    add("1,000 new keys a record", ((0..400).map(many).collect(), 400));
    let long = |at: usize| object(&[format!("\"{}{at}\":1", "k".repeat(900))]);
    add("a new key of 900 bytes a record", ((0..4_000).map(long).collect(), 4_000));
    let mixed = |at: usize| object(&[format!("\"k\":{}", ["1", "1.5", "true", "\"t\"", "[1]"][at % 5])]);
    add("one key of five types", ((0..100_000).map(mixed).collect(), 100_000));
    let odd: Vec<String> = (0..200).map(|key| format!("\"a b{key}\":1")).collect();
    add("200 names that are no column's a record", repeat(&object(&odd), 1_500));
    let deep = format!("{}1{}\n", "{\"a\":".repeat(60), "}".repeat(60));
    add("60 objects deep", repeat(&deep, 10_000));
    let digits: String = (0..1_000).map(|at| char::from(b'1' + at as u8 % 9)).collect();
    add("numbers of 1,000 digits", repeat(&format!("{{\"n\":0.{digits}}}\n"), 3_000));
    add("escaped control characters", repeat(&format!("{{\"t\":\"{}\"}}\n", "\\u0001".repeat(100)), 6_000));
    add("one message of 600 bytes", repeat(&format!("{{\"message\":\"{}\"}}\n", "m".repeat(600)), 6_000));
    shapes
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, body, records) in lines() {
        let array = format!("[{}]", body.trim_end().replace('\n', ","));
        let (route, media) = (Route::Events, "application/x-ndjson");
        cases.push(Case { door: "NDJSON", shape, route, media, body: body.into_bytes(), records });
        if matches!(shape, "empty records" | "300 attributes once, then empty") {
            let media = "application/json";
            cases.push(Case { door: "JSON", shape, route, media, body: array.into_bytes(), records });
        }
    }
    let mut points = |shape, body: String, records| {
        let (route, media) = (Route::WriteV2, "text/plain");
        cases.push(Case { door: "line protocol", shape, route, media, body: body.into_bytes(), records });
    };
    points("shortest lines", "m f=1\n".repeat(100_000), 100_000);
    let tags: String = (0..1_000).map(|tag| format!(",t{tag}=a")).collect();
    points("1,000 tags a line", format!("m{tags} f=1\n").repeat(400), 400);
    let wide: String = (0..300).map(|tag| format!(",t{tag}=a")).collect();
    points("300 tags once, then none", format!("m{wide} f=1\n") + &"m f=1\n".repeat(99_999), 100_000);
    points("a new field a line", (0..100_000).map(|at| format!("m f{at:x}=1\n")).collect(), 100_000);

    let logs = |resource: &[u8], records: &[u8]| field(1, &[resource, &field(2, records)].concat());
    let resource = |attributes: &[u8]| field(1, attributes);
    let mut proto = |shape, route, body: Vec<u8>, records| {
        let media = "application/x-protobuf";
        cases.push(Case { door: "OTLP protobuf", shape, route, media, body, records });
    };
    let empty = [0x12, 0].repeat(100_000);
    proto("empty log records", Route::OtlpLogs, logs(&[], &empty), 100_000);
    let large = resource(&field(1, &key_value("k8s", &"r".repeat(1_000))));
    proto("a resource of 1 KB, empty log records", Route::OtlpLogs, logs(&large, &empty), 100_000);
    let huge = resource(&field(1, &key_value("k8s", &"r".repeat(20_000))));
    proto(
        "a resource of 20 KB, 10,000 empty log records",
        Route::OtlpLogs,
        logs(&huge, &empty[..20_000]),
        10_000,
    );
    let each: Vec<u8> = (0..50_000)
        .flat_map(|at| logs(&resource(&field(1, &key_value("service.name", &at.to_string()))), &[0x12, 0]))
        .collect();
    proto("a resource a log record", Route::OtlpLogs, each, 50_000);
    let attributes: Vec<u8> =
        (0..100).flat_map(|key| field(6, &key_value(&format!("k{key}"), "v"))).collect();
    let record = field(2, &attributes);
    let sparse = [record, empty[..199_998].to_vec()].concat();
    proto("100 attributes once, then empty log records", Route::OtlpLogs, logs(&[], &sparse), 100_000);
    let ids = [field(1, &[7; 16]), field(2, &[7; 8])].concat();
    let span = field(2, &[ids.clone(), [0x5a, 0].repeat(50_000)].concat());
    proto("a span of 50,000 empty events", Route::OtlpTraces, logs(&[], &span), 1);
    proto("spans of ids alone", Route::OtlpTraces, logs(&[], &field(2, &ids).repeat(50_000)), 50_000);

    let mut json = |shape, route, name: &str, record: &str, records: usize| {
        let (scopes, list) =
            if route == Route::OtlpLogs { ("scopeLogs", "logRecords") } else { ("scopeSpans", "spans") };
        let records_text = vec![record; records].join(",");
        let body =
            format!("{{\"{name}\":[{{\"{scopes}\":[{{\"{list}\":[{records_text}]}}]}}]}}").into_bytes();
        cases.push(Case { door: "OTLP JSON", shape, route, media: "application/json", body, records });
    };
    json("empty log records", Route::OtlpLogs, "resourceLogs", "{}", 100_000);
    json(
        "log records of ten empty attributes",
        Route::OtlpLogs,
        "resourceLogs",
        &format!(
            "{{\"attributes\":[{}]}}",
            (0..10).map(|key| format!("{{\"key\":\"{key}\"}}")).collect::<Vec<_>>().join(",")
        ),
        30_000,
    );
    cases
}

async fn measure(case: &Case, lane: &Lane, principal: &Principal) -> (u16, usize, usize) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(case.media));
    let correlation = Correlation { id: "c".into(), request_id: "c".into(), trace: None };
    let body = Bytes::copy_from_slice(&case.body);
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let head = Head {
        route: case.route,
        principal,
        headers: &headers,
        query: None,
        correlation: &correlation,
        now_ns: NOW_NS,
        monotonic_ns: 1,
    };
    let reply = lane.handle(head, body).await;
    let peak = PEAK.load(Relaxed) - before;
    let kept = (NOW.load(Relaxed) + case.body.len()).saturating_sub(before);
    (reply.status, peak, kept)
}

fn main() {
    println!(
        "| door | shape | inflated bytes | records | bytes at most per inflated byte | kept hot | per record |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    let mut is_over = false;
    for case in cases() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = tokio::task::LocalSet::new();
        let (status, peak, kept) = local.block_on(&runtime, async {
            let options = Options {
                data: folder.path().to_path_buf(),
                disk_free_bytes_min: 1,
                seal_age_ms: 600_000,
                ..Options::default()
            };
            let storage =
                Storage::open(options, ingest::measure::measure, || NOW_NS, |_| {}).await.expect("opens");
            let shared = Arc::new(Shared::new(Limits::default(), Arc::new(Rules::default_on())));
            let principal = Principal {
                tenant: Tenant::parse("acme").expect("a good id"),
                roles: Roles::of(&[Role::Ingest]),
                subject: Arc::from("key"),
                acknowledgement: Acknowledgement::Durable,
            };
            let lane = Lane::new(storage.writer(0).expect("a log"), shared);
            let measured = measure(&case, &lane, &principal).await;
            storage.close().await;
            measured
        });
        let bytes = case.body.len();
        let per = |all: usize, parts: usize| all as f64 / parts as f64;
        let may = BYTES_FREE + (bytes * BYTES_PER_BYTE_MAX).max(case.records * BYTES_PER_RECORD_MAX);
        let is_taken = matches!(status, 200 | 204);
        is_over |= peak > may;
        println!(
            "| {} | {} | {bytes} | {} | {:.1} | {:.1} | {:.0}{} |",
            case.door,
            case.shape,
            case.records,
            per(peak, bytes),
            per(kept, bytes),
            per(peak, case.records),
            match (is_taken, peak > may) {
                (false, _) => format!(" answered {status}"),
                (true, true) => " OVER".to_owned(),
                (true, false) => String::new(),
            }
        );
    }
    assert!(!is_over, "a body takes more than it may");
}
