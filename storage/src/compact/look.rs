//! Which table's merges are most due, and what is remembered of each table between two looks: most are the same at the
//! next.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::plan::{FILES_MAX, File, Plan, plan};
use crate::deployment::Shared;
use crate::options::Options;
use crate::reader::DataFile;
use crate::record::TableId;
use crate::segment;
use crate::table::Table;

/// How long a table counts as in use after rows came to it, milliseconds: quiet dates of one that is in use are tidied up,
/// for its files are in memory anyway, and those of one that has rested. In between it is left alone, with little memory.
/// Chosen: some looks, and few of the seconds after a burst.
const FED_MS: u64 = 5_000;

/// Files of one date that become one.
pub type Files = Vec<Arc<DataFile>>;

/// What compaction remembers between two merges.
#[derive(Debug, Default)]
pub struct Compaction {
    /// Files that cannot be merged, until the next start.
    set_aside: Mutex<HashSet<(TableId, String)>>,
    /// What is remembered of each table: most are the same at the next look.
    seen: Mutex<HashMap<TableId, Seen>>,
    /// When the next merge may begin, nanoseconds since 1970 UTC.
    pub not_before_ns: AtomicI64,
    /// Files that wait to be merged, as the last look found.
    pub files_waiting: AtomicU64,
    /// Files of the date of a table that has the most, as the last look found.
    pub partition_files_max: AtomicU64,
}

/// What is remembered of a table.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Chunks that had come to it by then.
    pushed: u64,
    /// When the last look saw that some had come, milliseconds since 1970 UTC; the first look, until some had.
    fed_ms: i64,
    /// What the last look at it found, unless that is void.
    look: Option<Look>,
}

impl Seen {
    /// Whether quiet dates may be tidied up: of a table that is in use, and of one that has rested.
    fn may_tidy(&self, now_ms: i64, options: &Options) -> bool {
        // A clock that jumped back makes the last rows look new.
        let since_ms = u64::try_from(now_ms.saturating_sub(self.fed_ms)).unwrap_or(0);
        let is_in_use = self.pushed > 0 && since_ms < FED_MS;
        is_in_use || since_ms >= options.compact_quiet_ms
    }
}

/// What a look at a table found. It holds for a version, until a moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    version: Option<i64>,
    /// Whether quiet dates were among what is due.
    may_tidy: bool,
    again_ms: Option<i64>,
    files_waiting: u64,
    partition_files_max: u64,
    /// Files of the largest merge that is due; 0 where none is.
    merge_files: usize,
}

impl Look {
    fn of(version: Option<i64>, may_tidy: bool, plan: &Plan) -> Self {
        Self {
            version,
            may_tidy,
            again_ms: plan.again_ms,
            files_waiting: plan.files_waiting,
            partition_files_max: plan.partition_files_max,
            merge_files: plan.merges.first().map_or(0, Vec::len),
        }
    }

    /// Whether another look would find the same: a version has its files for ever, and time alone makes quiet dates due.
    fn holds(&self, version: Option<i64>, may_tidy: bool, now_ms: i64) -> bool {
        let is_soon = |again_ms| now_ms < again_ms;
        self.version == version
            && match may_tidy {
                true => self.again_ms.is_none_or(is_soon),
                false => !self.may_tidy || self.merge_files == 0,
            }
    }
}

impl Compaction {
    fn is_set_aside(&self, table: &TableId, path: &str) -> bool {
        let set_aside = self.set_aside.lock().expect("no panic happens under this lock");
        !set_aside.is_empty() && set_aside.contains(&(table.clone(), path.to_owned()))
    }

    /// Leaves a file out of merges from now on.
    pub fn set_aside(&self, table: &TableId, path: &str) {
        let mut set_aside = self.set_aside.lock().expect("no panic happens under this lock");
        set_aside.insert((table.clone(), path.to_owned()));
        if let Some(seen) = self.seen().get_mut(table) {
            seen.look = None;
        }
    }

    fn looked(&self, table: &TableId, look: Look) {
        if let Some(seen) = self.seen().get_mut(table) {
            seen.look = Some(look);
        }
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<TableId, Seen>> {
        self.seen.lock().expect("no panic happens under this lock")
    }
}

/// Looks through all tables; returns the merges of the one with the merge that takes the most away.
///
/// Only tables that changed since the last look are planned anew: with thousands of them, a look costs little.
pub fn most_due(shared: &Shared, now_ns: i64) -> Option<(Arc<Table>, Vec<Files>)> {
    let memory = &shared.compaction;
    let now_ms = now_ns / 1_000_000;
    let (mut waiting, mut partition_max) = (0, 0);
    let mut most: Option<(usize, Arc<Table>, bool)> = None;
    for table in shared.tables.all() {
        let version = table.version();
        let pushed = table.pushed();
        let (may_tidy, look) = {
            let mut seen = memory.seen();
            if !seen.contains_key(&table.id) {
                seen.insert(table.id.clone(), Seen { pushed, fed_ms: now_ms, look: None });
            }
            let seen = seen.get_mut(&table.id).expect("it is there");
            if seen.pushed != pushed {
                (seen.pushed, seen.fed_ms) = (pushed, now_ms);
            }
            let may_tidy = seen.may_tidy(now_ms, &shared.options);
            (may_tidy, seen.look.filter(|look| look.holds(version, may_tidy, now_ms)))
        };
        let look = look.unwrap_or_else(|| {
            let (look, _) = look_at(shared, &table, may_tidy, now_ms);
            memory.looked(&table.id, look);
            look
        });
        waiting += look.files_waiting;
        partition_max = look.partition_files_max.max(partition_max);
        // Of equals the first by name: the order is the same in every run.
        let is_more = most.as_ref().is_none_or(|(files, other, _)| {
            look.merge_files > *files || (look.merge_files == *files && table.id < other.id)
        });
        if look.merge_files > 0 && is_more {
            most = Some((look.merge_files, table, may_tidy));
        }
    }
    memory.files_waiting.store(waiting, Ordering::Relaxed);
    memory.partition_files_max.store(partition_max, Ordering::Relaxed);
    let (_, table, may_tidy) = most?;
    // Anew: a look holds no files, which would keep the sweep from them.
    let (look, merges) = look_at(shared, &table, may_tidy, now_ms);
    if merges.is_empty() {
        // A clock that jumped back: what was due is not, and must not stand before what is.
        memory.looked(&table.id, look);
    }
    (!merges.is_empty()).then_some((table, merges))
}

/// Plans one table; the merges that are due, the largest first, of so many files as one commit takes out.
fn look_at(shared: &Shared, table: &Table, may_tidy: bool, now_ms: i64) -> (Look, Vec<Files>) {
    let memory = &shared.compaction;
    let published = table.published();
    let live: Vec<&Arc<DataFile>> =
        published.files().filter(|file| !memory.is_set_aside(&table.id, &file.path)).collect();
    let files: Vec<File<'_>> = live
        .iter()
        .map(|file| File {
            path: &file.path,
            bytes: file.bytes,
            made_ms: segment::made_ms(&file.path).unwrap_or(0),
        })
        .collect();
    let plan = plan(&files, &shared.options, may_tidy, now_ms);
    let mut count = 0;
    let together = plan.merges.iter().take_while(|merge| {
        count += merge.len();
        count <= FILES_MAX
    });
    let merges = together.map(|merge| merge.iter().map(|at| Arc::clone(live[*at])).collect()).collect();
    (Look::of(published.state.version, may_tidy, &plan), merges)
}
