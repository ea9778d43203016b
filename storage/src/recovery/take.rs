//! Taking a frame that was read back: into the hot buffer, unless a table holds it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;

use super::attempt::Step;
use super::own::owned;
use super::{known_to_tables, relieve};
use crate::deployment::{Recovery, Shared};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults::{self, Bug};
use crate::hot::{HotChunk, held_bytes};
use crate::latency::{Measure, Measurement};
use crate::memory::Pool;
use crate::record::TableId;
use crate::wal::frame::{Envelope, Meta};
use crate::wal::log::Remembered;

/// What rows mean that a log should have before the next and does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// What an earlier frame told was right: nothing is said.
    Expected,
    /// They were lost, and that is known: they are named.
    Named,
    /// The log is damaged.
    Refused,
}

/// A log that is being read back.
pub struct Take<'a> {
    shared: &'a Shared,
    writer: Arc<str>,
    measure: Measure,
    holes: Holes,
    /// The next row's number in each table.
    pub next_rows: HashMap<TableId, u64>,
    /// The last frame that is in a table, or was taken.
    pub last_seq: u64,
    /// Declared keys of its frames.
    pub keys: Vec<Remembered>,
}

impl<'a> Take<'a> {
    /// Begins with what the tables know of the log.
    pub fn new(shared: &'a Shared, writer: Arc<str>, measure: Measure, holes: Holes) -> Self {
        let (last_seq, next_rows) = known_to_tables(shared, &writer);
        Self { shared, writer, measure, holes, next_rows, last_seq, keys: Vec::new() }
    }

    /// Takes a frame; they come in the order of the log.
    ///
    /// # Errors
    /// `Kind::Corrupt` where rows are missing before it and that is refused.
    pub fn frame(
        &mut self,
        seq: u64,
        meta: &Meta,
        batch: RecordBatch,
        recovery: &mut Recovery,
    ) -> Result<()> {
        let shared = self.shared;
        let next = self.next_rows.entry(meta.table.clone()).or_default();
        if meta.first_seq > *next && self.holes != Holes::Expected {
            let (table, first, last, writer) = (&meta.table, *next, meta.first_seq - 1, &self.writer);
            if self.holes == Holes::Refused {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "log {writer} is damaged: rows {first} to {last} of table {table} were acknowledged and are \
                         neither in the table nor in the log; to go on without them, start with --salvage"
                    ),
                ));
            }
            // In the coordinates of the evidence.
            tracing::error!(%writer, %table, first, last, "rows of this log were lost with a part of it");
        }
        *next = (*next).max(meta.first_seq + meta.row_count);
        self.last_seq = self.last_seq.max(seq);
        if let Some(idempotency) = &meta.idempotency {
            let key = (meta.table.tenant.clone(), meta.appended_ns, Arc::new(idempotency.clone()));
            self.keys.push(key);
        }
        if shared.tables.why_left(&meta.table).is_some() {
            // The log keeps it: nothing trims what no table holds.
            return Ok(());
        }
        let table = shared.logged_table(&meta.table, meta.kind)?;
        let is_in = seq <= table.last_seq(&self.writer);
        if is_in && !faults::has(Bug::SkipTransactionCheck) {
            return Ok(());
        }
        let batch = table.fit(owned(batch));
        let measurement = Arc::new(self.measured(seq, meta, &batch));
        // It was acknowledged: what it holds is counted whatever the budget says, and sealed where that is much.
        let bytes = held_bytes(&batch, &measurement);
        let charge = shared.memory.count(Pool::Hot, Some(&meta.table.tenant), bytes);
        recovery.chunks += 1;
        recovery.rows += meta.row_count;
        table.push(Arc::new(HotChunk {
            writer: Arc::clone(&self.writer),
            seq,
            first_seq: meta.first_seq,
            measurement,
            batch,
            appended_ns: meta.appended_ns,
            charge,
        }));
        relieve::seal_above_all(shared)
    }

    /// What is measured in a chunk; nothing where that panics, or ended starts before: the rows are readable without.
    fn measured(&self, seq: u64, meta: &Meta, batch: &RecordBatch) -> Measurement {
        let (shared, table) = (self.shared, &meta.table);
        let is_deadly = shared.attempts.roll_up_is_deadly(table);
        let attempt = shared.attempts.begin(Step::Measure, table, &self.writer, seq);
        let measured = match &attempt {
            Some(_) if !is_deadly => catch_unwind(AssertUnwindSafe(|| (self.measure)(meta.kind, batch))).ok(),
            _ => None,
        };
        drop(attempt);
        measured.unwrap_or_else(|| {
            let stats = &shared.stats;
            let counter = if is_deadly { &stats.unrolled_chunks } else { &stats.unmeasured_chunks };
            counter.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                %table,
                writer = %self.writer,
                frame = seq,
                first_row = meta.first_seq,
                rows = meta.row_count,
                "durations of these rows are left out of latency: measuring them ended a start, or panicked"
            );
            Measurement::default()
        })
    }

    /// Leaves a frame of a newer build in the log, and its table alone: a later frame in the table would make that build
    /// take this one for stored.
    pub fn newer(&mut self, seq: u64, envelope: &Envelope) {
        let Envelope { table, first_seq, row_count } = envelope;
        let next = self.next_rows.entry(table.clone()).or_default();
        *next = (*next).max(first_seq + row_count);
        self.last_seq = self.last_seq.max(seq);
        let known = self.shared.tables.get(table);
        if known.is_some_and(|table| seq <= table.last_seq(&self.writer)) {
            // The build that wrote it put it into the table as well.
            return;
        }
        self.shared.stats.newer_frames.fetch_add(1, Ordering::Relaxed);
        self.shared.leave_alone(table, "the log holds rows of it that a newer build wrote: start that build");
    }
}
