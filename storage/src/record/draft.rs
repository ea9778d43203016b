//! The chunk while it is being written: decoders append, scrubbing rewrites, `finish` closes.
//!
//! ```text
//!   decoder ── begin_row, set, attribute, end_row | abort_row ──► Draft ── correlate, scrub, measure ──► finish
//! ```
//! There is no per-row object: a value goes from the body's bytes into its column. A key is resolved by
//! position first (the same source sends the same order), by hash only when that misses. What has no
//! column of its own (another type for a known key, a name Delta forbids, an integer above `i64::MAX`,
//! more keys than the bound) goes to `_overflow`, one JSON object a row.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::array::RecordBatchOptions;
use arrow::datatypes::Schema;

use super::column::{Column, Scalar, TextColumn};
use super::json_text;
use super::kind::{Field, Kind, Type};
use super::schema;

/// Attribute columns in one chunk at most; further keys overflow. The same bound holds per dataset
/// (`fit.rs`), so a chunk cannot usefully have more.
pub const ATTRIBUTE_COLUMNS_MAX: usize = 512;

/// Keys that a lane remembers between chunks before it starts anew. Chosen: eight full datasets.
const REMEMBERED_KEYS_MAX: usize = 4_096;

/// The value of an attribute, borrowed from the body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text.
    Text(&'a str),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer; above `i64::MAX` it overflows.
    Uint(u64),
    /// A double, bit-exact (one NaN).
    Double(f64),
    /// A boolean.
    Bool(bool),
    /// Bytes.
    Bytes(&'a [u8]),
    /// One JSON value as text: arrays and maps that are kept whole.
    Json(&'a str),
}

impl Value<'_> {
    fn r#type(&self) -> Type {
        match self {
            Value::Text(_) => Type::Text,
            Value::Int(_) | Value::Uint(_) => Type::Int,
            Value::Double(_) => Type::Double,
            Value::Bool(_) => Type::Bool,
            Value::Bytes(_) => Type::Bytes,
            Value::Json(_) => Type::Json,
        }
    }

    fn scalar(&self) -> Option<Scalar<'_>> {
        Some(match *self {
            Value::Text(text) | Value::Json(text) => Scalar::Text(text.as_bytes()),
            Value::Int(int) => Scalar::Int(int),
            Value::Uint(uint) => Scalar::Int(i64::try_from(uint).ok()?),
            Value::Double(double) => Scalar::Double(double),
            Value::Bool(bool) => Scalar::Bool(bool),
            Value::Bytes(bytes) => Scalar::Text(bytes),
        })
    }
}

/// How an attribute was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// It is new in this row.
    New,
    /// The row had that key already; the last value stands (C25).
    Duplicate,
}

/// One attribute column of a draft.
#[derive(Debug)]
pub struct AttributeColumn {
    /// The attribute's key as sent.
    pub key: Box<str>,
    /// Its type in this chunk: that of its first value.
    pub r#type: Type,
    /// Its values.
    pub column: Column,
    /// False until a row of this chunk has written it, and for keys that always overflow.
    used: bool,
    /// False where the key may not be a column's name.
    nameable: bool,
}

/// A chunk of one kind of records, growing.
#[derive(Debug)]
pub struct Draft {
    kind: Kind,
    row_count: usize,
    in_row: bool,
    fixed: Vec<Column>,
    positions: [u8; Field::ALL.len()],
    attributes: Vec<AttributeColumn>,
    by_key: HashMap<Box<str>, u32>,
    folded: HashMap<String, u32>,
    column_count: usize,
    next: usize,
    overflow: TextColumn,
    overflow_row: Vec<(Box<str>, Vec<u8>)>,
}

const ABSENT: u8 = u8::MAX;

impl Draft {
    /// An empty draft for records of `kind`.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let mut positions = [ABSENT; Field::ALL.len()];
        for (position, field) in kind.fields().iter().enumerate() {
            positions[*field as usize] = u8::try_from(position).expect("a kind has fewer than 255 fields");
        }
        Self {
            kind,
            row_count: 0,
            in_row: false,
            fixed: kind.fields().iter().map(|field| Column::new(field.r#type())).collect(),
            positions,
            attributes: Vec::new(),
            by_key: HashMap::new(),
            folded: HashMap::new(),
            column_count: 0,
            next: 0,
            overflow: TextColumn::default(),
            overflow_row: Vec::new(),
        }
    }

    /// The kind of the records.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Rows that are ended.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.row_count
    }

