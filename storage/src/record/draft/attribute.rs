//! One attribute's column: its values, and which rows hold them once the rows are far apart.

use arrow::array::ArrayRef;

use crate::record::column::{Column, Scalar};
use crate::record::kind::Type;
use crate::record::sparse::{self, Run};

/// Rows that a column may span for each value it holds before it keeps its rows beside its values instead of
/// padding. Chosen: at four, a padded row costs no more than the row's number would.
const ROWS_PER_VALUE_MAX: usize = 4;

/// Rows that a column may span whatever it holds. Chosen: small chunks stay plain, at half a kilobyte a column.
const ROWS_FREE: usize = 64;

/// One attribute column of a draft.
#[derive(Debug)]
pub struct AttributeColumn {
    /// The attribute's key as sent.
    pub key: Box<str>,
    /// Its type in this chunk: that of its first value.
    pub r#type: Type,
    /// Its values: entry *n* is row *n*'s, or that of the *n*th of its rows where it is sparse. What scrubbing
    /// says of an entry by its place here, the draft takes as said of the entry's row.
    pub column: Column,
    /// The row of each entry, rising, once padding would cost more.
    pub(super) rows: Option<Vec<u32>>,
    /// False until a row of this chunk has written it, and for keys that always overflow.
    pub(super) used: bool,
    /// False where the key may not be a column's name.
    pub(super) nameable: bool,
    /// The row, as the draft numbers those it opened, that last wrote this key to `_overflow`, and where there.
    pub(super) overflowed: u64,
    pub(super) overflow_entry: u32,
}

impl AttributeColumn {
    pub(super) fn new(key: &str, nameable: bool) -> Self {
        Self {
            key: key.into(),
            r#type: Type::Text,
            column: Column::new(Type::Text),
            rows: None,
            used: false,
            nameable,
            overflowed: 0,
            overflow_entry: 0,
        }
    }

    /// Begins to be a column of the chunk.
    pub(super) fn begin(&mut self, r#type: Type) {
        self.used = true;
        self.r#type = r#type;
        self.rows = None;
        self.column = Column::new(r#type);
    }

    /// Ends being one: nothing is kept but the key.
    pub(super) fn end(&mut self) {
        self.used = false;
        self.rows = None;
        self.column = Column::new(self.r#type);
    }

    /// Writes the value of `row`, which is behind every row that was written.
    pub(super) fn write(&mut self, row: usize, value: Scalar<'_>) {
        let len = self.column.len();
        if self.rows.is_none() && len != row {
            if self.may_span(row) {
                self.column.pad_to(row);
            } else {
                self.rows = Some((0..len).map(short).collect());
            }
        }
        if let Some(rows) = &mut self.rows {
            rows.push(short(row));
        }
        self.column.push(value);
    }

    /// Takes the value of `row`, the last, back; true where there was one.
    pub(super) fn take_back(&mut self, row: usize) -> bool {
        let len = self.column.len();
        match &mut self.rows {
            None if len <= row => false,
            None => {
                let was_set = self.column.is_set(row);
                self.column.truncate(row);
                was_set
            }
            Some(rows) if rows.last() == Some(&short(row)) => {
                rows.pop();
                self.column.truncate(len - 1);
                true
            }
            Some(_) => false,
        }
    }

    fn may_span(&self, rows: usize) -> bool {
        rows <= ROWS_FREE || rows <= self.value_count().saturating_mul(ROWS_PER_VALUE_MAX)
    }

    /// Rows that hold a value.
    pub(super) fn value_count(&self) -> usize {
        self.column.value_count()
    }

    /// Whether the column keeps its rows beside its values in a chunk of `len` rows.
    pub(super) fn is_sparse_in(&self, len: usize) -> bool {
        !self.may_span(len)
    }

    /// The row of an entry.
    pub(super) fn row_of(&self, entry: usize) -> usize {
        self.rows.as_ref().map_or(entry, |rows| rows[entry] as usize)
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.column.held_bytes() + self.rows.as_ref().map_or(0, |rows| rows.capacity() * size_of::<u32>())
    }

    /// Makes the Arrow array of `len` rows: plain, or run-end encoded where few rows hold a value.
    pub(super) fn take(&mut self, len: usize) -> ArrayRef {
        let is_sparse = self.is_sparse_in(len);
        let rows = self.rows.take();
        if !is_sparse && rows.is_none() {
            return self.column.take(self.r#type, len);
        }
        let entries = self.column.len();
        let run = |start: u32| Run { start, end: start + 1 };
        let rows: Vec<Run> = match rows {
            Some(rows) => rows.into_iter().map(run).collect(),
            None => (0..entries).map(|row| run(short(row))).collect(),
        };
        let values = self.column.take(self.r#type, entries);
        if is_sparse { sparse::encode(&rows, &values, len) } else { sparse::spread(&rows, &values, len) }
    }
}

fn short(row: usize) -> u32 {
    u32::try_from(row).expect("rows of a chunk are bounded far below 2^32")
}
