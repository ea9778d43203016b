//! A lane with a real log below it: what only shows when an append has happened.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use storage::record::{Dataset, Kind, TableId, Tenant};
use storage::{Acknowledgement, Options, Principal, Role, Roles, Storage};

use super::{Lane, Shared};
use crate::correlate::Correlation;
use crate::decode::Limits;
use crate::head::Head;
use crate::reply::Reply;
use crate::scrub::Rules;
use crate::{Refusal, Route};

const NOW_NS: i64 = 1_800_000_000_000_000_000;

struct World {
    lane: Lane,
    shared: Arc<Shared>,
    storage: Arc<Storage>,
    principal: Principal,
}

fn request(pairs: &[(&str, &str)]) -> (HeaderMap, Correlation) {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::try_from(*name).expect("a header name");
        headers.append(name, HeaderValue::from_str(value).expect("a header value"));
    }
    let correlation = Correlation::fresh("fresh".into());
    (headers, correlation)
}

impl World {
    fn head<'a>(
        &'a self,
        (route, query): (Route, &'a str),
        (headers, correlation): &'a (HeaderMap, Correlation),
    ) -> Head<'a> {
        let query = Some(query);
        Head {
            route,
            principal: &self.principal,
            headers,
            query,
            correlation,
            now_ns: NOW_NS,
            monotonic_ns: 1,
        }
    }

    async fn check_head(&self, route: (Route, &str), pairs: &[(&str, &str)]) -> Result<(), Refusal> {
        self.lane.check_head(&self.head(route, &request(pairs))).await.map(drop)
    }

    async fn send(&self, route: (Route, &str), pairs: &[(&str, &str)], body: &'static str) -> Reply {
        let request = request(pairs);
        self.lane.handle(self.head(route, &request), Bytes::from_static(body.as_bytes())).await
    }

    /// Rows of a dataset that a reader sees now.
    fn rows(&self, dataset: &str) -> u64 {
        let dataset = Dataset::parse(dataset).expect("a good id");
        let table = TableId::new(self.principal.tenant.clone(), dataset);
        self.storage.snapshot(&table).map_or(0, |snapshot| snapshot.hot_rows())
    }
}

fn run<F: Future<Output = ()>>(acknowledgement: Acknowledgement, test: impl FnOnce(World) -> F) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let options = Options {
            data: folder.path().to_path_buf(),
            wal_segment_bytes: 1 << 20,
            disk_free_bytes_min: 1,
            seal_age_ms: 600_000,
            ..Options::default()
        };
        let storage =
            Storage::open(options, crate::measure::measure, || NOW_NS, |_| {}).await.expect("opens");
        let shared = Arc::new(Shared::new(Limits::default(), Arc::new(Rules::default_on())));
        let principal = Principal {
            tenant: Tenant::parse("acme").expect("a good id"),
            roles: Roles::of(&[Role::Ingest]),
            subject: Arc::from("key"),
            acknowledgement,
        };
        let lane = Lane::new(storage.writer(0).expect("a log"), Arc::clone(&shared));
        test(World { lane, shared, storage: Arc::clone(&storage), principal }).await;
        storage.close().await;
    });
}

const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

/// B31, B33, F19: one copy, the first answer again; another payload is told apart; a refusal frees the key.
#[test]
fn a_key_is_stored_once() {
    run(Acknowledgement::Durable, async |world| {
        let keyed = [LINES, ("idempotency-key", "k-1")];
        let events = (Route::Events, "");
        let bad = world.send(events, &keyed, "[]").await;
        assert_eq!(bad.status, 400, "nothing stored, so the key is free again");
        let first = world.send(events, &keyed, "{\"event_type\":\"a\"}").await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
        let again = world.send(events, &keyed, "{\"event_type\":\"a\"}").await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
        assert_eq!(again.body, first.body);
        assert_eq!(world.send(events, &keyed, "{\"event_type\":\"b\"}").await.status, 422);
        assert_eq!(
            world.send((Route::Events, "atomic=true"), &keyed, "{\"event_type\":\"a\"}").await.status,
            422
        );
        assert_eq!(world.rows("events"), 1);
        let write = (Route::WriteV2, "");
        let keyed = [("idempotency-key", "k-2")];
        let first = world.send(write, &keyed, "a v=1\nb").await;
        let again = world.send(write, &keyed, "a v=1\nb").await;
        assert_eq!((first.status, again.status, world.rows("events")), (400, 400, 2), "good lines kept once");
        assert_eq!(first.body, again.body);
        let events = world.shared.counters.kind(Kind::Events);
        let rejected: u64 = events.rejected().values().sum();
        assert_eq!(events.received.load(Relaxed), events.accepted.load(Relaxed) + rejected, "A2");
        assert_eq!(world.shared.counters.replayed.load(Relaxed), 2);
    });
}

