use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use storage::record::{Draft, Field, Tenant};
use storage::{Acknowledgement, ErrorKind, Idempotency, Known, Principal, Role, Roles};

use super::stages::{Stages, Step};
use super::work::Work;
use super::{Shared, append_refused, finish, outcome_of, replay};
use crate::admit::{Policy, Rate};
use crate::correlate::Correlation;
use crate::decode::{Decoded, Limits, Pace, at_once};
use crate::head::{self, Accepted, Head};
use crate::reply::{Refusal, Reply, render};
use crate::scrub::{Rules, Scrubber};
use crate::{Dialect, Route};

const NOW_NS: i64 = 1_800_000_000_000_000_000;

/// A request and the stages it goes through, without a log.
struct World {
    stages: Stages,
    principal: Principal,
    correlation: Correlation,
}

fn world() -> World {
    let shared = Shared::new(Limits::default(), Arc::new(Rules::default_on()));
    World {
        stages: Stages::new(Arc::new(shared)),
        principal: Principal {
            tenant: Tenant::parse("acme").expect("a good id"),
            roles: Roles::of(&[Role::Ingest]),
            subject: Arc::from("key"),
            acknowledgement: Acknowledgement::Durable,
        },
        correlation: Correlation { id: "c-1".into(), request_id: "c-1".into(), trace: None },
    }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::try_from(*name).expect("a header name");
        headers.append(name, HeaderValue::from_str(value).expect("a header value"));
    }
    headers
}

const JSON: (&str, &str) = ("content-type", "application/json");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

impl World {
    /// All stages at once, with nobody else on the lane.
    fn prepare(
        &self,
        head: &Head<'_>,
        accepted: &Accepted,
        body: &[u8],
        reserve: impl FnOnce(&str, [u8; 16]) -> Known,
    ) -> Result<Step<'_>, Refusal> {
        let (body, mut work) = (Bytes::copy_from_slice(body), Work::unbounded());
        at_once(self.stages.prepare(head, accepted, body, None, &mut work, reserve))
    }

    fn head<'a>(&'a self, route: Route, query: &'a str, headers: &'a HeaderMap) -> Head<'a> {
        Head {
            route,
            principal: &self.principal,
            headers,
            query: Some(query),
            correlation: &self.correlation,
            now_ns: NOW_NS,
            monotonic_ns: 5,
        }
    }

    /// Everything behind decoding, for records that are good or bad already.
    fn after(&self, head: &Head<'_>, good: u32, bad: u32) -> Result<Step<'_>, Refusal> {
        let accepted = head::check(head, &Limits::default()).expect("a good head");
        let mut draft = Draft::new(accepted.kind);
        for _ in 0..good {
            draft.begin_row();
            draft.set_int(Field::TimeNs, NOW_NS);
            draft.set_int(Field::ObservedNs, NOW_NS);
            draft.set_text(Field::Source, "api");
            if draft.has(Field::Message) {
                draft.set_text(Field::Message, "mail to jane.doe@example.com");
            }
            if draft.has(Field::DurationNs) {
                draft.set_int(Field::DurationNs, 7);
            }
            draft.end_row();
        }
        let mut decoded = Decoded { accepted: good, ..Decoded::default() };
        (0..bad).for_each(|at| decoded.reject(at as usize, Some(at as usize + 1), "bad_value", "no number"));
        at_once(self.stages.after_decode(
            head,
            &accepted,
            1_000,
            decoded,
            (&mut draft, &mut Scrubber::default()),
            &mut Pace::default(),
        ))
    }

    /// received, accepted, rejected, throttled of the route's kind (A2).
    fn counts(&self, route: Route) -> [u64; 4] {
        let kind = self.stages.shared.counters.kind(route.kind().expect("a kind"));
        let rejected = kind.rejected().values().sum();
        [kind.received.load(Relaxed), kind.accepted.load(Relaxed), rejected, kind.throttled.load(Relaxed)]
    }
}

/// What a request with so many good and bad records comes to: status, records stored, body.
fn check(route: Route, query: &str, (good, bad): (u32, u32), expected: (u16, usize), says: &str) {
    let world = world();
    let headers = headers(&[JSON]);
    let head = world.head(route, query, &headers);
    let (status, stored, body) = match world.after(&head, good, bad) {
        Ok(Step::Store(ready)) => {
            let outcome = outcome_of(&head, &ready.decoded);
            let rows = ready.clean.row_count();
            ready.account.accept();
            (outcome.status, rows, outcome.body)
        }
        Ok(Step::Nothing(outcome, _)) => (outcome.status, 0, outcome.body),
        Ok(Step::Replay(_)) => panic!("no key was given"),
        Err(refusal) => {
            let reply = render(route.dialect(), &headers, &refusal, "c");
            (reply.status, 0, reply.body)
        }
    };
    assert_eq!((status, stored), expected, "{route:?} {query} {good} good {bad} bad");
    let body = String::from_utf8_lossy(&body);
    assert!(body.contains(says), "{route:?} {query} {good} good {bad} bad: {body}");
    let [received, accepted, rejected, throttled] = world.counts(route);
    assert_eq!(received, u64::from(good + bad), "A2");
    assert_eq!((accepted, accepted + rejected + throttled), (stored as u64, received), "A2");
}

