//! Reads over snapshots made by hand: Q1, T1, table Q.

use std::time::Duration;

use serde_json::{Value as Json, json};
use storage::Role;
use storage::latency::{Measurement, Recorder, WINDOW_NS};
use storage::record::{Draft, Field, Kind, Value};

use super::Endpoint;
use crate::fixture::{self, Fixture, SECOND, Sealed, T0, row, span, sql_request, streamed};
use crate::plan::session::Sessions;

fn event(draft: &mut Draft, at: i64, source: &str, severity: (&str, i64), fill: impl FnOnce(&mut Draft)) {
    row(draft, T0 + at * SECOND, source, |draft| {
        draft.set_text(Field::Id, &format!("e{at}"));
        draft.set_text(Field::EventType, "order.placed");
        draft.set_text(Field::Severity, severity.0);
        draft.set_int(Field::SeverityNumber, severity.1);
        fill(draft);
    });
}

/// Two files, the older without columns that the newer has, and two hot chunks.
async fn shop() -> Fixture {
    let mut fixture = Fixture::new();
    let first = |draft: &mut Draft| {
        event(draft, 0, "shop", ("INFO", 9), |d| {
            let _ = d.attribute("order", Value::Int(7));
            d.set_text(Field::CorrelationId, "c-1");
        });
        event(draft, 1, "shop", ("ERROR", 17), |_| {});
    };
    let second = |draft: &mut Draft| {
        event(draft, 2, "cart", ("ERROR", 18), |d| {
            let _ = d.attribute("price", Value::Double(1.5));
            let _ = d.attribute("tags", Value::Json("[1,\"x\"]"));
            let _ = d.attribute("order", Value::Text("seven"));
            d.set_int(Field::DurationNs, 5);
        });
    };
    let third = |draft: &mut Draft| {
        event(draft, 3, "cart", ("warn", 13), |d| {
            let _ = d.attribute("a b", Value::Bool(true));
            let _ = d.attribute("source", Value::Text("named like a column"));
            let _ = d.attribute("raw", Value::Bytes(&[1, 2]));
            let _ = d.attribute("order", Value::Int(8));
        });
    };
    let fourth = |draft: &mut Draft| {
        event(draft, 4, "shop", ("fatal", 21), |d| d.set_text(Field::CorrelationId, "c-1"));
    };
    fixture
        .table(
            "a",
            "events",
            Kind::Events,
            &[(Sealed::Yes, &first), (Sealed::Yes, &second), (Sealed::No, &third), (Sealed::No, &fourth)],
        )
        .await;
    let other = |draft: &mut Draft| event(draft, 9, "secret", ("info", 9), |_| {});
    fixture.table("b", "events", Kind::Events, &[(Sealed::Yes, &other)]).await;
    fixture.table("b", "private", Kind::Events, &[(Sealed::No, &other)]).await;
    fixture
}

