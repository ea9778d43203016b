//! Which columns a row of each kind has, apart from its attributes.
//!
//! A [`Field`] is a column that a decoder fills by name; its type is fixed. The storage side adds
//! `time`, `observed_time` (microseconds for Delta), `writer` and `seq` when a chunk becomes rows of
//! a table, so no decoder can set them.

/// What a dataset holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// NDJSON, JSON and line-protocol events.
    Events,
    /// OTLP spans.
    Spans,
    /// OTLP log records.
    Logs,
    /// Audit records: who did what to which resource, and why.
    Audit,
    /// Rolled-up latency histograms, one row per window and series.
    Latency,
    /// What the engine itself does.
    System,
}

impl Kind {
    /// Every kind, in a fixed order.
    pub const ALL: [Self; 6] =
        [Self::Events, Self::Spans, Self::Logs, Self::Audit, Self::Latency, Self::System];

    /// The kind's name, which is also the id of its built-in dataset.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Spans => "spans",
            Self::Logs => "logs",
            Self::Audit => "audit",
            Self::Latency => "latency",
            Self::System => "_system",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The kind's columns in table order, without `time`, `observed_time`, `writer` and `seq`.
    #[must_use]
    pub fn fields(self) -> &'static [Field] {
        match self {
            Self::Events | Self::System => EVENTS,
            Self::Spans => SPANS,
            Self::Logs => LOGS,
            Self::Audit => AUDIT,
            Self::Latency => LATENCY,
        }
    }
}

/// The type of a column, as Delta and Arrow keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// UTF-8 text.
    Text,
    /// Text holding one JSON value: arrays and nested maps.
    Json,
    /// Signed 64-bit integer.
    Int,
    /// IEEE 754 double.
    Double,
    /// Boolean.
    Bool,
    /// Bytes.
    Bytes,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident $name:literal $type:ident,)*) => {
        /// A column that decoders fill by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Field { $($(#[$doc])* $variant,)* }

        impl Field {
            /// Every field.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The column's name in tables, SQL and JSON.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The column's type.
            #[must_use]
            pub fn r#type(self) -> Type {
                match self { $(Self::$variant => Type::$type,)* }
            }
        }
    };
}

fields! {
    /// Id of the record; UUIDv7 where the sender gave none.
    Id "id" Text,
    /// Event time, nanoseconds since 1970 UTC. Required in every row.
    TimeNs "time_ns" Int,
    /// When the sender or we saw it, nanoseconds since 1970 UTC. Required in every row.
    ObservedNs "observed_time_ns" Int,
    /// The service it came from.
    Source "source" Text,
    /// What happened (events, audit).
    EventType "event_type" Text,
    /// The span's name.
    Name "name" Text,
    /// Severity as text.
    Severity "severity" Text,
    /// OTel severity number, 1 to 24.
    SeverityNumber "severity_number" Int,
    /// One id across everything a request caused.
    CorrelationId "correlation_id" Text,
    /// 32 lower-case hex digits.
    TraceId "trace_id" Text,
    /// 16 lower-case hex digits.
    SpanId "span_id" Text,
    /// The event's message.
    Message "message" Text,
    /// How long it took, in nanoseconds.
    DurationNs "duration_ns" Int,
    /// 16 lower-case hex digits; null at a root.
    ParentSpanId "parent_span_id" Text,
    /// `internal`, `server`, `client`, `producer`, `consumer` or `unspecified`.
    SpanKind "kind" Text,
    /// `unset`, `ok` or `error`.
    StatusCode "status_code" Text,
    /// The status' message.
    StatusMessage "status_message" Text,
    /// The resource's attributes as a JSON object.
    Resource "resource" Json,
    /// The instrumentation scope's name.
    ScopeName "scope_name" Text,
    /// The instrumentation scope's version.
    ScopeVersion "scope_version" Text,
    /// The instrumentation scope's attributes as a JSON object.
    Scope "scope" Json,
    /// Span events as a JSON array in the shape of the API: `[{"time","name","attributes"}]`.
    Events "events" Json,
    /// Span links as a JSON array in the shape of the API: `[{"trace_id","span_id","attributes"}]`.
    Links "links" Json,
    /// W3C trace flags and OTLP's own bits.
    Flags "flags" Int,
    /// W3C trace state.
    TraceState "trace_state" Text,
    /// Attributes the sender dropped.
    DroppedAttributes "dropped_attributes_count" Int,
    /// Span events the sender dropped.
    DroppedEvents "dropped_events_count" Int,
    /// Span links the sender dropped.
    DroppedLinks "dropped_links_count" Int,
    /// The log record's body: text as it is, anything else as JSON text (see `body_type`).
    Body "body" Text,
    /// Null where the body is text; else `int`, `double`, `bool`, `bytes`, `json`.
    BodyType "body_type" Text,
    /// OTLP's event name of a log record.
    EventName "event_name" Text,
    /// `user`, `service`, `ai`, …
    ActorType "actor_type" Text,
    /// Who acted.
    ActorId "actor_id" Text,
    /// What was done.
    Action "action" Text,
    /// The kind of thing it was done to.
    ResourceType "resource_type" Text,
    /// The thing it was done to.
    ResourceId "resource_id" Text,
    /// The decision it belongs to.
    DecisionId "decision_id" Text,
    /// How it ended.
    Outcome "outcome" Text,
    /// State before, as JSON.
    Before "before" Json,
    /// State after, as JSON.
    After "after" Json,
    /// Why.
    Reason "reason" Text,
    /// How sure, 0 to 1.
    Confidence "confidence" Double,
    /// The request it came with.
    RequestId "request_id" Text,
    /// Which dataset a latency row was measured in.
    SourceDataset "dataset" Text,
    /// Span name or event type of a latency row.
    Operation "operation" Text,
    /// How many durations a latency row holds.
    Count "count" Int,
    /// How many of them were errors.
    ErrorCount "errors" Int,
    /// Length of the window in nanoseconds.
    WindowNs "window_ns" Int,
    /// HDR histogram, V2 compressed.
    Histogram "histogram" Bytes,
}

