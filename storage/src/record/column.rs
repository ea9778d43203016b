//! Growing columns: plain vectors that become Arrow arrays without a copy.
//!
//! A column is written sparsely: it is padded with nulls up to the row that writes it, so a row costs
//! nothing in the columns it does not touch, and taking a rejected row back is a truncation.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use super::kind::Type;

/// Which of a column's rows hold a value: one bit a row.
#[derive(Default, Debug, Clone)]
struct Validity {
    bits: Vec<u8>,
    len: usize,
    null_count: usize,
}

impl Validity {
    fn push(&mut self, valid: bool) {
        let bit = self.len & 7;
        if bit == 0 {
            self.bits.push(0);
        }
        if valid {
            *self.bits.last_mut().expect("a byte was pushed for this row") |= 1 << bit;
        } else {
            self.null_count += 1;
        }
        self.len += 1;
    }

    fn pad_to(&mut self, len: usize) {
        if len > self.len {
            // The last byte's free bits are zero already: padding is only growth.
            self.null_count += len - self.len;
            self.bits.resize(len.div_ceil(8), 0);
            self.len = len;
        }
    }

    fn get(&self, row: usize) -> bool {
        row < self.len && self.bits[row >> 3] & (1 << (row & 7)) != 0
    }

    fn clear_bit(&mut self, row: usize) {
        if self.get(row) {
            self.bits[row >> 3] &= !(1 << (row & 7));
            self.null_count += 1;
        }
    }

    fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        let nulls_cut = (len..self.len).filter(|row| !self.get(*row)).count();
        self.null_count -= nulls_cut;
        self.len = len;
        self.bits.truncate(len.div_ceil(8));
        if len & 7 != 0 {
            let keep = (1u8 << (len & 7)) - 1;
            *self.bits.last_mut().expect("len is not zero") &= keep;
        }
    }

    fn take(&mut self) -> Option<NullBuffer> {
        let mut this = std::mem::take(self);
        trim(&mut this.bits);
        (this.null_count > 0)
            .then(|| NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(this.bits), 0, this.len)))
    }
}

/// Text (or bytes) of one column, contiguous: the scrubber's prefilter runs over all of it at once.
#[derive(Debug, Clone)]
pub struct TextColumn {
    offsets: Vec<i32>,
    values: Vec<u8>,
    validity: Validity,
}

impl Default for TextColumn {
    fn default() -> Self {
        Self { offsets: vec![0], values: Vec::new(), validity: Validity::default() }
    }
}

impl TextColumn {
    /// Rows written or padded so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.validity.len
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a value as the next row.
    pub fn push(&mut self, value: &[u8]) {
        self.values.extend_from_slice(value);
        self.offsets.push(self.end());
        self.validity.push(true);
    }

    /// Appends a row made of pieces, without joining them first.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.values);
        self.offsets.push(self.end());
        self.validity.push(true);
    }

    /// Fills with nulls up to `len` rows.
    pub fn pad_to(&mut self, len: usize) {
        if len > self.len() {
            let end = self.end();
            self.offsets.resize(len + 1, end);
            self.validity.pad_to(len);
        }
    }

    /// Forgets the rows from `len` on.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.offsets.truncate(len + 1);
            self.values.truncate(self.offsets[len] as usize);
            self.validity.truncate(len);
        }
    }

    /// The row's bytes; `None` where it is null or not yet written.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        self.validity
            .get(row)
            .then(|| &self.values[self.offsets[row] as usize..self.offsets[row + 1] as usize])
    }

    /// All values' bytes, one behind the other.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.values
    }

    /// Where the rows begin in [`Self::bytes`]; one more entry than rows.
    #[must_use]
    pub fn offsets(&self) -> &[i32] {
        &self.offsets
    }

    /// Replaces every row by what `rewrite` makes of it; nulls stay.
    ///
    /// `rewrite` gets the row number, its bytes, and the new column's bytes to append to.
    pub fn rewrite(&mut self, mut rewrite: impl FnMut(usize, &[u8], &mut Vec<u8>)) {
        let mut values = Vec::with_capacity(self.values.len() + 64);
        let mut offsets = Vec::with_capacity(self.offsets.len());
        offsets.push(0);
        for row in 0..self.len() {
            if let Some(value) = self.get(row) {
                rewrite(row, value, &mut values);
            }
            offsets.push(offset(values.len()));
        }
        self.values = values;
        self.offsets = offsets;
    }

    /// Makes rows null; their bytes are gone from the column.
    fn clear(&mut self, rows: impl Iterator<Item = usize>) {
        for row in rows {
            self.validity.clear_bit(row);
        }
        self.rewrite(|_, value, out| out.extend_from_slice(value));
    }

    /// Memory that the rows hold, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let offsets = self.offsets.capacity() * size_of::<i32>();
        self.values.capacity() + offsets + self.validity.bits.capacity()
    }

    fn end(&self) -> i32 {
        offset(self.values.len())
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer, Option<NullBuffer>) {
        let mut this = std::mem::take(self);
        let mut validity = this.validity;
        trim(&mut this.values);
        trim(&mut this.offsets);
        // The offsets are made above, rising, from the values' own length.
        let offsets = OffsetBuffer::new(ScalarBuffer::from(this.offsets));
        (offsets, Buffer::from_vec(this.values), validity.take())
    }
}

