//! One table as the query engine sees it: the files that can match, and the chunks that are in no file yet.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, Result, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use object_store::path::Path;
use storage::reader::{DataFile, Snapshot};

use super::hot::HotSource;
use crate::prune::{Bounds, files};

/// A table at one version with its hot chunks (Q1).
pub struct Table {
    snapshot: Arc<Snapshot>,
}

impl Table {
    /// A table whose files are below `{dataset}/` of the session's one store.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot }
    }
}

/// A file that a scan reads.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// Path below the tenant's prefix.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// Lowest and highest `time_ns` in it.
    pub time_ns: (i64, i64),
}

impl Scanned {
    /// A file of a snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot, file: &DataFile) -> Self {
        Self {
            path: format!("{}/{}", snapshot.table.dataset, file.path),
            bytes: file.bytes,
            rows: file.rows,
            time_ns: file.time_ns,
        }
    }

    fn partitioned(&self, schema: &Schema) -> Result<PartitionedFile> {
        // T1: a path is the dataset's name and what the table's log says; `parse` refuses dots and empty parts.
        let path = Path::parse(&self.path).map_err(|error| DataFusionError::External(error.into()))?;
        let mut partitioned = PartitionedFile::new("", self.bytes);
        partitioned.object_meta.location = path;
        let mut statistics = Statistics::new_unknown(schema);
        statistics.num_rows = Precision::Exact(row_count(self.rows));
        if let Ok(at) = schema.index_of("time_ns")
            && let Some(column) = statistics.column_statistics.get_mut(at)
        {
            column.min_value = Precision::Exact(ScalarValue::Int64(Some(self.time_ns.0)));
            column.max_value = Precision::Exact(ScalarValue::Int64(Some(self.time_ns.1)));
            column.null_count = Precision::Exact(0);
        }
        Ok(partitioned.with_statistics(Arc::new(statistics)))
    }
}

/// A plan that reads these files of the session's one store.
///
/// # Errors
/// When the engine refuses it: our bug.
pub fn file_scan(
    schema: &SchemaRef,
    files: &[Scanned],
    session: &dyn Session,
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let options = TableParquetOptions {
        global: session.config_options().execution.parquet.clone(),
        ..TableParquetOptions::default()
    };
    let source = ParquetSource::new(Arc::clone(schema)).with_table_parquet_options(options);
    let group_count = session.config().target_partitions().clamp(1, files.len().max(1));
    let mut groups = vec![Vec::new(); group_count];
    for (at, file) in files.iter().enumerate() {
        let group: &mut Vec<_> = groups.get_mut(at % group_count).expect("less than their number");
        group.push(file.partitioned(schema)?);
    }
    let rows = files.iter().map(|file| row_count(file.rows)).sum();
    let mut statistics = Statistics::new_unknown(schema);
    statistics.num_rows = Precision::Exact(rows);
    let config = FileScanConfigBuilder::new(store_url(), Arc::new(source))
        .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
        .with_statistics(statistics)
        .with_projection_indices(projection.cloned())?
        .with_limit(limit)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// Several inputs as one; none is a table without rows.
///
/// # Errors
/// When the engine refuses it: our bug.
pub fn union(
    mut inputs: Vec<Arc<dyn ExecutionPlan>>,
    schema: &SchemaRef,
    projection: Option<&Vec<usize>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    if inputs.len() > 1 {
        return UnionExec::try_new(inputs);
    }
    if let Some(only) = inputs.pop() {
        return Ok(only);
    }
    let schema = datafusion::common::project_schema(schema, projection);
    Ok(Arc::new(EmptyExec::new(schema?)))
}

/// The one store of a session.
#[must_use]
pub fn store_url() -> ObjectStoreUrl {
    ObjectStoreUrl::parse(STORE).expect("a constant URL")
}

/// The URL under which a session knows its one store.
pub const STORE: &str = "tenant://store";

fn row_count(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}

/// Rows in the table, before any condition.
#[must_use]
pub fn rows(snapshot: &Snapshot) -> u64 {
    snapshot.sealed_rows() + snapshot.hot_rows()
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
        let files: Vec<Scanned> = files(&self.snapshot.files, &Bounds::of(filters))
            .iter()
            .map(|file| Scanned::of(&self.snapshot, file))
            .collect();
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !files.is_empty() {
            inputs.push(file_scan(&self.snapshot.schema, &files, session, projection, limit)?);
        }
        if !self.snapshot.hot.is_empty() {
            let wanted = datafusion::common::project_schema(&self.snapshot.schema, projection)?;
            let source = HotSource::new(Arc::clone(&self.snapshot), wanted, limit);
            inputs.push(DataSourceExec::from_data_source(source));
        }
        union(inputs, &self.snapshot.schema, projection)
    }
}
