//! Rows that are in no file yet, as the query engine reads them: one chunk at a time, and of each only the columns
//! that the plan asks for. Nothing is widened before it is read.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::datasource::source::DataSource;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use storage::reader::{HotRows, Snapshot};

/// The chunks of one snapshot with the columns of `schema`, in one partition.
#[derive(Clone)]
pub struct HotSource {
    snapshot: Arc<Snapshot>,
    schema: SchemaRef,
    fetch: Option<usize>,
}

impl HotSource {
    /// The chunks of a snapshot with the columns of `schema`, each of which is one of the table's; `fetch` rows of
    /// them where that is enough.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, schema: SchemaRef, fetch: Option<usize>) -> Self {
        Self { snapshot, schema, fetch }
    }

    /// The chunks that hold the first rows, as many as are asked for.
    fn chunks(&self) -> Vec<HotRows> {
        let mut left = self.fetch.unwrap_or(usize::MAX);
        let needed = |rows: &&HotRows| {
            let is_needed = left > 0;
            left = left.saturating_sub(rows.num_rows());
            is_needed
        };
        self.snapshot.hot.iter().take_while(needed).cloned().collect()
    }
}

impl fmt::Debug for HotSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotSource").field("table", &self.snapshot.table).finish_non_exhaustive()
    }
}

/// The rows in buffers of their own, where they are a small part of larger ones: a frame that was read back from the
/// log is one buffer, and whoever counts what he holds would count all of it for each of its columns.
fn owned(rows: RecordBatch) -> Result<RecordBatch> {
    let shown: usize =
        rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
    if rows.get_array_memory_size() <= shown.saturating_mul(2).saturating_add(SHARED_BYTES) {
        return Ok(rows);
    }
    let all = UInt64Array::from_iter_values(0..rows.num_rows() as u64);
    Ok(take_record_batch(&rows, &all)?)
}

/// Bytes of shared buffers that are not worth a copy.
const SHARED_BYTES: usize = 64 << 10;

impl DataSource for HotSource {
    fn open(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let wanted = Arc::clone(&self.schema);
        let batch_rows = context.session_config().batch_size().max(1);
        let mut left = self.fetch.unwrap_or(usize::MAX);
        let batches = self.chunks().into_iter().flat_map(move |rows| {
            let batch = rows.columns(&wanted);
            let len = batch.num_rows().min(left);
            left -= len;
            (0..len).step_by(batch_rows).map(move |at| owned(batch.slice(at, batch_rows.min(len - at))))
        });
        let stream = RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::iter(batches));
        Ok(Box::pin(cooperative(stream)))
    }

    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunks={}", self.snapshot.hot.len())
    }

    fn output_partitioning(&self) -> Partitioning {
        Partitioning::UnknownPartitioning(1)
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        EquivalenceProperties::new(Arc::clone(&self.schema))
    }

    fn scheduling_type(&self) -> SchedulingType {
        SchedulingType::Cooperative
    }

    fn partition_statistics(&self, _partition: Option<usize>) -> Result<Arc<Statistics>> {
        let rows = usize::try_from(self.snapshot.hot_rows()).unwrap_or(usize::MAX);
        let rows = self.fetch.map_or(rows, |fetch| rows.min(fetch));
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Exact(rows);
        Ok(Arc::new(statistics))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        Some(Arc::new(Self { fetch: limit, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn try_swapping_with_projection(
        &self,
        _projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn DataSource>>> {
        Ok(None)
    }

    fn apply_expressions(
        &self,
        _each: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
}