fn ids(reply: &Json, list: &str, key: &str) -> Vec<String> {
    reply[list].as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn events_come_whole_from_files_and_hot_chunks() {
    let fixture = shop().await;
    let reply = fixture.get(Endpoint::Events, "", "").await.unwrap();
    assert_eq!(ids(&reply, "events", "id"), ["e4", "e3", "e2", "e1", "e0"]);
    assert_eq!(reply["next_cursor"], Json::Null);
    let events = reply["events"].as_array().unwrap();
    assert_eq!(
        events[1]["attributes"],
        json!({"order": 8, "a b": true, "source": "named like a column", "raw": {"$bytes": "AQI="}})
    );
    assert_eq!(events[2]["attributes"], json!({"price": 1.5, "tags": [1, "x"], "order": "seven"}));
    assert_eq!(events[2]["duration_ns"], 5);
    assert_eq!(events[4]["time"], "2026-01-02T03:04:05.000000000Z");
    assert_eq!(events[4]["correlation_id"], "c-1");
    assert_eq!(events[4]["message"], Json::Null);
}

#[tokio::test]
async fn filters_choose_events() {
    let fixture = shop().await;
    for (query, expected) in [
        ("source=cart", vec!["e3", "e2"]),
        ("severity=error", vec!["e2", "e1"]),
        ("severity=18", vec!["e2"]),
        ("severity=nothing", vec![]),
        ("severity_min=warn", vec!["e4", "e3", "e2", "e1"]),
        ("severity_min=fatal", vec!["e4"]),
        ("correlation_id=c-1", vec!["e4", "e0"]),
        ("attr.order=7", vec!["e0"]),
        ("attr.order=7.0", vec![]),
        ("attr.order=seven", vec!["e2"]),
        ("attr.price=1.50", vec!["e2"]),
        ("attr.a%20b=true", vec!["e3"]),
        ("attr.source=named+like+a+column", vec!["e3"]),
        ("attr.raw=AQI%3D", vec!["e3"]),
        ("attr.unknown=1", vec![]),
        ("event_type=order.placed&source=shop&order=asc", vec!["e0", "e1", "e4"]),
        ("from=2026-01-02T03:04:06Z&to=2026-01-02T03:04:08Z", vec!["e2", "e1"]),
        ("from=1767323049", vec!["e4"]),
        ("from=1767323049&to=1767323049", vec![]),
        ("actor_id=x", vec![]),
        ("source=%27%20OR%20true--", vec![]),
        ("limit=10000", vec!["e4", "e3", "e2", "e1", "e0"]),
    ] {
        let reply =
            fixture.get(Endpoint::Events, "", query).await.unwrap_or_else(|r| panic!("{query}: {r:?}"));
        assert_eq!(ids(&reply, "events", "id"), expected, "{query}");
    }
}

// Q11 and its like: the reply names the parameter.
#[tokio::test]
async fn parameters_are_known_and_sound_or_refused() {
    let fixture = shop().await;
    for (endpoint, query, name) in [
        (Endpoint::Events, "limit=-1", "limit"),
        (Endpoint::Events, "limit=0", "limit"),
        (Endpoint::Events, "limit=10001", "limit"),
        (Endpoint::Events, "limit=x", "limit"),
        (Endpoint::Events, "from=2026-01-03T00:00:00Z&to=2026-01-02T00:00:00Z", "from"),
        (Endpoint::Events, "from=yesterday", "from"),
        (Endpoint::Events, "order=up", "order"),
        (Endpoint::Events, "cursor=abc", "cursor"),
        (Endpoint::Events, "source=a&source=b", "source"),
        (Endpoint::Events, "unknown=1", "unknown"),
        (Endpoint::Events, "attr.=1", "attr."),
        (Endpoint::Events, "trace_id=xyz", "trace_id"),
        (Endpoint::Events, "severity_min=loud", "severity_min"),
        (Endpoint::Events, "severity_min=25", "severity_min"),
        (Endpoint::Events, "dataset=logs", "dataset"),
        (Endpoint::Latency, "step=0", "step"),
        (Endpoint::Latency, "step=30s", "step"),
        (Endpoint::Latency, "step=90s", "step"),
        (Endpoint::Latency, "step=-60", "step"),
        (Endpoint::Latency, "q=1.5", "q"),
        (Endpoint::Latency, "q=", "q"),
        (Endpoint::Latency, "q=NaN", "q"),
        (Endpoint::Latency, "limit=5", "limit"),
        (Endpoint::Latency, "from=0&to=1767323049&step=60s", "step"),
        (Endpoint::Services, "source=a", "source"),
        (Endpoint::Trace, "limit=5", "limit"),
    ] {
        let refusal = fixture.get(endpoint, "", query).await.unwrap_err();
        assert_eq!((refusal.status, refusal.code), (400, "invalid_parameter"), "{query}");
        assert!(refusal.detail.contains(&format!("parameter {name}:")), "{query}: {}", refusal.detail);
    }
    let refusal = fixture.get(Endpoint::Events, "", "source=%ff").await.unwrap_err();
    assert_eq!(refusal.status, 400);
}

#[tokio::test]
async fn pages_neither_skip_nor_repeat() {
    let mut fixture = Fixture::new();
    // Many rows of one time, in files and hot, so that the coordinates decide.
    let chunk = |from: i64| {
        move |draft: &mut Draft| {
            for at in from..from + 10 {
                row(draft, T0 + at / 7, "s", |d| d.set_text(Field::Id, &format!("e{at}")));
            }
        }
    };
    let (a, b, c) = (chunk(0), chunk(10), chunk(20));
    fixture
        .table("a", "events", Kind::Events, &[(Sealed::Yes, &a), (Sealed::Yes, &b), (Sealed::No, &c)])
        .await;
    for order in ["asc", "desc"] {
        let whole = fixture.get(Endpoint::Events, "", &format!("order={order}")).await.unwrap();
        for limit in [1, 4, 7, 29, 30] {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let query = format!("limit={limit}&order={order}{cursor}");
                let reply = fixture.get(Endpoint::Events, "", &query).await.unwrap();
                seen.extend(ids(&reply, "events", "id"));
                match reply["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(seen, ids(&whole, "events", "id"), "{order} {limit}");
        }
    }
    let mut request = fixture::request(Endpoint::Events);
    request.query = Some("limit=3&cursor=&order=asc".replace("&cursor=", ""));
    let answer = fixture.ask_as("a", &[Role::Analyst], request).await.unwrap();
    let link = answer.headers[0].1.to_str().unwrap().to_owned();
    assert!(link.starts_with("<?limit=3&order=asc&cursor=") && link.ends_with(">; rel=\"next\""), "{link}");
}

// T1, Q3: another tenant's tables are as absent ones.
#[tokio::test]
async fn tenants_see_their_own_tables_only() {
    let fixture = shop().await;
    for sql in [
        "SELECT * FROM private",
        "SELECT * FROM nothing",
        "SELECT * FROM b.events",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM _system",
        "SELECT * FROM events WHERE id IN (SELECT id FROM private)",
        "WITH x AS (SELECT * FROM private) SELECT * FROM x",
        "SELECT * FROM x, (WITH x AS (SELECT 1) SELECT * FROM x)",
    ] {
        let refusal = fixture.sql(sql).await.unwrap_err();
        assert_eq!((refusal.status, refusal.code), (404, "table_not_found"), "{sql}: {}", refusal.detail);
    }
    let reply = fixture.sql("SELECT DISTINCT source FROM events ORDER BY 1").await.unwrap();
    assert_eq!(reply["rows"], json!([{"source": "cart"}, {"source": "shop"}]));
    let reply = fixture.sql_as("b", &[Role::Analyst], "SELECT source FROM private").await.unwrap();
    assert_eq!(reply["rows"], json!([{"source": "secret"}]));
    for (role, status) in [(Role::Admin, None), (Role::Auditor, None), (Role::Analyst, Some(404))] {
        let reply = fixture.sql_as("a", &[role], "SELECT count(*) AS n FROM _system").await;
        assert_eq!(reply.err().map(|refusal| refusal.status), status, "{role:?}");
    }
    assert_eq!(fixture.get(Endpoint::Events, "", "dataset=private").await.unwrap_err().status, 404);
    assert_eq!(fixture.get(Endpoint::Events, "", "dataset=_system").await.unwrap_err().status, 404);
}

#[tokio::test]
async fn sql_answers_exactly() {
    let fixture = shop().await;
    for (sql, expected) in [
        ("SELECT count(*) AS n FROM events", json!([{"n": 5}])),
        ("SELECT count(*) AS n FROM spans", json!([{"n": 0}])),
        ("SELECT count(*) AS n FROM events WHERE time_ns >= 1767323047000000000", json!([{"n": 3}])),
        ("SELECT count(*) AS n FROM events WHERE time < '2026-01-02T03:04:06Z'", json!([{"n": 1}])),
        ("SELECT id FROM events WHERE price > 1", json!([{"id": "e2"}])),
        (
            "SELECT id, price, \"attr.source\" FROM events WHERE id IN ('e0', 'e3') ORDER BY id",
            json!([{"id": "e0", "price": null, "attr.source": null},
                   {"id": "e3", "price": null, "attr.source": "named like a column"}]),
        ),
        (
            "SELECT id, attr('order') AS v FROM events WHERE attr('order') IS NOT NULL ORDER BY id",
            json!([{"id": "e0", "v": "7"}, {"id": "e2", "v": "seven"}, {"id": "e3", "v": "8"}]),
        ),
        (
            "SELECT attr('a b') AS x, attr('raw') AS y, attr('never') AS z FROM events WHERE id = 'e3'",
            json!([{"x": "true", "y": "AQI=", "z": null}]),
        ),
        (
            "SELECT attr('tags') AS t, attr('price') AS p FROM events e WHERE e.id = 'e2'",
            json!([{"t": "[1,\"x\"]", "p": "1.5"}]),
        ),
        (
            "SELECT v, count(*) AS n FROM (SELECT attr('source') AS v FROM events) GROUP BY v ORDER BY n",
            json!([{"v": "named like a column", "n": 1}, {"v": null, "n": 4}]),
        ),
        (
            "SELECT avg(severity_number) AS d, min(time) AS t FROM events",
            json!([{"d": 15.6, "t": "2026-01-02T03:04:05Z"}]),
        ),
        ("SELECT id FROM events ORDER BY attr('order') DESC NULLS LAST LIMIT 1", json!([{"id": "e2"}])),
    ] {
        let reply = fixture.sql(sql).await.unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
        assert_eq!(reply["rows"], expected, "{sql}");
        assert_eq!(reply["row_count"], expected.as_array().unwrap().len(), "{sql}");
        assert_eq!(reply["truncated"], false, "{sql}");
    }
    let reply = fixture.sql("SELECT id, time_ns, price, time FROM events LIMIT 1").await.unwrap();
    assert_eq!(
        reply["columns"],
        json!([{"name": "id", "type": "text"}, {"name": "time_ns", "type": "int"},
               {"name": "price", "type": "double"}, {"name": "time", "type": "timestamp"}])
    );
}

#[tokio::test]
async fn sql_refuses_what_it_should() {
    let fixture = shop().await;
    for (sql, status) in [
        ("SELECT nope FROM events", 400),
        ("SELECT nope(1)", 400),
        ("SELECT attr(id) FROM events", 400),
        ("SELECT attr('x', 'y') FROM events", 400),
        ("SELECT $1", 400),
        ("SELECT CAST(id AS BIGINT) FROM events", 400),
        ("SELECT 1/0", 400),
        ("SELECT 1; SELECT 2", 400),
        ("SELECT * FROM '/etc/passwd'", 400),
        ("EXPLAIN SELECT 1", 400),
    ] {
        let refusal = fixture.sql(sql).await.unwrap_err();
        assert_eq!(refusal.status, status, "{sql}: {refusal:?}");
    }
    for body in ["", "{}", "[]", "{\"query\":1}", "{\"query\":\"SELECT 1\",\"more\":1}", "SELECT 1"] {
        let mut request = fixture::request(Endpoint::Sql);
        request.body = body.as_bytes().to_vec().into();
        assert_eq!(fixture.ask_as("a", &[Role::Admin], request).await.unwrap_err().status, 400, "{body}");
    }
    let long = format!("SELECT '{}'", "x".repeat(10 << 20));
    assert_eq!(fixture.sql(&long).await.unwrap_err().status, 413);
}

#[tokio::test]
async fn long_results_are_cut_or_streamed() {
    let mut fixture = Fixture::new();
    let many = |draft: &mut Draft| {
        for at in 0..12_000 {
            row(draft, T0 + at, "s", |_| {});
        }
    };
    fixture.table("a", "events", Kind::Events, &[(Sealed::Yes, &many), (Sealed::No, &many)]).await;
    let reply = fixture.sql("SELECT seq FROM events").await.unwrap();
    assert_eq!((reply["row_count"].as_u64(), reply["truncated"].as_bool()), (Some(10_000), Some(true)));
    let ask = |accept: &'static str| {
        let request = sql_request("SELECT seq FROM events ORDER BY seq", Some(accept));
        fixture.ask_as("a", &[Role::Analyst], request)
    };
    let lines = streamed(ask("application/x-ndjson").await.unwrap()).await;
    assert_eq!(lines.split(|byte| *byte == b'\n').count(), 24_001);
    assert!(lines.starts_with(b"{\"seq\":0}\n{\"seq\":1}\n"));
    let lines = streamed(ask("text/csv").await.unwrap()).await;
    assert_eq!(lines.split(|byte| *byte == b'\n').count(), 24_002);
    let stream = streamed(ask("application/vnd.apache.arrow.stream").await.unwrap()).await;
    let rows: usize = arrow::ipc::reader::StreamReader::try_new(&stream[..], None)
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 24_000);
}

