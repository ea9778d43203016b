//! Which tags and fields are columns: *Line in* of the HTTP contract. Everything else is an attribute.
//!
//! Of two aliases the first named in the contract is the column and the other stays an attribute. So does an
//! id of another form and a duration that is no number: nothing a sender wrote is dropped.

use storage::record::{Draft, Field, Taken, Value};

use super::scan::{Entry, Record, Scanned, Texts};
use crate::decode::Context;

const NS_PER_MS: i64 = 1_000_000;

/// A correlation id is 1 to this many of `A-Za-z0-9._:-`.
const CORRELATION_BYTES_MAX: usize = 128;

/// What was stored.
#[derive(Debug)]
pub(super) struct Stored {
    /// A field stood twice.
    pub repeated: bool,
}

/// The entries that are columns.
#[derive(Default)]
struct Columns {
    /// Rank among the aliases of `source`, and which entry.
    source: Option<(u8, usize)>,
    correlation_id: Option<usize>,
    trace_id: Option<usize>,
    span_id: Option<usize>,
    /// Rank among the two units, which entry, and nanoseconds.
    duration: Option<(u8, usize, i64)>,
}

impl Columns {
    fn of(record: &Record, texts: Texts<'_>) -> Self {
        let mut columns = Self::default();
        for (at, entry) in record.entries.iter().enumerate().filter(|(_, entry)| !entry.replaced) {
            let key = texts.get(entry.key);
            match entry.value {
                Scanned::Tag(value) => columns.take_tag(at, key, || texts.get(value)),
                value => columns.take_field(at, key, value),
            }
        }
        columns
    }

    fn take_tag<'a>(&mut self, at: usize, key: &str, value: impl Fn() -> &'a str) {
        let rank = match key {
            "source" => 0,
            "service" => 1,
            "service.name" => 2,
            "correlation_id" if is_correlation_id(value()) => return self.correlation_id = Some(at),
            "trace_id" if is_hex_id(value(), 32) => return self.trace_id = Some(at),
            "span_id" if is_hex_id(value(), 16) => return self.span_id = Some(at),
            _ => return,
        };
        if self.source.is_none_or(|(best, _)| rank < best) {
            self.source = Some((rank, at));
        }
    }

    fn take_field(&mut self, at: usize, key: &str, value: Scanned) {
        let (rank, ns_per_unit) = match key {
            "duration_ms" => (0, NS_PER_MS),
            "duration_ns" => (1, 1),
            _ => return,
        };
        if self.duration.is_none_or(|(best, ..)| rank < best)
            && let Some(duration_ns) = nanoseconds(value, ns_per_unit)
        {
            self.duration = Some((rank, at, duration_ns));
        }
    }

    fn has(&self, at: usize) -> bool {
        self.source.is_some_and(|(_, source)| source == at)
            || self.duration.is_some_and(|(_, duration, _)| duration == at)
            || [self.correlation_id, self.trace_id, self.span_id].contains(&Some(at))
    }
}

/// Writes a record that is known to be good as the draft's next row.
pub(super) fn write(
    record: &Record,
    texts: Texts<'_>,
    time_ns: i64,
    ctx: &mut Context<'_>,
    draft: &mut Draft,
) {
    let columns = Columns::of(record, texts);
    let tag = |at: usize| match record.entries[at].value {
        Scanned::Tag(value) => texts.get(value),
        _ => unreachable!("only tags are taken for text columns"),
    };
    draft.begin_row();
    draft.set_text(Field::Id, ctx.ids.next(ctx.now_ns));
    draft.set_int(Field::TimeNs, time_ns);
    draft.set_int(Field::ObservedNs, ctx.now_ns);
    draft.set_text(Field::EventType, texts.get(record.measurement));
    draft.set_text(Field::Source, columns.source.map_or("unknown", |(_, at)| tag(at)));
    if let Some(at) = columns.correlation_id {
        draft.set_text(Field::CorrelationId, tag(at));
    }
    for (field, at) in [(Field::TraceId, columns.trace_id), (Field::SpanId, columns.span_id)] {
        if let Some(at) = at {
            set_lower_case(draft, field, tag(at));
        }
    }
    if let Some((.., duration_ns)) = columns.duration {
        draft.set_int(Field::DurationNs, duration_ns);
    }
    for (at, entry) in record.entries.iter().enumerate() {
        if !entry.replaced && !columns.has(at) {
            attribute(draft, entry, texts);
        }
    }
    draft.end_row();
}

fn attribute(draft: &mut Draft, entry: &Entry, texts: Texts<'_>) {
    let value = match entry.value {
        Scanned::Tag(text) | Scanned::Text(text) => Value::Text(texts.get(text)),
        Scanned::Int(int) => Value::Int(int),
        Scanned::Uint(uint) => Value::Uint(uint),
        Scanned::Double(double) => Value::Double(double),
        Scanned::Bool(bool) => Value::Bool(bool),
    };
    let key = texts.get(entry.key);
    let taken = match entry.tag_prefixes {
        0 => draft.attribute(key, value),
        prefixes => draft.attribute(&format!("{}{key}", "tag.".repeat(usize::from(prefixes))), value),
    };
    debug_assert_eq!(taken, Taken::New, "the names of a record are settled before it is written");
}

/// `is_hex_id` has passed it, so it fits the buffer.
fn set_lower_case(draft: &mut Draft, field: Field, id: &str) {
    let mut buffer = [0; 32];
    let lower = &mut buffer[..id.len()];
    lower.copy_from_slice(id.as_bytes());
    lower.make_ascii_lowercase();
    draft.set_text(field, std::str::from_utf8(lower).expect("hex digits are ASCII"));
}

/// Hex digits in either case, of that many, and not all zero (W3C Trace Context).
fn is_hex_id(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && text.bytes().any(|byte| byte != b'0')
}

fn is_correlation_id(text: &str) -> bool {
    (1..=CORRELATION_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'))
}

/// A duration in nanoseconds; `None` where the value is no number, negative, or longer than 64 bits hold.
fn nanoseconds(value: Scanned, ns_per_unit: i64) -> Option<i64> {
    match value {
        Scanned::Int(int) if int >= 0 => int.checked_mul(ns_per_unit),
        Scanned::Uint(uint) => i64::try_from(uint).ok()?.checked_mul(ns_per_unit),
        Scanned::Double(double) => {
            let ns = (double * ns_per_unit as f64).round();
            // 2^63 is the first double that does not fit; everything below converts without loss.
            (0.0..9_223_372_036_854_775_808.0).contains(&ns).then_some(ns as i64)
        }
        _ => None,
    }
}
