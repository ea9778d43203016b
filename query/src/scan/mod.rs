//! Runs a plan, and finds the object at fault when stored bytes cannot be decoded (F40).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::DataFrame;
use futures::{FutureExt, StreamExt};
use storage::reader::Snapshot;

use crate::budget;
use crate::plan::session::Session;
use crate::refusal::{Failure, Refusal};

/// One running result.
pub struct Rows {
    stream: SendableRecordBatchStream,
    sources: Sources,
}

/// What a plan reads: where to look when bytes cannot be decoded.
#[derive(Clone)]
pub struct Sources {
    session: Session,
    snapshots: Vec<Arc<Snapshot>>,
}

impl Sources {
    /// The tables of a plan, and a session that can read them again.
    #[must_use]
    pub fn new(session: &Session, snapshots: Vec<Arc<Snapshot>>) -> Self {
        Self { session: session.clone(), snapshots }
    }

    /// Turns an error into what the caller is told; where stored bytes may be at fault, looks which object.
    pub async fn refusal(&self, error: &DataFusionError) -> Refusal {
        if let Some(path) = self.session.damaged() {
            return Refusal::corrupt_object(path);
        }
        if let Some(short) = self.session.short() {
            return budget::refusal(short);
        }
        match Failure::of(error) {
            Failure::Refused(refusal) => refusal,
            Failure::Engine => {
                tracing::error!(kind = error_kind(error), "a query failed below the planner");
                Refusal::bug()
            }
            Failure::MaybeCorrupt => {
                tracing::error!(kind = error_kind(error), "a query failed below the planner");
                self.corrupt().await
            }
        }
    }

    /// Names the first object that cannot be decoded; our bug if all can. A store that is away is no damage.
    pub async fn corrupt(&self) -> Refusal {
        if let Some(path) = self.session.damaged() {
            return Refusal::corrupt_object(path);
        }
        for snapshot in &self.snapshots {
            for file in &snapshot.files {
                let path = format!("{}/{}", snapshot.table.dataset, file.path);
                if !self.session.reaches(&path).await {
                    return Refusal::storage_unavailable();
                }
                let alone =
                    Snapshot { files: vec![Arc::clone(file)], hot: Vec::new(), ..(**snapshot).clone() };
                let probe = AssertUnwindSafe(decode(&self.session, alone)).catch_unwind().await;
                if matches!(probe, Ok(Ok(()))) {
                    continue;
                }
                // A look that had no memory saw no damage.
                if let Some(short) = self.session.short() {
                    return budget::refusal(short);
                }
                if let Ok(Err(error)) = &probe
                    && let Failure::Refused(refusal) = Failure::of(error)
                    && matches!(refusal.status, 422 | 503)
                {
                    return refusal;
                }
                tracing::error!(path, "a stored object cannot be decoded");
                return Refusal::corrupt_object(&path);
            }
        }
        Refusal::bug()
    }
}

/// Reads a table's rows and throws them away.
async fn decode(session: &Session, snapshot: Snapshot) -> Result<(), DataFusionError> {
    let mut stream = session.read(&Arc::new(snapshot))?.execute_stream().await?;
    while let Some(batch) = stream.next().await {
        batch?;
    }
    Ok(())
}

/// The error's variant, for the log: its text may quote values (P2).
fn error_kind(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::ParquetError(_) => "parquet",
        DataFusionError::ArrowError(..) => "arrow",
        DataFusionError::ObjectStore(_) => "object_store",
        DataFusionError::Internal(_) => "internal",
        DataFusionError::External(_) => "external",
        DataFusionError::ExecutionJoin(_) => "join",
        _ => "other",
    }
}

impl Rows {
    /// Starts a plan.
    ///
    /// # Errors
    /// What planning its execution refuses.
    pub async fn start(frame: DataFrame, sources: Sources) -> Result<Self, Refusal> {
        match AssertUnwindSafe(frame.execute_stream()).catch_unwind().await {
            Ok(Ok(stream)) => Ok(Self { stream, sources }),
            Ok(Err(error)) => Err(sources.refusal(&error).await),
            Err(_) => Err(sources.corrupt().await),
        }
    }

    /// The next batch that has rows; `None` at the end.
    ///
    /// # Errors
    /// A bound that was hit, a value that does not suit, or a corrupt object by name.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, Refusal> {
        loop {
            // A decoder's panic is caught here: it ends this query and nothing else.
            match AssertUnwindSafe(self.stream.next()).catch_unwind().await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(batch))) if batch.num_rows() == 0 => {}
                Ok(Some(Ok(batch))) => return Ok(Some(batch)),
                Ok(Some(Err(error))) => return Err(self.sources.refusal(&error).await),
                Err(_) => return Err(self.sources.corrupt().await),
            }
        }
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rows")
    }
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("tables", &self.snapshots.len()).finish()
    }
}
