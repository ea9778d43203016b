//! InfluxDB line protocol: `measurement[,tag=v…] field=v[,f=v…] [ts]`, one event a record.
//!
//! ```text
//!   body ── scan: one record's pieces ── names: duplicates, clashes ── row: columns of the draft
//!               └─ a bad record ── resume: where the next one begins
//! ```
//! A record ends at the first newline outside a quoted string, so lines cannot be cut before they are read.
//! A record's pieces are gathered in one reused buffer and written once the whole record is known to be good:
//! a tag's name depends on the fields behind it, and a bad record never touches the draft. Nothing is
//! allocated for a record once the buffers have grown.
//!
//! Grammar: <https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/>.

mod names;
mod number;
mod resume;
mod row;
mod scan;
mod time;

use std::borrow::Cow;

use storage::record::Draft;

use super::pace::{Pace, at_once};
use super::{Context, Decoded, Refused};
use scan::{Record, Texts};

/// Why one record is not stored.
#[derive(Debug)]
struct Fault {
    code: &'static str,
    detail: Cow<'static, str>,
}

impl Fault {
    fn new(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// Decodes a body of line protocol into rows of `draft`: the measurement is the event type, the named tags
/// and fields are columns, all else is an attribute.
///
/// A bad record is listed with the line it begins on and its neighbours are stored. Warns of
/// `duplicate_attribute` where a field stands twice in a record; the last one is kept.
///
/// # Errors
/// 413 `too_many_records` past `records_max`, 413 `body_too_large` from 4 GiB on. The draft is empty then.
pub fn lines(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    at_once(paced(body, ctx, draft, &mut Pace::default()))
}

/// As [`lines`], in slices.
pub(crate) async fn paced(
    body: &[u8],
    ctx: &mut Context<'_>,
    draft: &mut Draft,
    pace: &mut Pace<'_>,
) -> Result<Decoded, Refused> {
    if u32::try_from(body.len()).is_err() {
        return Err(Refused::too_large("body_too_large", "a body of 4 GiB or more cannot be decoded"));
    }
    // One fast pass over everything; only where it fails is each record checked on its own.
    let whole = simdutf8::basic::from_utf8(body).ok();
    let mut record = Record::default();
    let mut decoded = Decoded::default();
    let mut count = LineCount::default();
    let mut index = 0;
    // Editors and Windows tools put a byte order mark first; it is no part of a measurement.
    let mut at = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    while let Some(start) = scan::next_record(body, at) {
        if index == ctx.limits.records_max {
            draft.reset();
            let detail = format!("the body has more records than records_max {}", ctx.limits.records_max);
            return Err(Refused::too_large("too_many_records", detail));
        }
        let outcome = match scan::record(body, start, ctx.limits, &mut record) {
            Ok(end) => {
                at = end;
                store(Source { body, whole, start, end }, &mut record, ctx, draft)
            }
            Err(fault) => {
                at = resume::after(body, start);
                Err(fault)
            }
        };
        match outcome {
            Ok(row::Stored { repeated }) => {
                decoded.accepted += 1;
                if repeated {
                    decoded.warn("duplicate_attribute");
                }
            }
            Err(mut fault) => {
                let line_bytes = scan::without_line_end(&body[start..at]).len();
                if line_bytes > ctx.limits.line_bytes_max {
                    fault = line_too_long(line_bytes, ctx.limits.line_bytes_max);
                }
                decoded.reject(index, Some(count.line_of(body, start)), fault.code, fault.detail);
            }
        }
        index += 1;
        if pace.record(at - start) {
            pace.rest(draft.held_bytes() + record.held_bytes()).await?;
        }
    }
    Ok(decoded)
}

/// Where one record stands.
#[derive(Clone, Copy)]
struct Source<'a> {
    body: &'a [u8],
    /// The whole body as text, where all of it is UTF-8.
    whole: Option<&'a str>,
    start: usize,
    end: usize,
}

/// Checks what concerns a record as a whole, then writes it as a row.
fn store(
    source: Source<'_>,
    record: &mut Record,
    ctx: &mut Context<'_>,
    draft: &mut Draft,
) -> Result<row::Stored, Fault> {
    let Source { body, whole, start, end } = source;
    let bytes = &body[start..end];
    if bytes.len() > ctx.limits.line_bytes_max {
        let line_bytes = scan::without_line_end(bytes).len();
        if line_bytes > ctx.limits.line_bytes_max {
            return Err(line_too_long(line_bytes, ctx.limits.line_bytes_max));
        }
    }
    let invalid = |_| Fault::new("invalid_utf8", "the line is not UTF-8");
    let (text, offset) = match whole {
        Some(text) => (text, 0),
        None => (simdutf8::basic::from_utf8(bytes).map_err(invalid)?, start),
    };
    let time_ns = time::resolve(record.time, ctx.precision, ctx.now_ns)?;
    if time_ns > ctx.now_ns.saturating_add(ctx.limits.future_ns_max) {
        let detail = format!("the time lies more than future_ns_max {} ns ahead", ctx.limits.future_ns_max);
        return Err(Fault::new("too_new", detail));
    }
    if time_ns < ctx.oldest_ns {
        return Err(Fault::new(
            "too_old",
            "the time lies before what is kept (the dataset's retention, or past_days_max)",
        ));
    }
    let unescaped = std::mem::take(&mut record.unescaped);
    // Taking ASCII backslashes out of UTF-8 leaves UTF-8.
    let scratch = simdutf8::basic::from_utf8(&unescaped).map_err(invalid)?;
    let texts = Texts::new(text, offset, scratch);
    let stored = names::settle(record, texts).map(|repeated| {
        row::write(record, texts, time_ns, ctx, draft);
        row::Stored { repeated }
    });
    record.unescaped = unescaped;
    stored
}

fn line_too_long(line_bytes: usize, line_bytes_max: usize) -> Fault {
    Fault::new("line_too_long", format!("line of {line_bytes} bytes exceeds line_bytes_max {line_bytes_max}"))
}

/// Numbers physical lines from 1. Only rejected records ask, so a good body is never counted.
struct LineCount {
    at: usize,
    line: usize,
}

impl Default for LineCount {
    fn default() -> Self {
        Self { at: 0, line: 1 }
    }
}

impl LineCount {
    /// The line of a position not before the last one asked for.
    fn line_of(&mut self, body: &[u8], at: usize) -> usize {
        self.line += memchr::memchr_iter(b'\n', &body[self.at..at]).count();
        self.at = at;
        self.line
    }
}

#[cfg(test)]
mod tests;
