//! Moving values of a draft to `_overflow`: what scrubbing does to keys and to values that are no text.

use super::{Draft, Value, utf8};
use crate::record::column::{Column, TextColumn};
use crate::record::json_text;
use crate::record::kind::Type;

impl Draft {
    /// Replaces an attribute's key everywhere in this chunk, for keys that are themselves personal.
    ///
    /// The values move to `_overflow` under the new key: a masked key is no column's name.
    pub fn rename_attribute(&mut self, key: &str, to: &str) {
        let Some(index) = self.by_key.get(key).map(|index| *index as usize) else { return };
        if !self.attributes[index].used {
            return;
        }
        let rows: Vec<(usize, Vec<u8>)> =
            (0..self.row_count).filter_map(|row| Some((row, self.attribute_text(index, row)?))).collect();
        let attribute = &mut self.attributes[index];
        attribute.used = false;
        attribute.nameable = false;
        attribute.key = "".into();
        attribute.column = Column::new(attribute.r#type);
        self.column_count -= 1;
        self.by_key.remove(key);
        self.folded.remove(&key.to_lowercase());
        self.add_to_overflow(to, &rows);
    }

    /// Replaces values of any type by text: they move to `_overflow` under their own key.
    ///
    /// `rows` are row numbers, rising, each with the text that stands in the value's place.
    pub fn mask_attribute(&mut self, key: &str, rows: &[(usize, &str)]) {
        let Some(index) = self.by_key.get(key).map(|index| *index as usize) else { return };
        let attribute = &mut self.attributes[index];
        attribute.column.clear(rows.iter().map(|(row, _)| *row));
        let texts: Vec<(usize, Vec<u8>)> = rows
            .iter()
            .map(|(row, text)| {
                let mut out = Vec::new();
                json_text::string(&mut out, text);
                (*row, out)
            })
            .collect();
        self.add_to_overflow(key, &texts);
    }

    fn attribute_text(&self, index: usize, row: usize) -> Option<Vec<u8>> {
        let attribute = &self.attributes[index];
        let value = match &attribute.column {
            Column::Text(column) => column.get(row).map(|bytes| match attribute.r#type {
                Type::Bytes => Value::Bytes(bytes),
                Type::Json => Value::Json(utf8(bytes)),
                _ => Value::Text(utf8(bytes)),
            }),
            Column::Int(column) => column.get(row).map(Value::Int),
            Column::Double(column) => column.get(row).map(Value::Double),
            Column::Bool(column) => column.get(row).map(Value::Bool),
        }?;
        let mut text = Vec::new();
        json_text::value(&mut text, &value);
        Some(text)
    }

    /// Adds one entry to the overflow of each row of `rows` (rising), in one pass.
    fn add_to_overflow(&mut self, key: &str, rows: &[(usize, Vec<u8>)]) {
        let mut rebuilt = TextColumn::default();
        let mut rows = rows.iter().peekable();
        for row in 0..self.row_count {
            let old = self.overflow.get(row);
            if let Some((_, text)) = rows.next_if(|(at, _)| *at == row) {
                rebuilt.pad_to(row);
                rebuilt.push_with(|out| json_text::with_entry(out, old, key, text));
            } else if let Some(old) = old {
                rebuilt.pad_to(row);
                rebuilt.push(old);
            }
        }
        self.overflow = rebuilt;
    }
}
