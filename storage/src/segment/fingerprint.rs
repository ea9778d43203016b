//! A fingerprint of rows that depends on what they hold, not on their order or on how they lie in files.
//!
//! It tells whether an encoder, a store or a merge gave back what it was given (F22, M1). It is a check against
//! faults, not against forgers: the hash has no key and is built for speed, a column at a time, because every
//! byte that is ever sealed passes through it twice. A null adds nothing, so a column that a file does not have
//! and a column of nulls are the same.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};

/// Odd numbers without structure: the first digits of pi and of the square root of two.
const PI: u64 = 0x2435_f6a8_885a_308d;
const ROOT: u64 = 0x6a09_e667_f3bc_c909;

/// Rows whose numbers are gathered at a time, column by column: they stay in the first-level cache meanwhile.
const ROWS: usize = 1_024;

/// The number of some rows, and 128 bits over all that they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    rows: u64,
    sum: u128,
}

impl Fingerprint {
    /// The fingerprint of one batch.
    pub fn of(batch: &RecordBatch) -> Self {
        let mut fingerprint = Self::default();
        fingerprint.add(batch);
        fingerprint
    }

    /// Adds rows; those of several batches add up to the same in any order.
    pub fn add(&mut self, batch: &RecordBatch) {
        let filled = filled(batch);
        for start in (0..batch.num_rows()).step_by(ROWS) {
            let mut cells = Cells::of_rows(ROWS.min(batch.num_rows() - start));
            for (key, column) in &filled {
                let count = cells.0.len();
                add_column(&mut cells.0, &column.slice(start, count), *key);
            }
            self.add_cells(&cells);
        }
    }

    /// Adds rows whose columns have all been gathered.
    pub fn add_cells(&mut self, cells: &Cells) {
        // A row's cells are mixed into one number before rows are summed: a value that changed rows shows.
        self.sum = cells.0.iter().fold(self.sum, |sum, row| sum.wrapping_add(settle(*row)));
        self.rows += cells.0.len() as u64;
    }

    /// How many rows were added.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

/// What some rows hold, while it is gathered some columns at a time.
#[derive(Clone, Debug)]
pub struct Cells(Vec<[u64; 2]>);

impl Cells {
    /// Of so many rows, with no column yet.
    pub fn of_rows(count: usize) -> Self {
        Self(vec![[0; 2]; count])
    }

