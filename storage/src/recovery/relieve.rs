//! A log that holds more than the memory for it: some of what was read of it is sealed before the rest is read.
//!
//! What a process held when it ended, the next one holds as well: nothing of that is sealed before it listens, and the
//! keeper seals it in turns while everything is served. More than that is in a log where `memory_max` was lowered since.

use std::cmp::Reverse;

use crate::deployment::Shared;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::keeper;
use crate::memory::Pool;

/// Seals tables down to half of the memory for hot rows once what was read holds more than all of it.
///
/// On a thread and runtime of its own: a log is read by code that does not wait.
///
/// # Errors
/// `Kind::Unavailable` when the object store does not take it. Nothing is lost; the start fails, and can be tried again.
pub fn seal_above_all(shared: &Shared) -> Result<()> {
    if shared.memory.used(Pool::Hot) <= shared.memory.max(Pool::Hot) {
        return Ok(());
    }
    let unavailable =
        |error| Error::new(ErrorKind::Unavailable, "no thread for sealing at the start").with_source(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unavailable)?;
    let sealed = std::thread::scope(|scope| {
        // The runtime ends on its own thread: where others wait, none may be dropped.
        let seal = move || runtime.block_on(seal_to_half(shared));
        std::thread::Builder::new()
            .name("replay".into())
            .spawn_scoped(scope, seal)
            .map(|thread| thread.join())
    });
    let rows: Result<u64> = sealed
        .map_err(unavailable)?
        .map_err(|_| Error::new(ErrorKind::Bug, "sealing panicked while the log was read"))?;
    tracing::info!(rows = rows?, "the log holds more than the memory for it: sealed what had to be");
    Ok(())
}

/// Seals whole tables, those first that give the most memory for a file: each date is one, and takes as long with one
/// row as with thousands.
async fn seal_to_half(shared: &Shared) -> Result<u64> {
    let mut tables = shared.tables.waiting();
    tables.sort_by_cached_key(|table| Reverse(table.backlog().1 / table.days_waiting().max(1) as u64));
    let mut rows = 0;
    for table in tables {
        if shared.memory.used(Pool::Hot) <= shared.memory.max(Pool::Hot) / 2 {
            break;
        }
        rows += keeper::flush_table(shared, &table).await?;
    }
    Ok(rows)
}
