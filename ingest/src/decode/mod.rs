//! From a body's bytes to columns: one decoder a format, and the only place that knows wire formats.
//!
//! A decoder walks the bytes once and appends straight to a [`Draft`](storage::record::Draft). It tells
//! good records from bad ones and never stores part of a record.

pub mod json;
pub mod line_protocol;
pub mod ndjson;
pub mod otlp;
mod pace;
pub mod severity;
pub mod time;

pub(crate) use pace::{Pace, SLICE_BYTES, at_once};

/// What a decoder needs beside the bytes.
#[derive(Debug)]
pub struct Context<'a> {
    /// Time of receipt, nanoseconds since 1970 UTC.
    pub now_ns: i64,
    /// The event time before which the dataset keeps nothing; `i64::MIN` where it has no retention.
    pub oldest_ns: i64,
    /// The bounds of one request.
    pub limits: &'a Limits,
    /// Unit of line protocol's timestamps.
    pub precision: Precision,
    /// Where ids come from for records that have none.
    pub ids: &'a mut IdSource,
}

/// The bounds of one request (B1). The defaults are those of the HTTP contract.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Body as sent, in bytes.
    pub body_bytes_max: usize,
    /// Body inflated, in bytes.
    pub inflated_bytes_max: usize,
    /// Inflated to sent bytes, past `inflate_ratio_after`.
    pub inflate_ratio_max: usize,
    /// Inflated bytes from which the ratio counts.
    pub inflate_ratio_after: usize,
    /// Records in a request.
    pub records_max: usize,
    /// One line, and one value, in bytes.
    pub line_bytes_max: usize,
    /// Attributes of one record.
    pub attributes_max: usize,
    /// One key, in bytes.
    pub key_bytes_max: usize,
    /// Nesting of values.
    pub depth_max: usize,
    /// How far in the future an event may lie, in nanoseconds.
    pub future_ns_max: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 10 << 20,
            inflated_bytes_max: 64 << 20,
            inflate_ratio_max: 100,
            inflate_ratio_after: 1 << 20,
            records_max: 100_000,
            line_bytes_max: 1 << 20,
            attributes_max: 1_024,
            key_bytes_max: 1_024,
            depth_max: 64,
            future_ns_max: 3_600_000_000_000,
        }
    }
}

/// The unit of line protocol's timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// By magnitude, as v3's `auto`.
    Auto,
    /// Nanoseconds.
    #[default]
    Nanosecond,
    /// Microseconds.
    Microsecond,
    /// Milliseconds.
    Millisecond,
    /// Seconds.
    Second,
    /// Minutes (v1 only).
    Minute,
    /// Hours (v1 only).
    Hour,
}

/// Rejected records that a reply lists; the others are counted.
pub const REJECTED_LISTED_MAX: usize = 100;

/// What a decoder says of the records it saw. `accepted` + `rejected_count` is every record of the body (A2).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Records that are rows of the draft now.
    pub accepted: u32,
    /// Records that are not.
    pub rejected_count: u32,
    /// The first [`REJECTED_LISTED_MAX`] of them.
    pub rejected: Vec<Rejected>,
    /// Things the sender should know although everything was stored; each code once.
    pub warnings: Vec<&'static str>,
}

impl Decoded {
    /// Counts a rejected record, and lists it while there is room.
    pub fn reject(
        &mut self,
        index: usize,
        line: Option<usize>,
        code: &'static str,
        detail: impl Into<String>,
    ) {
        self.rejected_count += 1;
        if self.rejected.len() < REJECTED_LISTED_MAX {
            let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            self.rejected.push(Rejected {
                index: short(index),
                line: line.map(short),
                code,
                detail: detail.into(),
            });
        }
    }

    /// Notes a warning once.
    pub fn warn(&mut self, code: &'static str) {
        if !self.warnings.contains(&code) {
            self.warnings.push(code);
        }
    }
}

/// One record that was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the body, from 0.
    pub index: u32,
    /// Its line, from 1, where the format has lines.
    pub line: Option<u32>,
    /// A stable code.
    pub code: &'static str,
    /// What is wrong with it, without its content.
    pub detail: String,
}

/// The whole body is refused and nothing of it is stored.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// 400 or 413; 503 where the same body may be taken later.
    pub status: u16,
    /// A stable code.
    pub code: &'static str,
    /// What is wrong and what to do about it.
    pub detail: String,
}

impl Refused {
    /// A body that can never be decoded.
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self { status: 400, code, detail: detail.into() }
    }

    /// A body that is over one of the limits.
    pub fn too_large(code: &'static str, detail: impl Into<String>) -> Self {
        Self { status: 413, code, detail: detail.into() }
    }

    /// A body for which there is no memory now.
    pub(crate) fn busy(code: &'static str, detail: &'static str) -> Self {
        Self { status: 503, code, detail: detail.into() }
    }
}

/// Makes UUIDv7 text without allocating: a random start a lane, then a counter below the millisecond.
#[derive(Debug)]
pub struct IdSource {
    context: uuid::ContextV7,
    text: [u8; 36],
}

impl Default for IdSource {
    fn default() -> Self {
        Self { context: uuid::ContextV7::new(), text: [0; 36] }
    }
}

impl IdSource {
    /// The next id, as text, for a record received at `now_ns`.
    pub fn next(&mut self, now_ns: i64) -> &str {
        let ns = u64::try_from(now_ns).unwrap_or(0);
        let sub_second = u32::try_from(ns % 1_000_000_000).expect("a remainder below 10^9");
        let at = uuid::Timestamp::from_unix(&self.context, ns / 1_000_000_000, sub_second);
        uuid::Uuid::new_v7(at).hyphenated().encode_lower(&mut self.text)
    }
}
