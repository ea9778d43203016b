//! OTLP's answers: the export response with its partial success, and `google.rpc.Status`, both as protobuf
//! and as JSON.
//!
//! By hand: three small messages, each of a few fields, against generated types for all of gRPC.

#![expect(clippy::indexing_slicing, reason = "keys set in JSON objects that are made right there")]

use bytes::Bytes;
use serde_json::json;

use super::{Refusal, bounded, summary};
use crate::decode::Decoded;

/// Bad records that a partial success names in its message.
const RECORDS_NAMED: usize = 10;

/// What an export request carries; it names the counter of a partial success in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Data points.
    Metrics,
}

impl Signal {
    fn rejected_key(self) -> &'static str {
        match self {
            Self::Traces => "rejectedSpans",
            Self::Logs => "rejectedLogRecords",
            Self::Metrics => "rejectedDataPoints",
        }
    }
}

const BAD_REQUEST_TYPE: &str = "type.googleapis.com/google.rpc.BadRequest";

/// `Export*ServiceResponse`: unset where all is well, so 0 bytes.
pub(super) fn response_protobuf(decoded: &Decoded) -> Bytes {
    let Some(message) = partial_success(decoded) else { return Bytes::new() };
    let mut partial = Vec::new();
    if decoded.rejected_count > 0 {
        partial.push(1 << 3);
        varint(&mut partial, u64::from(decoded.rejected_count));
    }
    field(&mut partial, 2, message.as_bytes());
    let mut response = Vec::new();
    field(&mut response, 1, &partial);
    Bytes::from(response)
}

pub(super) fn response_json(signal: Signal, decoded: &Decoded) -> Bytes {
    let Some(message) = partial_success(decoded) else { return Bytes::from_static(b"{}") };
    let mut partial = json!({});
    if decoded.rejected_count > 0 {
        // Proto3's JSON writes 64-bit integers as text.
        partial[signal.rejected_key()] = decoded.rejected_count.to_string().into();
    }
    partial["errorMessage"] = message.into();
    Bytes::from(json!({ "partialSuccess": partial }).to_string())
}

/// The message of a partial success, or of warnings with nothing rejected; `None` where all is well.
fn partial_success(decoded: &Decoded) -> Option<String> {
    let mut message = String::new();
    if decoded.rejected_count > 0 {
        message = format!("{} rejected: ", decoded.rejected_count);
        message.push_str(&summary(&decoded.rejected, RECORDS_NAMED));
    }
    if !decoded.warnings.is_empty() {
        let comma = if message.is_empty() { "" } else { "; " };
        message.push_str(&format!("{comma}warnings: {}", decoded.warnings.join(", ")));
    }
    (!message.is_empty()).then(|| bounded(&message).to_owned())
}

/// gRPC's code for an HTTP status, as the collector maps them.
fn rpc_code(status: u16) -> u8 {
    match status {
        400 | 413 | 415 | 422 => 3, // INVALID_ARGUMENT
        401 => 16,                  // UNAUTHENTICATED
        403 => 7,                   // PERMISSION_DENIED
        404 | 405 => 12,            // UNIMPLEMENTED
        409 => 10,                  // ABORTED
        429 => 8,                   // RESOURCE_EXHAUSTED
        500 => 13,                  // INTERNAL
        502..=504 => 14,            // UNAVAILABLE
        _ => 2,                     // UNKNOWN
    }
}

fn status_message(refusal: &Refusal) -> String {
    format!("{}: {}", refusal.code, bounded(&refusal.detail))
}

/// Each bad record as a field of `BadRequest`: where it is, and what is wrong with it.
fn violations(refusal: &Refusal) -> impl Iterator<Item = (String, String)> {
    refusal
        .rejected
        .iter()
        .map(|one| (format!("records[{}]", one.index), format!("{}: {}", one.code, one.detail)))
}

pub(super) fn status_protobuf(refusal: &Refusal) -> Bytes {
    let mut status = vec![1 << 3, rpc_code(refusal.status)];
    field(&mut status, 2, status_message(refusal).as_bytes());
    if !refusal.rejected.is_empty() {
        let mut bad_request = Vec::new();
        for (name, description) in violations(refusal) {
            let mut violation = Vec::new();
            field(&mut violation, 1, name.as_bytes());
            field(&mut violation, 2, description.as_bytes());
            field(&mut bad_request, 1, &violation);
        }
        let mut any = Vec::new();
        field(&mut any, 1, BAD_REQUEST_TYPE.as_bytes());
        field(&mut any, 2, &bad_request);
        field(&mut status, 3, &any);
    }
    Bytes::from(status)
}

pub(super) fn status_json(refusal: &Refusal) -> Bytes {
    let mut status = json!({ "code": rpc_code(refusal.status), "message": status_message(refusal) });
    if !refusal.rejected.is_empty() {
        let violations: Vec<_> = violations(refusal)
            .map(|(name, description)| json!({ "field": name, "description": description }))
            .collect();
        status["details"] = json!([{ "@type": BAD_REQUEST_TYPE, "fieldViolations": violations }]);
    }
    Bytes::from(status.to_string())
}

/// A length-delimited field.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("below 0x80"));
}
