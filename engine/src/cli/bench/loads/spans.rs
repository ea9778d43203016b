//! S: spans of services that call each other, as a collector sends them: a group for each service.

use super::{Text as _, log_normal, skewed, skewed_of};
use crate::cli::demo::random::{Random, mix};
use crate::client::otlp::{self, Attributes, Span, Value};
use crate::client::protobuf::Writer;

const SERVICES: [&str; 20] = [
    "checkout",
    "frontend",
    "payments",
    "shipping",
    "catalog",
    "currency",
    "identity",
    "search",
    "billing",
    "orders",
    "invoices",
    "inventory",
    "pricing",
    "reviews",
    "sessions",
    "profiles",
    "uploads",
    "webhooks",
    "reports",
    "exports",
];
const ROUTES: [&str; 12] = [
    "/orders/{id}",
    "/carts/{id}",
    "/products/{id}",
    "/search/{id}",
    "/payments/{id}",
    "/stock/{id}",
    "/prices/{id}",
    "/reviews/{id}",
    "/sessions/{id}",
    "/profiles/{id}",
    "/uploads/{id}",
    "/reports/{id}",
];
const TABLES: [&str; 6] = ["orders", "carts", "products", "payments", "stock", "sessions"];
const OPERATIONS: [&str; 4] = ["SELECT", "UPDATE", "INSERT", "DELETE"];
const AGENTS: [&str; 3] = [
    "okhttp/4.12.0 (linux; android 14)",
    "Go-http-client/2.0 (linux/amd64)",
    "python-requests/2.32 CPython/3.11",
];

pub const SPANS_PER_TRACE: u64 = 20;
const SERVICES_PER_TRACE: usize = 5;
const TRACE_NS: u64 = 20_000_000;
const JITTER_NS: u64 = 10_000_000;
/// Of the logarithm of a root's duration in nanoseconds: its mean and deviation.
const ROOT: (f64, f64) = (17.5, 0.8);

/// One request of `batch` spans, the first of them number `first` of the load.
pub fn request(first: u64, batch: u64, from_ns: u64, random: &mut Random) -> Vec<u8> {
    let mut groups: Vec<Vec<Span>> = SERVICES.iter().map(|_| Vec::new()).collect();
    let mut done = 0;
    while done < batch {
        let number = (first + done) / SPANS_PER_TRACE;
        let count = SPANS_PER_TRACE.min(batch - done);
        let start_ns = from_ns + number * TRACE_NS + random.below(JITTER_NS + 1);
        trace(&mut groups, count, start_ns, random);
        done += count;
    }
    let mut request = Writer::new();
    for (service, spans) in groups.iter().enumerate().filter(|(_, spans)| !spans.is_empty()) {
        otlp::group(&mut request, &resource(service), "io.opentelemetry.load", |scope| {
            for span in spans {
                scope.message(otlp::RECORD, |message| otlp::span(message, span));
            }
        });
    }
    request.into_bytes()
}

/// One trace: each span but the first has one before it as its parent, and lies within it to the nanosecond.
fn trace(groups: &mut [Vec<Span>], count: u64, start_ns: u64, random: &mut Random) {
    let services: [usize; SERVICES_PER_TRACE] =
        std::array::from_fn(|_| random.below(SERVICES.len() as u64) as usize);
    let trace_id = [random.bits().to_be_bytes(), random.bits().to_be_bytes()].concat();
    let trace_id: [u8; 16] = trace_id.try_into().expect("twice eight bytes");
    let mut lives: Vec<([u8; 8], u64, u64)> = Vec::with_capacity(count as usize);
    for index in 0..count {
        let span_id = random.bits().to_be_bytes();
        let (parent, start_ns, end_ns) = if index == 0 {
            let duration_ns = log_normal(random, ROOT.0, ROOT.1) as u64;
            (None, start_ns, start_ns + duration_ns)
        } else {
            let (parent, parent_start_ns, parent_end_ns) = lives[random.below(index) as usize];
            let start_ns = parent_start_ns + random.below((parent_end_ns - parent_start_ns) / 2 + 1);
            (Some(parent), start_ns, start_ns + random.below(parent_end_ns - start_ns + 1))
        };
        lives.push((span_id, start_ns, end_ns));
        let service = services[if index == 0 { 0 } else { random.below(5) as usize }];
        let is_database = index > 0 && random.chance(0.5);
        let (name, kind, mut attributes) =
            if is_database { database(random) } else { http(index == 0, random) };
        attributes.extend(common(service, random));
        let error = random.chance(0.02).then(|| "upstream timed out".to_owned());
        let (events, parent_span_id) = (Vec::new(), parent);
        let span = Span {
            trace_id,
            span_id,
            parent_span_id,
            name,
            kind,
            start_ns,
            end_ns,
            attributes,
            events,
            error,
        };
        groups[service].push(span);
    }
}

fn http(is_root: bool, random: &mut Random) -> (String, u8, Attributes) {
    let route = skewed_of(random, &ROUTES);
    let method = if random.chance(0.3) { "POST" } else { "GET" };
    let status = if random.chance(0.9) { 200 } else { *random.pick(&[201, 404, 401, 429, 500]) };
    let mut path = route.trim_end_matches("{id}").as_bytes().to_vec();
    path.number(random.below(10_000_000));
    let attributes = vec![
        ("http.request.method", method.into()),
        ("http.route", route.into()),
        ("url.path", String::from_utf8_lossy(&path).into_owned().into()),
        ("http.response.status_code", Value::Int(status)),
        ("user_agent.original", (*random.pick(&AGENTS)).into()),
    ];
    (format!("{method} {route}"), if is_root { 2 } else { 3 }, attributes)
}

fn database(random: &mut Random) -> (String, u8, Attributes) {
    let (table, operation) = (skewed_of(random, &TABLES), skewed_of(random, &OPERATIONS));
    let attributes = vec![
        ("db.system", "postgresql".into()),
        ("db.name", "shop".into()),
        ("db.operation", operation.into()),
        ("db.statement", format!("{operation} {table} WHERE id = $1 AND tenant = $2").into()),
        ("db.rows", Value::Int(skewed(random, 1_000).cast_signed())),
    ];
    (format!("{operation} {table}"), 3, attributes)
}

fn common(service: usize, random: &mut Random) -> Attributes {
    vec![
        ("server.address", format!("{}.shop.svc.cluster.local", SERVICES[service]).into()),
        ("server.port", Value::Int(8_080)),
        ("user.id", format!("u{}", skewed(random, 200_000)).into()),
        ("tenant.id", format!("tenant-{}", skewed(random, 100)).into()),
        ("thread.id", Value::Int(random.below(64).cast_signed())),
    ]
}

/// Seven attributes, the same for a service as long as it runs.
fn resource(service: usize) -> Attributes {
    let name = SERVICES[service];
    let pod = mix(service as u64);
    vec![
        ("service.name", name.into()),
        ("service.version", format!("2.{}.{}", pod % 20, pod % 7).into()),
        ("service.instance.id", format!("{name}-{:08x}", pod as u32).into()),
        ("deployment.environment", "production".into()),
        ("host.name", format!("node-{}", pod % 50).into()),
        ("cloud.region", "eu-central-1".into()),
        ("telemetry.sdk.language", "go".into()),
    ]
}
