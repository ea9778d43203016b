//! Lists in pages: `limit`, and an opaque cursor that says after which id to go on.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ingest::Refusal;
use serde_json::{Value, json};

use super::Call;
use crate::http::{Answer, json as answer};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;

/// Bytes of one page at most; a page that would be larger ends with its cursor. One item that is larger makes a page.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Answers one page of `items`, which are sorted by their id.
pub(super) fn page(call: &Call, name: &str, items: &[(String, Value)]) -> Result<Answer, Refusal> {
    let limit = limit(call.parameter("limit").as_deref())?;
    let after = match call.parameter("cursor") {
        Some(cursor) => Some(after(&cursor)?),
        None => None,
    };
    let start = after.map_or(0, |after| items.partition_point(|(id, _)| *id <= after));
    let shown = fitting(&items[start..items.len().min(start.saturating_add(limit))]);
    let next = (start + shown.len() < items.len())
        .then(|| shown.last().map(|(id, _)| URL_SAFE_NO_PAD.encode(id)))
        .flatten();
    let values: Vec<&Value> = shown.iter().map(|(_, value)| value).collect();
    Ok(answer(200, &json!({ name: values, "next_cursor": next })))
}

/// The first items, as many as one page holds.
fn fitting(items: &[(String, Value)]) -> &[(String, Value)] {
    let mut bytes = 0;
    let over = items.iter().position(|(_, value)| {
        bytes += value.to_string().len() + 1;
        bytes > PAGE_BYTES_MAX
    });
    &items[..over.map_or(items.len(), |at| at.max(1))]
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{PAGE_BYTES_MAX, fitting};

    /// B1: a page ends at so many bytes, and always has an item.
    #[test]
    fn a_page_ends_at_so_many_bytes() {
        let item = |bytes: usize| ("id".to_owned(), json!("x".repeat(bytes)));
        assert_eq!(fitting(&[item(10), item(10)]).len(), 2);
        assert_eq!(fitting(&vec![item(PAGE_BYTES_MAX / 4); 20]).len(), 3);
        assert_eq!(fitting(&[item(PAGE_BYTES_MAX * 2), item(1)]).len(), 1);
        assert!(fitting(&[]).is_empty());
    }
}
