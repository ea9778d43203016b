//! `_overflow` while it grows: the open row's entries as text in one buffer, ended rows as a column, and entries
//! that scrubbing moved here, joined to their rows in one pass.
//!
//! An entry costs its own text and twelve bytes, whatever its key: nothing is boxed, and no entry is copied again
//! for the next one of its row.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::{Taken, Value};
use crate::record::column::TextColumn;
use crate::record::entries::{self, Entries, short};
use crate::record::json_text;

/// Where an entry of the open row stands in its text.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    end: u32,
    /// A later value of its key stands instead.
    is_replaced: bool,
}

/// Text of an open row that is kept for the next one, in bytes. Chosen: many usual chunks.
const KEPT_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Overflow {
    column: TextColumn,
    /// The open row's entries, each with a comma before it.
    text: Vec<u8>,
    entries: Vec<Entry>,
    has_replaced: bool,
    /// Entries of the open row under keys that the draft does not remember, by keyed hash: a sender cannot aim.
    new_keys: HashMap<u64, u32>,
    hasher: RandomState,
    /// What was moved here since the column was last settled.
    moved: Entries,
}

impl Overflow {
    pub(super) fn column(&self) -> &TextColumn {
        &self.column
    }

    /// Adds an entry to the open row; its place is for [`Self::take_back`].
    pub(super) fn put(&mut self, key: &str, value: &Value<'_>) -> u32 {
        let start = short(self.text.len());
        entries::append(&mut self.text, key, |out| json_text::value(out, value));
        self.entries.push(Entry { start, end: short(self.text.len()), is_replaced: false });
        short(self.entries.len() - 1)
    }

    /// As [`Self::put`], for a key that the draft does not remember.
    pub(super) fn put_new_key(&mut self, key: &str, value: &Value<'_>) -> Taken {
        let hash = self.hasher.hash_one(key);
        let place = self.put(key, value);
        match self.new_keys.insert(hash, place) {
            None => Taken::New,
            Some(earlier) => {
                self.take_back(earlier);
                Taken::Duplicate
            }
        }
    }

    /// Takes an entry of the open row back.
    pub(super) fn take_back(&mut self, place: u32) {
        self.entries[place as usize].is_replaced = true;
        self.has_replaced = true;
    }

    /// Ends the open row, `row` of the chunk.
    pub(super) fn end_row(&mut self, row: usize) {
        if self.entries.is_empty() {
            return;
        }
        let (text, entries) = (&self.text, &self.entries);
        if !self.has_replaced || entries.iter().any(|entry| !entry.is_replaced) {
            self.column.pad_to(row);
            self.column.push_with(|out| {
                let start = out.len();
                if self.has_replaced {
                    for entry in entries.iter().filter(|entry| !entry.is_replaced) {
                        out.extend_from_slice(&text[entry.start as usize..entry.end as usize]);
                    }
                } else {
                    out.extend_from_slice(text);
                }
                // The first entry's comma is the object's beginning.
                out[start] = b'{';
                out.push(b'}');
            });
        }
        self.abort_row();
    }

    /// Forgets the open row.
    pub(super) fn abort_row(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        self.text.clear();
        self.text.shrink_to(KEPT_BYTES_MAX);
        self.entries.clear();
        self.has_replaced = false;
        if !self.new_keys.is_empty() {
            self.new_keys.clear();
        }
    }

    /// Adds an entry to a row that has ended; `write` appends its value as JSON text.
    pub(super) fn move_in(&mut self, row: usize, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.moved.push(row, key, write);
    }

    /// The column of a chunk of `row_count` rows, with every moved entry behind those of its row.
    pub(super) fn settled(&mut self, row_count: usize) -> &mut TextColumn {
        if !self.moved.is_empty() {
            let before = std::mem::take(&mut self.column);
            self.column = std::mem::take(&mut self.moved).join(row_count, |row| before.get(row));
        }
        &mut self.column
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.column.held_bytes()
            + self.text.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.moved.held_bytes()
            // A slot is a hash, a place, and a byte of the map's own.
            + self.new_keys.capacity() * 24
    }

    pub(super) fn clear(&mut self) {
        self.abort_row();
        self.column.truncate(0);
        self.moved = Entries::default();
    }
}
