//! OTLP/JSON: protobuf's JSON mapping as OTLP narrows it.
//!
//! Field names in lower camel case only, ids in hex, enums by number, 64-bit integers as numbers or text,
//! null for absent; fields that OTLP does not have are ignored, a key that comes twice refuses the body.

mod any_value;
mod fields;
mod log;
mod request;
mod span;

pub(crate) use request::paced;
pub use request::{logs_json, traces_json};
