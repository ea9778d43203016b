//! One table as the query engine sees it: the files that can match, and the chunks that are in no file yet.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, Result, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use object_store::path::Path;
use storage::reader::{DataFile, Snapshot};

use crate::prune::{Bounds, files};

/// A table at one version with its hot chunks (Q1).
pub struct Table {
    snapshot: Arc<Snapshot>,
    store: ObjectStoreUrl,
}

impl Table {
    /// A table whose files are below `{dataset}/` of the store registered under `store`.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, store: ObjectStoreUrl) -> Self {
        Self { snapshot, store }
    }

    fn file_scan(
        &self,
        files: &[Arc<DataFile>],
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = &self.snapshot.schema;
        let options = TableParquetOptions {
            global: session.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let source = ParquetSource::new(Arc::clone(schema)).with_table_parquet_options(options);
        let group_count = session.config().target_partitions().clamp(1, files.len());
        let mut groups = vec![Vec::new(); group_count];
        for (at, file) in files.iter().enumerate() {
            if let Some(group) = groups.get_mut(at % group_count) {
                group.push(self.partitioned(file)?);
            }
        }
        let rows = files.iter().map(|file| row_count(file)).sum();
        let mut statistics = Statistics::new_unknown(schema);
        statistics.num_rows = Precision::Exact(rows);
        let config = FileScanConfigBuilder::new(self.store.clone(), Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn partitioned(&self, file: &DataFile) -> Result<PartitionedFile> {
        // T1: a path is the dataset's name and what the table's log says; `parse` refuses dots and empty parts.
        let path = Path::parse(format!("{}/{}", self.snapshot.table.dataset, file.path))
            .map_err(|error| DataFusionError::External(error.into()))?;
        let mut partitioned = PartitionedFile::new("", file.bytes);
        partitioned.object_meta.location = path;
        let schema = &self.snapshot.schema;
        let mut statistics = Statistics::new_unknown(schema);
        statistics.num_rows = Precision::Exact(row_count(file));
        if let Ok(at) = schema.index_of("time_ns")
            && let Some(column) = statistics.column_statistics.get_mut(at)
        {
            column.min_value = Precision::Exact(ScalarValue::Int64(Some(file.time_ns.0)));
            column.max_value = Precision::Exact(ScalarValue::Int64(Some(file.time_ns.1)));
            column.null_count = Precision::Exact(0);
        }
        Ok(partitioned.with_statistics(Arc::new(statistics)))
    }
}

fn row_count(file: &DataFile) -> usize {
    usize::try_from(file.rows).unwrap_or(usize::MAX)
}

/// Rows in the table, before any condition.
#[must_use]
pub fn rows(snapshot: &Snapshot) -> u64 {
    let sealed: u64 = snapshot.files.iter().map(|file| file.rows).sum();
    let hot: usize = snapshot.hot.iter().map(arrow::array::RecordBatch::num_rows).sum();
    sealed + hot as u64
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("table", &self.snapshot.table).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.snapshot.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Inexact: files are pruned by them here, rows are filtered where the physical optimizer puts it.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = files(&self.snapshot.files, &Bounds::of(filters));
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !files.is_empty() {
            inputs.push(self.file_scan(&files, session, projection, limit)?);
        }
        if !self.snapshot.hot.is_empty() {
            let source = MemorySourceConfig::try_new(
                std::slice::from_ref(&self.snapshot.hot),
                Arc::clone(&self.snapshot.schema),
                projection.cloned(),
            )?
            .with_limit(limit);
            inputs.push(DataSourceExec::from_data_source(source));
        }
        if inputs.len() > 1 {
            return UnionExec::try_new(inputs);
        }
        if let Some(only) = inputs.pop() {
            return Ok(only);
        }
        let schema = datafusion::common::project_schema(&self.snapshot.schema, projection);
        Ok(Arc::new(EmptyExec::new(schema?)))
    }
}
