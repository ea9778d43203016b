//! OTLP traces and logs, in protobuf and in JSON.
//!
//! ```text
//!   wire ──► proto/{request, any_value, span, log} ─┐
//!                                                   ├─► sink ──► Draft
//!   json ──► json/{request, any_value, span, log} ──┘
//! ```
//! A body is walked in place and each value goes straight to its column. Fields may come in any order, so
//! a group's resource and scope are looked for first, then its records are walked; nothing of a record is
//! remembered but what makes a column only together with another field. Spec: opentelemetry-proto,
//! `docs/specification.md`.

mod group;
mod json;
mod notes;
mod proto;
mod severity;
mod sink;
mod span_text;
mod text;
mod wire;

pub(crate) use json::paced as json_paced;
pub use json::{logs_json, traces_json};
pub(crate) use proto::{logs as proto_logs, traces as proto_traces};
pub use proto::{logs_proto, traces_proto};

use crate::decode::Refused;

/// A step of a walk: what refuses the body is boxed, because it is rare and the step is not.
type Refusing<T> = Result<T, Box<Refused>>;

/// How deep values may nest before the body is refused rather than the record. It bounds recursion and
/// lies above every sensible `depth_max`: between the two a record is rejected and its neighbours live.
const NESTING_MAX: usize = 128;

#[cfg(test)]
mod tests;