// Q7: memory and products are bounded, and the pool is empty afterwards.
#[tokio::test]
async fn queries_past_their_bounds_say_so() {
    let mut fixture = Fixture::new();
    let many = |draft: &mut Draft| {
        for at in 0..20_000 {
            row(draft, T0 + at, "s", |d| d.set_text(Field::Message, &format!("{at:0>200}")));
        }
    };
    fixture.table("a", "events", Kind::Events, &[(Sealed::Yes, &many), (Sealed::No, &many)]).await;
    fixture.options.memory_bytes = 1 << 20;
    for sql in [
        "SELECT message, row_number() OVER (ORDER BY message) AS n FROM events",
        "SELECT message, count(*) FROM events GROUP BY message ORDER BY 2",
        "SELECT count(*) FROM events a, events b, events c, events d",
        "SELECT count(*) FROM events a CROSS JOIN events b CROSS JOIN events c WHERE a.seq + b.seq > c.seq",
    ] {
        let refusal = fixture.sql(sql).await.unwrap_err();
        assert_eq!((refusal.status, refusal.code), (422, "query_limit"), "{sql}: {}", refusal.detail);
    }
}

// F40: bytes that are not what was written end one query, by name.
#[tokio::test]
async fn corrupt_objects_are_named() {
    use object_store::{ObjectStoreExt, PutPayload, path::Path};
    let fixture = shop().await;
    let path = Path::parse("tenant/a/events/date=2026-01-02/0001.parquet").unwrap();
    let good = fixture.store.get(&path).await.unwrap().bytes().await.unwrap();
    let mut failed = 0;
    for at in (0..good.len()).step_by(good.len() / 60) {
        let mut bad = good.to_vec();
        for byte in bad.iter_mut().skip(at).take(8) {
            *byte ^= 0xa5;
        }
        fixture.store.put(&path, PutPayload::from(bad)).await.unwrap();
        if let Err(refusal) = fixture.get(Endpoint::Events, "", "").await {
            assert!(matches!(refusal.status, 500 | 422), "{at}: {refusal:?}");
            if refusal.code == "corrupt_object" {
                assert!(refusal.detail.contains("events/date=2026-01-02/0001.parquet"), "{refusal:?}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0);
    fixture.store.delete(&path).await.unwrap();
    let refusal = fixture.get(Endpoint::Events, "", "").await.unwrap_err();
    assert_eq!((refusal.status, refusal.code), (500, "corrupt_object"));
    // What does not need the file still answers.
    let reply = fixture.get(Endpoint::Events, "", "source=shop").await.unwrap();
    assert_eq!(ids(&reply, "events", "id"), ["e4", "e1", "e0"]);
}

async fn traced() -> Fixture {
    let mut fixture = Fixture::new();
    let first = |draft: &mut Draft| {
        span(draft, T0, "web", (1, 1, 0), 100, false);
        span(draft, T0 + 50, "db", (1, 3, 2), 500, true);
    };
    let second = |draft: &mut Draft| {
        span(draft, T0 + 10, "web", (1, 2, 1), 20, false);
        span(draft, T0 + 1_000, "web", (2, 5, 4), 7, false);
    };
    let third = |draft: &mut Draft| {
        span(draft, T0 + 2_000, "job", (3, 6, 0), 7, false);
        row(draft, T0 + 2_001, "job", |d| {
            d.set_text(Field::TraceId, &format!("{:032x}", 3));
            d.set_text(Field::SpanId, &format!("{:016x}", 7));
            d.set_text(Field::ParentSpanId, &format!("{:016x}", 6));
            d.set_text(Field::Name, "work");
            d.set_text(Field::SpanKind, "client");
            d.set_int(Field::DurationNs, 3);
            d.set_text(Field::StatusCode, "error");
            d.set_text(Field::StatusMessage, "no");
            d.set_text(Field::CorrelationId, "c-1");
            d.set_text(Field::Resource, r#"{"service.name":"job"}"#);
            d.set_text(Field::ScopeName, "lib");
            d.set_text(
                Field::Events,
                r#"[{"time":"2026-01-02T03:04:05.000000000Z","name":"x","attributes":{}}]"#,
            );
            d.set_int(Field::Flags, 257);
            d.set_int(Field::DroppedLinks, 2);
            let _ = d.attribute("kind", Value::Text("mine"));
            let _ = d.attribute("http.status", Value::Int(500));
        });
    };
    fixture
        .table(
            "a",
            "spans",
            Kind::Spans,
            &[(Sealed::Yes, &first), (Sealed::Yes, &second), (Sealed::No, &third)],
        )
        .await;
    fixture
}

#[tokio::test]
async fn a_trace_is_found_whole() {
    let fixture = traced().await;
    let id = format!("{:032X}", 1);
    let reply = fixture.get(Endpoint::Trace, &id, "").await.unwrap();
    assert_eq!(reply["trace_id"], format!("{:032x}", 1));
    assert_eq!((reply["complete"].as_bool(), reply["span_count"].as_u64()), (Some(true), Some(3)));
    assert_eq!(ids(&reply, "spans", "name"), ["op-1", "op-2", "op-3"]);
    assert_eq!(reply["spans"][0]["parent_span_id"], Json::Null);
    let reply = fixture.get(Endpoint::Trace, &format!("{:032x}", 2), "").await.unwrap();
    assert_eq!(reply["complete"], false);
    let reply = fixture.get(Endpoint::Trace, &format!("{:032x}", 3), "").await.unwrap();
    assert_eq!(
        reply["spans"][1],
        json!({
            "trace_id": format!("{:032x}", 3), "span_id": "0000000000000007", "parent_span_id": "0000000000000006",
            "name": "work", "source": "job", "kind": "client",
            "start_time": "2026-01-02T03:04:05.000002001Z", "end_time": "2026-01-02T03:04:05.000002004Z",
            "duration_ns": 3, "status": {"code": "error", "message": "no"}, "correlation_id": "c-1",
            "attributes": {"kind": "mine", "http.status": 500},
            "events": [{"time": "2026-01-02T03:04:05.000000000Z", "name": "x", "attributes": {}}], "links": [],
            "resource": {"attributes": {"service.name": "job"}},
            "scope": {"name": "lib", "version": null, "attributes": {}},
            "flags": 257, "trace_state": null, "dropped_links_count": 2
        })
    );
    for absent in [format!("{:032x}", 9), "xyz".into(), "1".into(), String::new()] {
        let refusal = fixture.get(Endpoint::Trace, &absent, "").await.unwrap_err();
        assert_eq!((refusal.status, refusal.code), (404, "trace_not_found"), "{absent}");
    }
}

#[tokio::test]
async fn traces_are_listed_newest_first() {
    let fixture = traced().await;
    let reply = fixture.get(Endpoint::Traces, "", "").await.unwrap();
    let id = |n: u128| format!("{n:032x}");
    assert_eq!(ids(&reply, "traces", "trace_id"), [id(3), id(2), id(1)]);
    assert_eq!(
        reply["traces"][2],
        json!({"trace_id": id(1), "root_source": "web", "root_name": "op-1",
               "start_time": "2026-01-02T03:04:05.000000000Z", "duration_ns": 550,
               "span_count": 3, "error_count": 1, "complete": true})
    );
    assert_eq!(reply["traces"][1]["root_source"], Json::Null);
    for (query, expected) in [
        ("source=db", vec![id(1)]),
        ("event_type=work", vec![id(3)]),
        ("attr.http.status=500", vec![id(3)]),
        ("source=web&order=asc", vec![id(1), id(2)]),
        ("source=none", vec![]),
    ] {
        let reply = fixture.get(Endpoint::Traces, "", query).await.unwrap();
        assert_eq!(ids(&reply, "traces", "trace_id"), expected, "{query}");
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let reply = fixture.get(Endpoint::Traces, "", &format!("limit=1{cursor}")).await.unwrap();
        seen.extend(ids(&reply, "traces", "trace_id"));
        match reply["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [id(3), id(2), id(1)]);
}

#[tokio::test]
async fn one_correlation_gathers_every_kind() {
    let mut fixture = traced().await;
    fixture
        .snapshots
        .extend(shop().await.snapshots.into_iter().filter(|one| one.table.tenant.as_str() == "b"));
    let logs = |draft: &mut Draft| {
        row(draft, T0, "web", |d| {
            d.set_text(Field::CorrelationId, "c-1");
            d.set_text(Field::Body, "12");
            d.set_text(Field::BodyType, "int");
        });
        row(draft, T0, "web", |d| {
            d.set_text(Field::CorrelationId, "c-1");
            d.set_text(Field::Body, "12");
        });
    };
    let audit = |draft: &mut Draft| {
        row(draft, T0, "web", |d| {
            d.set_text(Field::Id, "a1");
            d.set_text(Field::CorrelationId, "c-1");
            d.set_text(Field::ActorId, "eve");
            d.set_text(Field::After, r#"{"x":1}"#);
            d.set_double(Field::Confidence, 1.0);
        });
    };
    fixture.table("a", "logs", Kind::Logs, &[(Sealed::Yes, &logs)]).await;
    fixture.table("a", "audit", Kind::Audit, &[(Sealed::No, &audit)]).await;
    let reply = fixture.get(Endpoint::Correlation, "c-1", "").await.unwrap();
    assert_eq!(reply["correlation_id"], "c-1");
    assert_eq!(reply["events"], json!([]));
    assert_eq!(reply["spans"][0]["name"], "work");
    assert_eq!(reply["logs"][0]["body"], 12);
    assert_eq!(reply["logs"][1]["body"], "12");
    assert_eq!(reply["audit"][0]["after"], json!({"x": 1}));
    let reply = fixture.get(Endpoint::AuditTraces, "", "user=eve").await.unwrap();
    assert_eq!(ids(&reply, "traces", "id"), ["a1"]);
    let reply = fixture.get(Endpoint::AuditTraces, "", "user=bob").await.unwrap();
    assert_eq!(reply, json!({"traces": [], "next_cursor": null}));
    let reply = fixture.get(Endpoint::Services, "", "").await.unwrap();
    assert_eq!(ids(&reply, "services", "source"), ["db", "job", "web"]);
    assert_eq!(reply["services"][2]["span_count"], 3);
    assert_eq!(reply["services"][2]["log_count"], 2);
    let reply = fixture.get(Endpoint::Services, "", "limit=1").await.unwrap();
    let next = reply["next_cursor"].as_str().unwrap();
    let reply = fixture.get(Endpoint::Services, "", &format!("limit=1&cursor={next}")).await.unwrap();
    assert_eq!(ids(&reply, "services", "source"), ["job"]);
}

fn measured(windows: &[(i64, std::ops::Range<i64>)]) -> Measurement {
    let mut recorder = Recorder::default();
    for (window, durations) in windows {
        for micros in durations.clone() {
            recorder.record("web", "GET /", micros % 10 == 0, window * WINDOW_NS, micros * 1_000);
        }
    }
    recorder.take()
}

// F32: what is stored and what is hot merge into the exact percentiles, within 0.1 %.
#[tokio::test]
async fn latency_merges_stored_and_hot() {
    let mut fixture = Fixture::new();
    let stored = |draft: &mut Draft| {
        for series in measured(&[(10, 1..4_001), (11, 4_001..6_001)]).series {
            let mut full = storage::latency::new_histogram();
            for (value, count) in &series.buckets {
                full.record_n(*value, u64::from(*count)).unwrap();
            }
            let mut bytes = Vec::new();
            let mut serializer = hdrhistogram::serialization::V2DeflateSerializer::new();
            hdrhistogram::serialization::Serializer::serialize(&mut serializer, &full, &mut bytes).unwrap();
            let count = i64::try_from(full.len()).unwrap();
            row(draft, series.window_start_ns, &series.source, |d| {
                d.set_text(Field::SourceDataset, "spans");
                d.set_text(Field::Operation, &series.operation);
                d.set_text(Field::Outcome, if series.is_error { "error" } else { "ok" });
                d.set_int(Field::WindowNs, WINDOW_NS);
                d.set_int(Field::Count, count);
                d.set_int(Field::ErrorCount, if series.is_error { count } else { 0 });
                d.set_bytes(Field::Histogram, &bytes);
            });
        }
    };
    fixture.table("a", "latency", Kind::Latency, &[(Sealed::Yes, &stored)]).await;
    fixture.hot_latency.push(measured(&[(11, 6_001..10_001)]).into());
    let near = |value: &Json, expected: f64| {
        let value = value.as_f64().unwrap();
        assert!((value - expected).abs() / expected <= 0.001, "{value} {expected}");
    };
    let reply = fixture.get(Endpoint::Latency, "", "q=0.5,0.95,0.99,1&step=1m").await.unwrap();
    assert_eq!((&reply["from"], &reply["to"]), (&Json::Null, &Json::Null));
    let series = &reply["series"][0];
    assert_eq!((series["source"].as_str(), series["operation"].as_str()), (Some("web"), Some("GET /")));
    assert_eq!((series["count"].as_u64(), series["error_count"].as_u64()), (Some(10_000), Some(1_000)));
    near(&series["quantiles"]["0.5"], 5_000e3);
    near(&series["quantiles"]["0.95"], 9_500e3);
    near(&series["quantiles"]["0.99"], 9_900e3);
    near(&series["quantiles"]["1"], 10_000e3);
    near(&series["max_ns"], 10_000e3);
    assert_eq!(series["points"].as_array().unwrap().len(), 2);
    assert_eq!(series["points"][0]["time"], "1970-01-01T00:10:00.000000000Z");
    assert_eq!(series["points"][1]["count"], 6_000);
    near(&series["points"][0]["quantiles"]["0.5"], 2_000e3);
    let reply = fixture.get(Endpoint::Latency, "", "from=610&to=660").await.unwrap();
    assert_eq!(
        (&reply["from"], &reply["series"][0]["count"]),
        (&json!("1970-01-01T00:10:00Z"), &json!(4_000))
    );
    assert!(reply["series"][0].get("points").is_none());
    for none in ["source=db", "operation=x", "from=720", "dataset=events"] {
        let reply = fixture.get(Endpoint::Latency, "", none).await.unwrap();
        assert_eq!(reply["series"], json!([]), "{none}");
    }
}

// Q6: the longest chain that the guard lets through is planned and run on a query thread's stack.
#[test]
fn the_longest_chains_do_not_overflow_the_stack() {
    let run = std::thread::Builder::new().stack_size(64 << 20).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new();
            for sql in [
                format!("SELECT 1{} AS n", "+1".repeat(999)),
                format!("SELECT id FROM events WHERE id = 'a'{}", " OR id || 'b' = 'a'".repeat(300)),
                format!("SELECT id FROM events WHERE id IN ('a'{})", ",'b'".repeat(9_999)),
                format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(60)),
                format!("SELECT {}1{}", "(".repeat(30), ")".repeat(30)),
            ] {
                let reply = fixture.sql(&sql).await;
                assert!(reply.is_ok(), "{}: {reply:?}", &sql[..60]);
            }
        });
    });
    run.unwrap().join().unwrap();
}

#[tokio::test]
async fn an_abandoned_query_gives_its_memory_back() {
    let mut fixture = Fixture::new();
    let many = |draft: &mut Draft| {
        for at in 0..20_000 {
            row(draft, T0 + at, "s", |_| {});
        }
    };
    fixture.table("a", "events", Kind::Events, &[(Sealed::No, &many)]).await;
    let sessions = std::sync::Arc::new(Sessions::new(64 << 20, 2));
    let sql = "SELECT count(*) FROM events a JOIN events b ON a.seq + b.seq > 5";
    let tenant = storage::record::Tenant::parse("a").unwrap();
    let latency = storage::reader::LatencySnapshot { stored: None, hot: Vec::new() };
    let view = crate::view::View::new(
        tenant,
        storage::Roles::of(&[Role::Analyst]),
        fixture.store.clone(),
        fixture.snapshots.clone(),
        latency,
    );
    let request = sql_request(sql, None);
    let work = crate::query::answer_view(&view, &request, &sessions, &fixture.options);
    let answer = tokio::time::timeout(Duration::from_millis(300), work).await;
    assert!(answer.is_err(), "{answer:?}");
    for _ in 0..1_000 {
        if sessions.reserved_bytes() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{} bytes are still reserved", sessions.reserved_bytes());
}

// A trace is looked up by bloom filters: the condition stands in the Parquet scan, and files outside of the time
// asked for are not opened.
#[tokio::test]
async fn conditions_reach_the_files() {
    use datafusion::logical_expr::{col, lit};
    let fixture = traced().await;
    let sessions = Sessions::new(64 << 20, 1);
    let session =
        sessions.open(&storage::record::Tenant::parse("a").unwrap(), fixture.store.clone()).unwrap();
    let snapshot = std::sync::Arc::new(fixture.snapshots[0].clone());
    let condition = col("trace_id").eq(lit("x")).and(col("time_ns").gt_eq(lit(T0 + 60)));
    let plan =
        session.read(&snapshot).unwrap().filter(condition).unwrap().create_physical_plan().await.unwrap();
    let text = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
    assert!(text.contains("predicate=trace_id@"), "{text}");
    assert!(text.contains("0001.parquet") && !text.contains("0000.parquet"), "{text}");
}
