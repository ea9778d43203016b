//! Events and audit records as JSON: a line each (NDJSON), one object, or an array.
//!
//! ```text
//!   body ── frame (here) ──► one record's text ── record.rs, by the names of known.rs ──► a row
//! ```
//! A bad line costs only itself: its neighbours are stored (unless the request is atomic, which the
//! pipeline sees to). A body that is no NDJSON at all, or no JSON at all, is refused whole before the first
//! row is written.

mod known;
mod record;

use std::borrow::Cow;
use std::ops::Range;

use storage::record::{Draft, Kind};

use super::json::{self, Parser, Type};
use super::pace::{Pace, SLICE_BYTES, at_once};
use super::{Context, Decoded, Refused};
use known::Table;
use record::Reader;

/// How many times `line_bytes_max` one record of a JSON document may take. Chosen: white space and escapes, which the
/// columns do not have, at their most.
const RECORD_LINES_MAX: usize = 4;

/// Why a record is not stored.
#[derive(Debug)]
struct Reject {
    code: &'static str,
    detail: Cow<'static, str>,
}

impl Reject {
    fn new(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into() }
    }
}

impl From<json::Error> for Reject {
    fn from(error: json::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Decodes NDJSON events, one a line.
///
/// # Errors
/// `not_utf8` (UTF-16 or UTF-32), `array_body` (a JSON array needs its own content type) and
/// `too_many_records`.
pub fn events_lines(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    at_once(lines(body, ctx, draft, &known::EVENTS, &mut Pace::default()))
}

/// Decodes events that are one JSON object or an array of them; lines of objects are taken too.
///
/// # Errors
/// `invalid_json` and `invalid_utf8` wherever it shows, `not_utf8`, `too_many_records`.
pub fn events_json(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    at_once(document(body, ctx, draft, &known::EVENTS, &mut Pace::default()))
}

/// Decodes NDJSON audit records, one a line.
///
/// # Errors
/// As [`events_lines`].
pub fn audit_lines(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    at_once(lines(body, ctx, draft, &known::AUDIT, &mut Pace::default()))
}

/// Decodes audit records that are one JSON object or an array of them; lines of objects are taken too.
///
/// # Errors
/// As [`events_json`].
pub fn audit_json(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    at_once(document(body, ctx, draft, &known::AUDIT, &mut Pace::default()))
}

/// Events and audit records, in slices.
pub(crate) async fn paced(
    body: &[u8],
    ctx: &mut Context<'_>,
    draft: &mut Draft,
    pace: &mut Pace<'_>,
    is_document: bool,
) -> Result<Decoded, Refused> {
    let table = if draft.kind() == Kind::Audit { &known::AUDIT } else { &known::EVENTS };
    if is_document {
        document(body, ctx, draft, table, pace).await
    } else {
        lines(body, ctx, draft, table, pace).await
    }
}

async fn lines(
    body: &[u8],
    ctx: &mut Context<'_>,
    draft: &mut Draft,
    table: &'static Table,
    pace: &mut Pace<'_>,
) -> Result<Decoded, Refused> {
    let body = without_mark(body)?;
    // Nearly every body is UTF-8 all through: one fast check then serves for all lines.
    let text = simdutf8::basic::from_utf8(body).ok();
    if let Some(text) = text {
        match whole_value(text) {
            Some(Type::Array) => {
                let hint = "the body is one JSON array: send it as application/json, or one object a line";
                return Err(Refused::invalid("array_body", hint));
            }
            Some(Type::Object) => return Box::pin(document(body, ctx, draft, table, pace)).await,
            _ => {}
        }
    }
    let limits = ctx.limits;
    if is_over(body, limits.records_max) {
        return Err(too_many_records(limits.records_max));
    }
    let mut decoded = Decoded::default();
    let mut reader = Reader::new(table, ctx, draft);
    for (number, line) in split_lines(body).enumerate().filter(|(_, line)| !is_blank(&body[line.clone()])) {
        let line_bytes = line.len();
        let outcome = if line.len() > limits.line_bytes_max {
            let detail =
                format!("line of {} bytes exceeds line_bytes_max {}", line.len(), limits.line_bytes_max);
            Err(Reject::new("line_too_long", detail))
        } else if let Some(text) = text {
            reader.record(&text[line])
        } else {
            match simdutf8::compat::from_utf8(&body[line]) {
                Ok(text) => reader.record(text),
                Err(error) => {
                    let detail = format!("invalid UTF-8 at byte {}", error.valid_up_to());
                    Err(Reject::new("invalid_utf8", detail))
                }
            }
        };
        note(&mut decoded, Some(number + 1), outcome);
        if pace.record(line_bytes) {
            pace.rest(reader.held_bytes()).await?;
        }
    }
    reader.warn(&mut decoded);
    Ok(decoded)
}

async fn document(
    body: &[u8],
    ctx: &mut Context<'_>,
    draft: &mut Draft,
    table: &'static Table,
    pace: &mut Pace<'_>,
) -> Result<Decoded, Refused> {
    let body = without_mark(body)?;
    let refused = |error: json::Error| Refused::invalid(error.code(), error.to_string());
    if is_blank(body) {
        return Ok(Decoded::default());
    }
    // The whole text is validated before the first row is written. Depth is not bounded here: a value that
    // nests too deep costs its own record only.
    let mut json = Parser::from_bytes(body, usize::MAX).map_err(refused)?;
    let text = simdutf8::basic::from_utf8(body).expect("the parser took it as UTF-8");
    let mut records: Vec<Range<usize>> = Vec::new();
    let mut slice = 0;
    let limits = ctx.limits;
    if json.peek().map_err(refused)? == Type::Array {
        json.array().map_err(refused)?;
        while json.element().map_err(refused)? {
            if records.len() == ctx.limits.records_max {
                return Err(too_many_records(ctx.limits.records_max));
            }
            let record = json.skip_value().map_err(refused)?;
            slice += record.len();
            records.push(record);
            if slice >= SLICE_BYTES {
                slice = 0;
                pace.rest(draft.held_bytes() + records.capacity() * size_of::<Range<usize>>()).await?;
            }
        }
        json.end().map_err(refused)?;
    } else {
        let first = json.skip_value().map_err(refused)?;
        let rest = &text[first.end..];
        if text[first.clone()].starts_with('{') && rest.trim_ascii_start().starts_with('{') {
            let gap = rest.len() - rest.trim_ascii_start().len();
            if rest[..gap].contains('\n') {
                return Box::pin(lines(body, ctx, draft, table, pace)).await;
            }
        }
        json.end().map_err(refused)?;
        records.push(first);
    }
    let mut decoded = Decoded::default();
    let mut reader = Reader::new(table, ctx, draft);
    for record in records {
        let bytes = record.len();
        let bytes_max = limits.line_bytes_max.saturating_mul(RECORD_LINES_MAX);
        let outcome = if bytes > bytes_max {
            let detail = format!("record of {bytes} bytes exceeds {RECORD_LINES_MAX} times line_bytes_max");
            Err(Reject::new("line_too_long", detail))
        } else {
            reader.record(&text[record])
        };
        note(&mut decoded, None, outcome);
        if pace.record(bytes) {
            pace.rest(reader.held_bytes()).await?;
        }
    }
    reader.warn(&mut decoded);
    Ok(decoded)
}

fn note(decoded: &mut Decoded, line: Option<usize>, outcome: Result<(), Reject>) {
    match outcome {
        Ok(()) => decoded.accepted += 1,
        Err(reject) => {
            let index = decoded.accepted as usize + decoded.rejected_count as usize;
            decoded.reject(index, line, reject.code, reject.detail);
        }
    }
}

/// Passes over UTF-8's byte order mark.
fn without_mark(body: &[u8]) -> Result<&[u8], Refused> {
    let is_wide = match body {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        // No mark: JSON begins with two ASCII characters, so in UTF-16 and UTF-32 every second byte is zero.
        [a, 0, b, 0, ..] => *a != 0 || *b != 0,
        [0, a, 0, b, ..] => *a != 0 || *b != 0,
        _ => false,
    };
    if is_wide {
        return Err(Refused::invalid("not_utf8", "the body looks like UTF-16 or UTF-32: send UTF-8"));
    }
    Ok(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
}

/// The type of the body's value where it is one array, or one object that spans several lines.
///
/// Anything that begins as NDJSON does costs one look at its first line.
fn whole_value(text: &str) -> Option<Type> {
    let trimmed = text.trim_ascii();
    let first_line = trimmed.split('\n').next().unwrap_or_default().trim_ascii_end();
    let r#type = match trimmed.as_bytes().first()? {
        b'[' => Type::Array,
        b'{' if first_line.len() < trimmed.len() && !first_line.ends_with('}') => Type::Object,
        _ => return None,
    };
    let mut json = Parser::new(trimmed, usize::MAX);
    (json.skip_value().is_ok() && json.end().is_ok()).then_some(r#type)
}

/// Whether more lines than `records_max` hold a record.
fn is_over(body: &[u8], records_max: usize) -> bool {
    memchr::memchr_iter(b'\n', body).count() >= records_max
        && split_lines(body).filter(|line| !is_blank(&body[line.clone()])).count() > records_max
}

fn too_many_records(records_max: usize) -> Refused {
    let detail = format!("the body has more than records_max {records_max} records: send it in parts");
    Refused::too_large("too_many_records", detail)
}

/// Where the lines are, without their ends (LF or CRLF).
fn split_lines(body: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', body).chain(std::iter::once(body.len()));
    ends.map(move |end| {
        let line = &body[start..end];
        let range = start..end - usize::from(line.last() == Some(&b'\r'));
        start = end + 1;
        range
    })
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests;
