//! What a typed read may hold and answer (B1, X2).

use storage::memory::{Memory, Pool};
use storage::record::Tenant;

use super::*;
use crate::budget::PAGE_BYTES_MAX;
use crate::fixture::request;
use crate::query::Body;

const LARGE: usize = 100_000;

/// So many events of 100 KB, half of them sealed.
async fn large(count: i64) -> Fixture {
    let mut fixture = Fixture::new();
    let some = |from: i64, to: i64| {
        move |draft: &mut Draft| {
            for at in from..to {
                event(draft, at, "s", ("info", 9), |d| d.set_text(Field::Message, &"x".repeat(LARGE)));
            }
        }
    };
    let (first, second) = (some(0, count / 2), some(count / 2, count));
    fixture.table("a", "events", Kind::Events, &[(Sealed::Yes, &first), (Sealed::No, &second)]).await;
    fixture
}

/// All ids of a list, page by page, and the bytes of the largest page.
async fn walk(
    fixture: &Fixture,
    endpoint: Endpoint,
    path_id: &str,
    query: &str,
    list: &str,
) -> (Vec<String>, usize) {
    let (mut found, mut largest, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let mut asked = request(endpoint);
        asked.path_id = Some(path_id.to_owned());
        asked.query = Some(format!("{query}{cursor}"));
        let answer = fixture.ask_as("a", &[Role::Analyst], asked).await.unwrap();
        let Body::Full(bytes) = &answer.body else { panic!("a whole body") };
        largest = largest.max(bytes.len());
        let reply = fixture::json(answer);
        found.extend(ids(&reply, list, if list == "spans" { "span_id" } else { "id" }));
        match reply["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (found, largest),
        }
    }
}

/// B1: a page ends at so many bytes, with its cursor; the pages together are the list, each row once.
#[tokio::test]
async fn a_page_ends_at_so_many_bytes() {
    let fixture = large(200).await;
    let (found, largest) = walk(&fixture, Endpoint::Events, "", "limit=10000", "events").await;
    let newest_first: Vec<_> = (0..200).rev().map(|at| format!("e{at}")).collect();
    assert_eq!(found, newest_first);
    assert!(largest <= PAGE_BYTES_MAX + 4_096 && largest > PAGE_BYTES_MAX / 2, "{largest}");
    let (found, _) = walk(&fixture, Endpoint::Events, "", "limit=7&order=asc", "events").await;
    assert_eq!(found, (0..200).map(|at| format!("e{at}")).collect::<Vec<_>>());
    assert_eq!(fixture.memory.used(Pool::Read), 0, "every reply gave back what it held");
}

/// B1: where a tenant's share of memory is smaller than a page, the page is shorter; it is not refused.
#[tokio::test]
async fn a_page_is_shortened_by_the_memory_that_there_is() {
    let mut fixture = large(40).await;
    fixture.memory = Memory::new(80 << 20, 0);
    let alone_max = fixture.memory.alone_max(Pool::Read) as usize;
    assert!(alone_max < 5 << 20, "{alone_max}");
    let (found, largest) = walk(&fixture, Endpoint::Events, "", "limit=10000", "events").await;
    assert_eq!(found.len(), 40);
    assert!(largest < alone_max, "{largest}");
    assert_eq!(fixture.memory.used(Pool::Read), 0);
}

/// X2: a tenant that holds its share of the memory for reads is told so, and others read on.
#[tokio::test]
async fn a_tenant_over_its_share_is_refused() {
    let mut fixture = large(4).await;
    let mine = |draft: &mut Draft| event(draft, 0, "s", ("info", 9), |_| {});
    fixture.table("b", "events", Kind::Events, &[(Sealed::No, &mine)]).await;
    fixture.memory = Memory::new(100 << 20, 0);
    let tenant = Tenant::parse("a").unwrap();
    let mut held = Vec::new();
    while let Ok(charge) = fixture.memory.take(Pool::Read, Some(&tenant), 1 << 10) {
        held.push(charge);
    }
    let refusal = fixture.get(Endpoint::Events, "", "").await.unwrap_err();
    assert_eq!((refusal.status, refusal.code), (503, "share_exceeded"), "{}", refusal.detail);
    let answer = fixture.ask_as("b", &[Role::Analyst], request(Endpoint::Events)).await.unwrap();
    assert_eq!(ids(&fixture::json(answer), "events", "id"), ["e0"]);
    drop(held);
    assert_eq!(fixture.get(Endpoint::Events, "", "").await.unwrap()["events"].as_array().unwrap().len(), 4);
}