/// F5: which records are kept, and how the sender learns it, by route and mode.
#[test]
fn partial_acceptance_by_route() {
    let (none, all, some, bad) = ((0, 0), (3, 0), (3, 2), (0, 2));
    check(Route::OtlpTraces, "", none, (200, 0), "{}");
    check(Route::OtlpTraces, "", all, (200, 3), "{}");
    check(Route::OtlpTraces, "", some, (200, 3), "\"rejectedSpans\":\"2\"");
    check(Route::OtlpLogs, "", bad, (400, 0), "records_rejected");
    check(Route::Events, "", none, (200, 0), "\"accepted\":0");
    check(Route::Events, "", all, (200, 3), "\"rejected\":[]");
    check(Route::Events, "", some, (200, 3), "\"rejected_count\":2");
    check(Route::Events, "", bad, (400, 0), "\"rejected_count\":2");
    check(Route::Events, "atomic=true", some, (400, 0), "\"rejected_count\":2");
    check(Route::Audit, "", all, (200, 3), "\"accepted\":3");
    check(Route::Audit, "atomic=false", some, (400, 0), "bad_value");
    check(Route::WriteV1, "", none, (204, 0), "");
    check(Route::WriteV1, "", all, (204, 3), "");
    check(Route::WriteV1, "", some, (400, 3), "partial write: line 1: bad_value: no number");
    check(Route::WriteV2, "", some, (400, 3), "\"code\":\"invalid\"");
    check(Route::WriteV2, "", bad, (400, 0), "unable to parse");
    check(Route::WriteV3, "", some, (400, 3), "partial write of line protocol occurred");
    check(Route::WriteV3, "accept_partial=true", some, (400, 3), "line_number");
    check(Route::WriteV3, "accept_partial=false", some, (400, 0), "parsing failed");
}

/// C40: over a limit nothing is stored, nothing spent, and the answer says which limit and when.
#[test]
fn over_a_limit_nothing_is_kept() {
    let world = world();
    let rate = |quota| Some(Rate { quota, window_s: 60 });
    let policy = Policy { requests: rate(100), records: rate(4), bytes: None };
    world.stages.shared.admit.set(&world.principal.tenant, policy);
    let headers = headers(&[LINES]);
    let head = world.head(Route::Events, "", &headers);
    let Ok(Step::Store(ready)) = world.after(&head, 2, 1) else { panic!("within the limit") };
    let names: Vec<_> = ready.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ratelimit-policy", "ratelimit"]);
    drop(ready);
    for (good, is_for_good) in [(3, false), (5, true)] {
        let refusal = world.after(&head, good, 0).err().expect("over the limit");
        assert_eq!((refusal.status, refusal.code), (429, "rate_limited"));
        assert_eq!(refusal.retryable, !is_for_good);
        let reply = render(Dialect::Problem, &headers, &refusal, "c");
        assert!(reply.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok_and(|s| s >= 1)));
        assert!(reply.header("ratelimit").is_some_and(|value| value.contains("ingest-records")));
    }
    assert_eq!(world.counts(Route::Events), [11, 2, 1, 8]);
    assert!(world.after(&head, 0, 3).is_err(), "bad records are refused, and spend nothing");
    assert!(world.after(&head, 2, 0).is_ok(), "the denials spent nothing");
}

/// P1, and what every stored row has: an id to correlate by, and its place in the latencies.
#[test]
fn a_chunk_is_correlated_scrubbed_and_measured() {
    let world = world();
    let headers = headers(&[LINES]);
    let head = world.head(Route::Events, "dataset=orders", &headers);
    let Ok(Step::Store(ready)) = world.after(&head, 2, 0) else { panic!("stored") };
    assert_eq!(ready.table.prefix(), "tenant/acme/orders");
    let column = |name: &str| {
        let column = ready.clean.batch().column_by_name(name).expect("the column is there").clone();
        arrow::array::AsArray::as_string::<i32>(&column).value(1).to_owned()
    };
    assert_eq!(column("correlation_id"), "c-1");
    assert!(!column("message").contains("jane"), "{}", column("message"));
    let counters = &world.stages.shared.counters;
    assert!(counters.scrub_hits().any(|(name, hits)| name == "email" && hits == 2));
}