    /// Adds columns of the rows from `first` on, which must be there.
    pub fn add(&mut self, first: usize, batch: &RecordBatch) {
        let rows = &mut self.0[first..first + batch.num_rows()];
        for (key, column) in filled(batch) {
            add_column(rows, column, key);
        }
    }
}

/// Columns that have a value, with their keys. A null adds nothing, so neither does a column of them: a table may have
/// hundreds.
fn filled(batch: &RecordBatch) -> Vec<([u64; 2], &ArrayRef)> {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    columns
        .filter(|(_, column)| column.null_count() < batch.num_rows())
        .map(|(field, column)| (key(field.name()), column))
        .collect()
}

/// The two keys of a column: from its name, so that a value that changed columns shows.
fn key(name: &str) -> [u64; 2] {
    let hash = blake3::hash(name.as_bytes());
    let word = |at: usize| u64::from_le_bytes(hash.as_bytes()[at..at + 8].try_into().expect("eight bytes"));
    [word(0), word(8)]
}

fn add_column(rows: &mut [[u64; 2]], column: &ArrayRef, key: [u64; 2]) {
    match column.data_type() {
        DataType::Int64 => {
            let column = column.as_primitive::<Int64Type>();
            add_cells(rows, column, |row| of_word(key, column.value(row).cast_unsigned()));
        }
        DataType::Timestamp(..) => {
            let column = column.as_primitive::<TimestampMicrosecondType>();
            add_cells(rows, column, |row| of_word(key, column.value(row).cast_unsigned()));
        }
        DataType::Float64 => {
            // By its bits: every NaN and the negative zero are values of their own.
            let column = column.as_primitive::<Float64Type>();
            add_cells(rows, column, |row| of_word(key, column.value(row).to_bits()));
        }
        DataType::Boolean => {
            let column = column.as_boolean();
            add_cells(rows, column, |row| of_word(key, u64::from(column.value(row))));
        }
        DataType::Utf8 => {
            let column = column.as_string::<i32>();
            add_cells(rows, column, |row| of_bytes(key, column.value(row).as_bytes()));
        }
        DataType::Binary => {
            let column = column.as_binary::<i32>();
            add_cells(rows, column, |row| of_bytes(key, column.value(row)));
        }
        other => unreachable!("tables have no column of type {other}"),
    }
}

fn add_cells(rows: &mut [[u64; 2]], column: &dyn Array, cell: impl Fn(usize) -> [u64; 2]) {
    let mut add = |row: usize| {
        let [a, b] = cell(row);
        rows[row][0] = rows[row][0].wrapping_add(a);
        rows[row][1] = rows[row][1].wrapping_add(b);
    };
    match column.nulls() {
        None => (0..column.len()).for_each(&mut add),
        Some(nulls) => nulls.valid_indices().for_each(&mut add),
    }
}

fn of_word(key: [u64; 2], word: u64) -> [u64; 2] {
    [spread(word ^ key[0]), spread(word.wrapping_add(key[1]))]
}

/// Two lanes of folded multiplications over sixteen bytes at a time.
fn of_bytes(key: [u64; 2], bytes: &[u8]) -> [u64; 2] {
    let mut state = [key[0] ^ bytes.len() as u64, key[1].wrapping_add(bytes.len() as u64)];
    let mut step = |block: &[u8; 16]| {
        let [low, high] = [0, 8].map(|at| {
            u64::from_le_bytes(block[at..at + 8].try_into().expect("half of a block has eight bytes"))
        });
        state = [fold(low ^ state[0], high ^ PI), fold(low ^ ROOT, high ^ state[1])];
    };
    let blocks = bytes.chunks_exact(16);
    let rest = blocks.remainder();
    for block in blocks {
        step(block.try_into().expect("a block has sixteen bytes"));
    }
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    step(&last);
    [spread(state[0]), spread(state[1])]
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Each bit of the result depends on each of the word; one to one (the finaliser of splitmix64).
fn spread(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn settle([a, b]: [u64; 2]) -> u128 {
    let low = spread(a.wrapping_add(spread(b ^ PI)));
    let high = spread(b.wrapping_add(spread(low ^ ROOT)));
    u128::from(high) << 64 | u128::from(low)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array,
    };
    use arrow::compute::{concat_batches, take_record_batch};

    use super::{Cells, Fingerprint};

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, c)| (name, c, true)))
            .unwrap()
    }

    fn text(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn ints(values: &[Option<i64>]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    #[test]
    fn order_and_columns_of_nulls_do_not_matter() {
        let rows = batch(vec![
            ("a", text(&[Some("x"), None, Some("a text that is longer than one block"), Some("")])),
            ("n", ints(&[Some(1), Some(2), None, Some(1)])),
        ]);
        let expected = Fingerprint::of(&rows);
        assert_eq!(expected.rows(), 4);
        let turned = take_record_batch(&rows, &UInt32Array::from(vec![3, 1, 0, 2])).unwrap();
        assert_eq!(Fingerprint::of(&turned), expected);
        let mut parts = Fingerprint::of(&rows.slice(2, 2));
        parts.add(&rows.slice(0, 2));
        assert_eq!(parts, expected);
        let wider = batch(vec![
            ("later", ints(&[None; 4])),
            ("n", rows.column(1).clone()),
            ("a", rows.column(0).clone()),
        ]);
        assert_eq!(Fingerprint::of(&wider), expected);
    }

    #[test]
    fn columns_may_come_one_after_the_other() {
        let rows = batch(vec![
            ("a", text(&[Some("x"), None, Some("y"), Some("")])),
            ("n", ints(&[Some(1), Some(2), None, Some(1)])),
        ]);
        let mut cells = Cells::of_rows(4);
        cells.add(0, &rows.project(&[1]).unwrap());
        cells.add(0, &rows.project(&[0]).unwrap().slice(0, 3));
        let mut missing = Fingerprint::default();
        missing.add_cells(&cells);
        cells.add(3, &rows.project(&[0]).unwrap().slice(3, 1));
        let mut all = Fingerprint::default();
        all.add_cells(&cells);
        assert_eq!(all, Fingerprint::of(&rows));
        assert_ne!(missing, all);
    }

    /// Each is a fault that some codec or merge has had: a value lost, moved, cut, doubled or taken for null.
    #[test]
    fn every_change_of_a_row_shows() {
        let of = |a: &[Option<&str>], n: &[Option<i64>]| {
            Fingerprint::of(&batch(vec![("a", text(a)), ("n", ints(n))]))
        };
        let good = of(&[Some("x"), Some("y")], &[Some(1), Some(2)]);
        for (fault, other) in [
            ("a value changed", of(&[Some("x"), Some("z")], &[Some(1), Some(2)])),
            ("a null for a value", of(&[Some("x"), None], &[Some(1), Some(2)])),
            ("an empty text for a value", of(&[Some("x"), Some("")], &[Some(1), Some(2)])),
            ("a zero for a value", of(&[Some("x"), Some("y")], &[Some(0), Some(2)])),
            ("values that changed rows", of(&[Some("x"), Some("y")], &[Some(2), Some(1)])),
            ("a row lost", of(&[Some("x")], &[Some(1)])),
            ("a row twice", of(&[Some("x"), Some("x")], &[Some(1), Some(1)])),
            ("a text cut", of(&[Some("x"), Some("y\0")], &[Some(1), Some(2)])),
        ] {
            assert_ne!(other, good, "{fault}");
        }
        let one = |name: &'static str, column: ArrayRef| Fingerprint::of(&batch(vec![(name, column)]));
        assert_ne!(one("a", ints(&[Some(1)])), one("b", ints(&[Some(1)])), "a value that changed columns");
        assert_ne!(one("a", ints(&[None])), one("a", ints(&[Some(0)])), "null and zero");
        assert_ne!(one("a", text(&[None])), one("a", text(&[Some("")])), "null and empty");
        let float = |value: f64| one("f", Arc::new(Float64Array::from(vec![value])));
        assert_ne!(float(0.0), float(-0.0));
        assert_eq!(float(f64::NAN), float(f64::NAN));
        let flag = |value: bool| one("t", Arc::new(BooleanArray::from(vec![value])));
        assert_ne!(flag(true), flag(false));
    }

    #[test]
    fn no_two_of_many_like_rows_meet() {
        let texts: Vec<String> = (0..20_000).map(|n| format!("request {n:05} of a service")).collect();
        let rows = batch(vec![("a", Arc::new(StringArray::from(texts)))]);
        let mut seen: Vec<_> =
            (0..rows.num_rows()).map(|row| Fingerprint::of(&rows.slice(row, 1)).sum).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), rows.num_rows());
        let all = concat_batches(&rows.schema(), [&rows, &rows]).unwrap();
        assert_ne!(Fingerprint::of(&all).sum, 0);
    }
}