    /// Whether this kind has the field.
    #[must_use]
    pub fn has(&self, field: Field) -> bool {
        self.positions[field as usize] != ABSENT
    }

    /// Opens a row.
    pub fn begin_row(&mut self) {
        debug_assert!(!self.in_row, "rows do not nest");
        self.in_row = true;
        self.next = 0;
    }

    /// Closes the row: it is part of the chunk from here on.
    pub fn end_row(&mut self) {
        debug_assert!(self.in_row, "a row is open");
        if !self.overflow_row.is_empty() {
            self.overflow.pad_to(self.row_count);
            let row = &mut self.overflow_row;
            self.overflow.push_with(|out| json_text::object(out, row));
            row.clear();
        }
        self.row_count += 1;
        self.in_row = false;
    }

    /// Takes the open row back: nothing of it stays.
    pub fn abort_row(&mut self) {
        let row = self.row_count;
        for column in &mut self.fixed {
            column.truncate(row);
        }
        // Only columns of this chunk: a body of rejected records must not pay for keys of others.
        for attribute in self.attributes.iter_mut().filter(|attribute| attribute.used) {
            attribute.column.truncate(row);
        }
        self.overflow_row.clear();
        self.in_row = false;
    }

    /// Writes a text field of the open row; the last write stands.
    pub fn set_text(&mut self, field: Field, value: &str) {
        self.set(field, Scalar::Text(value.as_bytes()));
    }

    /// Writes an integer field of the open row; the last write stands.
    pub fn set_int(&mut self, field: Field, value: i64) {
        self.set(field, Scalar::Int(value));
    }

    /// Writes a double field of the open row; the last write stands.
    pub fn set_double(&mut self, field: Field, value: f64) {
        self.set(field, Scalar::Double(value));
    }

    /// Writes a bytes field of the open row; the last write stands.
    pub fn set_bytes(&mut self, field: Field, value: &[u8]) {
        self.set(field, Scalar::Text(value));
    }

    fn set(&mut self, field: Field, value: Scalar<'_>) {
        debug_assert!(self.in_row, "a row is open");
        let row = self.row_count;
        self.column_mut(field).set(row, value);
    }

    /// Whether the open row has that field.
    #[must_use]
    pub fn is_set(&self, field: Field) -> bool {
        self.column(field).is_set(self.row_count)
    }

    /// A field's column.
    ///
    /// # Panics
    /// When this kind of record has no such field: ask [`Self::has`].
    #[must_use]
    pub fn column(&self, field: Field) -> &Column {
        &self.fixed[usize::from(self.positions[field as usize])]
    }

    /// A field's column, to be rewritten by correlation and scrubbing.
    ///
    /// # Panics
    /// When this kind of record has no such field: ask [`Self::has`].
    pub fn column_mut(&mut self, field: Field) -> &mut Column {
        &mut self.fixed[usize::from(self.positions[field as usize])]
    }

    /// The attribute columns that this chunk uses, in order of first appearance.
    pub fn attributes(&self) -> impl Iterator<Item = &AttributeColumn> {
        self.attributes.iter().filter(|attribute| attribute.used)
    }

    /// As [`Self::attributes`], to be rewritten by scrubbing.
    pub fn attributes_mut(&mut self) -> impl Iterator<Item = &mut AttributeColumn> {
        self.attributes.iter_mut().filter(|attribute| attribute.used)
    }

    /// The overflow column: one JSON object a row where a row needs it.
    #[must_use]
    pub fn overflow(&self) -> &TextColumn {
        &self.overflow
    }

    /// As [`Self::overflow`], to be rewritten by scrubbing.
    pub fn overflow_mut(&mut self) -> &mut TextColumn {
        &mut self.overflow
    }

    /// Writes an attribute of the open row; the last value of a key stands.
    pub fn attribute(&mut self, key: &str, value: Value<'_>) -> Taken {
        debug_assert!(self.in_row, "a row is open");
        let index = self.resolve(key);
        let row = self.row_count;
        let fits_bound = self.column_count < ATTRIBUTE_COLUMNS_MAX;
        let attribute = &mut self.attributes[index];
        let mut taken = Taken::New;
        if !attribute.used && attribute.nameable && fits_bound {
            attribute.used = true;
            attribute.r#type = value.r#type();
            attribute.column = Column::new(attribute.r#type);
            self.column_count += 1;
        }
        if attribute.used && attribute.column.is_set(row) {
            taken = Taken::Duplicate;
            attribute.column.truncate(row);
        }
        if !self.overflow_row.is_empty() {
            let before = self.overflow_row.len();
            self.overflow_row.retain(|(other, _)| &**other != key);
            if self.overflow_row.len() != before {
                taken = Taken::Duplicate;
            }
        }
        match value.scalar() {
            Some(scalar) if attribute.used && attribute.r#type == value.r#type() => {
                attribute.column.set(row, scalar);
            }
            _ => {
                let mut text = Vec::new();
                json_text::value(&mut text, &value);
                self.overflow_row.push((key.into(), text));
            }
        }
        taken
    }

