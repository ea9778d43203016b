//! Lists of events: filters, parameters, pages, tenants.

use super::*;

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
        (Endpoint::Trace, "order=asc", "order"),
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
