//! OTLP protobuf, walked in place.

mod any_value;
mod log;
mod request;
mod span;

pub(crate) use request::{logs, traces};
pub use request::{logs_proto, traces_proto};
