//! What is noticed about a record while it is walked: why it cannot be stored, what its sender should know.
//!
//! A bad record does not end the walk: the body behind it must still be proven well-formed, or half of a
//! broken body would be stored (C3). So a fault is noted, and decided upon at the record's end.

use storage::record::Value;

use crate::decode::Limits;

/// How many times `line_bytes_max` an object or array may take as text before no more of it is written. Chosen: a
/// resource of several values at their own limit passes; an empty value of two bytes becomes fourteen of text, so
/// that without a bound a body would grow sevenfold.
pub(super) const OBJECT_LINES_MAX: usize = 4;

/// Why a record is rejected; its neighbours are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TraceId,
    SpanId,
    ParentSpanId,
    Link,
    TooDeep,
    EmptyKey,
    KeyTooLong,
    ValueTooLarge,
    TooManyAttributes,
    TooNew,
    TooOld,
}

impl Fault {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::TraceId => "invalid_trace_id",
            Self::SpanId => "invalid_span_id",
            Self::ParentSpanId => "invalid_parent_span_id",
            Self::Link => "invalid_link",
            Self::TooDeep => "too_deep",
            Self::EmptyKey => "empty_key",
            Self::KeyTooLong => "key_too_long",
            Self::ValueTooLarge => "value_too_large",
            Self::TooManyAttributes => "too_many_attributes",
            Self::TooNew => "too_new",
            Self::TooOld => "too_old",
        }
    }

    pub(super) fn detail(self, limits: &Limits) -> String {
        match self {
            Self::TraceId => "trace id is not 16 bytes, or is all zero".into(),
            Self::SpanId => "span id is not 8 bytes, or is all zero".into(),
            Self::ParentSpanId => "parent span id is not 8 bytes".into(),
            Self::Link => "trace id or span id of a link is not 16 or 8 bytes".into(),
            Self::TooDeep => format!("a value nests deeper than depth_max {}", limits.depth_max),
            Self::EmptyKey => "an attribute has no key".into(),
            Self::KeyTooLong => format!("a key exceeds key_bytes_max {}", limits.key_bytes_max),
            Self::ValueTooLarge => format!("a value exceeds line_bytes_max {}", limits.line_bytes_max),
            Self::TooManyAttributes => format!("attributes exceed attributes_max {}", limits.attributes_max),
            Self::TooNew => {
                format!("a time lies more than {} s in the future", limits.future_ns_max / 1_000_000_000)
            }
            Self::TooOld => {
                "the time lies before what is kept (the dataset's retention, or past_days_max)".into()
            }
        }
    }
}

/// What was noticed since [`Notes::take`].
#[derive(Debug)]
pub(super) struct Notes<'c> {
    pub(super) limits: &'c Limits,
    fault: Option<Fault>,
    pub(super) has_duplicate: bool,
    /// A field was skipped that OTLP does not have: of the body, never taken back.
    pub(super) has_unknown: bool,
}

impl<'c> Notes<'c> {
    pub(super) fn new(limits: &'c Limits) -> Self {
        Self { limits, fault: None, has_duplicate: false, has_unknown: false }
    }

    /// Notes why the record cannot be stored; the first reason stands.
    pub(super) fn fault(&mut self, fault: Fault) {
        self.fault = self.fault.or(Some(fault));
    }

    /// Whether the record is bad already, so that writing more of it is waste.
    pub(super) fn is_faulty(&self) -> bool {
        self.fault.is_some()
    }

    /// What was noticed, and begins anew.
    pub(super) fn take(&mut self) -> (Option<Fault>, bool) {
        (self.fault.take(), std::mem::take(&mut self.has_duplicate))
    }

    /// Checks the key of the attribute that is the `count`th of its record, event, link, resource or scope.
    pub(super) fn check_attribute(&mut self, key: &str, count: usize) {
        if key.is_empty() {
            self.fault(Fault::EmptyKey);
        }
        if count > self.limits.attributes_max {
            self.fault(Fault::TooManyAttributes);
        }
        self.check_key(key);
    }

    /// Checks a key inside a nested value, where an empty one is legal.
    pub(super) fn check_key(&mut self, key: &str) {
        if key.len() > self.limits.key_bytes_max {
            self.fault(Fault::KeyTooLong);
        }
    }

    /// Bytes that the text of an object or array may take while it is walked.
    pub(super) fn object_bytes_max(&self) -> usize {
        self.limits.line_bytes_max.saturating_mul(OBJECT_LINES_MAX)
    }

    /// Checks a value's size.
    pub(super) fn check_value(&mut self, value: &Value<'_>) {
        match value {
            Value::Text(text) | Value::Json(text) => self.check_len(text.len()),
            Value::Bytes(bytes) => self.check_len(bytes.len()),
            Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Bool(_) => (),
        }
    }

    /// Checks a text's or nested value's length in bytes.
    pub(super) fn check_len(&mut self, len: usize) {
        if len > self.limits.line_bytes_max {
            self.fault(Fault::ValueTooLarge);
        }
    }

    /// Checks how deep a value lies; an attribute's own value lies at 1.
    pub(super) fn check_depth(&mut self, depth: usize) {
        if depth > self.limits.depth_max {
            self.fault(Fault::TooDeep);
        }
    }
}