fn prepare(
    world: &World,
    pairs: &[(&str, &str)],
    query: &str,
    body: &[u8],
    known: Known,
) -> Result<Option<u16>, Refusal> {
    let headers = headers(pairs);
    let head = world.head(Route::Events, query, &headers);
    let accepted = head::check(&head, &Limits::default())?;
    match world.prepare(&head, &accepted, body, |_, _| known)? {
        Step::Replay(first) => Ok(Some(replay(&head, &first).status)),
        Step::Nothing(..) | Step::Store(_) => Ok(None),
    }
}

/// F19: what is known of a key decides before a body is decoded, and leaves no trace in the counts.
#[test]
fn a_known_key_is_answered_before_anything_else() {
    let world = world();
    let keyed = [LINES, ("idempotency-key", "k-1")];
    let first =
        Idempotency { key: "k-1".into(), fingerprint: [0; 16], status: 200, reply: b"{}".as_slice().into() };
    let replayed = prepare(&world, &keyed, "", b"not even JSON", Known::Replayed(Arc::new(first)));
    assert_eq!(replayed, Ok(Some(200)));
    for (known, expected, retry_after) in [
        (Known::Mismatch, (422, "idempotency_mismatch"), None),
        (Known::InFlight, (409, "idempotency_in_flight"), Some(1)),
    ] {
        let refusal = prepare(&world, &keyed, "", b"{}", known).expect_err("known");
        assert_eq!(((refusal.status, refusal.code), refusal.retry_after), (expected, retry_after));
    }
    assert_eq!(world.counts(Route::Events), [0; 4]);
}

#[test]
fn fingerprints_cover_route_query_and_inflated_body() {
    let world = world();
    let of = |route, query: &str, encoding: Option<&str>, body: &[u8]| {
        let mut pairs = vec![JSON, ("idempotency-key", "k")];
        pairs.extend(encoding.map(|encoding| ("content-encoding", encoding)));
        let headers = headers(&pairs);
        let head = world.head(route, query, &headers);
        let accepted = head::check(&head, &Limits::default()).expect("a good head");
        let mut seen = None;
        let known = |_: &str, fingerprint| {
            seen = Some(fingerprint);
            Known::Mismatch
        };
        world.prepare(&head, &accepted, body, known).err().expect("a mismatch");
        seen.expect("the key was asked for")
    };
    let zipped = zstd::bulk::compress(b"{}", 3).expect("memory");
    let plain = of(Route::Events, "", None, b"{}");
    assert_eq!(plain, of(Route::Events, "", Some("zstd"), &zipped));
    for other in [
        of(Route::Audit, "", None, b"{}"),
        of(Route::Events, "atomic=true", None, b"{}"),
        of(Route::Events, "", None, b"{ }"),
    ] {
        assert_ne!(plain, other);
    }
}

#[test]
fn bodies_that_cannot_be_read_are_refused() {
    let world = world();
    let gzip = [LINES, ("content-encoding", "gzip")];
    let refusal = prepare(&world, &gzip, "", b"plain", Known::New).expect_err("not gzip");
    assert_eq!((refusal.status, refusal.code), (400, "bad_encoding"));
    let long = vec![b'\n'; (10 << 20) + 1];
    let refusal = prepare(&world, &[LINES], "", &long, Known::New).expect_err("too long");
    assert_eq!((refusal.status, refusal.code), (413, "body_too_large"));
}

/// An append that fails is never the input's fault with a 5xx, unless it is ours and may be sent again.
#[test]
fn failed_appends_tell_what_to_do() {
    for (kind, status, code) in [
        (ErrorKind::Busy { retry_after: Duration::from_millis(1_500) }, 503, "pressure"),
        (ErrorKind::Share { retry_after: Duration::from_millis(1_500) }, 503, "share_exceeded"),
        (ErrorKind::TooLarge, 413, "too_large"),
        (ErrorKind::Unavailable, 503, "unavailable"),
        (ErrorKind::Poisoned, 503, "unavailable"),
        (ErrorKind::Fenced, 503, "unavailable"),
        (ErrorKind::Conflict, 400, "dataset_kind"),
        (ErrorKind::Invalid, 400, "invalid"),
        (ErrorKind::Full, 422, "too_many_datasets"),
        (ErrorKind::Newer, 503, "newer_table"),
        (ErrorKind::Bug, 503, "internal"),
    ] {
        let refusal = append_refused(&storage::Error::new(kind, "why"));
        assert_eq!((refusal.status, refusal.code, refusal.retryable), (status, code, status == 503));
        assert_eq!(refusal.retry_after.is_some(), status == 503, "{code}");
    }
    let busy = ErrorKind::Busy { retry_after: Duration::from_millis(1_500) };
    assert_eq!(append_refused(&storage::Error::new(busy, "why")).retry_after, Some(2));
}

