//! A small chunk that was read back, in allocations of its own.
//!
//! What a frame decodes to stands in the frame's bytes, whose marks and names are most of a small one: a thousand
//! requests of one row would hold half as much again as before the crash, and not fit the memory that they fitted.

use arrow::array::{ArrayData, ArrayRef, RecordBatch, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::error::ArrowError;

use crate::hot::array_bytes;
use crate::wal::frame::BATCH_BYTES_MAX;

/// The chunk as it is, or a copy that holds less.
///
/// A frame of rows above [`BATCH_BYTES_MAX`] has several batches, which are joined in allocations of their own: what is
/// longer, with as much for marks and names, is not looked at.
pub fn owned(batch: RecordBatch) -> RecordBatch {
    let held = array_bytes(&batch);
    if held > 2 * BATCH_BYTES_MAX as u64 {
        return batch;
    }
    match copied(&batch) {
        Ok(copy) if array_bytes(&copy) < held => copy,
        _ => batch,
    }
}

fn copied(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| Ok(make_array(copy(&column.to_data())?)));
    let columns: Vec<ArrayRef> = columns.collect::<Result<_, ArrowError>>()?;
    RecordBatch::try_new(batch.schema(), columns)
}

fn copy(data: &ArrayData) -> Result<ArrayData, ArrowError> {
    let nulls = data
        .nulls()
        .map(|nulls| NullBuffer::new(BooleanBuffer::new(own(nulls.buffer()), nulls.offset(), nulls.len())));
    let buffers = data.buffers().iter().map(own).collect();
    let children = data.child_data().iter().map(copy).collect::<Result<_, _>>()?;
    data.clone().into_builder().buffers(buffers).child_data(children).nulls(nulls).build()
}

/// The bytes of a buffer, at a place that fits numbers of 64 bits, and no room beside them.
fn own(buffer: &Buffer) -> Buffer {
    let words = buffer.as_slice().chunks(size_of::<u64>()).map(|bytes| {
        let mut word = [0; size_of::<u64>()];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    });
    Buffer::from_vec(words.collect::<Vec<u64>>()).slice_with_length(0, buffer.len())
}