    /// Whether the open row has an attribute of that key.
    #[must_use]
    pub fn has_attribute(&self, key: &str) -> bool {
        let row = self.row_count;
        self.overflow_row.iter().any(|(other, _)| &**other == key)
            || self.by_key.get(key).is_some_and(|index| {
                let attribute = &self.attributes[*index as usize];
                attribute.used && attribute.column.is_set(row)
            })
    }

    fn resolve(&mut self, key: &str) -> usize {
        if let Some(attribute) = self.attributes.get(self.next)
            && &*attribute.key == key
        {
            self.next += 1;
            return self.next - 1;
        }
        let index = match self.by_key.get(key) {
            Some(index) => *index as usize,
            None => self.remember(key),
        };
        self.next = index + 1;
        index
    }

    fn remember(&mut self, key: &str) -> usize {
        let index = self.attributes.len();
        let short = u32::try_from(index).expect("keys of a chunk are bounded by its records");
        let taken = *self.folded.entry(key.to_lowercase()).or_insert(short) != short;
        self.attributes.push(AttributeColumn {
            key: key.into(),
            r#type: Type::Text,
            column: Column::new(Type::Text),
            used: false,
            nameable: !taken && is_nameable(self.kind, key),
        });
        self.by_key.insert(key.into(), short);
        index
    }

    /// Closes the draft: its columns become a batch, and the draft is empty, ready for the next chunk.
    ///
    /// The keys stay remembered, so that the same source's next chunk resolves them by position.
    pub(crate) fn take(&mut self) -> RecordBatch {
        debug_assert!(!self.in_row, "the last row is ended or aborted");
        let len = self.row_count;
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for (field, column) in self.kind.fields().iter().zip(&mut self.fixed) {
            if !column.is_empty() {
                fields.push(schema::arrow_field(field.name(), field.r#type()));
                arrays.push(column.take(field.r#type(), len));
            }
        }
        for attribute in self.attributes.iter_mut().filter(|attribute| attribute.used) {
            let name = schema::attribute_column_name(self.kind, &attribute.key);
            fields.push(schema::arrow_field(&name, attribute.r#type));
            arrays.push(attribute.column.take(attribute.r#type, len));
        }
        if !self.overflow.is_empty() {
            fields.push(schema::arrow_field(schema::OVERFLOW, Type::Json));
            arrays.push(Column::Text(std::mem::take(&mut self.overflow)).take(Type::Json, len));
        }
        self.reset();
        let options = RecordBatchOptions::new().with_row_count(Some(len));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .expect("every column was padded to the same number of rows")
    }

    /// Forgets all rows; keys stay remembered up to a bound.
    pub fn reset(&mut self) {
        self.row_count = 0;
        self.in_row = false;
        self.next = 0;
        self.column_count = 0;
        for column in &mut self.fixed {
            column.truncate(0);
        }
        for attribute in &mut self.attributes {
            attribute.used = false;
            attribute.column.truncate(0);
        }
        self.overflow.truncate(0);
        self.overflow_row.clear();
        if self.attributes.len() > REMEMBERED_KEYS_MAX || self.attributes.len() != self.by_key.len() {
            self.attributes.clear();
            self.by_key.clear();
            self.folded.clear();
        }
    }
}

/// Whether Delta allows the key as a column's name: no space, `,;{}()=`, control; and it is not empty.
///
/// A key that begins with `attr.` overflows, because `attr.<key>` is where an attribute named like a
/// column stands.
/// One that differs from a fixed column only in case overflows too: Delta's names ignore case.
fn is_nameable(kind: Kind, key: &str) -> bool {
    !key.is_empty()
        && (schema::is_fixed(kind, key) || !schema::is_fixed(kind, &key.to_lowercase()))
        && !key.starts_with("attr.")
        && !key.starts_with('_')
        && !key.chars().any(|c| c.is_control() || matches!(c, ' ' | ',' | ';' | '{' | '}' | '(' | ')' | '='))
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text columns hold text: decoders check UTF-8")
}

mod moves;
#[cfg(test)]
mod tests;