#[test]
fn replies_carry_type_and_correlation() {
    let mut world = world();
    let proto = headers(&[("content-type", "application/x-protobuf")]);
    let lines = headers(&[LINES]);
    let none = HeaderMap::new();
    let reply_of = |world: &World, route, headers: &HeaderMap| -> Reply {
        let head = world.head(route, "", headers);
        finish(&head, &outcome_of(&head, &Decoded { accepted: 1, ..Decoded::default() }), Vec::new())
    };
    for (route, headers, status, content_type) in [
        (Route::OtlpTraces, &proto, 200, Some("application/x-protobuf")),
        (Route::Events, &lines, 200, Some("application/json")),
        (Route::WriteV1, &none, 204, None),
    ] {
        let reply = reply_of(&world, route, headers);
        assert_eq!((reply.status, reply.header("content-type")), (status, content_type), "{route:?}");
        assert_eq!(reply.header("x-correlation-id"), Some("c-1"), "{route:?}");
    }
    world.principal.acknowledgement = Acknowledgement::Buffered;
    assert_eq!(reply_of(&world, Route::OtlpTraces, &proto).status, 202);
    let reply = reply_of(&world, Route::WriteV2, &none);
    assert_eq!((reply.status, reply.header("content-type")), (202, None));
    let head = world.head(Route::Events, "", &lines);
    let first = Idempotency {
        key: "k".into(),
        fingerprint: [0; 16],
        status: 200,
        reply: b"{\"accepted\":1}".as_slice().into(),
    };
    let reply = replay(&head, &first);
    assert_eq!(reply.header("idempotency-replayed"), Some("true"));
    assert_eq!(serde_json::from_slice::<Value>(&reply.body).expect("JSON")["accepted"], 1);
}

/// Every route reads what its clients send, through all stages, one chunk for the good records.
#[test]
fn every_route_reaches_its_decoder() {
    let world = world();
    let audit = br#"{"actor_type":"user","actor_id":"u","action":"read","resource_type":"doc"}"#;
    let span = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c",
        "spanId":"eee19b7ec3c1b174","name":"GET /","startTimeUnixNano":"1800000000000000000",
        "endTimeUnixNano":"1800000000000000009"}]}]}]}"#;
    let log = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1800000000000000000",
        "body":{"stringValue":"hello"}}]}]}]}"#;
    let proto = ("content-type", "application/x-protobuf");
    let array = [b"[", audit.as_slice(), b",", audit, b"]"].concat();
    for (route, media, body, rows) in [
        (Route::OtlpTraces, JSON, span.as_slice(), 1),
        (Route::OtlpTraces, proto, b"", 0),
        (Route::OtlpLogs, JSON, log, 1),
        (Route::OtlpLogs, proto, b"", 0),
        (Route::Events, LINES, b"{\"event_type\":\"a\"}\n{\"event_type\":\"b\"}", 2),
        (Route::Events, JSON, b"[{\"event_type\":\"a\"}]", 1),
        (Route::Audit, LINES, audit, 1),
        (Route::Audit, JSON, &array, 2),
        (Route::WriteV1, JSON, b"cpu,host=a v=1 1800000000000000000", 1),
        (Route::WriteV2, JSON, b"cpu v=1i\ncpu v=2i", 2),
        (Route::WriteV3, JSON, b"cpu v=\"x\" 1800000000", 1),
    ] {
        let headers = headers(&[media]);
        let head = world.head(route, "", &headers);
        let accepted = head::check(&head, &Limits::default()).expect("a good head");
        // Twice: the lane's scratch is used again.
        for _ in 0..2 {
            match world.prepare(&head, &accepted, body, |_, _| Known::New) {
                Ok(Step::Store(ready)) => assert_eq!(ready.clean.row_count(), rows, "{route:?}"),
                Ok(Step::Nothing(..)) => assert_eq!(rows, 0, "{route:?}"),
                Ok(Step::Replay(_)) => panic!("no key was given"),
                Err(refusal) => panic!("{route:?}: {refusal:?}"),
            }
        }
    }
}

/// A refused body leaves nothing in the lane for the next one.
#[test]
fn a_refused_body_leaves_no_rows_behind() {
    let world = world();
    let headers = headers(&[]);
    let head = world.head(Route::WriteV3, "accept_partial=false", &headers);
    let accepted = head::check(&head, &Limits::default()).expect("a good head");
    let run = |body: &[u8]| match world.prepare(&head, &accepted, body, |_, _| Known::New) {
        Ok(Step::Store(ready)) => ready.clean.row_count(),
        Ok(_) => panic!("there are lines"),
        Err(refusal) => usize::from(refusal.status),
    };
    assert_eq!(
        [run(b"a v=1\nb v=\nc v=3"), run(b"d v=4"), run(b"e v=5\nf"), run(b"g v=6\nh v=7")],
        [400, 1, 400, 2]
    );
}
