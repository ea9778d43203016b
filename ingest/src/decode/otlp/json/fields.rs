//! What OTLP/JSON makes of objects and scalars: members each once, numbers of a width, hex ids.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::decode::json::{Error, KeySet, Parser, Type, Value};
use crate::decode::otlp::Refusing;
use crate::decode::otlp::notes::Notes;
use crate::decode::{Limits, Refused};

/// How deep a value may nest in a field that OTLP does not have.
const SKIPPED_DEPTH_MAX: usize = 64;

/// Fields of one object that OTLP does not have and that are remembered, to tell duplicates. Chosen: many times what
/// a later version of the protocol could add.
const UNKNOWN_FIELDS_MAX: usize = 1_024;

/// Buffers for what does not stand in the body as it is meant: one set a body.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) key: String,
    pub(super) text: String,
    pub(super) bytes: Vec<u8>,
}

/// The members of one object, each key once.
#[derive(Debug, Default)]
pub(super) struct Members<'t> {
    /// Which of the known fields have come, one bit each.
    seen: u32,
    /// Where the next known field is looked for first: senders write fields in one order.
    next: usize,
    unknown: HashSet<Cow<'t, str>>,
}

impl<'t> Members<'t> {
    /// Opens the object that must come next.
    pub(super) fn open(json: &mut Parser<'t>) -> Refusing<Self> {
        json.object().map_err(refused)?;
        Ok(Self::default())
    }

    /// Goes to the next field of `known` that has a value; `None` behind the object's last member.
    ///
    /// Fields that OTLP does not have are skipped and noted; a field that is null counts as absent.
    pub(super) fn next(
        &mut self,
        json: &mut Parser<'t>,
        known: &[&'static str],
        notes: &mut Notes<'_>,
    ) -> Refusing<Option<&'static str>> {
        while let Some(key) = json.key().map_err(refused)? {
            let key = key.to_cow();
            let Some(field) = self.field(&key, known) else {
                notes.has_unknown = true;
                if !self.unknown.insert(key) {
                    return Err(duplicate_key(json));
                }
                if self.unknown.len() > UNKNOWN_FIELDS_MAX {
                    return Err(refuse(json, "an object has too many fields that OTLP does not have"));
                }
                skip(json, notes.limits)?;
                continue;
            };
            if self.seen & (1 << field) != 0 {
                return Err(duplicate_key(json));
            }
            self.seen |= 1 << field;
            self.next = field + 1;
            if !json.null().map_err(refused)? {
                return Ok(Some(known[field]));
            }
        }
        Ok(None)
    }

