//! Making a chunk fit its dataset: which attribute is a column, and of which type.
//!
//! A key seen in a dataset becomes a column of its first type, up to [`ATTRIBUTE_COLUMNS_MAX`]. A chunk's
//! column that clashes (another type, a name that differs only in case, one column too many) moves to
//! `_overflow`; nothing is dropped and no chunk fails. The order of appends decides, and the log keeps
//! fitted chunks, so a replay comes to the same columns.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch,
    RecordBatchOptions, StringArray,
};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};

use super::column::Column;
use super::draft::{ATTRIBUTE_COLUMNS_MAX, Value};
use super::entries::Entries;
use super::json_text;
use super::kind::{Kind, Type};
use super::nulls::Nulls;
use super::schema;
use super::sparse;

/// The attribute columns of one dataset, in order of first appearance.
#[derive(Clone, Debug)]
pub struct Columns {
    kind: Kind,
    attributes: Arc<[(String, Type)]>,
    /// The place of each by its name in lower case; made when it is first asked for.
    by_folded: OnceLock<HashMap<String, usize>>,
    schema: SchemaRef,
}

impl Columns {
    /// A dataset that has no attributes yet.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self::with_attributes(kind, Vec::new())
    }

    /// A dataset with these attribute columns.
    #[must_use]
    pub fn with_attributes(kind: Kind, attributes: Vec<(String, Type)>) -> Self {
        let schema = schema::table_schema(kind, &attributes);
        Self { kind, attributes: attributes.into(), by_folded: OnceLock::new(), schema }
    }

    /// The same without what is made when it is asked for; `None` where nothing of that was made.
    #[must_use]
    pub fn at_rest(&self) -> Option<Self> {
        self.by_folded.get()?;
        let (attributes, schema) = (Arc::clone(&self.attributes), Arc::clone(&self.schema));
        Some(Self { kind: self.kind, attributes, by_folded: OnceLock::new(), schema })
    }

    fn by_folded(&self) -> &HashMap<String, usize> {
        let place = |(at, (name, _)): (usize, &(String, Type))| (name.to_lowercase(), at);
        self.by_folded.get_or_init(|| self.attributes.iter().enumerate().map(place).collect())
    }

    /// The attribute columns of a table's schema.
    #[must_use]
    pub fn of_schema(kind: Kind, table: &Schema) -> Self {
        let attributes = table
            .fields()
            .iter()
            .filter(|field| !schema::is_fixed(kind, field.name()))
            .filter_map(|field| Some((field.name().clone(), schema::type_of(field)?)))
            .collect();
        Self::with_attributes(kind, attributes)
    }

    /// What the dataset holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The table's schema with these columns.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The attribute columns, in order of first appearance.
    #[must_use]
    pub fn attributes(&self) -> &[(String, Type)] {
        &self.attributes
    }

    fn verdict(&self, name: &str, r#type: Type, added: &mut HashSet<String>) -> Verdict {
        let folded = name.to_lowercase();
        if let Some(at) = self.by_folded().get(&folded) {
            let (known, known_type) = &self.attributes[*at];
            return if known == name && *known_type == r#type { Verdict::Known } else { Verdict::Clash };
        }
        if self.attributes.len() + added.len() >= ATTRIBUTE_COLUMNS_MAX || !added.insert(folded) {
            return Verdict::Clash;
        }
        Verdict::New
    }

    /// Fits a chunk: the batch as it is logged, and the columns that the dataset gains by it.
    #[must_use]
    pub fn fit(&self, batch: RecordBatch) -> (RecordBatch, Vec<(String, Type)>) {
        let mut added = Vec::new();
        let mut added_folded = HashSet::new();
        let mut clashing = Vec::new();
        for (at, field) in batch.schema_ref().fields().iter().enumerate() {
            if schema::is_fixed(self.kind, field.name()) || field.name() == "observed_time_ns" {
                continue;
            }
            let r#type = schema::type_of(field).expect("chunks hold columns of our own types");
            match self.verdict(field.name(), r#type, &mut added_folded) {
                Verdict::Known => {}
                Verdict::New => added.push((field.name().clone(), r#type)),
                Verdict::Clash => clashing.push(at),
            }
        }
        if clashing.is_empty() { (batch, added) } else { (self.overflow(&batch, &clashing), added) }
    }

    /// The batch with its `clashing` columns (rising) moved to `_overflow`, at a cost of their values alone.
    fn overflow(&self, batch: &RecordBatch, clashing: &[usize]) -> RecordBatch {
        let len = batch.num_rows();
        let mut moved = Entries::default();
        for at in clashing {
            let schema = batch.schema_ref();
            let field = schema.field(*at);
            let r#type = schema::type_of(field).expect("chunks hold columns of our own types");
            let key = schema::attribute_key(self.kind, field.name());
            sparse::each_value(batch.column(*at), |row, values, at| {
                moved.push(row, key, |out| value_text(out, values, r#type, at));
            });
        }
        let old = batch.column_by_name(schema::OVERFLOW).map(|column| column.as_string::<i32>());
        let joined =
            moved.join(len, |row| old.filter(|old| old.is_valid(row)).map(|old| old.value(row).as_bytes()));
        let mut fields = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (at, field) in batch.schema_ref().fields().iter().enumerate() {
            if clashing.binary_search(&at).is_err() && field.name() != schema::OVERFLOW {
                fields.push(Arc::clone(field));
                arrays.push(Arc::clone(batch.column(at)));
            }
        }
        fields.push(Arc::new(schema::arrow_field(schema::OVERFLOW, Type::Json)));
        arrays.push(Column::Text(joined).take(Type::Json, len));
        let options = RecordBatchOptions::new().with_row_count(Some(len));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .expect("columns of one chunk are of one length")
    }

    /// This dataset with more columns.
    #[must_use]
    pub fn with_added(&self, added: &[(String, Type)]) -> Self {
        let mut attributes = self.attributes.to_vec();
        for (name, r#type) in added {
            if !self.by_folded().contains_key(&name.to_lowercase()) {
                attributes.push((name.clone(), *r#type));
            }
        }
        Self::with_attributes(self.kind, attributes)
    }
}

enum Verdict {
    Known,
    New,
    Clash,
}

fn value_text(out: &mut Vec<u8>, column: &dyn Array, r#type: Type, row: usize) {
    let any = column.as_any();
    let value = match r#type {
        Type::Text => Value::Text(any.downcast_ref::<StringArray>().expect("text").value(row)),
        Type::Json => Value::Json(any.downcast_ref::<StringArray>().expect("json").value(row)),
        Type::Int => Value::Int(any.downcast_ref::<Int64Array>().expect("int").value(row)),
        Type::Double => Value::Double(any.downcast_ref::<Float64Array>().expect("double").value(row)),
        Type::Bool => Value::Bool(any.downcast_ref::<BooleanArray>().expect("bool").value(row)),
        Type::Bytes => Value::Bytes(any.downcast_ref::<BinaryArray>().expect("bytes").value(row)),
    };
    json_text::value(out, &value);
}

/// Where a chunk's rows stand in the evidence: its writer and the first row's number.
#[derive(Clone, Copy, Debug)]
pub struct Coordinates<'a> {
    /// The log that acknowledged the rows.
    pub writer: &'a str,
    /// The number of the first row; the others follow without a gap.
    pub first_seq: u64,
}

/// Turns a logged chunk into rows of the table's schema, or of some of its columns: adds `time`, `observed_time`,
/// `writer`, `seq`, and nulls for the columns it does not have. A sparse column is written out; one that `schema`
/// does not name costs nothing.
#[must_use]
pub fn to_rows(batch: &RecordBatch, schema: &SchemaRef, at: Coordinates<'_>) -> RecordBatch {
    let len = batch.num_rows();
    let microseconds = |name: &str| -> ArrayRef {
        let ns = batch.column_by_name(name).expect("every chunk has its times").as_primitive::<Int64Type>();
        let us: Int64Array = ns.unary(|ns| ns.div_euclid(1_000));
        Arc::new(us.reinterpret_cast::<arrow::datatypes::TimestampMicrosecondType>().with_timezone("UTC"))
    };
    let mut nulls = Nulls::new(len);
    let arrays = schema
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            match field.name().as_str() {
                schema::TIME => microseconds("time_ns"),
                schema::OBSERVED_TIME => microseconds("observed_time_ns"),
                schema::WRITER => {
                    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(at.writer, len)))
                }
                schema::SEQ => {
                    let first = i64::try_from(at.first_seq).expect("fewer than 2^63 rows");
                    Arc::new(Int64Array::from_iter_values(first..first + i64::try_from(len).expect("rows")))
                }
                name => match batch.column_by_name(name) {
                    Some(column) => sparse::plain(column),
                    None => nulls.of(field.data_type()),
                },
            }
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(len));
    RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
        .expect("a fitted chunk has the table's types")
}

/// Bytes that [`to_rows`] takes beyond what the chunk holds: its encoded columns written out, and the coordinates.
/// Whoever writes a chunk out takes so much from a budget before.
#[must_use]
pub fn written_out_bytes(batch: &RecordBatch) -> usize {
    // `time`, `observed_time`, `seq`, and `writer` with its offset.
    const COORDINATE_BYTES: usize = 64;
    batch.columns().iter().map(sparse::plain_bytes).sum::<usize>() + batch.num_rows() * COORDINATE_BYTES
}

#[cfg(test)]
mod tests;