const EVENTS: &[Field] = &[
    Field::Id,
    Field::TimeNs,
    Field::ObservedNs,
    Field::Source,
    Field::EventType,
    Field::Severity,
    Field::SeverityNumber,
    Field::CorrelationId,
    Field::TraceId,
    Field::SpanId,
    Field::Message,
    Field::DurationNs,
];

const SPANS: &[Field] = &[
    Field::Id,
    Field::TimeNs,
    Field::ObservedNs,
    Field::Source,
    Field::Name,
    Field::Severity,
    Field::SeverityNumber,
    Field::CorrelationId,
    Field::TraceId,
    Field::SpanId,
    Field::ParentSpanId,
    Field::SpanKind,
    Field::DurationNs,
    Field::StatusCode,
    Field::StatusMessage,
    Field::Resource,
    Field::ScopeName,
    Field::ScopeVersion,
    Field::Scope,
    Field::Events,
    Field::Links,
    Field::Flags,
    Field::TraceState,
    Field::DroppedAttributes,
    Field::DroppedEvents,
    Field::DroppedLinks,
];

const LOGS: &[Field] = &[
    Field::Id,
    Field::TimeNs,
    Field::ObservedNs,
    Field::Source,
    Field::EventName,
    Field::Severity,
    Field::SeverityNumber,
    Field::CorrelationId,
    Field::TraceId,
    Field::SpanId,
    Field::Body,
    Field::BodyType,
    Field::Resource,
    Field::ScopeName,
    Field::ScopeVersion,
    Field::Scope,
    Field::Flags,
    Field::DroppedAttributes,
];

const AUDIT: &[Field] = &[
    Field::Id,
    Field::TimeNs,
    Field::ObservedNs,
    Field::Source,
    Field::EventType,
    Field::Severity,
    Field::SeverityNumber,
    Field::CorrelationId,
    Field::TraceId,
    Field::SpanId,
    Field::Message,
    Field::DurationNs,
    Field::ActorType,
    Field::ActorId,
    Field::Action,
    Field::ResourceType,
    Field::ResourceId,
    Field::DecisionId,
    Field::Outcome,
    Field::Before,
    Field::After,
    Field::Reason,
    Field::Confidence,
    Field::RequestId,
];

const LATENCY: &[Field] = &[
    Field::TimeNs,
    Field::ObservedNs,
    Field::Source,
    Field::SourceDataset,
    Field::Operation,
    Field::Outcome,
    Field::WindowNs,
    Field::Count,
    Field::ErrorCount,
    Field::Histogram,
];
