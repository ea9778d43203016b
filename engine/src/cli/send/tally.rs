//! What a reply says became of a request's records: each one is accepted or rejected with a code, and
//! the two add up to what was sent, in every dialect.

use std::collections::BTreeMap;

use serde_json::Value;

use super::protocol::Protocol;
use crate::client::{Reply, otlp};

/// What a request carried, as far as its reply must be read by it.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The protocol, which decides the reply's dialect.
    pub protocol: Protocol,
    /// Records in the request.
    pub records: u64,
    /// Line of the file at which it started, from 1; 0 where there are no lines.
    pub first_line: u64,
    /// Whether one bad record makes the server refuse all.
    pub atomic: bool,
}

/// Counts of records, and the first few that were rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records sent.
    pub sent: u64,
    /// Records acknowledged.
    pub accepted: u64,
    /// Records not acknowledged, by code.
    pub rejected: BTreeMap<String, u64>,
    /// Records of replies the server had given before.
    pub replayed: u64,
    /// The first rejected records, for the reader.
    pub examples: Vec<Example>,
}

/// A rejected record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Where it stands, such as `line 7`.
    pub place: String,
    /// Why.
    pub reason: String,
}

/// Rejected records shown.
const EXAMPLES_MAX: usize = 10;

impl Tally {
    /// Returns the records that were not acknowledged.
    pub fn rejected_count(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// Adds what another request's reply said.
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.replayed += other.replayed;
        for (code, count) in other.rejected {
            *self.rejected.entry(code).or_default() += count;
        }
        let free = EXAMPLES_MAX - self.examples.len().min(EXAMPLES_MAX);
        self.examples.extend(other.examples.into_iter().take(free));
    }

    /// Counts `records` under `code`: nothing was acknowledged.
    pub fn unacknowledged(records: u64, code: &str) -> Self {
        let rejected = BTreeMap::from([(code.to_owned(), records)]);
        Self { sent: records, rejected, ..Self::default() }
    }

    /// Writes the counts in one line.
    pub fn line(&self) -> String {
        let mut line =
            format!("sent {} accepted {} rejected {}", self.sent, self.accepted, self.rejected_count());
        if !self.rejected.is_empty() {
            let codes: Vec<String> =
                self.rejected.iter().map(|(code, count)| format!("{code}: {count}")).collect();
            line.push_str(&format!(" ({})", codes.join(", ")));
        }
        if self.replayed > 0 {
            line.push_str(&format!(
                ", {} of them stored before under the same idempotency key",
                self.replayed
            ));
        }
        line
    }
}

/// Reads what `reply` says of what was `sent`.
pub fn read(sent: Sent, reply: &Reply) -> Tally {
    let mut tally = match sent.protocol {
        Protocol::OtlpTraces | Protocol::OtlpLogs => read_otlp(sent, reply),
        Protocol::Ndjson | Protocol::Audit | Protocol::Text | Protocol::Lines => read_json(sent, reply),
    };
    if reply.headers.contains_key("idempotency-replayed") {
        tally.replayed = tally.accepted;
    }
    tally
}

fn read_otlp(sent: Sent, reply: &Reply) -> Tally {
    let json = reply
        .headers
        .get("content-type")
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if !reply.status.is_success() {
        let mut tally = Tally::unacknowledged(sent.records, &status_code(reply, None));
        let message = if json {
            let status = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
            status.get("message").and_then(Value::as_str).map(str::to_owned)
        } else {
            otlp::status_message(&reply.body)
        };
        tally.examples.extend(message.map(|reason| Example { place: place(sent, None, None), reason }));
        return tally;
    }
    let partial = if json { partial_json(&reply.body) } else { otlp::partial_success(&reply.body) };
    let (rejected, message) = partial.unwrap_or_default();
    let mut tally = settle(sent, rejected);
    if rejected > 0 {
        tally.rejected.insert("partial_success".into(), rejected);
        tally.examples.push(Example { place: place(sent, None, None), reason: message });
    }
    tally
}

fn partial_json(body: &[u8]) -> Option<(u64, String)> {
    let response = serde_json::from_slice::<Value>(body).ok()?;
    let partial = response.get("partialSuccess")?.as_object()?;
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let rejected = ["rejectedSpans", "rejectedLogRecords", "rejectedDataPoints"];
    let rejected = rejected.iter().find_map(|name| partial.get(*name).and_then(number)).unwrap_or(0);
    let message = partial.get("errorMessage").and_then(Value::as_str).unwrap_or("");
    Some((rejected, message.to_owned()))
}

