//! What queries see of storage: one table at one version, and the chunks that are not in it yet.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};

use crate::hot::HotChunk;
use crate::latency::Measurement;
use crate::memory::{Memory, Pool};
use crate::record::fit::{Coordinates, to_rows};
use crate::record::{Kind, TableId};
pub use crate::segment::{Blocks, Damaged, OpenFile, Proofs, ProvenStore};

/// One live data file of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct DataFile {
    /// Path below the table's root: `date=YYYY-MM-DD/{uuid}.parquet`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows in the file.
    pub rows: u64,
    /// Lowest and highest `time_ns` in the file.
    pub time_ns: (i64, i64),
    /// Lowest and highest `source` in the file, where the table has one.
    pub source: Option<(String, String)>,
    /// BLAKE3 of the file's bytes; `None` where another program wrote it.
    pub digest: Option<[u8; 32]>,
    /// CRC-32C of the file's blocks, by which a part of it is proved; `None` before there were any.
    pub blocks: Option<Arc<Blocks>>,
    /// What its writer told of it as Delta keeps it (JSON), for whoever rewrites the log; `None` where that follows from the
    /// fields above.
    pub stats: Option<Box<str>>,
}

impl DataFile {
    /// Bytes of memory that it takes, about.
    pub(crate) fn held_bytes(&self) -> usize {
        // Beside the values: what the allocator rounds up to, and how often the file is held.
        const ROUND_BYTES: usize = 64;
        let source = self.source.as_ref().map_or(0, |(low, high)| low.len() + high.len());
        let blocks = self.blocks.as_ref().map_or(0, |blocks| blocks.held_bytes());
        size_of::<Self>()
            + ROUND_BYTES
            + self.path.len()
            + source
            + blocks
            + self.stats.as_ref().map_or(0, |stats| stats.len())
    }
}

/// A table at one version together with the acknowledged chunks that this version does not hold (Q1, A3).
///
/// Every acknowledged row is in exactly one of `files` and `hot`.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which table.
    pub table: TableId,
    /// What its rows are.
    pub kind: Kind,
    /// The table's version; `None` while nothing was ever sealed.
    pub version: Option<i64>,
    /// The schema of `hot` and, but for columns an older file lacks (read as null), of the files. The
    /// partition column `date` is in the paths only.
    pub schema: SchemaRef,
    /// The live files.
    pub files: Vec<Arc<DataFile>>,
    /// Rows that are acknowledged and not in `files`, newest chunk last.
    pub hot: Vec<HotRows>,
}

impl Snapshot {
    /// Acknowledged rows that are in no file.
    #[must_use]
    pub fn hot_rows(&self) -> u64 {
        self.hot.iter().map(|rows| rows.num_rows() as u64).sum()
    }

    /// Rows in the live files.
    #[must_use]
    pub fn sealed_rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }
}

/// The rows of one acknowledged chunk, as they came: a clone costs a counter. They take the columns of their table
/// where it is known which of them are wanted ([`Self::project`]).
#[derive(Clone, Debug)]
pub struct HotRows {
    chunk: Arc<HotChunk>,
    /// Where a version holds a part of the chunk: which rows it does not hold.
    left: Option<Arc<BooleanArray>>,
}

impl HotRows {
    /// The rows of a chunk that waits.
    pub(crate) fn of(chunk: Arc<HotChunk>, left: Option<BooleanArray>) -> Self {
        Self { chunk, left: left.map(Arc::new) }
    }

    /// Rows that were acknowledged by the log `writer` with numbers from `first_seq`, for a snapshot made by hand.
    #[must_use]
    pub fn new(batch: RecordBatch, writer: &str, first_seq: u64) -> Self {
        let bytes = batch.get_array_memory_size() as u64;
        let chunk = HotChunk {
            writer: writer.into(),
            seq: 0,
            first_seq,
            batch,
            measurement: Arc::default(),
            appended_ns: 0,
            charge: Memory::new(u64::MAX, 0).count(Pool::Hot, None, bytes),
        };
        Self::of(Arc::new(chunk), None)
    }

    /// How many there are.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.left.as_ref().map_or(self.chunk.batch.num_rows(), |left| left.true_count())
    }

    /// Memory that they hold as they are, in bytes, columns that nobody asks for included.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.chunk.bytes()
    }

    /// The rows with the columns of `schema` at these places, in that order; with all of them for `None`.
    ///
    /// A column of the chunk is shared, not copied. Columns that the chunk lacks are null, and those of one type
    /// are one array, so the width of a table costs a counter a column.
    ///
    /// # Panics
    /// When a place is not one of the schema's.
    #[must_use]
    pub fn project(&self, schema: &SchemaRef, projection: Option<&[usize]>) -> RecordBatch {
        let wanted = match projection {
            None => Arc::clone(schema),
            Some(places) => {
                let fields: Vec<_> = places.iter().map(|at| Arc::clone(&schema.fields()[*at])).collect();
                Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
            }
        };
        self.columns(&wanted)
    }

    /// The rows with the columns of `wanted`, each of which is a column of their table.
    #[must_use]
    pub fn columns(&self, wanted: &SchemaRef) -> RecordBatch {
        let at = Coordinates { writer: &self.chunk.writer, first_seq: self.chunk.first_seq };
        let rows = to_rows(&self.chunk.batch, wanted, at);
        match &self.left {
            None => rows,
            Some(left) => filter_record_batch(&rows, left).expect("as many verdicts as rows"),
        }
    }
}

/// A tenant's latency: histograms that are stored, and measurements that are not in them yet.
#[derive(Clone, Debug, Default)]
pub struct LatencySnapshot {
    /// The `latency` table: one row a window and series; `None` while nothing was sealed.
    pub stored: Option<Snapshot>,
    /// Measurements of acknowledged chunks that `stored` does not hold.
    pub hot: Vec<Arc<Measurement>>,
}
