//! Reads over snapshots made by hand: Q1, T1, table Q.

mod bounds;
mod damage;
mod events;
mod latency;
mod sql;
mod traces;

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
