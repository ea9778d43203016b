//! A fresh session for every request: it holds the caller's tables and can name nothing else (T1, F29).
//!
//! What the query engine could reach by itself is not there to be reached: no table functions, no file
//! formats or table factories, no information schema, no file system store, no disk. The one object store is
//! rooted at the tenant's prefix.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemoryCatalogProviderList, TableProvider};
use datafusion::common::{Result, TableReference, exec_err};
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as PlannerStatement;
use futures::StreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};
use sqlparser::ast::{Ident, Query, Statement, TableAlias, TableFactor, VisitMut, VisitorMut};
use storage::memory::Short;
use storage::reader::{ProvenStore, Snapshot};
use url::Url;

use super::table::{STORE, Scanned, Table, file_scan, store_url};
use super::{attr, batch, functions};
use crate::budget::Budget;
use crate::view::View;

/// What sessions share: the functions that are open, the memory they may use, how parallel they run.
pub struct Sessions {
    config: SessionConfig,
    memory: Arc<dyn MemoryPool>,
    scalar: Vec<Arc<ScalarUDF>>,
    aggregate: Vec<Arc<AggregateUDF>>,
    window: Vec<Arc<WindowUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl Sessions {
    /// Sessions that together use at most `memory_bytes` for what the engine accounts, each on `threads`.
    #[must_use]
    pub fn new(memory_bytes: usize, threads: usize) -> Self {
        let mut config = SessionConfig::new()
            .with_target_partitions(threads.max(1))
            .with_batch_size(batch::ROWS)
            .with_information_schema(false)
            .with_create_default_catalog_and_schema(true);
        let options = config.options_mut();
        options.execution.parquet.pushdown_filters = true;
        options.execution.parquet.reorder_filters = true;
        options.execution.parquet.bloom_filter_on_read = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        let mut scalar = functions::scalar();
        scalar.push(Arc::new(attr::udf()));
        Self {
            config,
            memory: Arc::new(GreedyMemoryPool::new(memory_bytes)),
            scalar,
            aggregate: functions::aggregate(),
            window: functions::window(),
            planners: SessionStateDefaults::default_expr_planners(),
        }
    }

    /// Bytes that running queries have reserved.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        self.memory.reserved()
    }

    /// A session of one request over what it may see, which lends from the budget.
    ///
    /// # Errors
    /// When the engine refuses the parts: our bug.
    pub fn open(&self, view: &View, budget: &Arc<Budget>) -> Result<Session> {
        let (tenant, store) = (view.tenant(), Arc::clone(view.store()));
        let rooted = Arc::new(PrefixStore::new(store, format!("tenant/{tenant}")));
        let session = self.lending(rooted, Arc::clone(budget) as _)?;
        Ok(Session { store: Some(Arc::clone(view.store())), budget: Some(Arc::clone(budget)), ..session })
    }

    /// A session of one request, over a store rooted at its tenant; it lends from what all of these share.
    ///
    /// # Errors
    /// When the engine refuses the parts: our bug.
    pub fn over(&self, rooted: Arc<dyn ObjectStore>) -> Result<Session> {
        self.lending(rooted, Arc::clone(&self.memory))
    }

    fn lending(&self, rooted: Arc<dyn ObjectStore>, memory: Arc<dyn MemoryPool>) -> Result<Session> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(memory)
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .with_object_store_registry(Arc::new(OneStore(rooted)))
            .build_arc()?;
        let state = SessionStateBuilder::new()
            .with_config(self.config.clone())
            .with_runtime_env(runtime)
            .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
            .with_scalar_functions(self.scalar.clone())
            .with_aggregate_functions(self.aggregate.clone())
            .with_window_functions(self.window.clone())
            .with_expr_planners(self.planners.clone())
            .with_table_functions(std::collections::HashMap::new())
            .build();
        Ok(Session { context: SessionContext::new_with_state(state), store: None, budget: None })
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// The session of one request; clones share it.
#[derive(Clone)]
pub struct Session {
    context: SessionContext,
    store: Option<Arc<ProvenStore>>,
    budget: Option<Arc<Budget>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// The same session, decoding so many rows at once.
    #[must_use]
    pub fn with_batch_rows(&self, rows: usize) -> Self {
        let state = self.context.state();
        // Spreading batches over partitions would hold a wide batch for each: such rows are read one after another.
        let config = state.config().clone().with_batch_size(rows).with_round_robin_repartition(false);
        let state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
        Self { context: SessionContext::new_with_state(state), ..self.clone() }
    }

