//! Lists in pages: `limit`, and an opaque cursor that says after which id to go on.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ingest::Refusal;
use serde_json::{Value, json};

use super::Call;
use crate::http::{Answer, json as answer};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;

/// Answers one page of `items`, which are sorted by their id.
pub(super) fn page(call: &Call, name: &str, items: &[(String, Value)]) -> Result<Answer, Refusal> {
    let limit = limit(call.parameter("limit").as_deref())?;
    let after = match call.parameter("cursor") {
        Some(cursor) => Some(after(&cursor)?),
        None => None,
    };
    let start = after.map_or(0, |after| items.partition_point(|(id, _)| *id <= after));
    let shown = &items[start..items.len().min(start.saturating_add(limit))];
    let next = (start + shown.len() < items.len())
        .then(|| shown.last().map(|(id, _)| URL_SAFE_NO_PAD.encode(id)))
        .flatten();
    let values: Vec<&Value> = shown.iter().map(|(_, value)| value).collect();
    Ok(answer(200, &json!({ name: values, "next_cursor": next })))
}

fn limit(text: Option<&str>) -> Result<usize, Refusal> {
    let Some(text) = text else { return Ok(LIMIT_DEFAULT) };
    text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
        Refusal::new(400, "invalid_parameter", format!("limit must be a number from 1 to {LIMIT_MAX}"))
    })
}

fn after(cursor: &str) -> Result<String, Refusal> {
    URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Refusal::new(400, "invalid_cursor", "cursor is not one that a list gave"))
}