/// Reads the event route's reply, a problem document, or InfluxDB's v3 error.
fn read_json(sent: Sent, reply: &Reply) -> Tally {
    let body = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
    let list =
        body.get("rejected").or(body.get("data")).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let listed = list.len() as u64;
    let rejected_count = body.get("rejected_count").and_then(Value::as_u64);

    // A refusal keeps nothing, but for line protocol, which keeps its good lines.
    let keeps_good =
        sent.protocol == Protocol::Lines && !sent.atomic && (listed > 0 || rejected_count.is_some());
    let whole = !reply.status.is_success() && (!keeps_good || reply.status.as_u16() != 400);
    let bad = rejected_count.unwrap_or(listed).max(listed);
    let mut tally =
        if whole { Tally { sent: sent.records.max(bad), ..Tally::default() } } else { settle(sent, bad) };
    if !whole && let Some(accepted) = body.get("accepted").and_then(Value::as_u64) {
        // The server's own count stands; what it does not account for is told rather than hidden.
        tally.accepted = accepted;
        tally.sent = tally.sent.max(accepted + bad);
    }

    let mut count = |code: &str, records: u64| {
        if records > 0 {
            *tally.rejected.entry(code.to_owned()).or_default() += records;
        }
    };
    for item in list {
        count(code(item), 1);
    }
    let unlisted =
        if list.is_empty() { status_code(reply, Some(&body)) } else { "others_not_listed".to_owned() };
    count(&unlisted, bad - listed);
    let told = tally.accepted + bad;
    let rest = tally.sent.saturating_sub(told);
    if whole {
        // Good records of a request that was refused for its bad ones.
        let code = if bad > 0 { "batch_refused".to_owned() } else { status_code(reply, Some(&body)) };
        *tally.rejected.entry(code).or_default() += rest;
    } else if rest > 0 {
        *tally.rejected.entry("unaccounted".to_owned()).or_default() += rest;
    }
    tally.rejected.retain(|_, count| *count > 0);
    tally.examples = list.iter().take(EXAMPLES_MAX).map(|item| example(sent, item)).collect();
    if list.is_empty() && !reply.status.is_success() {
        let field = |name: &str| body.get(name).and_then(Value::as_str);
        let reason = field("detail").or(field("error")).or(field("message")).unwrap_or("no reason given");
        tally.examples.push(Example { place: place(sent, None, None), reason: reason.to_owned() });
    }
    tally
}

/// Why one record was not taken; InfluxDB's v3 lists hold it before the colon of their message.
fn code(item: &Value) -> &str {
    let field = |name: &str| item.get(name).and_then(Value::as_str);
    let of_message = || field("error_message")?.split_once(": ").map(|(code, _)| code);
    field("code").or_else(of_message).unwrap_or("invalid_line")
}

fn settle(sent: Sent, rejected: u64) -> Tally {
    Tally {
        sent: sent.records.max(rejected),
        accepted: sent.records.saturating_sub(rejected),
        ..Tally::default()
    }
}

/// Returns the stable code of a refusal, or one made of its status.
fn status_code(reply: &Reply, body: Option<&Value>) -> String {
    let code = body.and_then(|body| body.get("code")).and_then(Value::as_str);
    code.map_or_else(|| format!("http_{}", reply.status.as_u16()), str::to_owned)
}

fn example(sent: Sent, item: &Value) -> Example {
    let number = |name: &str| item.get(name).and_then(Value::as_u64);
    let text = |name: &str| item.get(name).and_then(Value::as_str);
    let line = number("line").or(number("line_number"));
    let reason = text("detail").or(text("error_message")).or(text("code")).unwrap_or("no reason given");
    Example { place: place(sent, line, number("index")), reason: reason.to_owned() }
}