    /// A damaged object that was come upon, by its path in the tenant.
    #[must_use]
    pub fn damaged(&self) -> Option<&str> {
        let path = self.store.as_ref()?.damaged()?;
        Some(path.splitn(3, '/').nth(2).unwrap_or(path))
    }

    /// Why memory was refused, if it was.
    #[must_use]
    pub fn short(&self) -> Option<Short> {
        self.budget.as_ref()?.short()
    }

    /// Whether the store answers for an object, be it there or not. A reader's error tells no more than a text.
    pub async fn reaches(&self, path: &str) -> bool {
        let Ok(store) = self.context.runtime_env().object_store(store_url()) else { return false };
        !store.head(&Path::from(path)).await.is_err_and(|error| !matches!(error, StoreError::NotFound { .. }))
    }

    /// Reads one table.
    ///
    /// # Errors
    /// When the engine refuses it: our bug.
    pub fn read(&self, snapshot: &Arc<Snapshot>) -> Result<DataFrame> {
        self.context.read_table(Arc::new(Table::new(Arc::clone(snapshot))))
    }

    /// Reads one file alone and throws its rows away.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn decode(&self, schema: &SchemaRef, file: &Scanned) -> Result<()> {
        let plan = file_scan(schema, std::slice::from_ref(file), &self.context.state(), None, None)?;
        let mut stream = execute_stream(plan, self.context.task_ctx())?;
        while let Some(batch) = stream.next().await {
            batch?;
        }
        Ok(())
    }

    /// Plans a checked query over these tables, by their names here.
    ///
    /// # Errors
    /// The planner's.
    pub async fn plan(
        &self,
        mut query: Box<Query>,
        tables: Vec<(String, Arc<dyn TableProvider>)>,
    ) -> Result<DataFrame> {
        for (name, table) in tables {
            self.context.register_table(TableReference::bare(name), table)?;
        }
        name_derived(&mut query);
        let statement = PlannerStatement::Statement(Box::new(Statement::Query(query)));
        let plan = self.context.state().statement_to_plan(statement).await?;
        // Second lock on the same door: the guard lets nothing but queries through.
        let options = datafusion::execution::context::SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        options.verify_plan(&plan)?;
        self.context.execute_logical_plan(plan).await
    }
}

/// Names every subquery in `from` that has no name.
///
/// The optimizer merges projections that lie on one another by the names of their columns. Without a name before them
/// the `x` of `x+x x` and the `x` that it is made of are one to it, and `select x+x x from (select x+x x from …)` loses
/// a level (the rule `optimize_projections` of datafusion 55.2).
fn name_derived(query: &mut Query) {
    struct Namer(usize);
    impl VisitorMut for Namer {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            if let TableFactor::Derived { alias: alias @ None, .. } = factor {
                self.0 += 1;
                let name = Ident::new(format!("__derived_{}", self.0));
                *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
            }
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Namer(0));
}

/// A registry that knows one store and can learn no other.
#[derive(Debug)]
struct OneStore(Arc<dyn ObjectStore>);

impl ObjectStoreRegistry for OneStore {
    fn register_store(&self, _url: &Url, _store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if url.as_str().trim_end_matches('/') == STORE {
            Ok(Arc::clone(&self.0))
        } else {
            exec_err!("no such object store")
        }
    }
}
