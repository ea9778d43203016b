//! Entries on their way into the JSON objects of `_overflow`: gathered in any order, joined to their rows in one
//! pass, so that many columns that move cost no more than their values.

use super::column::TextColumn;
use super::json_text;

/// Where an entry's `,"key":value` stands, and the row it is for.
#[derive(Clone, Copy, Debug)]
struct Entry {
    row: u32,
    start: u32,
    end: u32,
}

/// Entries of any rows of one chunk.
#[derive(Debug, Default)]
pub(super) struct Entries {
    text: Vec<u8>,
    entries: Vec<Entry>,
}

impl Entries {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an entry; `write` appends its value as JSON text.
    pub(super) fn push(&mut self, row: usize, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let start = short(self.text.len());
        append(&mut self.text, key, write);
        self.entries.push(Entry { row: short(row), start, end: short(self.text.len()) });
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// The objects of `row_count` rows: those of `before`, each with its row's entries behind its own.
    pub(super) fn join<'b>(
        mut self,
        row_count: usize,
        before: impl Fn(usize) -> Option<&'b [u8]>,
    ) -> TextColumn {
        // Stable: entries of one row stay in the order they came in.
        self.entries.sort_by_key(|entry| entry.row);
        let mut joined = TextColumn::default();
        let mut entries = self.entries.iter().peekable();
        for row in 0..row_count {
            let before = before(row);
            let is_of_row = |entry: &&Entry| entry.row as usize == row;
            if before.is_none() && !entries.peek().is_some_and(is_of_row) {
                continue;
            }
            joined.pad_to(row);
            joined.push_with(|out| {
                out.push(b'{');
                let start = out.len();
                out.extend_from_slice(before.and_then(inside).unwrap_or_default());
                while let Some(entry) = entries.next_if(is_of_row) {
                    let skipped_comma = usize::from(out.len() == start);
                    out.extend_from_slice(
                        &self.text[entry.start as usize + skipped_comma..entry.end as usize],
                    );
                }
                out.push(b'}');
            });
        }
        joined
    }
}

/// Appends `,"key":value`.
pub(super) fn append(out: &mut Vec<u8>, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b',');
    json_text::string(out, key);
    out.push(b':');
    write(out);
}

/// What stands between an object's braces.
fn inside(object: &[u8]) -> Option<&[u8]> {
    object.strip_prefix(b"{")?.strip_suffix(b"}")
}

/// Inflated bodies are capped far below 4 GiB, and so is their text.
pub(super) fn short(at: usize) -> u32 {
    u32::try_from(at).expect("text of a chunk is capped far below 4 GiB")
}
