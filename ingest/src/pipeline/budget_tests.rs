//! What a body holds while it is worked on is charged before it exists, and refused by name (B1, X2).

use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use storage::memory::{Memory, Pool};
use storage::record::{Kind, Tenant};
use storage::{Acknowledgement, Known, Principal, Role, Roles};

use super::Shared;
use super::stages::{Stages, Step};
use super::turns::{LOOKS, Turns};
use super::work::{CHARGE_STEP_BYTES, Work};
use crate::correlate::Correlation;
use crate::decode::{Limits, SLICE_BYTES};
use crate::head::{self, Head};
use crate::scrub::Rules;
use crate::{Refusal, Route};

const NOW_NS: i64 = 1_800_000_000_000_000_000;

/// A lane's stages over a budget.
struct World {
    stages: Stages,
    turns: Rc<Turns>,
    memory: Arc<Memory>,
}

fn world(memory_max: u64) -> World {
    let shared = Shared::new(Limits::default(), Arc::new(Rules::default_on()));
    World { stages: Stages::new(Arc::new(shared)), turns: Rc::default(), memory: Memory::new(memory_max, 0) }
}

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).expect("a good id")
}

impl World {
    fn send(&self, name: &str, route: Route, pairs: &[(&str, &str)], body: &[u8]) -> Result<usize, Refusal> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(self.go(name, route, pairs, body))
    }

    /// Rows of the chunk that a body becomes; they are charged for while it is worked on.
    async fn go(
        &self,
        name: &str,
        route: Route,
        pairs: &[(&str, &str)],
        body: &[u8],
    ) -> Result<usize, Refusal> {
        let mut work = Work::begin(&self.turns, &self.memory, &tenant(name)).await;
        let principal = Principal {
            tenant: tenant(name),
            roles: Roles::of(&[Role::Ingest]),
            subject: Arc::from("key"),
            acknowledgement: Acknowledgement::Durable,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::try_from(*name).expect("a header name");
            headers.append(name, HeaderValue::from_str(value).expect("a header value"));
        }
        let correlation = Correlation { id: "c-1".into(), request_id: "c-1".into(), trace: None };
        let head = Head {
            route,
            principal: &principal,
            headers: &headers,
            query: None,
            correlation: &correlation,
            now_ns: NOW_NS,
            monotonic_ns: 5,
        };
        let accepted = head::check(&head, &Limits::default()).expect("a good head");
        let body = Bytes::copy_from_slice(body);
        let step = self.stages.prepare(&head, &accepted, body, None, &mut work, |_, _| Known::New).await?;
        match step {
            Step::Store(ready) => {
                let held = ready.clean.batch().get_array_memory_size() as u64;
                assert!(
                    self.memory.used(Pool::Hot) * 5 / 4 + 4 * CHARGE_STEP_BYTES as u64 >= held,
                    "{held} bytes of rows, {} charged",
                    self.memory.used(Pool::Hot)
                );
                let rows = ready.clean.row_count();
                ready.account.accept();
                Ok(rows)
            }
            Step::Nothing(..) => Ok(0),
            Step::Replay(_) => panic!("no key was given"),
        }
    }
}

const LINES: (&str, &str) = ("content-type", "application/x-ndjson");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

/// A record with 300 attributes, then ones with none: a few kilobytes as sent.
fn sparse_lines(records: usize) -> Vec<u8> {
    let keys: Vec<String> = (0..300).map(|key| format!("\"k{key}\":1")).collect();
    let mut text = format!("{{{}}}\n", keys.join(","));
    text.push_str(&"{}\n".repeat(records - 1));
    text.into_bytes()
}

#[test]
fn a_small_body_of_many_sparse_rows_is_taken_in_little_memory() {
    let world = world(350 << 20);
    let rows = world.send("acme", Route::Events, &[LINES, GZIP], &gzip(&sparse_lines(99_999)));
    assert_eq!(rows, Ok(99_999));
    assert_eq!((world.memory.used(Pool::Decode), world.memory.used(Pool::Hot)), (0, 0), "all is given back");
}

