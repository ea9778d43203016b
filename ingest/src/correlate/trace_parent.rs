//! W3C trace context: `traceparent` and `tracestate`, taken only where both are beyond doubt.

use http::HeaderMap;

/// Members of a trace state that are forwarded at most.
const MEMBERS_MAX: usize = 32;

/// Length of version 00; higher versions hold the same in their first bytes.
const LEN: usize = 55;

/// A sender's place in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// 32 lower-case hex digits, not all zero.
    pub trace_id: String,
    /// 16 lower-case hex digits, not all zero.
    pub span_id: String,
    /// Bit 0 sampled, bit 1 random.
    pub flags: u8,
    /// Vendors' state, to be forwarded as it is.
    pub state: Option<String>,
}

impl TraceParent {
    /// Reads the two headers; a `traceparent` that is absent, sent twice or malformed is no trace at all, and
    /// a malformed `tracestate` is dropped alone.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let value = values.next()?.to_str().ok()?;
        if values.next().is_some() {
            return None;
        }
        let mut parent = Self::parse(value.trim_matches([' ', '\t']))?;
        parent.state = state(headers);
        Some(parent)
    }

    /// Parses one `traceparent`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let head = bytes.get(..LEN)?;
        let dashes = [2, 35, 52].into_iter().all(|at| head.get(at) == Some(&b'-'));
        let (version, trace_id, span_id, flags) =
            (head.get(..2)?, head.get(3..35)?, head.get(36..52)?, head.get(53..)?);
        let all_hex = [version, trace_id, span_id, flags].into_iter().all(is_lower_hex);
        let has_good_end = match version {
            b"00" => bytes.len() == LEN,
            _ => bytes.get(LEN).is_none_or(|next| *next == b'-'),
        };
        if !dashes || !all_hex || !has_good_end || version == b"ff" || is_zero(trace_id) || is_zero(span_id) {
            return None;
        }
        let owned = |part: &[u8]| part.iter().map(|byte| char::from(*byte)).collect::<String>();
        let flags = u8::from_str_radix(&owned(flags), 16).ok()?;
        Some(Self { trace_id: owned(trace_id), span_id: owned(span_id), flags, state: None })
    }
}

fn is_lower_hex(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == b'0')
}

fn state(headers: &HeaderMap) -> Option<String> {
    let mut members: Vec<&str> = Vec::new();
    for value in headers.get_all("tracestate") {
        for member in value.to_str().ok()?.split(',').map(|m| m.trim_matches([' ', '\t'])) {
            if member.is_empty() {
                continue;
            }
            if members.len() == MEMBERS_MAX || !is_member(member) {
                return None;
            }
            members.push(member);
        }
    }
    (!members.is_empty()).then(|| members.join(","))
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let is_key_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/".contains(&b);
    let is_name = |name: &str, len_max: usize, may_start_with_digit: bool| {
        (1..=len_max).contains(&name.len())
            && name.bytes().all(is_key_byte)
            && name.bytes().next().is_some_and(|first| {
                first.is_ascii_lowercase() || may_start_with_digit && first.is_ascii_digit()
            })
    };
    let is_good_key = match key.split_once('@') {
        Some((tenant, system)) => is_name(tenant, 241, true) && is_name(system, 14, false),
        None => is_name(key, 256, false),
    };
    let is_good_value = (1..=256).contains(&value.len())
        && value.bytes().all(|b| (0x20..=0x7e).contains(&b) && b != b',' && b != b'=');
    is_good_key && is_good_value
}