/// B1: a reply that waits for a slow client holds its memory until it is sent.
#[tokio::test]
async fn a_reply_that_waits_holds_its_memory() {
    let fixture = large(20).await;
    let answer = fixture.ask_as("a", &[Role::Analyst], request(Endpoint::Events)).await.unwrap();
    let Body::Full(bytes) = &answer.body else { panic!("a whole body") };
    assert!(bytes.len() > 20 * LARGE);
    assert!(fixture.memory.used_by(Pool::Read, &Tenant::parse("a").unwrap()) >= bytes.len() as u64);
    drop(answer);
    assert_eq!(fixture.memory.used(Pool::Read), 0);
}

/// A trace and a correlation come in pages where they are long, and every row comes once.
#[tokio::test]
async fn a_trace_and_a_correlation_come_in_pages() {
    let mut fixture = Fixture::new();
    let spans = |from: u64| {
        move |draft: &mut Draft| {
            for id in from..from + 30 {
                row(draft, T0 + i64::try_from(id).unwrap(), "web", |d| {
                    d.set_text(Field::TraceId, &format!("{:032x}", 1));
                    d.set_text(Field::SpanId, &format!("{id:016x}"));
                    d.set_text(Field::CorrelationId, "c-1");
                    d.set_text(Field::Id, &format!("s{id}"));
                    if id > 1 {
                        d.set_text(Field::ParentSpanId, &format!("{:016x}", 1));
                    }
                });
            }
        }
    };
    let (first, second, third) = (spans(1), spans(31), spans(61));
    fixture.table("a", "spans", Kind::Spans, &[(Sealed::Yes, &first), (Sealed::No, &second)]).await;
    fixture.table("a", "more_spans", Kind::Spans, &[(Sealed::Yes, &third)]).await;
    let id = format!("{:032x}", 1);
    let all: Vec<_> = (1..=90).map(|id| format!("{id:016x}")).collect();
    for limit in [7, 89, 10_000] {
        let query = format!("limit={limit}");
        let (found, _) = walk(&fixture, Endpoint::Trace, &id, &query, "spans").await;
        assert_eq!(found, all, "{limit}");
        let (found, _) = walk(&fixture, Endpoint::Correlation, "c-1", &query, "spans").await;
        assert_eq!(found, all, "{limit}");
    }
    let part = fixture.get(Endpoint::Trace, &id, "limit=2").await.unwrap();
    assert_eq!((part["span_count"].as_u64(), part["complete"].as_bool()), (Some(90), Some(true)));
    let next = format!("limit=2&cursor={}", part["next_cursor"].as_str().unwrap());
    let part = fixture.get(Endpoint::Trace, &id, &next).await.unwrap();
    assert_eq!((part["span_count"].as_u64(), part["complete"].as_bool()), (Some(90), Some(true)));
}

/// B1: a trace that is larger than a page comes in pages of so many bytes.
#[tokio::test]
async fn a_trace_ends_its_page_at_so_many_bytes() {
    let mut fixture = Fixture::new();
    let spans = |draft: &mut Draft| {
        for id in 1..=150_u64 {
            row(draft, T0 + i64::try_from(id).unwrap(), "web", |d| {
                d.set_text(Field::TraceId, &format!("{:032x}", 1));
                d.set_text(Field::SpanId, &format!("{id:016x}"));
                d.set_text(Field::StatusMessage, &"x".repeat(LARGE));
            });
        }
    };
    fixture.table("a", "spans", Kind::Spans, &[(Sealed::Yes, &spans)]).await;
    let (found, largest) = walk(&fixture, Endpoint::Trace, &format!("{:032x}", 1), "", "spans").await;
    assert_eq!(found.len(), 150);
    assert!(largest <= PAGE_BYTES_MAX + 4_096, "{largest}");
}

