//! Columns that hold nothing: one array a type, shared by all that are alike.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::DataType;

/// Columns of nulls, all of one length.
#[derive(Debug)]
pub struct Nulls {
    rows: usize,
    known: Vec<ArrayRef>,
}

impl Nulls {
    /// Columns of so many rows.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        Self { rows, known: Vec::new() }
    }

    /// The column of a type.
    pub fn of(&mut self, r#type: &DataType) -> ArrayRef {
        if let Some(array) = self.known.iter().find(|array| array.data_type() == r#type) {
            return Arc::clone(array);
        }
        let array = new_null_array(r#type, self.rows);
        self.known.push(Arc::clone(&array));
        array
    }
}
