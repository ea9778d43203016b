//! From which input each row of a merge comes: the columns that inputs are sorted by, and no others, are decoded for it.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows as Keys, SortField};

use super::merge::bug;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::record::Kind;
use crate::segment::{self, Opened};

/// The columns of a table that its segments are sorted by; together they name one row.
pub fn keys(kind: Kind) -> impl Iterator<Item = &'static str> {
    segment::order(kind).iter().chain(&segment::KEYS).copied()
}

/// Sorted inputs on their way to be one.
pub struct Order {
    converter: RowConverter,
    cursors: Vec<Cursor>,
    heap: Heap,
}

impl Order {
    /// Begins with the first rows of the inputs, of which `batch_rows` are decoded at a time.
    ///
    /// # Errors
    /// As an input says whose place is told.
    pub fn open(
        schema: &SchemaRef,
        inputs: &[Opened],
        batch_rows: impl Fn(usize) -> usize,
    ) -> Result<Self, (usize, Error)> {
        let of_all = |error| (0, bug(error));
        let fields = schema
            .fields()
            .iter()
            .map(|field| SortField::new_with_options(field.data_type().clone(), segment::OPTIONS));
        let converter = RowConverter::new(fields.collect()).map_err(of_all)?;
        let mut cursors = Vec::with_capacity(inputs.len());
        for (at, input) in inputs.iter().enumerate() {
            let rows = input.rows(schema, None, batch_rows(at)).map_err(|error| (at, error))?;
            let mut cursor = Cursor { rows, path: input.path().to_owned(), keys: None, row: 0 };
            cursor.advance(&converter).map_err(|error| (at, error))?;
            cursors.push(cursor);
        }
        let places = (0..cursors.len()).filter(|at| !cursors[*at].is_done()).collect();
        let heap = Heap::new(places, &cursors);
        Ok(Self { converter, cursors, heap })
    }

    /// The places of the inputs from which the next rows come, `count` at most; none at the end.
    ///
    /// # Errors
    /// `Kind::Corrupt` or `Kind::Conflict` of the input whose place is told: damaged, or not sorted.
    pub fn next(&mut self, count: usize) -> Result<Vec<u8>, (usize, Error)> {
        let mut next = Vec::with_capacity(count.min(1 << 16));
        while next.len() < count
            && let Some(lowest) = self.heap.lowest()
        {
            next.push(u8::try_from(lowest).expect("a merge has fewer than 256 inputs"));
            self.cursors[lowest].advance(&self.converter).map_err(|error| (lowest, error))?;
            self.heap.settle(&self.cursors);
        }
        Ok(next)
    }
}

/// A place in one input.
struct Cursor {
    rows: segment::Rows,
    path: String,
    /// Of a batch, as byte strings that compare as the rows do.
    keys: Option<Keys>,
    row: usize,
}

impl Cursor {
    fn is_done(&self) -> bool {
        self.keys.is_none()
    }

    fn key(&self) -> arrow::row::Row<'_> {
        self.keys.as_ref().expect("a cursor that is done is in no heap").row(self.row)
    }

    /// Steps to the next row, which must not come before this one.
    fn advance(&mut self, converter: &RowConverter) -> Result<()> {
        if let Some(keys) = &self.keys
            && self.row + 1 < keys.num_rows()
        {
            if keys.row(self.row + 1) < keys.row(self.row) {
                return Err(self.unsorted());
            }
            self.row += 1;
            return Ok(());
        }
        let last = self.keys.take().map(|keys| keys.row(self.row).owned());
        for batch in self.rows.by_ref() {
            let batch = batch?;
            if batch.num_rows() == 0 {
                continue;
            }
            let columns: Vec<ArrayRef> = batch.columns().iter().map(Arc::clone).collect();
            let keys = converter.convert_columns(&columns).map_err(bug)?;
            if last.as_ref().is_some_and(|last| keys.row(0) < last.row()) {
                return Err(self.unsorted());
            }
            (self.keys, self.row) = (Some(keys), 0);
            break;
        }
        Ok(())
    }

    fn unsorted(&self) -> Error {
        let text = format!("segment {} is not sorted as its table's are", self.path);
        Error::new(ErrorKind::Conflict, text)
    }
}

/// The places of cursors that have rows, the one with the lowest first: a binary heap whose order is not its
/// own.
struct Heap(Vec<usize>);

impl Heap {
    fn new(places: Vec<usize>, cursors: &[Cursor]) -> Self {
        let mut heap = Self(places);
        for at in (0..heap.0.len() / 2).rev() {
            heap.sink(at, cursors);
        }
        heap
    }

    fn lowest(&self) -> Option<usize> {
        self.0.first().copied()
    }

    /// Finds the first one's place again after it moved on.
    fn settle(&mut self, cursors: &[Cursor]) {
        if cursors[self.0[0]].is_done() {
            self.0.swap_remove(0);
        }
        self.sink(0, cursors);
    }

    fn sink(&mut self, mut at: usize, cursors: &[Cursor]) {
        let order = |a: usize, b: usize| -> Ordering {
            // Only a foreign file can hold a row that another holds too: then the earlier input's comes first.
            cursors[a].key().cmp(&cursors[b].key()).then(a.cmp(&b))
        };
        loop {
            let children = (2 * at + 1)..(2 * at + 3).min(self.0.len());
            let Some(lowest) = children.min_by(|a, b| order(self.0[*a], self.0[*b])) else { return };
            if order(self.0[at], self.0[lowest]) == Ordering::Less {
                return;
            }
            self.0.swap(at, lowest);
            at = lowest;
        }
    }
}
