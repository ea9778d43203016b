//! A log that holds more than the memory for it: what was read of it is sealed before the rest is read.
//!
//! So a start holds no more than a running process does, whatever a crash left behind, and takes ingest at once.

use crate::deployment::Shared;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::keeper;
use crate::memory::Pool;

/// Seals everything that was read so far once it holds half of the memory for hot rows.
///
/// On a thread and runtime of its own: a log is read by code that does not wait.
///
/// # Errors
/// `Kind::Unavailable` when the object store does not take it. Nothing is lost; the start fails, and can be tried again.
pub fn seal_above_half(shared: &Shared) -> Result<()> {
    if shared.memory.used(Pool::Hot) <= shared.memory.max(Pool::Hot) / 2 {
        return Ok(());
    }
    let unavailable =
        |error| Error::new(ErrorKind::Unavailable, "no thread for sealing at the start").with_source(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unavailable)?;
    let sealed = std::thread::scope(|scope| {
        // The runtime ends on its own thread: where others wait, none may be dropped.
        let seal = move || {
            runtime.block_on(async {
                let mut rows = 0;
                for table in shared.tables.waiting() {
                    rows += keeper::flush_table(shared, &table).await?;
                }
                Ok(rows)
            })
        };
        std::thread::Builder::new()
            .name("replay".into())
            .spawn_scoped(scope, seal)
            .map(|thread| thread.join())
    });
    let rows: Result<u64> = sealed
        .map_err(unavailable)?
        .map_err(|_| Error::new(ErrorKind::Bug, "sealing panicked while the log was read"))?;
    tracing::info!(rows = rows?, "the log holds more than the memory for it: sealed what was read so far");
    Ok(())
}
