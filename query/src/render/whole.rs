//! A result as one JSON object: its columns, its rows up to a bound, and whether the bound cut it.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use storage::record::json_text;

use super::json;

/// Bytes of a JSON reply at most; what is beyond is cut as rows beyond their bound are.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

/// Writes one result.
#[derive(Debug)]
pub struct Whole {
    columns: json::Columns,
    rows_max: usize,
    row_count: usize,
    is_truncated: bool,
}

impl Whole {
    /// Appends what stands before the first row.
    #[must_use]
    pub fn begin(schema: &Schema, rows_max: usize, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"{\"columns\":[");
        for (at, (name, field)) in super::column_names(schema).iter().zip(schema.fields()).enumerate() {
            out.extend_from_slice(if at == 0 { b"{\"name\":" } else { b",{\"name\":" });
            json_text::string(out, name);
            out.extend_from_slice(b",\"type\":");
            json_text::string(out, &json::type_name(field.data_type()));
            out.push(b'}');
        }
        out.extend_from_slice(b"],\"rows\":[");
        Self { columns: json::Columns::of(schema), rows_max, row_count: 0, is_truncated: false }
    }

    /// Appends one row to what was sent and what is in `out`; `false` where a bound leaves it out, and all after it.
    pub fn row(&mut self, batch: &RecordBatch, row: usize, sent_bytes: usize, out: &mut Vec<u8>) -> bool {
        if self.row_count >= self.rows_max || sent_bytes + out.len() >= REPLY_BYTES_MAX {
            self.is_truncated = true;
            return false;
        }
        if self.row_count > 0 {
            out.push(b',');
        }
        self.columns.row(out, batch, row);
        self.row_count += 1;
        true
    }

    /// Appends what stands after the last row.
    pub fn end(&self, out: &mut Vec<u8>) {
        let (row_count, is_truncated) = (self.row_count, self.is_truncated);
        out.extend_from_slice(
            format!("],\"row_count\":{row_count},\"truncated\":{is_truncated}}}").as_bytes(),
        );
    }
}
