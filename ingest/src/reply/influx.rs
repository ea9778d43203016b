//! Refusals as the three generations of InfluxDB word them: their clients read these fields and no others.

use bytes::Bytes;
use serde_json::json;

use super::{Refusal, bounded, summary};

/// Lines that a message of one string names; v3 lists them all.
const LINES_NAMED: usize = 10;

pub(super) fn v1(refusal: &Refusal) -> Bytes {
    Bytes::from(json!({ "error": message(refusal) }).to_string())
}

pub(super) fn v2(refusal: &Refusal) -> Bytes {
    let code = match refusal.status {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not found",
        405 => "method not allowed",
        409 => "conflict",
        413 => "request too large",
        422 => "unprocessable entity",
        429 => "too many requests",
        503 => "unavailable",
        500..=599 => "internal error",
        _ => "invalid",
    };
    Bytes::from(json!({ "code": code, "message": message(refusal) }).to_string())
}

/// One string for all bad lines: whether good ones are kept, the first bad ones, and how many there are.
fn message(refusal: &Refusal) -> String {
    if refusal.rejected_count == 0 {
        return bounded(&refusal.detail).to_owned();
    }
    let outcome = if is_partial(refusal) { "partial write" } else { "unable to parse" };
    let lines = summary(&refusal.rejected, LINES_NAMED);
    format!("{outcome}: {} dropped={}", bounded(&lines), refusal.rejected_count)
}

fn is_partial(refusal: &Refusal) -> bool {
    refusal.code == super::PARTIAL_WRITE
}

/// `original_line` is always empty: an answer never holds payload (P2). `rejected_count` is ours: the list is bounded.
pub(super) fn v3(refusal: &Refusal) -> Bytes {
    if refusal.rejected_count == 0 {
        return Bytes::from(json!({ "error": bounded(&refusal.detail) }).to_string());
    }
    let lines: Vec<_> = refusal
        .rejected
        .iter()
        .map(|one| {
            json!({
                "original_line": "",
                "line_number": one.line.unwrap_or(one.index + 1),
                "error_message": format!("{}: {}", one.code, one.detail),
            })
        })
        .collect();
    let error = if is_partial(refusal) {
        "partial write of line protocol occurred"
    } else {
        "parsing failed for write_lp endpoint"
    };
    Bytes::from(
        json!({ "error": error, "data": lines, "rejected_count": refusal.rejected_count }).to_string(),
    )
}
