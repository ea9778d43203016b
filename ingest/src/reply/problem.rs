//! Our own API's JSON: problem details for refusals, counts for what was accepted.

#![expect(clippy::indexing_slicing, reason = "keys set in JSON objects that are made right there")]

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Refusal, bounded};
use crate::decode::{Decoded, Rejected};

/// Where a code is explained; relative, because the documentation comes with the binary.
const TYPE_BASE: &str = "/docs/runbooks/";

pub(super) fn body(refusal: &Refusal, correlation_id: &str) -> Bytes {
    let r#type = match refusal.status {
        429 => "https://iana.org/assignments/http-problem-types#quota-exceeded".to_owned(),
        503 => "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity".to_owned(),
        _ => format!("{TYPE_BASE}{}", refusal.code),
    };
    let mut problem = json!({
        "type": r#type,
        "title": refusal.title(),
        "status": refusal.status,
        "code": refusal.code,
        "detail": bounded(&refusal.detail),
        "retryable": refusal.retryable,
        "correlation_id": correlation_id,
    });
    if refusal.rejected_count > 0 {
        problem["rejected_count"] = refusal.rejected_count.into();
        problem["rejected"] = list(&refusal.rejected);
    }
    Bytes::from(problem.to_string())
}

pub(super) fn accepted(decoded: &Decoded, receipt: Option<&storage::Receipt>) -> Bytes {
    let mut reply = json!({
        "accepted": decoded.accepted,
        "rejected": list(&decoded.rejected),
        "rejected_count": decoded.rejected_count,
    });
    if !decoded.warnings.is_empty() {
        reply["warnings"] = json!(decoded.warnings);
    }
    if let Some(receipt) = receipt {
        reply["receipt"] = json!({
            "writer": &*receipt.writer,
            "first_seq": receipt.first_seq,
            "row_count": receipt.row_count,
        });
    }
    Bytes::from(reply.to_string())
}

fn list(rejected: &[Rejected]) -> Value {
    let one = |record: &Rejected| {
        let mut entry = Map::new();
        entry.insert("index".into(), record.index.into());
        if let Some(line) = record.line {
            entry.insert("line".into(), line.into());
        }
        entry.insert("code".into(), record.code.into());
        entry.insert("detail".into(), record.detail.as_str().into());
        Value::Object(entry)
    };
    Value::Array(rejected.iter().map(one).collect())
}
