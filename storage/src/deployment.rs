//! Storage as a whole: opened once, shared by every lane and query.

use std::sync::Arc;

use object_store::ObjectStore;

use crate::error::Result;
use crate::latency::Measure;
use crate::options::Options;
use crate::reader::{LatencySnapshot, Snapshot};
use crate::record::{Dataset, Kind, TableId, Tenant};
use crate::writer::Writer;

/// Everything that is kept: logs, hot buffers, tables.
#[derive(Debug)]
pub struct Storage {}

/// How far recovery is, for whoever waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    /// Bytes of log read.
    pub bytes_done: u64,
    /// Bytes of log to read.
    pub bytes_total: u64,
    /// Chunks that are in no table yet and serve from the hot buffer.
    pub chunks: u64,
    /// Their rows.
    pub rows: u64,
}

/// The state of one thing storage depends on.
#[derive(Clone, Debug)]
pub struct Check {
    /// `wal`, `object_store`, `disk`, `hot_buffer`.
    pub name: &'static str,
    /// Whether it works.
    pub is_ok: bool,
    /// In a few words, without payload.
    pub detail: String,
}

impl Storage {
    /// Opens the data folder: locks it, reads the tables, replays the log.
    ///
    /// # Errors
    /// `Kind::Conflict` when another process holds the folder, `Kind::Corrupt` naming file and offset.
    pub async fn open(_options: Options, _measure: Measure, _progress: impl Fn(Recovery)) -> Result<Arc<Self>> {
        todo!("written beside this contract")
    }

    /// Opens the log of lane `index`; call it on the lane's own thread, inside its runtime.
    ///
    /// # Errors
    /// As for opening a file.
    pub fn writer(self: &Arc<Self>, _index: usize) -> Result<Writer> {
        todo!("written beside this contract")
    }

    /// Makes sure a dataset of that kind exists (built-in ones appear by themselves on first use).
    ///
    /// # Errors
    /// `Kind::Conflict` when it exists with another kind.
    pub fn ensure_dataset(&self, _table: &TableId, _kind: Kind) -> Result<()> {
        todo!("written beside this contract")
    }

    /// The tenant's datasets that hold or held something, and what they hold.
    pub fn datasets(&self, _tenant: &Tenant) -> Vec<(Dataset, Kind)> {
        todo!("written beside this contract")
    }

    /// A consistent view of one table; `None` where the tenant has no such dataset.
    pub fn snapshot(&self, _table: &TableId) -> Option<Snapshot> {
        todo!("written beside this contract")
    }

    /// A consistent view of a tenant's latency.
    pub fn latency(&self, _tenant: &Tenant) -> LatencySnapshot {
        todo!("written beside this contract")
    }

    /// The object store, rooted at the deployment.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        todo!("written beside this contract")
    }

    /// Seals and commits everything acknowledged so far; returns when it is in the tables.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the object store does not take it; nothing is lost.
    pub async fn flush(&self) -> Result<u64> {
        todo!("written beside this contract")
    }

    /// The state of what storage depends on, measured now.
    pub async fn checks(&self) -> Vec<Check> {
        todo!("written beside this contract")
    }

    /// Seals what is there and stops background work. Acknowledged rows are safe without it.
    pub async fn close(&self) {
        todo!("written beside this contract")
    }
}
