//! A lane's door into the log: `append` returns when the chunk survives a crash.

use std::sync::Arc;

use crate::error::Result;
use crate::record::{Clean, TableId};

/// What a client declared to be sent at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's key, 1 to 255 bytes.
    pub key: Box<str>,
    /// BLAKE3 of route, query and inflated body, shortened.
    pub fingerprint: [u8; 16],
    /// The reply's status.
    pub status: u16,
    /// The reply's body, given again as it is.
    pub reply: Box<[u8]>,
}

/// What is known of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is ours to write, and reserved until the reservation is dropped or appended.
    New,
    /// It was acknowledged: answer the same again.
    Replayed(Arc<Idempotency>),
    /// It was acknowledged for another payload.
    Mismatch,
    /// The same key is on its way right now.
    InFlight,
}

/// Where a chunk stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The log that holds it.
    pub writer: Arc<str>,
    /// The first row's number.
    pub first_seq: u64,
    /// Rows in the chunk.
    pub row_count: u64,
}

/// One lane's log. Stays on the lane's thread.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Appends a chunk to the log and waits until it is on disk.
    ///
    /// Concurrent callers share one sync. The chunk is readable before this returns. Invariant A1 rests on
    /// this function. Dropping the future does not undo the append.
    ///
    /// # Errors
    /// `Kind::Busy` when a budget is full: nothing was written. `Kind::Poisoned` when a sync failed.
    pub async fn append(
        &self,
        _table: &TableId,
        _chunk: Clean,
        _idempotency: Option<Idempotency>,
    ) -> Result<Receipt> {
        todo!("written beside this contract")
    }

    /// Reserves an idempotency key of a tenant, or tells what is known of it.
    pub fn reserve(&self, _tenant: &crate::record::Tenant, _key: &str, _fingerprint: [u8; 16]) -> Known {
        todo!("written beside this contract")
    }

    /// Gives a reserved key back when its request was not stored.
    pub fn release(&self, _tenant: &crate::record::Tenant, _key: &str) {
        todo!("written beside this contract")
    }

    /// Whether ingest should be refused right now, and for how long.
    pub fn pressure(&self) -> Option<std::time::Duration> {
        todo!("written beside this contract")
    }
}