    fn field(&self, key: &str, known: &[&'static str]) -> Option<usize> {
        let (before, after) = known.split_at(self.next.min(known.len()));
        match after.iter().position(|name| *name == key) {
            Some(field) => Some(before.len() + field),
            None => before.iter().position(|name| *name == key),
        }
    }
}

/// Skips a value of no interest, which must be in order all the same.
pub(super) fn skip(json: &mut Parser<'_>, limits: &Limits) -> Refusing<()> {
    let is_nested = matches!(json.peek().map_err(refused)?, Type::Object | Type::Array);
    let raw = json.raw_value().map_err(refused)?;
    if raw.len() > limits.line_bytes_max {
        return Err(refuse(json, "a field that OTLP does not have is longer than a value may be"));
    }
    if is_nested {
        let (mut out, mut scratch, mut keys) = (Vec::new(), String::new(), KeySet::default());
        Parser::new(raw, SKIPPED_DEPTH_MAX)
            .compact_value(&mut out, &mut scratch, Some(&mut keys))
            .map_err(refused)?;
        if keys.duplicates() > 0 {
            return Err(duplicate_key(json));
        }
    }
    Ok(())
}

/// Walks an array, calling for each element with the parser before it.
pub(super) fn each<'t>(
    json: &mut Parser<'t>,
    mut element: impl FnMut(&mut Parser<'t>) -> Refusing<()>,
) -> Refusing<()> {
    json.array().map_err(refused)?;
    while json.element().map_err(refused)? {
        element(json)?;
    }
    Ok(())
}

/// Reads a string, unescaped into `scratch` where it has escapes.
pub(super) fn string<'s, 't: 's>(json: &mut Parser<'t>, scratch: &'s mut String) -> Refusing<&'s str> {
    Ok(json.string().map_err(refused)?.text(scratch))
}

pub(super) fn boolean(json: &mut Parser<'_>) -> Refusing<bool> {
    json.bool().map_err(refused)
}

/// A signed 64-bit integer, as a number or in a string.
pub(super) fn int64(json: &mut Parser<'_>) -> Refusing<i64> {
    let parsed = match json.next().map_err(refused)? {
        Value::Number(number) => number.as_i64(),
        Value::Text(text) if is_integer(text.raw()) => text.raw().parse().ok(),
        _ => None,
    };
    parsed.ok_or_else(|| refuse(json, "no integer of 64 bits"))
}

/// An unsigned 64-bit integer, as a number or in a string.
pub(super) fn uint64(json: &mut Parser<'_>) -> Refusing<u64> {
    let parsed = match json.next().map_err(refused)? {
        Value::Number(number) => number.as_u64(),
        Value::Text(text) if is_integer(text.raw()) => text.raw().parse().ok(),
        _ => None,
    };
    parsed.ok_or_else(|| refuse(json, "no unsigned integer of 64 bits"))
}

/// An unsigned 32-bit integer, as a number or in a string.
pub(super) fn uint32(json: &mut Parser<'_>) -> Refusing<u32> {
    u32::try_from(uint64(json)?).map_err(|_| refuse(json, "no unsigned integer of 32 bits"))
}

/// An enum's number; its name is refused (C28).
pub(super) fn enumerator(json: &mut Parser<'_>) -> Refusing<i32> {
    let parsed = match json.next().map_err(refused)? {
        Value::Number(number) => number.as_i64().and_then(|number| i32::try_from(number).ok()),
        _ => None,
    };
    parsed.ok_or_else(|| refuse(json, "an enum is sent by its number, not by its name"))
}

/// A double, as a number, or in a string, where it may be `NaN`, `Infinity` or `-Infinity`.
pub(super) fn double(json: &mut Parser<'_>) -> Refusing<f64> {
    let parsed = match json.next().map_err(refused)? {
        Value::Number(number) => Some(number.as_f64()),
        Value::Text(text) => match text.raw() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            raw => {
                let mut number = Parser::new(raw, 0);
                number.number().ok().filter(|_| number.offset() == raw.len()).map(|number| number.as_f64())
            }
        },
        _ => None,
    };
    parsed.ok_or_else(|| refuse(json, "no double"))
}

/// Decodes base64 of either alphabet, with or without padding, into `out`.
pub(super) fn base64(json: &Parser<'_>, text: &str, out: &mut Vec<u8>) -> Refusing<()> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD, CONFIG);
    const FOR_URLS: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, CONFIG);
    let engine = if text.contains(['-', '_']) { &FOR_URLS } else { &PLAIN };
    out.clear();
    engine.decode_vec(text, out).map_err(|_| refuse(json, "bytes that are no base64"))
}

/// A trace or span id, sent as hex.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Id {
    bytes: [u8; 16],
    len: usize,
}

impl Id {
    /// Reads an id. What is no hex is an id of one byte: wrong for that record, not for the body (C30).
    pub(super) fn read(json: &mut Parser<'_>, scratch: &mut String) -> Refusing<Self> {
        let text = string(json, scratch)?;
        let mut id = Self { bytes: [0xff; 16], len: text.len() / 2 };
        let is_hex =
            id.bytes.get_mut(..id.len).is_some_and(|bytes| hex::decode_to_slice(text, bytes).is_ok());
        if !is_hex {
            id = Self { bytes: [0xff; 16], len: 1 };
        }
        Ok(id)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Makes the parser's refusal that of the body.
#[cold]
pub(super) fn refused(error: Error) -> Box<Refused> {
    Box::new(Refused::invalid(error.code(), format!("the body is not OTLP/JSON: {error}")))
}

#[cold]
pub(super) fn refuse(json: &Parser<'_>, why: &'static str) -> Box<Refused> {
    let detail = format!("the body is not OTLP/JSON: {why}, before byte {}", json.offset());
    Box::new(Refused::invalid("invalid_json", detail))
}

#[cold]
fn duplicate_key(json: &Parser<'_>) -> Box<Refused> {
    let detail = format!("a key comes twice in the object around byte {}", json.offset());
    Box::new(Refused::invalid("duplicate_key", detail))
}
