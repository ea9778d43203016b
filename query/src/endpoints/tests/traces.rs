//! Traces, whole and listed, and what one correlation gathers.

use super::*;

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
    let mut asked = fixture::request(Endpoint::Correlation);
    asked.path_id = Some("c-1".into());
    let reply = fixture::json(fixture.ask_as("a", &[Role::Auditor], asked).await.unwrap());
    assert_eq!(reply["correlation_id"], "c-1");
    assert_eq!(reply["events"], json!([]));
    assert_eq!(reply["spans"][0]["name"], "work");
    assert_eq!(reply["logs"][0]["body"], 12);
    assert_eq!(reply["logs"][1]["body"], "12");
    assert_eq!(reply["audit"][0]["after"], json!({"x": 1}));
    let reply = audit_of(&fixture, "user=eve").await;
    assert_eq!(ids(&reply, "traces", "id"), ["a1"]);
    let reply = audit_of(&fixture, "user=bob").await;
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

async fn audit_of(fixture: &Fixture, query: &str) -> Json {
    let mut asked = fixture::request(Endpoint::AuditTraces);
    asked.query = Some(query.into());
    fixture::json(fixture.ask_as("a", &[Role::Auditor], asked).await.unwrap())
}
