//! The end of a record: what was held becomes columns, in order of precedence, and what the kind demands
//! is checked.

use storage::record::{Column, Draft, Field, Value};

use super::{Held, Reader, Reject, scalar, utf8};
use crate::decode::json::{Parser, Type};
use crate::decode::ndjson::known::Take;
use crate::decode::{severity, time};

impl<'t> Reader<'t, '_> {
    /// Turns what is held into columns, falls back where nothing is, and checks what the kind demands.
    pub(super) fn settle(&mut self) -> Result<(), Reject> {
        let mut has_time = false;
        let mut seen = self.seen;
        while seen != 0 {
            let at = seen.trailing_zeros() as usize;
            seen &= seen - 1;
            let known = self.table.get(at);
            let held = self.held[at];
            if matches!(held, Held::Nothing) {
                continue;
            }
            let taken = match known.take {
                Take::Time if has_time => false,
                Take::Time => {
                    self.set_time(held)?;
                    has_time = true;
                    true
                }
                Take::Text(field) => self.set_text(field, held)?,
                Take::Severity => self.set_severity(held)?,
                Take::Correlation => self.set_correlation(held),
                Take::Hex(field, len) => self.set_hex(field, len, held),
                Take::Duration(unit) => self.set_duration(unit, held),
                Take::Confidence => self.set_confidence(held)?,
                Take::Json(field) => self.set_json(field, held)?,
                Take::Payload | Take::TraceContext => true,
            };
            if !taken {
                self.surplus(known.name, held)?;
            }
        }
        if self.table.refuses_duplicates && (self.row.has_duplicate || self.keys.duplicates() > 0) {
            return Err(Reject::new("duplicate_key", "a key is named twice"));
        }
        self.demand()?;
        let draft = &mut *self.row.draft;
        if !has_time {
            draft.set_int(Field::TimeNs, self.now_ns);
        }
        draft.set_int(Field::ObservedNs, self.now_ns);
        if !draft.is_set(Field::Id) {
            draft.set_text(Field::Id, self.ids.next(self.now_ns));
        }
        if !draft.is_set(Field::Source) {
            draft.set_text(Field::Source, "unknown");
        }
        if !draft.is_set(Field::EventType) {
            if self.table.required.contains(&Field::Action) {
                self.text.clear();
                self.text.push_str(text_of(draft, Field::Action));
                draft.set_text(Field::EventType, &self.text);
            } else {
                draft.set_text(Field::EventType, "event");
            }
        }
        Ok(())
    }

    /// What an audit record must have.
    fn demand(&self) -> Result<(), Reject> {
        let draft = &*self.row.draft;
        let missing = |field: Field| Reject::new("missing_field", format!("{} is required", field.name()));
        if let Some(field) = self.table.required.iter().find(|field| !draft.is_set(**field)) {
            return Err(missing(*field));
        }
        if self.table.required.contains(&Field::ActorType)
            && text_of(draft, Field::ActorType).eq_ignore_ascii_case("ai")
        {
            for field in [Field::Reason, Field::Confidence] {
                if !draft.is_set(field) {
                    let detail = format!("{} is required where actor_type is ai", field.name());
                    return Err(Reject::new("missing_field", detail));
                }
            }
        }
        Ok(())
    }

    /// Keeps a value that became no column as an attribute of its own name.
    fn surplus(&mut self, name: &str, held: Held<'t>) -> Result<(), Reject> {
        if let Held::Raw(raw) = held {
            // Scalars keep their type; only an object or array is JSON text.
            let mut json = Parser::new(raw, usize::MAX);
            if !matches!(json.peek()?, Type::Object | Type::Array) {
                return self.row.held(name, scalar(&mut json)?, &mut self.text);
            }
            self.json.clear();
            let keys = self.table.refuses_duplicates.then_some(&mut self.keys);
            json.compact_value(&mut self.json, &mut self.key, keys)?;
            return self.row.attribute(name, Value::Json(utf8(&self.json)));
        }
        self.row.held(name, held, &mut self.text)
    }

    fn set_time(&mut self, held: Held<'t>) -> Result<(), Reject> {
        let ns = match held {
            Held::Number(number) => time::by_magnitude(number.as_i64().ok_or_else(bad_time)?),
            Held::Text(text) => {
                let time = time::rfc3339(text.text(&mut self.text)).ok_or_else(bad_time)?;
                self.leap = time.leap;
                time.ns
            }
            _ => return Err(bad_time()),
        };
        if ns > self.now_ns.saturating_add(self.row.limits.future_ns_max) {
            return Err(Reject::new("too_new", "the time lies further in the future than future_ns_max"));
        }
        if ns < self.oldest_ns {
            return Err(Reject::new(
                "too_old",
                "the time lies before what is kept (the dataset's retention, or past_days_max)",
            ));
        }
        self.row.draft.set_int(Field::TimeNs, ns);
        Ok(())
    }

    fn set_text(&mut self, field: Field, held: Held<'t>) -> Result<bool, Reject> {
        let text = match held {
            Held::Text(text) => text.text(&mut self.text),
            Held::Number(number) => number.as_str(),
            Held::Bool(value) => bool_text(value),
            _ => return Ok(false),
        };
        if text.is_empty() {
            // Says nothing: the next alias or the fallback stands.
            return Ok(true);
        }
        if self.row.draft.is_set(field) {
            return Ok(false);
        }
        self.row.check_size(text.len())?;
        self.row.draft.set_text(field, text);
        Ok(true)
    }

    fn set_severity(&mut self, held: Held<'t>) -> Result<bool, Reject> {
        let (text, number) = match held {
            Held::Text(text) => {
                let text = text.text(&mut self.text);
                // Some senders quote the number.
                match text.parse().ok().and_then(|number| Some((number, severity::name(number)?))) {
                    Some((number, name)) => (name, Some(number)),
                    None => (text, severity::number(text).map(i64::from)),
                }
            }
            Held::Number(number) => match number.as_i64().and_then(|n| Some((n, severity::name(n)?))) {
                Some((number, name)) => (name, Some(number)),
                None => (number.as_str(), None),
            },
            Held::Bool(value) => (bool_text(value), None),
            _ => return Ok(false),
        };
        self.row.check_size(text.len())?;
        if !text.is_empty() {
            self.row.draft.set_text(Field::Severity, text);
        }
        if let Some(number) = number {
            self.row.draft.set_int(Field::SeverityNumber, number);
        }
        Ok(true)
    }

    fn set_correlation(&mut self, held: Held<'t>) -> bool {
        let text = match held {
            Held::Text(text) => text.text(&mut self.text),
            Held::Number(number) => number.as_str(),
            Held::Bool(value) => bool_text(value),
            _ => return false,
        };
        let is_id = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'));
        if is_id {
            self.row.draft.set_text(Field::CorrelationId, text);
        }
        is_id
    }

    fn set_hex(&mut self, field: Field, len: usize, held: Held<'t>) -> bool {
        let Held::Text(text) = held else { return false };
        let text = text.text(&mut self.text);
        let mut digits = [0; 32];
        if text.len() != len
            || !text.bytes().all(|byte| byte.is_ascii_hexdigit())
            || text.bytes().all(|byte| byte == b'0')
        {
            return false;
        }
        let digits = &mut digits[..len];
        digits.copy_from_slice(text.as_bytes());
        digits.make_ascii_lowercase();
        let digits = utf8(digits);
        if self.row.draft.is_set(field) {
            // The same id said twice is said once.
            return text_of(self.row.draft, field) == digits;
        }
        self.row.draft.set_text(field, digits);
        true
    }

    fn set_duration(&mut self, unit_ns: i64, held: Held<'t>) -> bool {
        let Held::Number(number) = held else { return false };
        let ns = match number.as_i64() {
            Some(value) => value.checked_mul(unit_ns),
            None => {
                let ns = (number.as_f64() * unit_ns as f64).round();
                (-1.0..9.2e18).contains(&ns).then_some(ns as i64)
            }
        };
        match ns {
            Some(ns) if ns >= 0 && !self.row.draft.is_set(Field::DurationNs) => {
                self.row.draft.set_int(Field::DurationNs, ns);
                true
            }
            _ => false,
        }
    }

    fn set_confidence(&mut self, held: Held<'t>) -> Result<bool, Reject> {
        let Held::Number(number) = held else { return Err(bad_confidence()) };
        let value = number.as_f64();
        if !(0.0..=1.0).contains(&value) {
            return Err(bad_confidence());
        }
        self.row.draft.set_double(Field::Confidence, value);
        Ok(true)
    }

    fn set_json(&mut self, field: Field, held: Held<'t>) -> Result<bool, Reject> {
        let Held::Raw(raw) = held else { return Ok(false) };
        if self.row.draft.is_set(field) {
            return Ok(false);
        }
        self.row.check_size(raw.len())?;
        self.json.clear();
        let keys = self.table.refuses_duplicates.then_some(&mut self.keys);
        Parser::new(raw, usize::MAX).compact_value(&mut self.json, &mut self.key, keys)?;
        self.row.draft.set_text(field, utf8(&self.json));
        Ok(true)
    }
}

fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

pub(super) fn bad_time() -> Reject {
    Reject::new("bad_time", "the time is neither RFC 3339 nor an integer since 1970")
}

pub(super) fn bad_confidence() -> Reject {
    Reject::new("bad_confidence", "confidence is not a number from 0 to 1")
}

/// A text column's value in the open row; empty where there is none.
fn text_of(draft: &Draft, field: Field) -> &str {
    match draft.column(field) {
        Column::Text(column) => column.get(draft.row_count()).map(utf8).unwrap_or_default(),
        _ => "",
    }
}
