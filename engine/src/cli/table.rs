//! Aligned tables on a terminal: two spaces between columns, numbers to the right, no lines to copy.

use std::fmt::Write as _;

use serde_json::Value;

use super::remote::printable;

/// Characters of one cell; longer ones are cut with an ellipsis.
const CELL_CHARS_MAX: usize = 120;

/// Rows of text under named columns.
#[derive(Debug, Default)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
struct Cell {
    text: String,
    right: bool,
}

impl Table {
    /// An empty table with `columns`.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Makes a table of JSON objects: `columns`, or every key in the order first seen.
    pub fn of_objects(objects: &[Value], columns: Option<&[String]>) -> Self {
        let columns = columns.map_or_else(|| keys(objects), <[String]>::to_vec);
        let mut table = Self::new(columns);
        for object in objects {
            let row =
                table.columns.iter().map(|column| cell(object.get(column).unwrap_or(&Value::Null))).collect();
            table.rows.push(row);
        }
        table
    }

    /// Adds a row; missing cells stay empty.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let cells = cells.into_iter().map(|text| {
            let text: String = text.into();
            Cell { right: is_number(&text), text: shorten(&printable(&text)) }
        });
        self.rows.push(cells.collect());
    }

    /// Writes the table, a heading line first.
    pub fn render(&self) -> String {
        let heads: Vec<String> = self.columns.iter().map(|name| printable(name)).collect();
        let mut widths: Vec<usize> = heads.iter().map(|head| width(head)).collect();
        let mut right: Vec<bool> = vec![!self.rows.is_empty(); heads.len()];
        for row in &self.rows {
            for (index, cell) in row.iter().enumerate().take(heads.len()) {
                widths[index] = widths[index].max(width(&cell.text));
                right[index] &= cell.right || cell.text.is_empty();
            }
        }
        let mut out = String::new();
        line(&mut out, &widths, &right, heads.iter().map(String::as_str));
        for row in &self.rows {
            line(&mut out, &widths, &right, row.iter().map(|cell| cell.text.as_str()));
        }
        out
    }
}

fn line<'a>(out: &mut String, widths: &[usize], right: &[bool], cells: impl Iterator<Item = &'a str>) {
    let start = out.len();
    for (index, text) in cells.enumerate().take(widths.len()) {
        if index > 0 {
            out.push_str("  ");
        }
        let pad = widths[index].saturating_sub(width(text));
        if right[index] {
            let _ = write!(out, "{:pad$}{text}", "");
        } else {
            let _ = write!(out, "{text}{:pad$}", "");
        }
    }
    let end = out[start..].trim_end().len();
    out.truncate(start + end);
    out.push('\n');
}

fn keys(objects: &[Value]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for object in objects.iter().filter_map(Value::as_object) {
        for key in object.keys() {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
    }
    keys
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell { text: String::new(), right: false },
        Value::String(text) => Cell { text: shorten(&printable(text)), right: false },
        Value::Number(number) => Cell { text: number.to_string(), right: true },
        other => Cell { text: shorten(&printable(&other.to_string())), right: false },
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit() || first == '-') && text.parse::<f64>().is_ok()
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

/// Columns a text takes: characters, which is right for all but wide scripts.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_align_and_numbers_stand_right() {
        let rows = [json!({"name": "cart", "count": 7}), json!({"name": "ä", "count": 1200, "note": null})];
        let text = Table::of_objects(&rows, None).render();
        assert_eq!(text, "name  count  note\ncart      7\nä      1200\n");
    }

    #[test]
    fn long_and_hostile_cells_are_tamed() {
        let mut table = Table::new(["a"]);
        table.row(["x\u{7}\n"]);
        table.row(["y".repeat(200)]);
        let text = table.render();
        assert!(text.contains("x\\u{7}\\n\n"), "{text}");
        assert!(text.ends_with("y…\n"), "{text}");
    }

    #[test]
    fn named_columns_stand_in_their_order() {
        let rows = [json!({"b": 1, "a": {"deep": true}})];
        let text = Table::of_objects(&rows, Some(&["a".into(), "b".into()])).render();
        assert_eq!(text, "a              b\n{\"deep\":true}  1\n");
    }
}
