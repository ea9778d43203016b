//! A chunk that has passed the scrubber: the only kind of bytes that reaches the log (P1).

use arrow::array::RecordBatch;

use super::draft::Draft;
use super::kind::Kind;
use crate::latency::Measurement;

/// A closed chunk of scrubbed, measured columns.
#[derive(Debug)]
pub struct Clean {
    kind: Kind,
    batch: RecordBatch,
    scrub_version: u64,
    measurement: Measurement,
}

impl Clean {
    /// States that every value of the draft has passed the scrubber under rules of that version.
    ///
    /// P1 rests on who calls this: `ingest/src/scrub` alone (held by `tests/tidy.rs`). The draft is empty
    /// afterwards and ready for the next chunk.
    pub fn attest(draft: &mut Draft, scrub_version: u64) -> Self {
        Self { kind: draft.kind(), batch: draft.take(), scrub_version, measurement: Measurement::default() }
    }

    /// Attaches what was measured in this chunk; it counts once the append has returned.
    #[must_use]
    pub fn with_measurement(mut self, measurement: Measurement) -> Self {
        self.measurement = measurement;
        self
    }

    /// What the rows are.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Rows in the chunk.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.batch.num_rows()
    }

    /// The columns, each named as in its table.
    #[must_use]
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    pub(crate) fn into_parts(self) -> (Kind, RecordBatch, u64, Measurement) {
        (self.kind, self.batch, self.scrub_version, self.measurement)
    }
}
