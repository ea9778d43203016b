//! One table as the query engine sees it: the files that can match, and the chunks that are in no file yet.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{
    ColumnStatistics, DataFusionError, Result, ScalarValue, Statistics, project_schema,
};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use object_store::path::Path;
use storage::reader::{DataFile, Snapshot};

use super::hot::HotSource;
use super::source::Source;
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

    fn partitioned(&self) -> Result<PartitionedFile> {
        // T1: a path is the dataset's name and what the table's log says; `parse` refuses dots and empty parts.
        let path = Path::parse(&self.path).map_err(|error| DataFusionError::External(error.into()))?;
        let mut partitioned = PartitionedFile::new("", self.bytes);
        partitioned.object_meta.location = path;
        Ok(partitioned)
    }

    /// What is known of its columns without opening it.
    fn statistics(&self, schema: &Schema) -> Statistics {
        let mut statistics = Statistics::new_unknown(schema);
        statistics.num_rows = Precision::Exact(row_count(self.rows));
        if let Ok(at) = schema.index_of("time_ns")
            && let Some(column) = statistics.column_statistics.get_mut(at)
        {
            column.min_value = Precision::Exact(ScalarValue::Int64(Some(self.time_ns.0)));
            column.max_value = Precision::Exact(ScalarValue::Int64(Some(self.time_ns.1)));
            column.null_count = Precision::Exact(0);
        }
        statistics
    }
}

/// Bytes of what the plan of one scan tells of its files' columns: past it each file is opened to be left out.
const STATISTICS_BYTES_MAX: usize = 4 << 20;

/// A plan that reads these files of the session's one store. What it holds of them is lent by the session (B1): there
/// may be thousands, and each is told with an entry for each column that is read.
///
/// # Errors
/// Where the session has no memory for their list; whatever else the engine refuses is our bug.
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
    // The columns that are read and no others: an attribute of the table costs nothing where nobody asks for it.
    let schema = project_schema(schema, projection)?;
    let told = files.len() * schema.fields().len() * size_of::<ColumnStatistics>();
    let is_told = told <= STATISTICS_BYTES_MAX;
    let listed: usize = files.iter().map(|file| size_of::<PartitionedFile>() + file.path.len()).sum();
    let held = MemoryConsumer::new("files").register(&session.runtime_env().memory_pool);
    held.try_grow(listed + if is_told { told } else { 0 })?;
    let source = Source::new(Arc::clone(&schema), options);
    let group_count = session.config().target_partitions().clamp(1, files.len().max(1));
    let mut groups = vec![Vec::new(); group_count];
    for (at, file) in files.iter().enumerate() {
        let group: &mut Vec<_> = groups.get_mut(at % group_count).expect("less than their number");
        let partitioned = file.partitioned()?;
        group.push(match is_told {
            true => partitioned.with_statistics(Arc::new(file.statistics(&schema))),
            false => partitioned,
        });
    }
    if let Some(first) = groups.first_mut().and_then(|group| group.first_mut()) {
        // It is given back with the last copy of the list.
        first.extensions.insert(held);
    }
    let rows = files.iter().map(|file| row_count(file.rows)).sum();
    let mut statistics = Statistics::new_unknown(&schema);
    statistics.num_rows = Precision::Exact(rows);
    let config = FileScanConfigBuilder::new(store_url(), Arc::new(source))
        .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
        .with_statistics(statistics)
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
    Ok(Arc::new(EmptyExec::new(project_schema(schema, projection)?)))
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
            let wanted = project_schema(&self.snapshot.schema, projection)?;
            let source = HotSource::new(Arc::clone(&self.snapshot), wanted, limit);
            inputs.push(DataSourceExec::from_data_source(source));
        }
        union(inputs, &self.snapshot.schema, projection)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    /// A session that lends so many bytes.
    fn session(bytes: usize) -> SessionContext {
        let pool = Arc::new(GreedyMemoryPool::new(bytes));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
        SessionContext::new_with_config_rt(SessionConfig::new(), runtime)
    }

    /// Files of which the plan tells something without opening them.
    fn told(plan: &Arc<dyn ExecutionPlan>) -> usize {
        let source = plan.downcast_ref::<DataSourceExec>().unwrap();
        let (config, _) = source.downcast_to_file_source::<Source>().unwrap();
        config.file_groups.iter().flat_map(FileGroup::files).filter(|file| file.has_statistics()).count()
    }

    // B1: a tenant chooses how many files and columns there are.
    #[test]
    fn what_a_scan_tells_of_its_files_is_lent_and_bounded() {
        let names = (0..500).map(|at| Field::new(format!("a{at}"), DataType::Utf8, true));
        let time = Field::new("time_ns", DataType::Int64, false);
        let schema: SchemaRef = Arc::new(Schema::new([time].into_iter().chain(names).collect::<Vec<_>>()));
        let file = |at: i64| Scanned { path: format!("t/{at}"), bytes: 9, rows: 1, time_ns: (at, at) };
        let files: Vec<Scanned> = (0..1_000).map(file).collect();
        let context = session(1 << 30);
        let lent = || context.runtime_env().memory_pool.reserved();
        let scan = |columns: Option<&Vec<usize>>| file_scan(&schema, &files, &context.state(), columns, None);
        let narrow = scan(Some(&vec![0, 7])).unwrap();
        let held = 1_000 * (2 * size_of::<ColumnStatistics>() + size_of::<PartitionedFile>());
        assert!((held..held + 20_000).contains(&lent()), "{} for {held}", lent());
        assert_eq!((told(&narrow), narrow.schema().fields().len()), (1_000, 2));
        drop(narrow);
        assert_eq!(lent(), 0);
        let wide = scan(None).unwrap();
        assert_eq!((told(&wide), wide.schema().fields().len()), (0, 501));
        assert!(lent() <= (4 << 20), "{}", lent());
        let poor = session(100_000);
        assert!(file_scan(&schema, &files, &poor.state(), None, None).is_err());
    }
}