/// Traces are listed by their start, each once, whatever the page and however their spans overlap.
#[tokio::test]
async fn traces_are_listed_by_their_start() {
    let mut fixture = Fixture::new();
    // Trace n starts at n seconds and has a span at 1,000 − n seconds: the last spans are of the first traces.
    let spans = |draft: &mut Draft| {
        for trace in 1..=60_i64 {
            for (at, id) in [(trace, 1), (1_000 - trace, 2), (500, 3)] {
                span(draft, T0 + at * SECOND, "web", (trace as u128, id, 0), 1, false);
            }
        }
    };
    fixture.table("a", "spans", Kind::Spans, &[(Sealed::Yes, &spans)]).await;
    let oldest_first: Vec<_> = (1..=60).map(|trace| format!("{trace:032x}")).collect();
    for limit in [1, 25, 10_000] {
        for order in ["asc", "desc"] {
            let (mut found, mut cursor) = (Vec::new(), String::new());
            loop {
                let query = format!("limit={limit}&order={order}{cursor}");
                let reply = fixture.get(Endpoint::Traces, "", &query).await.unwrap();
                found.extend(ids(&reply, "traces", "trace_id"));
                let Some(next) = reply["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
                if limit == 1 && found.len() == 5 {
                    break;
                }
            }
            let mut expected = oldest_first.clone();
            if order == "desc" {
                expected.reverse();
            }
            expected.truncate(found.len().max(5));
            assert_eq!(found, expected, "{limit} {order}");
        }
    }
}

/// One table of permissions: what one door refuses, no other gives.
#[tokio::test]
async fn a_kind_is_read_by_the_same_roles_everywhere() {
    let mut fixture = Fixture::new();
    let row_of = |draft: &mut Draft| row(draft, T0, "s", |d| d.set_text(Field::CorrelationId, "c-1"));
    for (dataset, kind) in [
        ("events", Kind::Events),
        ("audit", Kind::Audit),
        ("my_audit", Kind::Audit),
        ("_system", Kind::System),
    ] {
        fixture.table("a", dataset, kind, &[(Sealed::No, &row_of)]).await;
    }
    for (role, reads) in [(Role::Analyst, false), (Role::Auditor, true), (Role::Admin, true)] {
        for dataset in ["audit", "my_audit", "_system"] {
            let sql = fixture.sql_as("a", &[role], &format!("select * from {dataset}")).await;
            match sql {
                Ok(_) => assert!(reads, "{dataset}"),
                Err(refusal) => assert_eq!((reads, refusal.code), (false, "table_not_found"), "{dataset}"),
            }
            let mut asked = request(Endpoint::AuditTraces);
            asked.query = Some(format!("dataset={dataset}"));
            if dataset != "_system" {
                assert_eq!(fixture.ask_as("a", &[role], asked).await.is_ok(), reads, "{dataset}");
            }
        }
        let mut asked = request(Endpoint::Correlation);
        asked.path_id = Some("c-1".into());
        let reply = fixture::json(fixture.ask_as("a", &[role], asked).await.unwrap());
        assert_eq!(reply["events"].as_array().unwrap().len(), 1);
        assert_eq!(reply["audit"].as_array().map(Vec::len), reads.then_some(2));
        let mut asked = request(Endpoint::Events);
        asked.query = Some("dataset=_system".into());
        assert_eq!(fixture.ask_as("a", &[role], asked).await.is_ok(), reads);
    }
}

/// The first and the last nanosecond that there are overflow nowhere.
#[tokio::test]
async fn the_ends_of_time_are_times() {
    let mut fixture = Fixture::new();
    let times = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX];
    let spans = |draft: &mut Draft| {
        for (at, time_ns) in times.into_iter().enumerate() {
            span(draft, time_ns, "web", (at as u128 + 1, 1, 0), i64::MAX, false);
        }
    };
    let events = |draft: &mut Draft| {
        for (at, time_ns) in times.into_iter().enumerate() {
            row(draft, time_ns, "s", |d| d.set_text(Field::Id, &format!("e{at}")));
        }
    };
    for sealed in [Sealed::Yes, Sealed::No] {
        fixture.snapshots.clear();
        fixture.table("a", "spans", Kind::Spans, &[(sealed, &spans)]).await;
        fixture.table("a", "events", Kind::Events, &[(sealed, &events)]).await;
        for order in ["asc", "desc"] {
            let query = format!("limit=1&order={order}");
            let (found, _) = walk(&fixture, Endpoint::Events, "", &query, "events").await;
            assert_eq!(found.len(), times.len(), "{order}");
            let query = format!("limit=2&order={order}");
            let reply = fixture.get(Endpoint::Traces, "", &query).await.unwrap();
            assert_eq!(reply["traces"].as_array().unwrap().len(), 2);
        }
        fixture.get(Endpoint::Services, "", "").await.unwrap();
        for bound in ["1677-09-21T00:12:43.145224192Z", "2262-04-11T23:47:16.854775807Z"] {
            for name in ["from", "to"] {
                fixture.get(Endpoint::Events, "", &format!("{name}={bound}")).await.unwrap();
                fixture.get(Endpoint::Latency, "", &format!("{name}={bound}&step=1d")).await.unwrap();
            }
        }
        for edge in [i64::MIN, i64::MAX] {
            for operator in ["=", "<", ">", "<=", ">="] {
                fixture.sql(&format!("select * from events where time_ns {operator} {edge}")).await.unwrap();
            }
        }
    }
    let mut recorder = Recorder::default();
    for time_ns in times {
        recorder.record("s", "o", false, time_ns, i64::MAX);
    }
}
