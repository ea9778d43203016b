//! A shop that is not real: makes what its services would have told within a stretch of time.
//!
//! Latencies breathe over ten minutes, and in each ten there are ninety seconds in which payment is slow
//! and fails, so that percentiles, errors and burn rates have something to show. Logs and events carry
//! made-up addresses and cards on purpose: what is read back must not.

use std::collections::BTreeMap;

use serde_json::json;

use super::journeys::{COUNTRIES, CUSTOMERS, JOURNEYS, PRODUCTS, Step};
use super::random::Random;
use crate::client::otlp::{self, Attributes, LogRecord, Span, Value};
use crate::client::protobuf::Writer;

/// What was told within a stretch of time, as request bodies.
#[derive(Debug, Default)]
pub struct Told {
    /// OTLP export request of traces, protobuf.
    pub traces: Vec<u8>,
    /// OTLP export request of logs, protobuf; empty if there are none.
    pub logs: Vec<u8>,
    /// Events, NDJSON; empty if there are none.
    pub events: String,
    /// Audit records, NDJSON; empty if there are none.
    pub audit: String,
}

/// The shop's state between stretches.
#[derive(Debug)]
pub struct Shop {
    random: Random,
    orders: u64,
}

/// Journeys begun in a second.
const JOURNEYS_PER_SECOND: f64 = 4.0;
/// Mean seconds between audit records.
const AUDIT_SECONDS: f64 = 12.0;
/// One swell of the load, and how much of its end is the incident.
const SWELL_SECONDS: f64 = 600.0;
const INCIDENT_SECONDS: f64 = 90.0;

/// What one stretch gathers before it is written.
#[derive(Default)]
struct Gathered {
    spans: BTreeMap<&'static str, Vec<Span>>,
    logs: BTreeMap<&'static str, Vec<LogRecord>>,
    events: Vec<serde_json::Value>,
    audit: Vec<serde_json::Value>,
}

