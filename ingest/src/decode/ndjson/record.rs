//! One record: an object's members become columns and attributes of one row.
//!
//! Known names may come in any order and under several aliases, so their values are held (they borrow from
//! the body) until the object ends, and then settled in order of precedence. Everything else goes straight
//! into the draft as an attribute, nested objects flattened along one reusable path.

use storage::record::{Column, Draft, Field, Taken, Value};

use super::Reject;
use super::known::{CONTEXT_SPAN_ID, CONTEXT_TRACE_ID, SLOTS, Table, Take};
use crate::decode::json::{self, KeySet, Number, Parser, Text, Type};
use crate::decode::{Context, Decoded, IdSource, Limits, severity, time};

/// A known name's value, until all members are seen.
#[derive(Clone, Copy, Debug)]
enum Held<'t> {
    /// `null`: as if it were absent.
    Nothing,
    Text(Text<'t>),
    Number(Number<'t>),
    Bool(bool),
    /// Any value as it stands in the text.
    Raw(&'t str),
    /// An object or array, which is an attribute already.
    Attribute,
}

/// Reads records of one body into one draft; its buffers serve all of them.
pub(super) struct Reader<'t, 'd> {
    table: &'static Table,
    row: Row<'d>,
    now_ns: i64,
    ids: &'d mut IdSource,
    held: [Held<'t>; SLOTS],
    /// Which slots of `held` belong to this record.
    seen: u64,
    keys: KeySet,
    path: String,
    /// Where the path's parents end, for each object that is open below its top.
    parents: Vec<usize>,
    key: String,
    text: String,
    json: Vec<u8>,
    /// The record has a leap second.
    leap: bool,
    any_leap: bool,
    any_duplicate: bool,
}

/// The open row and what bounds its attributes.
struct Row<'d> {
    draft: &'d mut Draft,
    limits: &'d Limits,
    attribute_count: usize,
    has_duplicate: bool,
}

impl<'t, 'd> Reader<'t, 'd> {
    pub(super) fn new(table: &'static Table, ctx: &'d mut Context<'_>, draft: &'d mut Draft) -> Self {
        Self {
            table,
            row: Row { draft, limits: ctx.limits, attribute_count: 0, has_duplicate: false },
            now_ns: ctx.now_ns,
            ids: ctx.ids,
            held: [Held::Nothing; SLOTS],
            seen: 0,
            keys: KeySet::default(),
            path: String::new(),
            parents: Vec::new(),
            key: String::new(),
            text: String::new(),
            json: Vec::new(),
            leap: false,
            any_leap: false,
            any_duplicate: false,
        }
    }

    /// Reads one record; it is a row of the draft afterwards, or nothing of it is there.
    pub(super) fn record(&mut self, text: &'t str) -> Result<(), Reject> {
        let mut json = Parser::new(text, self.row.limits.depth_max);
        if json.peek()? != Type::Object {
            json.skip_value()?;
            json.end()?;
            return Err(Reject::new("not_object", "a record is a JSON object"));
        }
        self.seen = 0;
        self.leap = false;
        self.row.attribute_count = 0;
        self.row.has_duplicate = false;
        self.keys.clear();
        self.row.draft.begin_row();
        let outcome = self.members(&mut json).and_then(|()| self.settle());
        match &outcome {
            Ok(()) => {
                self.row.draft.end_row();
                self.any_leap |= self.leap;
                self.any_duplicate |= self.row.has_duplicate;
            }
            Err(_) => self.row.draft.abort_row(),
        }
        outcome
    }

    /// Tells what the sender should know of the records that were taken.
    pub(super) fn warn(&self, decoded: &mut Decoded) {
        if self.any_duplicate {
            decoded.warn("duplicate_key");
        }
        if self.any_leap {
            decoded.warn("leap_second");
        }
    }

    fn members(&mut self, json: &mut Parser<'t>) -> Result<(), Reject> {
        json.object()?;
        self.enter();
        while let Some(key) = json.key()? {
            let name = key.text(&mut self.key);
            if self.table.refuses_duplicates {
                self.keys.insert(name);
            }
            if let Some(at) = self.table.find(name) {
                self.known(at, json)?;
                continue;
            }
            if name.starts_with('_') || matches!(name, "tenant" | "tenant_id") {
                return Err(Reject::new("reserved_field", "a top-level name is reserved"));
            }
            if name.is_empty() {
                return Err(empty_key());
            }
            self.path.clear();
            self.path.push_str(name);
            self.attribute(json, true)?;
        }
        self.leave();
        Ok(json.end()?)
    }

    fn known(&mut self, at: usize, json: &mut Parser<'t>) -> Result<(), Reject> {
        let known = self.table.get(at);
        let r#type = json.peek()?;
        let is_container = matches!(r#type, Type::Object | Type::Array);
        match known.take {
            Take::Payload if r#type == Type::Object => {
                self.note(at, Held::Nothing);
                self.path.clear();
                return self.attribute(json, false);
            }
            Take::TraceContext if r#type == Type::Object => {
                self.note(at, Held::Nothing);
                return self.trace_context(json);
            }
            Take::TraceContext if r#type != Type::Null => {
                return Err(Reject::new("wrong_type", "_trace_context is not an object"));
            }
            Take::Json(_) if r#type != Type::Null => {
                let raw = json.raw_value()?;
                self.note(at, Held::Raw(raw));
                return Ok(());
            }
            Take::Time if is_container && !known.is_alias => return Err(bad_time()),
            Take::Confidence if is_container => return Err(bad_confidence()),
            take if is_container && take.is_scalar() && !known.is_alias => {
                return Err(Reject::new("wrong_type", format!("{} is an object or array", known.name)));
            }
            _ => {}
        }
        if is_container || known.take == Take::Payload {
            self.note(at, Held::Attribute);
            self.path.clear();
            self.path.push_str(known.name);
            return self.attribute(json, true);
        }
        let held = scalar(json)?;
        self.note(at, held);
        Ok(())
    }

    fn note(&mut self, at: usize, held: Held<'t>) {
        self.row.has_duplicate |= self.seen & (1 << at) != 0;
        self.seen |= 1 << at;
        self.held[at] = held;
    }

    fn trace_context(&mut self, json: &mut Parser<'t>) -> Result<(), Reject> {
        json.object()?;
        self.enter();
        while let Some(key) = json.key()? {
            let name = key.text(&mut self.key);
            if self.table.refuses_duplicates {
                self.keys.insert(name);
            }
            let is_container = matches!(json.peek()?, Type::Object | Type::Array);
            let slot = match name {
                "trace_id" if !is_container => Some(CONTEXT_TRACE_ID),
                "span_id" if !is_container => Some(CONTEXT_SPAN_ID),
                _ => None,
            };
            if let Some(slot) = slot {
                let held = scalar(json)?;
                self.note(self.table.slot(slot), held);
                continue;
            }
            if name.is_empty() {
                return Err(empty_key());
            }
            self.path.clear();
            if name != "trace_flags" {
                self.path.push_str("_trace_context.");
            }
            self.path.push_str(name);
            self.attribute(json, false)?;
        }
        self.leave();
        Ok(())
    }

    /// Reads the value at `path`: a scalar or an array is one attribute, an object's fields are one each.
    ///
    /// An empty path is the payload itself. `is_top` where the path begins at the record's top level.
    fn attribute(&mut self, json: &mut Parser<'t>, is_top: bool) -> Result<(), Reject> {
        self.parents.clear();
        loop {
            self.leaf(json, is_top)?;
            // On to the next member, closing the objects that end here.
            loop {
                let Some(parent) = self.parents.last().copied() else { return Ok(()) };
                self.path.truncate(parent);
                let Some(key) = json.key()? else {
                    self.parents.pop();
                    self.leave();
                    continue;
                };
                let key = key.text(&mut self.key);
                if self.table.refuses_duplicates {
                    self.keys.insert(key);
                }
                if key.is_empty() {
                    return Err(empty_key());
                }
                if !self.path.is_empty() {
                    self.path.push('.');
                }
                self.path.push_str(key);
                break;
            }
        }
    }

    /// Reads a scalar or an array into the attribute at `path`, or opens an object.
    fn leaf(&mut self, json: &mut Parser<'t>, is_top: bool) -> Result<(), Reject> {
        match json.peek()? {
            Type::Object => {
                json.object()?;
                self.enter();
                self.parents.push(self.path.len());
                return Ok(());
            }
            Type::Array => {
                self.json.clear();
                let keys = self.table.refuses_duplicates.then_some(&mut self.keys);
                json.compact_value(&mut self.json, &mut self.key, keys)?;
                return self.row.attribute(&self.path, Value::Json(utf8(&self.json)));
            }
            _ => {}
        }
        let held = scalar(json)?;
        // `{"service":{"name":…}}` is `service.name`, whichever way it was sent.
        if is_top
            && !self.parents.is_empty()
            && let Some(at) = self.table.find(&self.path)
        {
            self.note(at, held);
            return Ok(());
        }
        self.row.held(&self.path, held, &mut self.text)
    }

    fn enter(&mut self) {
        if self.table.refuses_duplicates {
            self.keys.enter();
        }
    }

    fn leave(&mut self) {
        if self.table.refuses_duplicates {
            self.keys.leave();
        }
    }

    /// Turns what is held into columns, falls back where nothing is, and checks what the kind demands.
    fn settle(&mut self) -> Result<(), Reject> {
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

impl Row<'_> {
    fn check_size(&self, len: usize) -> Result<(), Reject> {
        let max = self.limits.line_bytes_max;
        if len <= max {
            return Ok(());
        }
        Err(Reject::new("value_too_large", format!("value of {len} bytes exceeds line_bytes_max {max}")))
    }

    fn held(&mut self, key: &str, held: Held<'_>, scratch: &mut String) -> Result<(), Reject> {
        let value = match held {
            Held::Nothing | Held::Attribute | Held::Raw(_) => return self.check_key(key),
            Held::Text(text) => Value::Text(text.text(scratch)),
            Held::Bool(value) => Value::Bool(value),
            Held::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Value::Int(int),
                (None, Some(uint)) => Value::Uint(uint),
                // An integer past 64 bits: a double would lose digits, JSON text does not.
                (None, None) if number.is_integer() => Value::Json(number.as_str()),
                (None, None) => Value::Double(number.as_f64()),
            },
        };
        self.attribute(key, value)
    }

    fn check_key(&self, key: &str) -> Result<(), Reject> {
        let max = self.limits.key_bytes_max;
        if key.is_empty() {
            return Err(empty_key());
        }
        if key.len() > max {
            return Err(Reject::new(
                "bad_key",
                format!("key of {} bytes exceeds key_bytes_max {max}", key.len()),
            ));
        }
        Ok(())
    }

    fn attribute(&mut self, key: &str, value: Value<'_>) -> Result<(), Reject> {
        self.check_key(key)?;
        if let Value::Text(text) | Value::Json(text) = value {
            self.check_size(text.len())?;
        }
        self.attribute_count += 1;
        if self.attribute_count > self.limits.attributes_max {
            let detail = format!("more attributes than attributes_max {}", self.limits.attributes_max);
            return Err(Reject::new("too_many_attributes", detail));
        }
        self.has_duplicate |= self.draft.attribute(key, value) == Taken::Duplicate;
        Ok(())
    }
}

fn scalar<'t>(json: &mut Parser<'t>) -> Result<Held<'t>, json::Error> {
    Ok(match json.next()? {
        json::Value::Null => Held::Nothing,
        json::Value::Bool(value) => Held::Bool(value),
        json::Value::Number(number) => Held::Number(number),
        json::Value::Text(text) => Held::Text(text),
        json::Value::Object | json::Value::Array => unreachable!("the caller has seen a scalar"),
    })
}

fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn bad_time() -> Reject {
    Reject::new("bad_time", "the time is neither RFC 3339 nor an integer since 1970")
}

fn empty_key() -> Reject {
    Reject::new("bad_key", "a key is empty")
}

fn bad_confidence() -> Reject {
    Reject::new("bad_confidence", "confidence is not a number from 0 to 1")
}

/// A text column's value in the open row; empty where there is none.
fn text_of(draft: &Draft, field: Field) -> &str {
    match draft.column(field) {
        Column::Text(column) => column.get(draft.row_count()).map(utf8).unwrap_or_default(),
        _ => "",
    }
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it was written from text")
}
