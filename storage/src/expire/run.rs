//! Runs of retention: what would go, what goes, and what the scheduled run dares.

use std::sync::Arc;
use std::time::Instant;

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::edge;
use super::plan::{is_unusual, plan, with_run};
use super::report::{self, Leaving, Report};
use crate::commit::{Change, Operation};
use crate::deployment::Shared;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults;
use crate::keeper;
use crate::policies::cutoff_ns;
use crate::reader::DataFile;
use crate::record::{TableId, Tenant};
use crate::store::unavailable;
use crate::table::Table;

/// How often a run begins anew when another writer took one of its files (a compaction does).
const ATTEMPTS_MAX: usize = 5;

/// What goes, or went: the same numbers for a dry run and for the run after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    /// Rows.
    pub rows: u64,
    /// Files that leave the table's version.
    pub files: u64,
    /// Their sizes. The sweep frees them after its grace; rows at the edge that stay come back in new files.
    pub bytes: u64,
    /// The files, in order of their paths.
    pub leaving: Vec<Leaving>,
    /// The object that says so; `None` for a dry run and where nothing goes.
    pub report: Option<String>,
}

/// Why a dataset was not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is kept for ever.
    NoPolicy,
    /// A legal hold is on it.
    Held,
    /// Wall clock and monotonic clock do not agree, or not for long enough.
    Clock,
    /// It would remove more than twice what it usually does.
    Unusual {
        /// Rows that would go.
        rows: u64,
        /// The most that went in one of the last runs.
        usual: u64,
    },
}

/// How a run of one dataset ended.
#[derive(Debug)]
pub enum Ended {
    /// It removed this, which may be nothing.
    Done(Expiry),
    /// It removed nothing, for this reason.
    Refused(Refused),
    /// It failed; what is not committed is still there.
    Failed(Error),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoPolicy => f.write_str("the dataset has no retention: it is kept for ever"),
            Self::Held => f.write_str("a legal hold is on the dataset"),
            Self::Clock => f.write_str("wall clock and monotonic clock do not agree for long enough"),
            Self::Unusual { rows, usual } => {
                write!(
                    f,
                    "{rows} rows are more than twice the usual {usual}: run the dataset by name to remove them"
                )
            }
        }
    }
}

/// Expires one dataset because somebody asked for it by name: its own second observation, unless wall and
/// monotonic clock disagree since the start (F27). A dry run tells what would go and changes nothing but that
/// rows still hot are sealed.
///
/// What goes is out of the table when this returns, and out of the store after the sweep's grace.
///
/// # Errors
/// `Kind::Unavailable` when the store does not answer, `Kind::Corrupt` naming a file that does not read.
pub async fn by_name(
    shared: &Shared,
    table: &TableId,
    is_dry: bool,
    at: Instant,
) -> Result<std::result::Result<Expiry, Refused>> {
    let now_ns = (shared.now)();
    let Some(days) = shared.policies.days(table) else { return Ok(Err(Refused::NoPolicy)) };
    if shared.policies.is_held(table) {
        return Ok(Err(Refused::Held));
    }
    if !shared.clock.agrees(now_ns, at) {
        return Ok(Err(Refused::Clock));
    }
    let Some(table) = shared.tables.get(table) else { return Ok(Ok(Expiry::default())) };
    let _one_at_a_time = shared.expiring.lock().await;
    if is_dry {
        let (expiry, _) = look(shared, &table, cutoff_ns(days, now_ns)).await?;
        return Ok(Ok(expiry));
    }
    act(shared, &table, days, now_ns).await
}

/// Expires every dataset that has a policy, of one tenant or of all: the daily run.
///
/// Its ages count only by a clock that was observed twice, an hour apart (F27); `is_asked` stands for the second
/// observation where somebody asked for the run. It removes at most twice what it usually does.
pub async fn scheduled(
    shared: &Shared,
    scope: Option<&Tenant>,
    is_asked: bool,
    at: Instant,
) -> Vec<(TableId, Ended)> {
    let is_confirmed = shared.clock.observe((shared.now)(), at);
    let is_believed = is_confirmed || (is_asked && shared.clock.agrees((shared.now)(), at));
    let _one_at_a_time = shared.expiring.lock().await;
    let mut ended = Vec::new();
    for table in shared.tables.all() {
        if scope.is_some_and(|tenant| table.id.tenant != *tenant) {
            continue;
        }
        let Some(days) = shared.policies.days(&table.id) else { continue };
        let outcome = if shared.policies.is_held(&table.id) {
            Ended::Refused(Refused::Held)
        } else if is_believed {
            daily(shared, &table, days).await.unwrap_or_else(Ended::Failed)
        } else {
            Ended::Refused(Refused::Clock)
        };
        ended.push((table.id.clone(), outcome));
    }
    ended
}

async fn daily(shared: &Shared, table: &Table, days: u32) -> Result<Ended> {
    let now_ns = (shared.now)();
    let (expiry, _) = look(shared, table, cutoff_ns(days, now_ns)).await?;
    let volumes = Volumes::of(shared, &table.id).await?;
    if is_unusual(expiry.rows, &volumes.rows) {
        let usual = volumes.rows.iter().max().copied().unwrap_or(0);
        return Ok(Ended::Refused(Refused::Unusual { rows: expiry.rows, usual }));
    }
    let expiry = match act(shared, table, days, now_ns).await? {
        Ok(expiry) => expiry,
        Err(refused) => return Ok(Ended::Refused(refused)),
    };
    Volumes { rows: with_run(volumes.rows, expiry.rows) }.put(shared, &table.id).await?;
    Ok(Ended::Done(expiry))
}