impl Shop {
    /// Opens a shop whose life is told by `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), orders: 1000 + seed % 9000 }
    }

    /// Makes what was told from `from_ns` up to `to_ns`, nanoseconds since 1970 UTC.
    pub fn live(&mut self, from_ns: u64, to_ns: u64) -> Told {
        let mut gathered = Gathered::default();
        let stretch_ns = to_ns.saturating_sub(from_ns).max(1);
        let seconds = stretch_ns as f64 / 1e9;
        for _ in 0..self.count(JOURNEYS_PER_SECOND * seconds) {
            let start_ns = from_ns + self.random.below(stretch_ns);
            self.journey(start_ns, &mut gathered);
        }
        for _ in 0..self.count(seconds / AUDIT_SECONDS) {
            let time_ns = from_ns + self.random.below(stretch_ns);
            gathered.audit.push(self.audit(time_ns));
        }
        write(&gathered)
    }

    /// Returns a whole number whose mean is `mean`.
    fn count(&mut self, mean: f64) -> u64 {
        mean as u64 + u64::from(self.random.chance(mean.fract()))
    }

    fn journey(&mut self, start_ns: u64, gathered: &mut Gathered) {
        let mut at = self.random.below(100);
        let mut journey = &JOURNEYS[0].1;
        for (share, step) in JOURNEYS {
            journey = step;
            if at < *share {
                break;
            }
            at -= share;
        }
        let trace_id = self.random.trace_id();
        let root = self.call(journey, trace_id, None, start_ns, gathered);
        let (customer, card) = *self.random.pick(CUSTOMERS);
        let (product, price_cents) = *self.random.pick(PRODUCTS);
        let trace = hex::encode(trace_id);
        let is_checkout = journey.name == "POST /checkout";
        if is_checkout {
            self.orders += 1;
            let body = if root.failed {
                format!("order {} of {customer} failed, card {card}", self.orders)
            } else {
                format!("order {} confirmed for {customer}, card {card}", self.orders)
            };
            gathered.logs.entry("checkout").or_default().push(LogRecord {
                time_ns: root.end_ns,
                severity_number: if root.failed { 17 } else { 9 },
                severity_text: if root.failed { "ERROR" } else { "INFO" },
                body,
                attributes: vec![
                    ("order.id", Value::Int(self.orders.cast_signed())),
                    ("product", product.into()),
                ],
                trace: Some((trace_id, root.span_id)),
            });
        }
        if is_checkout || self.random.chance(0.3) {
            let event_type = match (is_checkout, root.failed) {
                (true, false) => "order_placed",
                (true, true) => "order_failed",
                (false, _) => "page_view",
            };
            gathered.events.push(json!({
                "time": time_text(root.end_ns),
                "source": "frontend",
                "event_type": event_type,
                "severity": if root.failed { "error" } else { "info" },
                "message": format!("{event_type} by {customer}"),
                "correlation_id": format!("order-{}", self.orders),
                "trace_id": trace,
                "duration_ns": root.end_ns - start_ns,
                "payload": {
                    "product": product,
                    "price_cents": price_cents,
                    "customer": {"email": customer, "country": *self.random.pick(COUNTRIES)},
                    "basket": [product],
                    "first_visit": self.random.chance(0.2),
                },
            }));
        }
    }

    /// Makes the server span of `step` and the client and server spans below it.
    fn call(
        &mut self,
        step: &Step,
        trace_id: [u8; 16],
        parent: Option<[u8; 8]>,
        start_ns: u64,
        gathered: &mut Gathered,
    ) -> Called {
        let span_id = self.random.span_id();
        let seconds = start_ns as f64 / 1e9;
        let phase = seconds.rem_euclid(SWELL_SECONDS);
        let incident = step.service == "payment" && phase > SWELL_SECONDS - INCIDENT_SECONDS;
        let swell = 1.0 + 0.4 * (phase / SWELL_SECONDS * std::f64::consts::TAU).sin();
        let slowness = if incident { 6.0 } else { 1.0 };
        let work_ns = self.random.latency_ns(step.mean_ms * 1e6 * swell * slowness);
        let failure = if incident { 0.25 } else { step.failure };
        let mut error = self.random.chance(failure).then(|| failure_of(step.service).to_owned());

        let mut now_ns = start_ns + work_ns / 2;
        for call in step.calls {
            let client_id = self.random.span_id();
            let wire_ns = self.random.latency_ns(150_000.0);
            let called = self.call(call, trace_id, Some(client_id), now_ns + wire_ns, gathered);
            let end_ns = called.end_ns + wire_ns;
            gathered.spans.entry(step.service).or_default().push(Span {
                trace_id,
                span_id: client_id,
                parent_span_id: Some(span_id),
                name: call.name.to_owned(),
                kind: 3,
                start_ns: now_ns,
                end_ns,
                attributes: vec![
                    ("peer.service", call.service.into()),
                    (system_key(call.system), call.system.into()),
                ],
                events: Vec::new(),
                error: called.failed.then(|| format!("{} failed", call.service)),
            });
            now_ns = end_ns;
            if called.failed && call.service != "recommendation" && call.service != "email" {
                // Nobody misses a recommendation; for anything else the rest makes no sense.
                error = Some(format!("{} failed", call.service));
                break;
            }
        }
        let end_ns = now_ns + work_ns - work_ns / 2;
        let failed = error.is_some();
        if let (true, Some(message)) = (step.calls.is_empty() || incident, &error) {
            gathered.logs.entry(step.service).or_default().push(LogRecord {
                time_ns: end_ns,
                severity_number: 17,
                severity_text: "ERROR",
                body: format!("{}: {message}", step.name),
                attributes: vec![("incident", Value::Bool(incident))],
                trace: Some((trace_id, span_id)),
            });
        }
        let attributes = self.attributes(step, failed);
        let events = if failed {
            vec![(end_ns, "exception", vec![("exception.type", "ShopError".into())])]
        } else {
            Vec::new()
        };
        gathered.spans.entry(step.service).or_default().push(Span {
            trace_id,
            span_id,
            parent_span_id: parent,
            name: step.name.to_owned(),
            kind: 2,
            start_ns,
            end_ns,
            attributes,
            events,
            error,
        });
        Called { span_id, end_ns, failed }
    }

    fn attributes(&mut self, step: &Step, failed: bool) -> Attributes {
        match step.system {
            "http" => vec![
                ("http.request.method", step.name.split(' ').next().unwrap_or("GET").into()),
                ("http.response.status_code", Value::Int(if failed { 500 } else { 200 })),
                ("client.address", format!("203.0.113.{}", self.random.below(255)).into()),
                ("user.email", self.random.pick(CUSTOMERS).0.into()),
            ],
            "db" => vec![
                (
                    "db.system.name",
                    if step.service.ends_with("cache") { "redis" } else { "postgresql" }.into(),
                ),
                ("db.operation.name", step.name.into()),
                ("db.rows", Value::Int(self.random.below(40).cast_signed())),
            ],
            _ => vec![
                ("rpc.system", "grpc".into()),
                ("rpc.grpc.status_code", Value::Int(if failed { 13 } else { 0 })),
                ("shop.load", Value::Double((self.random.unit() * 100.0).round() / 100.0)),
            ],
        }
    }

    fn audit(&mut self, time_ns: u64) -> serde_json::Value {
        let (product, price_cents) = *self.random.pick(PRODUCTS);
        let decision_id = hex::encode(self.random.span_id());
        let order = self.orders;
        let mut record = match self.random.below(3) {
            0 => json!({
                "source": "backoffice", "actor_type": "user", "actor_id": self.random.pick(CUSTOMERS).0,
                "action": "price.change", "resource_type": "product", "resource_id": product,
                "outcome": "allowed",
                "before": {"price_cents": price_cents}, "after": {"price_cents": price_cents + 100},
            }),
            1 => json!({
                "source": "payment", "actor_type": "service", "actor_id": "payment", "action": "order.refund",
                "resource_type": "order", "resource_id": order.to_string(), "outcome": "done",
                "reason": "duplicate charge",
            }),
            _ => {
                let held = self.random.chance(0.3);
                json!({
                    "source": "fraud", "actor_type": "ai", "actor_id": "fraud-model-7",
                    "action": if held { "order.hold" } else { "order.release" },
                    "resource_type": "order", "resource_id": order.to_string(),
                    "outcome": if held { "denied" } else { "allowed" },
                    "reason": if held { "many cards, one address" } else { "known customer, usual amount" },
                    "confidence": (0.6 + 0.4 * self.random.unit()) as f32,
                })
            }
        };
        record["time"] = json!(time_text(time_ns));
        record["decision_id"] = json!(format!("decision-{decision_id}"));
        record["correlation_id"] = json!(format!("order-{order}"));
        record
    }
}

