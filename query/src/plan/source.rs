//! Reading Parquet files without keeping what was counted of each of them.
//!
//! The engine's own source counts two dozen things of every file that it opens, and keeps all of them with the plan:
//! eight kilobytes a file, which no budget knows of (B1). A tenant with thousands of small files made a typed read hold
//! a hundred megabytes. Nobody asks for these counts, so they go with the files that they are of.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::common::config::{ConfigOptions, TableParquetOptions};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use datafusion_datasource::morsel::{MorselPlanner, Morselizer};
use object_store::ObjectStore;

use super::functions;

/// Files whose counts are held together at most, for each part of a scan that runs at once: half a megabyte.
const COUNTED_FILES_MAX: usize = 64;

/// What the planner asked of a source, to be asked again of another.
#[derive(Clone)]
enum Asked {
    BatchSize(usize),
    Projection(ProjectionExprs),
    Filters(Vec<Arc<dyn PhysicalExpr>>, Arc<ConfigOptions>),
    Sort(Vec<PhysicalSortExpr>, Box<EquivalenceProperties>),
}

/// The engine's Parquet source, of which another with the same duties and no counts can be made.
#[derive(Clone)]
pub struct Source {
    schema: TableSchema,
    options: TableParquetOptions,
    asked: Vec<Asked>,
    planned: Arc<dyn FileSource>,
}

impl Source {
    /// A source of files with these columns.
    #[must_use]
    pub fn new(schema: impl Into<TableSchema>, options: TableParquetOptions) -> Self {
        let schema = schema.into();
        let planned = plain(&schema, &options);
        Self { schema, options, asked: Vec::new(), planned }
    }

    /// This source after one more thing was asked of it, which made `planned` of it.
    fn after(&self, asked: Asked, planned: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        let asked = self.asked.iter().cloned().chain([asked]).collect();
        Arc::new(Self { asked, planned, ..self.clone() })
    }

    /// A source with the same duties that has counted nothing.
    fn fresh(&self) -> Result<Arc<dyn FileSource>> {
        let mut source = plain(&self.schema, &self.options);
        for asked in &self.asked {
            let next = match asked {
                Asked::BatchSize(rows) => Some(source.with_batch_size(*rows)),
                Asked::Projection(projection) => source.try_pushdown_projection(projection)?,
                Asked::Filters(filters, options) => {
                    source.try_pushdown_filters(filters.clone(), options)?.updated_node
                }
                Asked::Sort(order, known) => source.try_pushdown_sort(order, known)?.into_inner(),
            };
            let Some(next) = next else {
                return internal_err!("a source refuses what another like it was asked");
            };
            source = next;
        }
        Ok(source)
    }
}

fn plain(schema: &TableSchema, options: &TableParquetOptions) -> Arc<dyn FileSource> {
    Arc::new(ParquetSource::new(schema.clone()).with_table_parquet_options(options.clone()))
}

impl FileSource for Source {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        scan: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        self.planned.create_file_opener(store, scan, partition)
    }

    fn create_morselizer(
        &self,
        store: Arc<dyn ObjectStore>,
        scan: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        // The scan without its files, which are not asked for here: there may be thousands.
        let scan = FileScanConfigBuilder::new(scan.object_store_url.clone(), Arc::clone(&self.planned))
            .with_limit(scan.limit)
            .with_preserve_order(scan.preserve_order)
            .with_expr_adapter(scan.expr_adapter_factory.clone())
            .build();
        Ok(Box::new(Renewed::new(Part { source: self.clone(), store, scan, partition })?))
    }

    fn table_schema(&self) -> &TableSchema {
        self.planned.table_schema()
    }

    fn with_batch_size(&self, rows: usize) -> Arc<dyn FileSource> {
        self.after(Asked::BatchSize(rows), self.planned.with_batch_size(rows))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.planned.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.planned.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.planned.metrics()
    }

    fn file_type(&self) -> &str {
        self.planned.file_type()
    }

    fn fmt_extra(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.planned.fmt_extra(format, f)
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.planned.reorder_files(files)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        options: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        // A function that refuses to make too much is told from a failure only above the reader of files, which says what
        // failed in its own words.
        let below: Vec<_> = filters.iter().filter(|filter| !functions::may_refuse(filter)).cloned().collect();
        let pushed = self.planned.try_pushdown_filters(below.clone(), options)?;
        let updated = pushed
            .updated_node
            .map(|planned| self.after(Asked::Filters(below, Arc::new(options.clone())), planned));
        let mut of_below = pushed.filters.into_iter();
        let answers = filters.iter().map(|filter| match functions::may_refuse(filter) {
            true => PushedDown::No,
            false => of_below.next().unwrap_or(PushedDown::No),
        });
        Ok(FilterPushdownPropagation { filters: answers.collect(), updated_node: updated })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        known: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        let pushed = self.planned.try_pushdown_sort(order, known)?;
        Ok(pushed.map(|planned| self.after(Asked::Sort(order.to_vec(), Box::new(known.clone())), planned)))
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        let pushed = self.planned.try_pushdown_projection(projection)?;
        Ok(pushed.map(|planned| self.after(Asked::Projection(projection.clone()), planned)))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.planned.apply_expressions(f)
    }
}