/// What is past the cutoff, and in which files. Rows that are still hot are sealed first.
async fn look(shared: &Shared, table: &Table, cutoff_ns: i64) -> Result<(Expiry, Vec<Arc<DataFile>>)> {
    keeper::flush_table(shared, table).await?;
    let plan = plan(table.published().files(), cutoff_ns);
    let root = table.id.prefix();
    let mut expiry = Expiry::default();
    let mut edge = Vec::new();
    for file in plan.whole {
        expiry.note(&file, file.rows);
    }
    for file in plan.edge {
        let rows = edge::count(&shared.memory, &*shared.store, &root, &file, cutoff_ns).await?;
        if rows > 0 {
            expiry.note(&file, rows);
        }
        if rows > 0 && rows < file.rows {
            edge.push(file);
        }
    }
    expiry.leaving.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((expiry, edge))
}

/// Removes what is past its retention, in one commit; begins anew when another writer was first.
async fn act(
    shared: &Shared,
    table: &Table,
    days: u32,
    now_ns: i64,
) -> Result<std::result::Result<Expiry, Refused>> {
    let cutoff_ns = cutoff_ns(days, now_ns);
    let id = uuid::Uuid::now_v7().simple().to_string();
    for _ in 0..ATTEMPTS_MAX {
        let (mut expiry, edge) = look(shared, table, cutoff_ns).await?;
        if expiry.files == 0 {
            return Ok(Ok(expiry));
        }
        let path = report::path(&table.id, &id, now_ns);
        faults::reach("expire.before_report").await?;
        // E2: what goes is written down before it goes.
        report::put(&*shared.store, &path, &expiry.report(&table.id, &id, days, now_ns)).await?;
        expiry.report = Some(path);
        let columns = table.columns();
        let mut adds = Vec::with_capacity(edge.len());
        for file in &edge {
            faults::reach("expire.before_rewrite").await?;
            adds.push(edge::rewrite(shared, table, file, columns.schema(), cutoff_ns).await?);
        }
        let change = Change {
            operation: Operation::Expire,
            kind: table.kind,
            columns: (*columns).clone(),
            adds,
            removes: expiry.leaving.iter().map(|file| file.path.clone()).collect(),
            txns: Vec::new(),
            guards: Vec::new(),
            now_ms: now_ns.div_euclid(1_000_000),
        };
        faults::reach("expire.before_commit").await?;
        let log = table.log.lock().await;
        // R1: a hold that was placed meanwhile wins; whoever places one waits for this lock.
        if shared.policies.is_held(&table.id) {
            return Ok(Err(Refused::Held));
        }
        let committed = log.commit(table.published().state.clone(), &change).await?;
        faults::reach("expire.before_publish").await?;
        table.publish(committed.state);
        if committed.is_in {
            return Ok(Ok(expiry));
        }
    }
    let context = format!("other writers changed table {} {ATTEMPTS_MAX} times in a row", table.id);
    Err(Error::new(ErrorKind::Unavailable, context))
}

impl Expiry {
    fn note(&mut self, file: &DataFile, rows: u64) {
        self.rows += rows;
        self.files += 1;
        self.bytes += file.bytes;
        let is_whole = rows == file.rows;
        self.leaving.push(Leaving { path: file.path.clone(), rows, bytes: file.bytes, is_whole });
    }

    fn report<'a>(&'a self, table: &'a TableId, id: &'a str, days: u32, now_ns: i64) -> Report<'a> {
        Report {
            id,
            kind: "retention",
            tenant: table.tenant.as_str(),
            dataset: table.dataset.as_str(),
            days,
            before: report::rfc3339(cutoff_ns(days, now_ns)),
            at: report::rfc3339(now_ns),
            rows: self.rows,
            files: self.files,
            bytes: self.bytes,
            leaving: &self.leaving,
        }
    }
}

/// Rows that the last scheduled runs removed from a dataset: `system/retention_volumes/{tenant}/{dataset}.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Volumes {
    rows: Vec<u64>,
}

impl Volumes {
    fn path(table: &TableId) -> Path {
        Path::from(format!("system/retention_volumes/{}/{}.json", table.tenant, table.dataset))
    }

    async fn of(shared: &Shared, table: &TableId) -> Result<Self> {
        let path = Self::path(table);
        match shared.store.get(&path).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(unavailable)?;
                serde_json::from_slice(&bytes).map_err(|error| {
                    Error::new(ErrorKind::Corrupt, format!("object {path} cannot be read")).with_source(error)
                })
            }
            Err(object_store::Error::NotFound { .. }) => Ok(Self::default()),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn put(&self, shared: &Shared, table: &TableId) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("plain data becomes JSON");
        shared.store.put(&Self::path(table), PutPayload::from(bytes)).await.map_err(unavailable)?;
        Ok(())
    }
}