/// How a call went.
struct Called {
    span_id: [u8; 8],
    end_ns: u64,
    failed: bool,
}

fn system_key(system: &str) -> &'static str {
    match system {
        "db" => "db.client",
        "http" => "http.client",
        _ => "rpc.client",
    }
}

fn failure_of(service: &str) -> &'static str {
    match service {
        "payment" | "bank" => "card declined by issuer",
        "catalog-db" | "cart-cache" => "connection reset",
        "shipping" => "no carrier for this address",
        _ => "deadline exceeded",
    }
}

fn time_text(time_ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time_ns))
        .map_or_else(|_| time_ns.to_string(), |time| time.to_string())
}

/// Writes what was gathered as request bodies, one resource group a service.
fn write(gathered: &Gathered) -> Told {
    let resource = |service: &'static str| -> Attributes {
        vec![
            ("service.name", service.into()),
            ("service.namespace", "shop".into()),
            ("service.version", "1.42.0".into()),
            ("deployment.environment.name", "demo".into()),
        ]
    };
    let mut traces = Writer::new();
    for (service, spans) in &gathered.spans {
        otlp::group(&mut traces, &resource(service), "shop", |scope| {
            for span in spans {
                scope.message(otlp::RECORD, |message| otlp::span(message, span));
            }
        });
    }
    let mut logs = Writer::new();
    for (service, records) in &gathered.logs {
        otlp::group(&mut logs, &resource(service), "shop", |scope| {
            for record in records {
                scope.message(otlp::RECORD, |message| otlp::log_record(message, record));
            }
        });
    }
    let lines = |records: &[serde_json::Value]| records.iter().map(|record| format!("{record}\n")).collect();
    Told {
        traces: traces.into_bytes(),
        logs: logs.into_bytes(),
        events: lines(&gathered.events),
        audit: lines(&gathered.audit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_NS: u64 = 1_767_225_600_000_000_000;

    fn ten_minutes() -> Told {
        Shop::new(7).live(START_NS, START_NS + 600_000_000_000)
    }

    #[test]
    fn the_rate_is_modest_and_the_bodies_are_whole() {
        let told = ten_minutes();
        let span_count = otlp::record_count(&told.traces).expect("own bytes");
        assert!((20_000..45_000).contains(&span_count), "{span_count} spans");
        assert!(otlp::record_count(&told.logs).is_some_and(|count| count > 100));
        for line in told.events.lines().chain(told.audit.lines()) {
            serde_json::from_str::<serde_json::Value>(line).expect("own JSON");
        }
    }

    #[test]
    fn every_ai_decision_has_a_reason_and_a_confidence() {
        let mut kinds = std::collections::BTreeSet::new();
        for line in ten_minutes().audit.lines() {
            let record: serde_json::Value = serde_json::from_str(line).expect("own JSON");
            let kind = record["actor_type"].as_str().expect("required").to_owned();
            if kind == "ai" {
                assert!(record["reason"].is_string());
                assert!((0.0..=1.0).contains(&record["confidence"].as_f64().expect("required")));
            }
            kinds.insert(kind);
        }
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["ai", "service", "user"]);
    }

    #[test]
    fn personal_data_is_planted() {
        let told = ten_minutes();
        assert!(told.events.contains("@example."));
        assert!(memchr::memmem::find(&told.logs, b"4111 1111 1111 1111").is_some());
        assert!(memchr::memmem::find(&told.traces, b"@example.").is_some());
    }

    #[test]
    fn the_same_seed_lives_the_same_life() {
        let (one, two) = (ten_minutes(), ten_minutes());
        assert_eq!(one.traces, two.traces);
        assert_eq!(one.events, two.events);
    }
}
