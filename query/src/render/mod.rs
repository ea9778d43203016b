//! From batches to bytes: JSON rows, lines of JSON, CSV, Arrow's stream.
//!
//! Every format is written a batch at a time into one buffer, so a result of any size streams in the memory
//! of a batch.

pub mod arrow_stream;
pub mod csv;
pub mod json;
mod whole;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
pub use whole::Whole;

/// A batch as slices whose rows are together about `bytes` long: what is rendered at once has a bound, and a batch has
/// none.
pub fn slices(batch: &RecordBatch, bytes: usize) -> impl Iterator<Item = RecordBatch> + use<'_> {
    let held = |column: &dyn Array| column.to_data().get_slice_memory_size().unwrap_or(0);
    let all: usize = batch.columns().iter().map(|column| held(column.as_ref())).sum();
    let rows = batch.num_rows();
    let step = (bytes / (all / rows.max(1)).max(1)).clamp(1, rows.max(1));
    (0..rows).step_by(step).map(move |at| batch.slice(at, step.min(rows - at)))
}

/// The names of a result's columns, each once: a second `id` is `id_2`.
#[must_use]
pub fn column_names(schema: &Schema) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(schema.fields().len());
    let mut taken = std::collections::HashSet::new();
    for field in schema.fields() {
        let mut name = field.name().clone();
        let mut nth = 2;
        while !taken.insert(name.clone()) {
            name = format!("{}_{nth}", field.name());
            nth += 1;
        }
        names.push(name);
    }
    names
}

/// How a streamed result is written.
pub enum Format {
    /// One JSON object a line.
    Ndjson(json::Columns),
    /// A header line and one line a row.
    Csv(csv::Columns),
    /// Arrow's IPC stream.
    Arrow(Box<arrow_stream::Encoder>),
}

impl Format {
    /// The format's media type.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        match self {
            Self::Ndjson(_) => "application/x-ndjson",
            Self::Csv(_) => "text/csv; charset=utf-8",
            Self::Arrow(_) => "application/vnd.apache.arrow.stream",
        }
    }

    /// Appends what stands before the first row.
    ///
    /// # Errors
    /// Where Arrow cannot encode the schema.
    pub fn begin(&mut self, out: &mut Vec<u8>) -> arrow::error::Result<()> {
        match self {
            Self::Ndjson(_) => Ok(()),
            Self::Csv(columns) => {
                columns.header(out);
                Ok(())
            }
            Self::Arrow(encoder) => encoder.drain(out),
        }
    }

    /// Appends the rows of one batch.
    ///
    /// # Errors
    /// Where Arrow cannot encode it.
    pub fn rows(&mut self, out: &mut Vec<u8>, batch: &RecordBatch) -> arrow::error::Result<()> {
        match self {
            Self::Ndjson(columns) => {
                for row in 0..batch.num_rows() {
                    columns.row(out, batch, row);
                    out.push(b'\n');
                }
                Ok(())
            }
            Self::Csv(columns) => {
                columns.rows(out, batch);
                Ok(())
            }
            Self::Arrow(encoder) => encoder.write(out, batch),
        }
    }

    /// Appends what stands after the last row.
    ///
    /// # Errors
    /// Where Arrow cannot encode it.
    pub fn end(&mut self, out: &mut Vec<u8>) -> arrow::error::Result<()> {
        match self {
            Self::Ndjson(_) | Self::Csv(_) => Ok(()),
            Self::Arrow(encoder) => encoder.finish(out),
        }
    }
}

/// What the client accepts of a query's result; `None` is plain JSON. The first media type that is known
/// wins; weights are not looked at but for `q=0`.
///
/// # Errors
/// Where Arrow cannot encode the schema.
pub fn format(accept: Option<&str>, schema: &SchemaRef) -> arrow::error::Result<Option<Format>> {
    for range in accept.unwrap_or_default().split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        if parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0")) {
            continue;
        }
        return Ok(Some(match media.as_str() {
            "application/x-ndjson" | "application/jsonl" | "application/x-jsonlines" => {
                Format::Ndjson(json::Columns::of(schema))
            }
            "text/csv" => Format::Csv(csv::Columns::of(schema)),
            "application/vnd.apache.arrow.stream" => {
                Format::Arrow(Box::new(arrow_stream::Encoder::new(schema)?))
            }
            "application/json" | "application/*" | "*/*" => return Ok(None),
            _ => continue,
        }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
