//! One correlation id for everything a request caused: where it comes from, and where it goes.
//!
//! A row keeps the id its sender gave it; else its own trace id; else that of the request it came with. The
//! request's id is made up where the headers hold none that may be echoed, so no row is left without one.
//!
//! What a sender calls an id may be a key or somebody's card. It is looked at before anybody writes it down: what is a
//! secret counts as absent, what is personal is replaced by a token that is the same every time.

mod completeness;
mod trace_parent;

use http::HeaderMap;
use storage::record::{Column, Draft, Field, TextColumn, Type};

use crate::scrub::{Id, Rules, check_id, find, is_key_like};

pub use completeness::{Completeness, Tally};
pub use trace_parent::TraceParent;

/// Longest id that is taken from a header, in bytes.
const ID_BYTES_MAX: usize = 128;

/// Headers that carry the request's credential.
const CREDENTIAL_HEADERS: [&str; 2] = ["authorization", "x-api-key"];

/// The shortest id that is compared with the request's credential, in bytes: short ones end many texts.
const CREDENTIAL_BYTES_MIN: usize = 8;

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
    /// An id that is sent twice, that is not 1 to 128 of `A-Za-z0-9._:-`, or that is or looks like a secret, counts
    /// as absent: it must be safe to echo, to store and to log. `is_key` tells whether a text is a key of ours.
    pub fn from_headers(
        headers: &HeaderMap,
        rules: &Rules,
        is_key: impl Fn(&str) -> bool,
        fresh: impl FnOnce() -> String,
    ) -> Self {
        let usable = |name: &str| {
            let id = id(headers, name)?;
            match check_id(rules, id) {
                Id::Kept if is_credential(headers, id) || is_key(id) => None,
                Id::Kept => Some(id.to_owned()),
                Id::Token(token) => Some(token),
                Id::Secret => None,
            }
        };
        let sent = usable("x-correlation-id");
        let request_id = usable("x-request-id");
        let mut trace = TraceParent::from_headers(headers);
        if let Some(trace) = &mut trace {
            // Vendors' state is forwarded: one that holds a secret is not.
            trace.state = trace.state.take().filter(|state| find(rules, state).is_empty());
        }
        let id = sent
            .or_else(|| request_id.clone())
            .or_else(|| trace.as_ref().map(|trace| trace.trace_id.clone()))
            .unwrap_or_else(fresh);
        let request_id = request_id.unwrap_or_else(|| id.clone());
        Self { id, request_id, trace }
    }

    /// The ids of a request whose head could not be read.
    #[must_use]
    pub fn fresh(id: String) -> Self {
        Self { request_id: id.clone(), id, trace: None }
    }
}

/// Whether an id is, or ends, the credential that the request came with.
fn is_credential(headers: &HeaderMap, id: &str) -> bool {
    id.len() >= CREDENTIAL_BYTES_MIN
        && CREDENTIAL_HEADERS
            .iter()
            .flat_map(|name| headers.get_all(*name))
            .any(|value| value.as_bytes().trim_ascii_end().ends_with(id.as_bytes()))
}

fn id<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    let is_good = (1..=ID_BYTES_MAX).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
    (is_good && values.next().is_none()).then_some(value)
}

/// Gives every row that has no correlation id its own trace id, else the request's id. One that has the form of a key
/// counts as absent; everything else that is secret in it the scrubber finds.
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
        let own = sent.get(row).filter(|id| !is_key_like(id));
        filled.push(own.or_else(|| traces.get(row)).unwrap_or(correlation.id.as_bytes()));
    }
    *draft.column_mut(Field::CorrelationId) = Column::Text(filled);
}

#[cfg(test)]
mod tests;
