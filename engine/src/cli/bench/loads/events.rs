//! E: events of services, one JSON object a line; E0 is the same without an e-mail address in the message.

use super::{RECORD_NS, Text as _, log_normal, skewed, skewed_of};
use crate::cli::demo::random::Random;

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
const REGIONS: [&str; 4] = ["eu-central-1", "us-east-1", "us-west-2", "ap-south-1"];
const EVENTS: [&str; 12] = [
    "request.done",
    "order.created",
    "cart.updated",
    "payment.authorised",
    "session.started",
    "search.done",
    "invoice.sent",
    "stock.changed",
    "upload.stored",
    "report.made",
    "webhook.called",
    "export.done",
];
const ROUTES: [&str; 24] = [
    "/v1/orders",
    "/v1/orders/{id}",
    "/v1/carts/{id}",
    "/v1/carts/{id}/items",
    "/v1/search",
    "/v1/payments",
    "/v1/payments/{id}",
    "/v1/products",
    "/v1/products/{id}",
    "/v1/sessions",
    "/v1/sessions/{id}",
    "/v1/profiles/{id}",
    "/v1/invoices",
    "/v1/invoices/{id}",
    "/v1/stock/{id}",
    "/v1/prices/{id}",
    "/v1/reviews",
    "/v1/reviews/{id}",
    "/v1/uploads",
    "/v1/uploads/{id}",
    "/v1/reports",
    "/v1/reports/{id}",
    "/v1/webhooks",
    "/v1/exports/{id}",
];
/// What a tenth of the requests answer.
const OTHER_STATUS: [u64; 5] = [201, 404, 401, 429, 500];

const ORGS: u64 = 100;
const HOSTS_PER_SERVICE: u64 = 50;
const ACTORS: u64 = 200_000;
/// Of the logarithm of a duration in milliseconds: its mean and deviation.
const DURATION: (f64, f64) = (2.5, 0.9);
const JITTER_MICROS: u64 = 900;

/// One request of `batch` events, a millisecond apart.
pub fn request(has_address: bool, batch: u64, from_ns: u64, random: &mut Random) -> Vec<u8> {
    let mut out = Vec::with_capacity(batch as usize * 400);
    let mut second = (u64::MAX, String::new());
    for record in 0..batch {
        let micros = (from_ns + record * RECORD_NS) / 1_000 + random.below(JITTER_MICROS + 1);
        if second.0 != micros / 1_000_000 {
            second = (micros / 1_000_000, text_of(micros / 1_000_000));
        }
        event(&mut out, has_address, &second.1, micros % 1_000_000, random);
    }
    out
}

fn event(out: &mut Vec<u8>, has_address: bool, second: &str, micros: u64, random: &mut Random) {
    let service = skewed_of(random, &SERVICES);
    let event = skewed_of(random, &EVENTS);
    let actor = skewed(random, ACTORS);
    let route = skewed(random, ROUTES.len() as u64) as usize;
    let status = if random.chance(0.9) { 200 } else { *random.pick(&OTHER_STATUS) };
    let micros_taken = (log_normal(random, DURATION.0, DURATION.1) * 1_000.0) as u64;
    out.text("{\"time\":\"");
    out.text(second);
    out.text(".");
    out.padded(micros, 6);
    out.text("Z\",\"org\":\"org-");
    out.number(skewed(random, ORGS));
    out.text("\",\"service\":\"");
    out.text(service);
    out.text("\",\"env\":\"prod\",\"region\":\"");
    out.text(random.pick::<&str>(&REGIONS));
    out.text("\",\"host\":\"");
    out.text(service);
    out.text("-");
    out.padded(random.below(HOSTS_PER_SERVICE), 2);
    out.text("\",\"level\":\"");
    out.text(match status {
        500.. => "error",
        400.. => "warn",
        _ => "info",
    });
    out.text("\",\"event\":\"");
    out.text(event);
    out.text("\",\"actor\":\"user-");
    out.number(actor);
    out.text("\",\"ip\":\"203.");
    out.number(random.below(4));
    out.text(".");
    out.number(actor % 256);
    out.text(".");
    out.number(random.below(256));
    out.text("\",\"method\":\"");
    out.text(if route.is_multiple_of(3) { "POST" } else { "GET" });
    out.text("\",\"route\":\"");
    out.text(ROUTES[route]);
    out.text("\",\"status\":");
    out.number(status);
    out.text(",\"duration_ms\":");
    out.number(micros_taken / 1_000);
    out.text(".");
    out.padded(micros_taken % 1_000, 3);
    out.text(",\"trace_id\":\"");
    out.hex(random.bits());
    out.hex(random.bits());
    out.text("\",\"msg\":\"");
    out.text(event);
    out.text(if has_address { " by user" } else { " by user " });
    out.number(actor);
    out.text(if has_address { "@example.com" } else { " of example" });
    out.text(" completed in ");
    out.number((micros_taken + 500) / 1_000);
    out.text("ms\"}\n");
}

/// `2026-01-02T03:04:05`.
fn text_of(second: u64) -> String {
    let time = jiff::Timestamp::from_second(second.cast_signed()).unwrap_or_default();
    time.to_string().trim_end_matches('Z').to_owned()
}