fn place(sent: Sent, line: Option<u64>, index: Option<u64>) -> String {
    match (line, index, sent.first_line) {
        (Some(line), _, first) if first > 0 => format!("line {}", first + line.saturating_sub(1)),
        (_, Some(index), _) => format!("record {index} of its request"),
        (_, _, first) if first > 0 => format!("request from line {first}"),
        _ => "request".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    fn reply(status: u16, content_type: &'static str, body: &[u8]) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        Reply {
            status: StatusCode::from_u16(status).expect("a status"),
            headers,
            body: bytes::Bytes::copy_from_slice(body),
        }
    }

    fn check(protocol: Protocol, atomic: bool, reply: &Reply, line: &str, place: Option<&str>) {
        let sent = Sent { protocol, records: 10, first_line: 101, atomic };
        let tally = read(sent, reply);
        assert_eq!(tally.line(), line);
        assert_eq!(tally.sent, tally.accepted + tally.rejected_count(), "{line}");
        assert_eq!(tally.examples.first().map(|example| example.place.as_str()), place, "{line}");
    }

    fn json(status: u16, body: &str) -> Reply {
        reply(status, "application/json", body.as_bytes())
    }

    #[test]
    fn event_replies_are_counted() {
        use Protocol::{Audit, Ndjson};
        let all = "sent 10 accepted 10 rejected 0";
        check(Ndjson, false, &json(200, r#"{"accepted":10,"rejected":[],"rejected_count":0}"#), all, None);
        check(Ndjson, false, &json(202, r#"{"accepted":10,"rejected":[],"rejected_count":0}"#), all, None);
        let some = r#"{"accepted":8,"rejected":[{"index":2,"line":3,"code":"bad_json","detail":"x"},
            {"index":4,"line":5,"code":"bad_time","detail":"x"}],"rejected_count":2}"#;
        let line = "sent 10 accepted 8 rejected 2 (bad_json: 1, bad_time: 1)";
        check(Ndjson, false, &json(200, some), line, Some("line 103"));
        let many = r#"{"accepted":4,"rejected":[{"line":1,"code":"a"}],"rejected_count":6}"#;
        check(
            Ndjson,
            false,
            &json(200, many),
            "sent 10 accepted 4 rejected 6 (a: 1, others_not_listed: 5)",
            Some("line 101"),
        );
        let lost = r#"{"accepted":9,"rejected":[],"rejected_count":0}"#;
        check(Ndjson, false, &json(200, lost), "sent 10 accepted 9 rejected 1 (unaccounted: 1)", None);
        let refused = r#"{"code":"invalid_records","detail":"x","rejected_count":1,
            "rejected":[{"line":2,"code":"a"}]}"#;
        check(
            Audit,
            false,
            &json(400, refused),
            "sent 10 accepted 0 rejected 10 (a: 1, batch_refused: 9)",
            Some("line 102"),
        );
        let busy = r#"{"code":"rate_limited","detail":"records"}"#;
        let line = "sent 10 accepted 0 rejected 10 (rate_limited: 10)";
        check(Ndjson, false, &json(429, busy), line, Some("request from line 101"));
        check(
            Ndjson,
            false,
            &json(502, "<html>"),
            "sent 10 accepted 0 rejected 10 (http_502: 10)",
            Some("request from line 101"),
        );
    }

    #[test]
    fn line_protocol_keeps_its_good_lines() {
        use Protocol::Lines;
        check(Lines, false, &json(204, ""), "sent 10 accepted 10 rejected 0", None);
        let partial = r#"{"error":"partial write of line protocol occurred",
            "data":[{"original_line":"x","line_number":4,"error_message":"no fields"}]}"#;
        check(
            Lines,
            false,
            &json(400, partial),
            "sent 10 accepted 9 rejected 1 (invalid_line: 1)",
            Some("line 104"),
        );
        let more =
            r#"{"error":"partial write","rejected_count":7,"data":[{"line_number":4,"error_message":"x"}]}"#;
        let line = "sent 10 accepted 3 rejected 7 (invalid_line: 1, others_not_listed: 6)";
        check(Lines, false, &json(400, more), line, Some("line 104"));
        check(
            Lines,
            true,
            &json(400, partial),
            "sent 10 accepted 0 rejected 10 (batch_refused: 9, invalid_line: 1)",
            Some("line 104"),
        );
        let bad = r#"{"error":"precision is unknown"}"#;
        check(
            Lines,
            false,
            &json(400, bad),
            "sent 10 accepted 0 rejected 10 (http_400: 10)",
            Some("request from line 101"),
        );
    }

    #[test]
    fn otlp_replies_are_counted_in_both_codings() {
        use Protocol::{OtlpLogs, OtlpTraces};
        let protobuf = |status, body: &[u8]| reply(status, "application/x-protobuf", body);
        check(OtlpTraces, false, &protobuf(200, b""), "sent 10 accepted 10 rejected 0", None);
        let some = "sent 10 accepted 7 rejected 3 (partial_success: 3)";
        let place = Some("request from line 101");
        check(OtlpTraces, false, &protobuf(200, b"\x0a\x05\x08\x03\x12\x01x"), some, place);
        check(OtlpLogs, false, &json(200, "{}"), "sent 10 accepted 10 rejected 0", None);
        let partial = r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"x"}}"#;
        check(OtlpLogs, false, &json(200, partial), some, place);
        let none = "sent 10 accepted 0 rejected 10 (http_400: 10)";
        check(OtlpLogs, false, &json(400, r#"{"code":3,"message":"x"}"#), none, place);
        check(OtlpTraces, false, &protobuf(400, b"\x08\x03\x12\x01x"), none, place);
        // A warning rejects nothing.
        check(
            OtlpLogs,
            false,
            &json(200, r#"{"partialSuccess":{"errorMessage":"w"}}"#),
            "sent 10 accepted 10 rejected 0",
            None,
        );
    }

    #[test]
    fn tallies_add_up() {
        let mut total = Tally::unacknowledged(5, "no_reply");
        total.add(Tally {
            sent: 3,
            accepted: 2,
            rejected: BTreeMap::from([("no_reply".into(), 1)]),
            replayed: 2,
            examples: vec![],
        });
        assert_eq!(
            total.line(),
            "sent 8 accepted 2 rejected 6 (no_reply: 6), \
             2 of them stored before under the same idempotency key"
        );
    }
}