#[test]
fn a_receipt_comes_when_asked_for_and_a_clash_of_kinds_is_refused() {
    run(Acknowledgement::Durable, async |world| {
        let reply =
            world.send((Route::Events, "dataset=orders"), &[LINES, ("prefer", "receipt")], "{}\n{}").await;
        let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!((body["accepted"].as_u64(), body["receipt"]["row_count"].as_u64()), (Some(2), Some(2)));
        assert_eq!((world.rows("orders"), world.rows("events")), (2, 0));
        let audit = TableId::new(world.principal.tenant.clone(), Dataset::parse("records").expect("good"));
        world.storage.ensure_dataset(&audit, Kind::Audit).expect("it is new");
        let reply = world.send((Route::Events, "dataset=records"), &[LINES], "{}").await;
        let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!((reply.status, body["code"].as_str()), (400, Some("dataset_kind")));
    });
}

#[test]
fn a_buffered_credential_is_answered_202() {
    run(Acknowledgement::Buffered, async |world| {
        for (route, body) in [(Route::Events, "{}"), (Route::WriteV1, "a v=1")] {
            assert_eq!(world.send((route, ""), &[LINES], body).await.status, 202, "{route:?}");
        }
    });
}

/// B36: while draining nothing new is taken, and the refusal comes last in the contract's order.
#[test]
fn draining_refuses_after_everything_else() {
    run(Acknowledgement::Durable, async |world| {
        assert_eq!(world.check_head((Route::Events, ""), &[LINES]).await, Ok(()));
        world.shared.is_draining.store(true, Relaxed);
        let refusal = world.check_head((Route::Events, ""), &[LINES]).await.expect_err("draining");
        assert_eq!((refusal.status, refusal.code, refusal.retryable), (503, "draining", true));
        assert_eq!(world.check_head((Route::Events, ""), &[]).await.expect_err("no type").status, 415);
        assert_eq!(world.shared.counters.requests(Route::Events, 5), 1);
    });
}

/// C18: what lies before the dataset's retention is refused and counted by its reason, whatever the protocol; its
/// neighbours, other datasets and records without a time are taken.
#[test]
fn what_is_past_its_retention_is_not_taken() {
    const DAY_NS: i64 = 86_400_000_000_000;
    run(Acknowledgement::Durable, async |world| {
        let table = |kind| TableId::new(world.principal.tenant.clone(), Dataset::built_in(kind));
        let mut rules = storage::Rules::default();
        rules.retention_days.extend([(table(Kind::Events), 7), (table(Kind::Spans), 7)]);
        world.storage.set_policies(rules);
        let cutoff_ns = NOW_NS - 7 * DAY_NS;
        let text = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };

        let body = text(format!("{{\"time\":{}}}\n{{\"time\":{cutoff_ns}}}\n{{}}", cutoff_ns - 1));
        let reply = world.send((Route::Events, ""), &[LINES], body).await;
        let answer: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!((reply.status, answer["accepted"].as_u64()), (200, Some(2)), "{answer}");
        assert_eq!(answer["rejected"][0]["code"], "too_old");

        let body = text(format!("a v=1 {}\na v=1 {cutoff_ns}", cutoff_ns - 1));
        assert_eq!(world.send((Route::WriteV2, ""), &[], body).await.status, 400);
        assert_eq!(world.rows("events"), 3);

        let span = |at: i64| {
            format!(
                "{{\"traceId\":\"{}\",\"spanId\":\"{}\",\"name\":\"n\",\"startTimeUnixNano\":\"{at}\",\
                 \"endTimeUnixNano\":\"{at}\"}}",
                "0a".repeat(16),
                "0b".repeat(8)
            )
        };
        let body = text(format!(
            "{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{},{}]}}]}}]}}",
            span(cutoff_ns - 1),
            span(cutoff_ns)
        ));
        let reply = world.send((Route::OtlpTraces, ""), &[("content-type", "application/json")], body).await;
        let answer: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!(reply.status, 200, "{answer}");
        assert_eq!(world.rows("spans"), 1, "{answer}");

        let old = text(format!("{{\"time\":{}}}", 1_000_000_000));
        assert_eq!(world.send((Route::Events, "dataset=archive"), &[LINES], old).await.status, 200);
        let reasons = |kind| world.shared.counters.kind(kind).rejected().get("too_old").copied();
        assert_eq!((reasons(Kind::Events), reasons(Kind::Spans)), (Some(2), Some(1)));
    });
}
