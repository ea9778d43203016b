//! One correlation id for everything a request caused: where it comes from, and where it goes.
//!
//! A row keeps the id its sender gave it; else its own trace id; else that of the request it came with. The
//! request's id is made up where the headers hold none that may be echoed, so no row is left without one.

mod completeness;
mod trace_parent;

use http::HeaderMap;
use storage::record::{Column, Draft, Field, TextColumn, Type};

pub use completeness::{Completeness, Tally};
pub use trace_parent::TraceParent;

/// Longest id that is taken from a header, in bytes.
const ID_BYTES_MAX: usize = 128;

/// The ids of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correlation {
    /// Echoed as `X-Correlation-ID` and given to rows that have none of their own.
    pub id: String,
    /// Echoed as `X-Request-ID`; the correlation id where the sender gave none.
    pub request_id: String,
    /// The sender's place in a trace, where it says so.
    pub trace: Option<TraceParent>,
}

impl Correlation {
    /// Reads a request's ids: `X-Correlation-ID`, else `X-Request-ID`, else the trace id of a valid
    /// `traceparent`, else what `fresh` makes (a UUIDv4 as text).
    ///
    /// An id that is sent twice, or that is not 1 to 128 of `A-Za-z0-9._:-`, counts as absent: it must be safe
    /// to echo and to log.
    pub fn from_headers(headers: &HeaderMap, fresh: impl FnOnce() -> String) -> Self {
        let sent = id(headers, "x-correlation-id");
        let request_id = id(headers, "x-request-id");
        let trace = TraceParent::from_headers(headers);
        let id = sent
            .or(request_id)
            .map(str::to_owned)
            .or_else(|| trace.as_ref().map(|trace| trace.trace_id.clone()))
            .unwrap_or_else(fresh);
        let request_id = request_id.map_or_else(|| id.clone(), str::to_owned);
        Self { id, request_id, trace }
    }
}

fn id<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    let is_good = (1..=ID_BYTES_MAX).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
    (is_good && values.next().is_none()).then_some(value)
}

/// Gives every row that has no correlation id its own trace id, else the request's id.
pub fn fill(draft: &mut Draft, correlation: &Correlation) {
    let rows = draft.row_count();
    if rows == 0 || !draft.has(Field::CorrelationId) {
        return;
    }
    let empty = Column::new(Type::Text);
    let Column::Text(sent) = std::mem::replace(draft.column_mut(Field::CorrelationId), empty) else {
        unreachable!("the correlation id is text")
    };
    let traces = match draft.column(Field::TraceId) {
        Column::Text(column) => column,
        _ => unreachable!("the trace id is text"),
    };
    let mut filled = TextColumn::default();
    for row in 0..rows {
        filled.push(sent.get(row).or_else(|| traces.get(row)).unwrap_or(correlation.id.as_bytes()));
    }
    *draft.column_mut(Field::CorrelationId) = Column::Text(filled);
}

#[cfg(test)]
mod tests;