/// Room beyond a long vector's values that goes on into memory, in bytes. Chosen: what a page's rounding takes many
/// times over, and too little to copy a usual chunk's columns for.
const SPARE_BYTES_MAX: usize = 64 << 10;

/// Gives back the room that doubling left behind the last value: it would be held as long as the chunk is.
fn trim<T>(values: &mut Vec<T>) {
    if (values.capacity() - values.len()) * size_of::<T>() > SPARE_BYTES_MAX {
        values.shrink_to_fit();
    }
}

/// Arrow's 32-bit offsets bound a column's bytes to 2 GiB; bodies are capped far below.
fn offset(len: usize) -> i32 {
    i32::try_from(len).expect("inflated bodies are capped far below 2 GiB")
}

/// Fixed-width values of one column.
#[derive(Default, Debug, Clone)]
pub struct PlainColumn<T> {
    values: Vec<T>,
    validity: Validity,
}

impl<T: Copy + Default> PlainColumn<T> {
    fn push(&mut self, value: T) {
        self.values.push(value);
        self.validity.push(true);
    }

    fn pad_to(&mut self, len: usize) {
        if len > self.values.len() {
            self.values.resize(len, T::default());
            self.validity.pad_to(len);
        }
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.validity.truncate(len);
    }

    /// The row's value; `None` where it is null or not yet written.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<T> {
        self.validity.get(row).then(|| self.values[row])
    }

    fn held_bytes(&self) -> usize {
        self.values.capacity() * size_of::<T>() + self.validity.bits.capacity()
    }

    /// Every row's value; a null row holds the type's zero.
    #[must_use]
    pub fn values(&self) -> &[T] {
        &self.values
    }

    fn clear(&mut self, rows: impl Iterator<Item = usize>) {
        for row in rows {
            if row < self.values.len() {
                self.values[row] = T::default();
                self.validity.clear_bit(row);
            }
        }
    }
}

/// One growing column of any type.
#[derive(Debug, Clone)]
pub enum Column {
    /// Text, JSON text and bytes.
    Text(TextColumn),
    /// Integers.
    Int(PlainColumn<i64>),
    /// Doubles.
    Double(PlainColumn<f64>),
    /// Booleans.
    Bool(PlainColumn<bool>),
}