/// The first bound of the three that a body meets says what to do: split it, wait, or wait for others.
#[test]
fn a_body_over_the_budget_is_refused_by_name_and_counted() {
    let big = b"{\"message\":\"0123456789012345678901234567890123456789\"}\n".repeat(30_000);
    let world = world(16 << 20);
    let refusal = world.send("acme", Route::Events, &[LINES], &big).expect_err("more than a tenant may hold");
    assert_eq!((refusal.status, refusal.code, refusal.retryable), (413, "body_too_large", false));
    let alone_max = world.memory.alone_max(Pool::Hot).to_string();
    assert!(refusal.detail.contains(&alone_max), "{}", refusal.detail);

    // Another tenant is not touched by it, and a third waits while others hold the pool.
    assert_eq!(world.send("other", Route::Events, &[LINES], b"{\"a\":1}"), Ok(1));
    let half = world.memory.max(Pool::Hot) / 2;
    let held = world.memory.take(Pool::Hot, Some(&tenant("other")), half).expect("room");
    let some = &big[..big.len() / 5];
    let refusal = world.send("other", Route::Events, &[LINES], some).expect_err("more than its share");
    assert_eq!((refusal.status, refusal.code, refusal.retry_after), (503, "share_exceeded", Some(2)));
    drop(held);
    let held = world.memory.count(Pool::Hot, None, world.memory.max(Pool::Hot));
    let refusal = world.send("small", Route::Events, &[LINES], b"{}").expect_err("nothing is left");
    assert_eq!((refusal.status, refusal.code, refusal.retryable), (503, "pressure", true));
    drop(held);

    // A2: what was seen of a refused body is counted once.
    let counters = world.stages.shared.counters.kind(Kind::Events);
    let rejected = counters.rejected().get("body_too_large").copied().unwrap_or_default();
    let (accepted, throttled) = (counters.accepted.load(Relaxed), counters.throttled.load(Relaxed));
    assert!(rejected > 1_000 && throttled > 1_000 && accepted == 1, "{rejected} {throttled} {accepted}");
    assert_eq!(counters.received.load(Relaxed), accepted + throttled + rejected);
    assert_eq!(world.memory.used_in_all(), 0);
}

#[test]
fn inflated_text_is_charged_before_it_is_made() {
    let world = world(4 << 20);
    let text = b"{\"a\":\"some text that does not repeat itself: 1\"}\n".repeat(40_000);
    let body = gzip(&text);
    let refusal = world.send("acme", Route::Events, &[LINES, GZIP], &body).expect_err("2 MB in 1 MB");
    assert_eq!((refusal.status, refusal.code), (413, "body_too_large"));
    let zstd = zstd::bulk::compress(&text, 3).expect("memory");
    let refusal = world.send("acme", Route::Events, &[LINES, ("content-encoding", "zstd")], &zstd);
    assert_eq!(refusal.expect_err("2 MB in 1 MB").code, "body_too_large");
    assert_eq!(world.memory.used_in_all(), 0);
}

/// The bounds of the HTTP contract hold at the default cap: 64 MiB of ordinary records are taken, by whichever door.
/// Everything is a sixteenth here, records, bytes and budget, to be quick.
#[test]
fn a_body_at_the_limits_of_a_request_is_taken_at_the_default_cap() {
    const PART: usize = 16;
    let records = 100_000 / PART;
    let mut lines = Vec::new();
    let mut points = Vec::new();
    let (mut array, mut spans) = (Vec::new(), Vec::new());
    for at in 0..records as u64 {
        let time = format!("2027-01-14T08:{:02}:{:02}.{:06}Z", at / 60 % 60, at % 60, at % 1_000_000);
        let (user, order) = (at * 7_919 % 100_003, at * 104_729 % 1_000_003);
        let record = format!(
            "{{\"time\":\"{time}\",\"source\":\"checkout-service\",\"event_type\":\"order.placed\",\
             \"severity\":\"info\",\"message\":\"order {order} was placed by user {user} and is on its way\",\
             \"payload\":{{\"order_id\":{order},\"user_id\":\"u-{user}\",\"customer_segment\":\"returning\",\
             \"amount_total\":{}.25,\"currency_code\":\"EUR\",\"number_of_items\":{},\"payment_method\":\"invoice\",\
             \"delivery\":{{\"carrier\":\"parcel-service\",\"expected_days\":{},\"is_express_delivery\":false}},\
             \"kubernetes.namespace_name\":\"shop-production\",\"kubernetes.pod_name\":\"checkout-{}\"}}}}",
            at % 500,
            at % 9,
            at % 5,
            at % 12
        );
        lines.extend_from_slice(record.as_bytes());
        lines.push(b'\n');
        array.push(record);
        writeln!(
            points,
            "http_requests,service=checkout-service,region=eu-central-1,host=checkout-{},method=POST,status=200 \
             count={order}i,bytes_sent={user}i,bytes_received={order}i,duration_ms=12.5,queue_depth={}i,\
             load_average=0.75,error_ratio=0.0015 18000000000{:08}",
            at % 12,
            at % 7,
            at
        )
        .expect("memory");
        spans.push(format!(
            "{{\"traceId\":\"{:032x}\",\"spanId\":\"{:016x}\",\"parentSpanId\":\"eee19b7ec3c1b174\",\
             \"name\":\"POST /orders\",\"kind\":2,\"startTimeUnixNano\":\"1799999999000000000\",\
             \"endTimeUnixNano\":\"1799999999012000000\",\"attributes\":[\
             {{\"key\":\"http.request.method\",\"value\":{{\"stringValue\":\"POST\"}}}},\
             {{\"key\":\"http.response.status_code\",\"value\":{{\"intValue\":\"200\"}}}},\
             {{\"key\":\"url.path\",\"value\":{{\"stringValue\":\"/orders/{order}\"}}}},\
             {{\"key\":\"enduser.id\",\"value\":{{\"stringValue\":\"u-{user}\"}}}}],\"status\":{{\"code\":1}}}}",
            at + 1,
            at + 1
        ));
    }
    let resource =
        "{\"attributes\":[{\"key\":\"service.name\",\"value\":{\"stringValue\":\"checkout-service\"}}]}";
    let spans = format!(
        "{{\"resourceSpans\":[{{\"resource\":{resource},\"scopeSpans\":[{{\"spans\":[{}]}}]}}]}}",
        spans.join(",")
    );
    let array = format!("[{}]", array.join(","));
    let json = ("content-type", "application/json");
    for (route, pairs, text) in [
        (Route::Events, vec![LINES, GZIP], lines),
        (Route::Events, vec![json, GZIP], array.into_bytes()),
        (Route::WriteV2, vec![GZIP], points),
        (Route::OtlpTraces, vec![json, GZIP], spans.into_bytes()),
    ] {
        assert!(text.len() / records > 200, "{route:?}: {} bytes a record", text.len() / records);
        let lent = (350 << 20) - storage::memory::BASE_BYTES;
        let world = world(lent / PART as u64);
        // Filled up to the bound of a body with text that no column needs.
        let mut text = text;
        let room = (64 << 20) / PART - text.len();
        text.resize(text.len() + room, b'\n');
        let sent = world.send("acme", route, &pairs, &gzip(&text));
        assert_eq!(sent, Ok(records), "{route:?}");
    }
}

