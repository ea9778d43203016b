//! One record: an object's members become columns and attributes of one row.
//!
//! Known names may come in any order and under several aliases, so their values are held (they borrow from
//! the body) until the object ends, and then settled in order of precedence. Everything else goes straight
//! into the draft as an attribute, nested objects flattened along one reusable path.

mod settle;

use storage::record::{Draft, Taken, Value};

use super::Reject;
use super::known::{CONTEXT_SPAN_ID, CONTEXT_TRACE_ID, SLOTS, Table, Take};
use crate::decode::json::{self, KeySet, Number, Parser, Text, Type};
use crate::decode::{Context, Decoded, IdSource, Limits};
use settle::{bad_confidence, bad_time};

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
    oldest_ns: i64,
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
            oldest_ns: ctx.oldest_ns,
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

    /// What the rows read so far hold, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.row.draft.held_bytes() + self.json.capacity() + self.text.capacity()
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

fn empty_key() -> Reject {
    Reject::new("bad_key", "a key is empty")
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it was written from text")
}