impl Column {
    /// An empty column for values of `type`.
    #[must_use]
    pub fn new(r#type: Type) -> Self {
        match r#type {
            Type::Text | Type::Json | Type::Bytes => Self::Text(TextColumn::default()),
            Type::Int => Self::Int(PlainColumn::default()),
            Type::Double => Self::Double(PlainColumn::default()),
            Type::Bool => Self::Bool(PlainColumn::default()),
        }
    }

    /// Rows written or padded so far.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(column) => column.len(),
            Self::Int(column) => column.values.len(),
            Self::Double(column) => column.values.len(),
            Self::Bool(column) => column.values.len(),
        }
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the row holds a value.
    #[must_use]
    pub fn is_set(&self, row: usize) -> bool {
        match self {
            Self::Text(column) => column.validity.get(row),
            Self::Int(column) => column.validity.get(row),
            Self::Double(column) => column.validity.get(row),
            Self::Bool(column) => column.validity.get(row),
        }
    }

    /// Fills with nulls up to `len` rows.
    pub fn pad_to(&mut self, len: usize) {
        match self {
            Self::Text(column) => column.pad_to(len),
            Self::Int(column) => column.pad_to(len),
            Self::Double(column) => column.pad_to(len),
            Self::Bool(column) => column.pad_to(len),
        }
    }

    /// Forgets the rows from `len` on.
    pub fn truncate(&mut self, len: usize) {
        match self {
            Self::Text(column) => column.truncate(len),
            Self::Int(column) => column.truncate(len),
            Self::Double(column) => column.truncate(len),
            Self::Bool(column) => column.truncate(len),
        }
    }

    /// Makes rows null; their values are gone.
    pub fn clear(&mut self, rows: impl Iterator<Item = usize>) {
        match self {
            Self::Text(column) => column.clear(rows),
            Self::Int(column) => column.clear(rows),
            Self::Double(column) => column.clear(rows),
            Self::Bool(column) => column.clear(rows),
        }
    }

    /// Rows that hold a value.
    #[must_use]
    pub fn value_count(&self) -> usize {
        let validity = match self {
            Self::Text(column) => &column.validity,
            Self::Int(column) => &column.validity,
            Self::Double(column) => &column.validity,
            Self::Bool(column) => &column.validity,
        };
        validity.len - validity.null_count
    }

    /// Memory that the column's rows hold, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Text(column) => column.held_bytes(),
            Self::Int(column) => column.held_bytes(),
            Self::Double(column) => column.held_bytes(),
            Self::Bool(column) => column.held_bytes(),
        }
    }

    /// Writes `value` as the next row.
    ///
    /// # Panics
    /// When the column's type is another.
    #[inline]
    pub(super) fn push(&mut self, value: Scalar<'_>) {
        match (self, value) {
            (Self::Text(column), Scalar::Text(value)) => column.push(value),
            (Self::Int(column), Scalar::Int(value)) => column.push(value),
            (Self::Double(column), Scalar::Double(value)) => column.push(value),
            (Self::Bool(column), Scalar::Bool(value)) => column.push(value),
            (_, _) => unreachable!("a column takes values of its own type only"),
        }
    }

    /// Writes `value` into `row`, padding up to it; a value already there is replaced.
    ///
    /// # Panics
    /// When the column's type is another, or a later row is written already: both are ours to get right.
    pub fn set(&mut self, row: usize, value: Scalar<'_>) {
        if self.len() > row {
            self.truncate(row);
        }
        self.pad_to(row);
        self.push(value);
    }

    /// Makes the Arrow array of `len` rows and leaves the column empty.
    pub(crate) fn take(&mut self, r#type: Type, len: usize) -> ArrayRef {
        self.pad_to(len);
        match self {
            Self::Text(column) => {
                let (offsets, values, nulls) = column.take();
                if r#type == Type::Bytes {
                    Arc::new(BinaryArray::new(offsets, values, nulls))
                } else {
                    // Checked again here although decoders check UTF-8: a wrong byte must not reach a file.
                    Arc::new(StringArray::new(offsets, values, nulls))
                }
            }
            Self::Int(column) => {
                let nulls = column.validity.take();
                trim(&mut column.values);
                Arc::new(Int64Array::new(std::mem::take(&mut column.values).into(), nulls))
            }
            Self::Double(column) => {
                let nulls = column.validity.take();
                trim(&mut column.values);
                Arc::new(Float64Array::new(std::mem::take(&mut column.values).into(), nulls))
            }
            Self::Bool(column) => {
                let nulls = column.validity.take();
                Arc::new(BooleanArray::new(BooleanBuffer::from(std::mem::take(&mut column.values)), nulls))
            }
        }
    }
}

/// A value on its way into a column, borrowed from the body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// Text, JSON text or bytes.
    Text(&'a [u8]),
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// A boolean.
    Bool(bool),
}
