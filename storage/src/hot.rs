//! An acknowledged chunk in memory: what it holds, and the charge that says so to the one budget (B1, X2).
//!
//! The charge is taken before the chunk is logged and given back when nobody holds the chunk any more: the table
//! lets go of it once a version has its rows, a query that still reads it a moment later.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayData, RecordBatch};
use arrow::buffer::Buffer;

use crate::error::{Error, Kind as ErrorKind};
use crate::latency::Measurement;
use crate::memory::{Charge, Short};

/// How long a client should wait when a budget is full. Chosen: a seal takes about this long.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What a column of a chunk takes beside its arrays: the counters of its shared parts, and what the allocator
/// rounds up. Measured (`longevity/hot.rs`).
const COLUMN_BYTES: usize = 192;

/// What a chunk takes beside its columns: itself, its measurement, its place in its table. Measured as well.
const CHUNK_BYTES: usize = 1_024;

/// What a frame takes beside its columns' bytes: header, meta, the marks of an Arrow stream.
const FRAME_BYTES: usize = 4_096;

/// What a column takes of a frame beside its bytes: its description, and its buffers' places and padding.
const FRAME_COLUMN_BYTES: usize = 512;

/// An acknowledged chunk that waits to be sealed.
#[derive(Debug)]
pub struct HotChunk {
    /// The log that holds it.
    pub writer: Arc<str>,
    /// Its frame there.
    pub seq: u64,
    /// Number of its first row.
    pub first_seq: u64,
    /// The fitted chunk, as logged.
    pub batch: RecordBatch,
    /// What was measured in it.
    pub measurement: Arc<Measurement>,
    /// When it was appended, nanoseconds since 1970 UTC.
    pub appended_ns: i64,
    /// Memory it holds.
    pub charge: Charge,
}

impl HotChunk {
    /// Memory it holds.
    pub fn bytes(&self) -> u64 {
        self.charge.bytes()
    }
}

/// What a chunk of these rows holds in memory, its own bookkeeping included: with one row a chunk, that is most of it.
///
/// An allocation that several columns share, as those of a frame that was read back do, counts once.
pub fn held_bytes(batch: &RecordBatch, measurement: &Measurement) -> u64 {
    let own = batch.num_columns() * (size_of::<ArrayData>() + COLUMN_BYTES) + CHUNK_BYTES;
    array_bytes(batch) + (own + measurement.held_bytes()) as u64
}

/// What the allocations take that a chunk's columns stand in, each counted once.
pub fn array_bytes(batch: &RecordBatch) -> u64 {
    let mut allocations = Vec::with_capacity(batch.num_columns() * 3);
    batch.columns().iter().for_each(|column| gather(&column.to_data(), &mut allocations));
    allocations.sort_unstable();
    allocations.dedup_by_key(|(at, _)| *at);
    allocations.iter().map(|(_, bytes)| *bytes as u64).sum()
}

/// Where each allocation of an array is, and how large.
fn gather(data: &ArrayData, allocations: &mut Vec<(usize, usize)>) {
    let mut note =
        |buffer: &Buffer| allocations.push((buffer.data_ptr().as_ptr() as usize, buffer.capacity()));
    data.buffers().iter().for_each(&mut note);
    if let Some(nulls) = data.nulls() {
        note(nulls.buffer());
    }
    data.child_data().iter().for_each(|child| gather(child, allocations));
}

/// What the frame of such a chunk takes at most while it waits to be written.
pub fn frame_bytes(batch: &RecordBatch, reply_bytes: usize) -> u64 {
    let values: usize = batch.columns().iter().map(|column| slice_bytes(&column.to_data())).sum();
    // A long chunk is several messages, each with its own marks; the reply stands in the frame as base64.
    (values + values / 16 + batch.num_columns() * FRAME_COLUMN_BYTES + FRAME_BYTES + 2 * reply_bytes) as u64
}

fn slice_bytes(data: &ArrayData) -> usize {
    data.get_slice_memory_size().unwrap_or_else(|_| data.get_array_memory_size())
}

/// Why a chunk is not kept, as its sender is to be told.
pub fn refused(short: Short, bytes: u64) -> Error {
    let retry_after = RETRY_AFTER;
    match short {
        Short::Never { alone_max } => Error::new(
            ErrorKind::TooLarge,
            format!(
                "records of {bytes} bytes exceed the {alone_max} that wait in memory of one tenant: split them"
            ),
        ),
        Short::Share => Error::new(
            ErrorKind::Share { retry_after },
            "the tenant's share of the memory for unsealed records is used: wait until they are sealed",
        ),
        Short::Whole => Error::new(
            ErrorKind::Busy { retry_after },
            "the memory for unsealed records is used: wait until they are sealed",
        ),
    }
}