/// One part of a scan.
struct Part {
    source: Source,
    store: Arc<dyn ObjectStore>,
    scan: FileScanConfig,
    partition: usize,
}

impl Part {
    fn opener(&self) -> Result<Opener> {
        let source = self.source.fresh()?;
        let files = source.create_morselizer(Arc::clone(&self.store), &self.scan, self.partition)?;
        Ok(Opener { files, opened: 0, counts: source.metrics().clone() })
    }
}

/// Opens files, and holds what is counted of them.
struct Opener {
    files: Box<dyn Morselizer>,
    opened: usize,
    counts: ExecutionPlanMetricsSet,
}

/// What opens a part's files, and takes another opener when so many were opened: what was counted of them goes as soon
/// as the last of them is read.
struct Renewed {
    part: Part,
    opener: Mutex<Opener>,
}

impl Renewed {
    fn new(part: Part) -> Result<Self> {
        let opener = Mutex::new(part.opener()?);
        Ok(Self { part, opener })
    }

    fn opener(&self) -> MutexGuard<'_, Opener> {
        // Whoever panicked under it has changed nothing: it is replaced as a whole.
        self.opener.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Morselizer for Renewed {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        let mut opener = self.opener();
        if opener.opened == COUNTED_FILES_MAX {
            *opener = self.part.opener()?;
        }
        opener.opened += 1;
        opener.files.plan_file(file)
    }
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.opener().counts.clone_inner().iter().count();
        f.debug_struct("Renewed").field("partition", &self.part.partition).field("counts", &counts).finish()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::{col, lit};
    use object_store::memory::InMemory;
    use object_store::prefix::PrefixStore;
    use storage::record::{self, Draft, Kind};

    use super::*;
    use crate::fixture::{Fixture, Sealed, T0};
    use crate::plan::session::Sessions;
    use crate::plan::table::store_url;

    /// What is counted of files now, in entries, when so many of them were opened.
    fn held(renewed: &Renewed, files: usize) -> usize {
        for at in 0..files {
            drop(renewed.plan_file(PartitionedFile::new(format!("{at}"), 9)).unwrap());
        }
        renewed.opener().counts.clone_inner().iter().count()
    }

    /// B1: a tenant chooses how many files there are.
    #[test]
    fn what_is_counted_of_files_goes_with_them() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("time_ns", DataType::Int64, false)]));
        let source = Source::new(schema, TableParquetOptions::default()).with_batch_size(9);
        let scan = FileScanConfigBuilder::new(store_url(), Arc::clone(&source)).build();
        let source = source.downcast_ref::<Source>().unwrap().clone();
        let store = Arc::new(InMemory::new());
        let renewed = Renewed::new(Part { source, store, scan, partition: 0 }).unwrap();
        let few = held(&renewed, 60);
        assert!(few >= 60, "{few} entries for 60 files: they are held elsewhere");
        let many = held(&renewed, 600);
        assert!(many <= 2 * few, "{many} entries for 600 files, {few} for 60");
    }

    /// What the planner asked of the source holds for every file, whichever opener it comes from.
    #[tokio::test]
    async fn what_is_asked_of_a_source_holds_for_every_file() {
        let files = 199;
        let mut fixture = Fixture::new();
        let rows: Vec<_> = (0..files)
            .map(|at| {
                move |draft: &mut Draft| {
                    for second in [0, 1] {
                        draft.begin_row();
                        draft.set_int(record::Field::TimeNs, T0 + 2 * at as i64 + second);
                        draft.set_int(record::Field::ObservedNs, T0);
                        draft.set_text(record::Field::Source, if second == 0 { "even" } else { "odd" });
                        draft.end_row();
                    }
                }
            })
            .collect();
        let chunks: Vec<_> = rows.iter().map(|fill| (Sealed::Yes, fill as &dyn Fn(&mut Draft))).collect();
        fixture.table("acme", "events", Kind::Events, &chunks).await;
        let rooted = Arc::new(PrefixStore::new(Arc::clone(&fixture.store), "tenant/acme"));
        let session = Sessions::new(1 << 30, 2).over(rooted).unwrap();
        let snapshot = Arc::new(fixture.snapshots.pop().unwrap());
        let frame = session.read(&snapshot).unwrap().filter(col("source").eq(lit("odd"))).unwrap();
        let frame = frame.sort(vec![col("time_ns").sort(false, false)]).unwrap();
        let task = Arc::new(frame.task_ctx());
        let plan = frame.select(vec![col("time_ns")]).unwrap().create_physical_plan().await.unwrap();
        // The source filters, so that no rows are filtered after it.
        let text = displayable(plan.as_ref()).indent(false).to_string();
        assert!(text.contains("predicate=source@") && !text.contains("FilterExec"), "{text}");
        let batches = collect(plan, task).await.unwrap();
        let times = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values());
        let expected = (0..files as i64).rev().map(|at| T0 + 2 * at + 1);
        assert!(times.copied().eq(expected));
    }
}
