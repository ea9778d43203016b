//! Moving values of a draft to `_overflow`: what scrubbing does to keys and to values that are no text, and where
//! a chunk's rare columns go.

use super::{AttributeColumn, Draft, SPARSE_CELLS_MAX, Value, utf8};
use crate::record::column::Column;
use crate::record::json_text;
use crate::record::kind::Type;

impl Draft {
    /// Replaces an attribute's key everywhere in this chunk, for keys that are themselves personal.
    ///
    /// The values move to `_overflow` under the new key: a masked key is no column's name.
    pub fn rename_attribute(&mut self, key: &str, to: &str) {
        let Some(index) = self.by_key.get(key).copied() else { return };
        if !self.attributes[index as usize].used {
            return;
        }
        self.move_column(index, to);
        let attribute = &mut self.attributes[index as usize];
        attribute.nameable = false;
        attribute.key = "".into();
        self.by_key.remove(key);
        self.folded.remove(&key.to_lowercase());
    }

    /// Replaces values of any type by text: they move to `_overflow` under their own key.
    ///
    /// `entries` are places in the attribute's column, rising, each with the text that stands in the value's place.
    pub fn mask_attribute(&mut self, key: &str, entries: &[(usize, &str)]) {
        let Some(index) = self.by_key.get(key).map(|index| *index as usize) else { return };
        let attribute = &mut self.attributes[index];
        attribute.column.clear(entries.iter().map(|(entry, _)| *entry));
        for (entry, text) in entries {
            self.overflow.move_in(attribute.row_of(*entry), key, |out| json_text::string(out, text));
        }
    }

    /// Moves sparse columns to `_overflow` until the others span at most [`SPARSE_CELLS_MAX`] cells.
    pub(super) fn move_rare_columns(&mut self) {
        let len = self.row_count;
        let mut sparse: Vec<(usize, u32)> = self
            .used
            .iter()
            .map(|index| (&self.attributes[*index as usize], *index))
            .filter(|(attribute, _)| attribute.is_sparse_in(len))
            .map(|(attribute, index)| (attribute.value_count(), index))
            .collect();
        let columns_max = SPARSE_CELLS_MAX / len.max(1);
        if sparse.len() <= columns_max {
            return;
        }
        // The fullest stay; of equals, those that came first.
        sparse.sort_by_key(|(values, index)| (std::cmp::Reverse(*values), *index));
        for (_, index) in sparse.split_off(columns_max) {
            let key = self.attributes[index as usize].key.clone();
            self.move_column(index, &key);
        }
    }

    /// Moves every value of a column to `_overflow` under `key`; the column is no part of the chunk afterwards.
    fn move_column(&mut self, index: u32, key: &str) {
        let attribute = &mut self.attributes[index as usize];
        for entry in 0..attribute.column.len() {
            if let Some(value) = value_of(attribute, entry) {
                self.overflow.move_in(attribute.row_of(entry), key, |out| json_text::value(out, &value));
            }
        }
        attribute.end();
        self.used.retain(|used| *used != index);
    }
}

fn value_of(attribute: &AttributeColumn, entry: usize) -> Option<Value<'_>> {
    match &attribute.column {
        Column::Text(column) => column.get(entry).map(|bytes| match attribute.r#type {
            Type::Bytes => Value::Bytes(bytes),
            Type::Json => Value::Json(utf8(bytes)),
            _ => Value::Text(utf8(bytes)),
        }),
        Column::Int(column) => column.get(entry).map(Value::Int),
        Column::Double(column) => column.get(entry).map(Value::Double),
        Column::Bool(column) => column.get(entry).map(Value::Bool),
    }
}
