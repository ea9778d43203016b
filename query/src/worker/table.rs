//! A table as a worker sees it: the files and hot rows that the server lends for a scan.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics, internal_err};
use datafusion::datasource::TableType;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use futures::stream;

use super::desk::Desk;
use super::hot;
use super::store::Lent;
use super::wire::{Ask, Given};
use crate::plan::table::{Scanned, file_scan, union};
use crate::prune::Bounds;
use crate::refusal::Refusal;

/// What a query has read, for whoever is told how far it is.
#[derive(Debug, Default)]
pub struct Read {
    /// Hot rows.
    pub hot_rows: AtomicU64,
}

/// A table of the query.
pub struct Remote {
    /// Its name.
    pub name: String,
    /// Its schema.
    pub schema: SchemaRef,
    /// Where to ask for its rows.
    pub desk: Arc<Desk>,
    /// Where its files are read.
    pub store: Arc<Lent>,
    /// What the query has read.
    pub read: Arc<Read>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A refusal on its way through the query engine.
pub fn carried(refusal: Refusal) -> DataFusionError {
    DataFusionError::External(Box::new(refusal))
}

#[async_trait]
impl TableProvider for Remote {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Inexact: files and hot rows are pruned by them, rows are filtered where the physical optimizer puts it.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let bounds = Bounds::of(filters);
        let is_exact = bounds == Bounds::default();
        let ask = Ask::Scan {
            table: self.name.clone(),
            projection: projection.cloned(),
            time_ns: bounds.time_ns,
            sources: bounds.sources,
        };
        let gift = self.desk.ask(ask).await.map_err(carried)?;
        let Given::Scan { scan, files, hot_rows, first } = gift.given else {
            return Err(carried(Refusal::bug()));
        };
        if let (Some(file), Some(given)) = (files.first(), first) {
            self.store.take(&file.path, file.bytes, *given, gift.file);
        }
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !files.is_empty() {
            let files: Vec<Scanned> = files
                .into_iter()
                .map(|file| {
                    let file = Scanned {
                        path: file.path,
                        bytes: file.bytes,
                        rows: file.rows,
                        time_ns: file.time_ns,
                    };
                    self.store.add(file.clone());
                    file
                })
                .collect();
            inputs.push(file_scan(&self.schema, &files, session, projection, limit)?);
        }
        if hot_rows > 0 {
            let schema = datafusion::common::project_schema(&self.schema, projection)?;
            let rows = usize::try_from(hot_rows).unwrap_or(usize::MAX);
            inputs.push(Arc::new(HotRows::new(self, scan, schema, rows, is_exact)));
        }
        union(inputs, &self.schema, projection)
    }
}

/// The hot rows of a scan, asked for piece by piece.
struct HotRows {
    scan: usize,
    schema: SchemaRef,
    desk: Arc<Desk>,
    read: Arc<Read>,
    statistics: Arc<Statistics>,
    properties: Arc<PlanProperties>,
}

impl HotRows {
    fn new(table: &Remote, scan: usize, schema: SchemaRef, rows: usize, is_exact: bool) -> Self {
        let mut statistics = Statistics::new_unknown(&schema);
        statistics.num_rows = if is_exact { Precision::Exact(rows) } else { Precision::Inexact(rows) };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            scan,
            schema,
            desk: Arc::clone(&table.desk),
            read: Arc::clone(&table.read),
            statistics: Arc::new(statistics),
            properties: Arc::new(properties),
        }
    }
}

impl fmt::Debug for HotRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HotRows")
    }
}

impl DisplayAs for HotRows {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HotRows")
    }
}

impl ExecutionPlan for HotRows {
    fn name(&self) -> &'static str {
        "HotRows"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("hot rows have no input") }
    }

    fn execute(&self, _partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (desk, read, scan) = (Arc::clone(&self.desk), Arc::clone(&self.read), self.scan);
        let schema = Arc::clone(&self.schema);
        let rows = stream::try_unfold(Some((0, 0)), move |at| {
            let (desk, read, schema) = (Arc::clone(&desk), Arc::clone(&read), Arc::clone(&schema));
            async move {
                let mut at = at;
                while let Some(place) = at {
                    let gift = desk.ask(Ask::Hot { scan, at: place }).await.map_err(carried)?;
                    let Given::Hot { next } = gift.given else { return Err(carried(Refusal::bug())) };
                    at = next;
                    if gift.tail.is_empty() {
                        continue;
                    }
                    if let (_, Some(batch)) = hot::decode(&gift.tail).map_err(carried)? {
                        read.hot_rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                        return Ok(Some((named(&batch, &schema)?, at)));
                    }
                }
                Ok(None)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&self.statistics))
    }
}

/// The batch under the plan's own schema, which has the same types.
fn named(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}
