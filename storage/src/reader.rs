//! What queries see of storage: one table at one version, and the chunks that are not in it yet.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::latency::Measurement;
use crate::record::{Kind, TableId};

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
    /// The writer's statistics as Delta keeps them (JSON), for whoever rewrites the log.
    pub stats: String,
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
    /// Rows that are acknowledged and not in `files`, newest chunk last, in `schema`.
    pub hot: Vec<RecordBatch>,
}

/// A tenant's latency: histograms that are stored, and measurements that are not in them yet.
#[derive(Clone, Debug)]
pub struct LatencySnapshot {
    /// The `latency` table: one row a window and series; `None` while nothing was sealed.
    pub stored: Option<Snapshot>,
    /// Measurements of acknowledged chunks that `stored` does not hold.
    pub hot: Vec<Arc<Measurement>>,
}