/// X2: a lane's work is shared by slices, whatever a body is encoded as and whichever decoder reads it.
#[test]
fn a_small_body_is_done_before_a_large_one_that_began_first() {
    let lines = b"{\"message\":\"0123456789\"}\n".repeat(20_000);
    let protocol = b"m,t=a f=1i 1\n".repeat(20_000);
    let span = "{\"traceId\":\"5b8efff798038103d269b633813fc60c\",\"spanId\":\"eee19b7ec3c1b174\",\"name\":\"n\",\
                \"startTimeUnixNano\":\"1800000000000000000\",\"endTimeUnixNano\":\"1800000000000000009\"}";
    let spans = vec![span; 8_000].join(",");
    let spans = format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{spans}]}}]}}]}}").into_bytes();
    // An empty log record in protobuf is two bytes.
    let records = [0x12, 0].repeat(20_000);
    let field = |tag: u8, bytes: &[u8]| {
        let len = bytes.len();
        let varint = [len as u8 & 0x7f | 0x80, (len >> 7) as u8 & 0x7f | 0x80, (len >> 14) as u8];
        [&[tag], &varint[..], bytes].concat()
    };
    let logs = field(0x0a, &field(0x12, &records));
    let array = [b"[", &b"{},".repeat(20_000)[..], b"{}]"].concat();
    let json = ("content-type", "application/json");
    for (route, pairs, body, rows) in [
        (Route::Events, vec![LINES], lines.clone(), 20_000),
        (Route::Events, vec![LINES, GZIP], gzip(&lines), 20_000),
        (Route::Events, vec![json], array, 20_001),
        (Route::WriteV2, vec![], protocol, 20_000),
        (Route::OtlpTraces, vec![json], spans, 8_000),
        (Route::OtlpLogs, vec![("content-type", "application/x-protobuf")], logs, 20_000),
    ] {
        let world = Rc::new(world(350 << 20));
        let done = Rc::new(std::cell::RefCell::new(Vec::new()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let heavy = {
                let (world, done) = (Rc::clone(&world), Rc::clone(&done));
                tokio::task::spawn_local(async move {
                    assert_eq!(world.go("heavy", route, &pairs, &body).await, Ok(rows), "{route:?}");
                    done.borrow_mut().push("heavy");
                })
            };
            tokio::task::yield_now().await;
            let small = world.go("small", Route::Events, &[LINES], b"{}").await;
            assert_eq!(small, Ok(1));
            done.borrow_mut().push("small");
            heavy.await.expect("no panic");
        });
        assert_eq!(*done.borrow(), ["small", "heavy"], "{route:?}");
        assert_eq!(world.memory.used_in_all(), 0);
    }
}

/// X2: searching a body's text is shared by slices as decoding it is, also where nothing is found.
#[test]
fn text_without_a_find_is_searched_in_slices() {
    let slices_of = |line: &[u8], rows: usize| {
        let world = world(350 << 20);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let body = line.repeat(rows);
        let mut going = std::pin::pin!(world.go("acme", Route::Events, &[LINES], &body));
        let mut looks = 0;
        let taken = runtime.block_on(std::future::poll_fn(|context| {
            let polled = going.as_mut().poll(context);
            looks += usize::from(polled.is_pending());
            polled
        }));
        assert_eq!(taken, Ok(rows));
        looks / LOOKS
    };
    let text = format!("{{\"message\":\"{}\"}}\n", "only ordinary words ".repeat(20));
    let (rows, decoding) = (5_000, 5_000 * text.len() / SLICE_BYTES);
    let slices = slices_of(text.as_bytes(), rows);
    assert!(slices >= decoding * 3 / 2, "{slices} slices, {decoding} of them for decoding");
    assert_eq!(slices_of(b"{\"message\":\"only ordinary words\"}\n", 3), 0, "a small body is one slice");
}
