//! The names a record's top level may use for its columns, in order of precedence, as data.

use storage::record::Field;

/// How a value becomes a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Event time.
    Time,
    /// Text as it is; numbers and booleans as their JSON text.
    Text(Field),
    /// A name or a number of a severity.
    Severity,
    /// A correlation id, if it has the form of one.
    Correlation,
    /// Hex text of as many digits, not all zero.
    Hex(Field, usize),
    /// A duration, as nanoseconds to one of its unit.
    Duration(i64),
    /// A number from 0 to 1.
    Confidence,
    /// Any value, as JSON text.
    Json(Field),
    /// The object whose fields are attributes.
    Payload,
    /// The object with the ids of the trace.
    TraceContext,
}

impl Take {
    /// Whether an object or array in this place makes the record wrong; elsewhere it is an attribute.
    pub(super) fn is_scalar(self) -> bool {
        matches!(self, Self::Text(_) | Self::Severity | Self::Correlation)
    }
}

/// A name and what it means.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) take: Take,
    /// Another name that means the same has been listed before.
    pub(super) is_alias: bool,
}

/// What one kind of record knows.
#[derive(Debug)]
pub(super) struct Table {
    known: &'static [Known],
    by_length: [u64; LENGTH_MAX + 1],
    /// Fields without which a record is refused.
    pub(super) required: &'static [Field],
    /// A key named twice makes the record ambiguous, and it is refused.
    pub(super) refuses_duplicates: bool,
}

/// Longer names are never looked up: those in `_trace_context` are listed here for their precedence only.
const LENGTH_MAX: usize = 16;

/// Slot of `trace_id` in `_trace_context`.
pub(super) const CONTEXT_TRACE_ID: &str = "_trace_context.trace_id";
/// Slot of `span_id` in `_trace_context`.
pub(super) const CONTEXT_SPAN_ID: &str = "_trace_context.span_id";

impl Table {
    const fn new(known: &'static [Known], required: &'static [Field], refuses_duplicates: bool) -> Self {
        assert!(known.len() <= SLOTS, "each name has a slot, and a bit of 64");
        let mut by_length = [0; LENGTH_MAX + 1];
        let mut at = 0;
        while at < known.len() {
            let len = known[at].name.len();
            if len <= LENGTH_MAX {
                by_length[len] |= 1 << at;
            }
            at += 1;
        }
        Self { known, by_length, required, refuses_duplicates }
    }

    /// The place of a name, if it is known.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let mut candidates = *self.by_length.get(name.len())?;
        while candidates != 0 {
            let at = candidates.trailing_zeros() as usize;
            if self.known[at].name == name {
                return Some(at);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// The place of a name that is listed for its precedence only.
    pub(super) fn slot(&self, name: &str) -> usize {
        self.known.iter().position(|known| known.name == name).expect("every table lists the trace context")
    }

    pub(super) fn get(&self, at: usize) -> &'static Known {
        &self.known[at]
    }
}

/// Names in one table at most.
pub(super) const SLOTS: usize = 40;

const fn first(name: &'static str, take: Take) -> Known {
    Known { name, take, is_alias: false }
}

const fn alias(name: &'static str, take: Take) -> Known {
    Known { name, take, is_alias: true }
}

/// Lists the envelope's names, then those of the kind.
macro_rules! with_envelope {
    ($($own:expr,)*) => { &[
        first("time", Take::Time),
        alias("timestamp", Take::Time),
        first("id", Take::Text(Field::Id)),
        first("source", Take::Text(Field::Source)),
        alias("service", Take::Text(Field::Source)),
        alias("service.name", Take::Text(Field::Source)),
        first("event_type", Take::Text(Field::EventType)),
        alias("type", Take::Text(Field::EventType)),
        alias("name", Take::Text(Field::EventType)),
        first("severity", Take::Severity),
        first("message", Take::Text(Field::Message)),
        first("correlation_id", Take::Correlation),
        first("trace_id", Take::Hex(Field::TraceId, 32)),
        alias(CONTEXT_TRACE_ID, Take::Hex(Field::TraceId, 32)),
        first("span_id", Take::Hex(Field::SpanId, 16)),
        alias(CONTEXT_SPAN_ID, Take::Hex(Field::SpanId, 16)),
        first("duration_ms", Take::Duration(1_000_000)),
        alias("duration_ns", Take::Duration(1)),
        first("payload", Take::Payload),
        first("_trace_context", Take::TraceContext),
        $($own,)*
    ] };
}

/// *Event in*.
pub(super) static EVENTS: Table = Table::new(with_envelope![], &[], false);

/// *Audit in*.
pub(super) static AUDIT: Table = Table::new(
    with_envelope![
        first("actor_type", Take::Text(Field::ActorType)),
        first("actor_id", Take::Text(Field::ActorId)),
        first("action", Take::Text(Field::Action)),
        first("resource_type", Take::Text(Field::ResourceType)),
        first("resource_id", Take::Text(Field::ResourceId)),
        first("decision_id", Take::Text(Field::DecisionId)),
        first("outcome", Take::Text(Field::Outcome)),
        first("before", Take::Json(Field::Before)),
        alias("before_state", Take::Json(Field::Before)),
        first("after", Take::Json(Field::After)),
        alias("after_state", Take::Json(Field::After)),
        first("reason", Take::Text(Field::Reason)),
        first("confidence", Take::Confidence),
        first("request_id", Take::Text(Field::RequestId)),
    ],
    &[Field::ActorType, Field::ActorId, Field::Action, Field::ResourceType],
    true,
);
