//! The end of a row's life, as the engine asks for it: expiry, sweep, checkpoints, and the policies they obey.
//!
//! Nothing here runs by itself: the engine's jobs call it, once it has told the policies.

use std::time::Instant;

use crate::deployment::Storage;
use crate::error::Result;
use crate::expire::run::{self, Ended, Expiry, Refused};
use crate::policies::Rules;
use crate::record::{TableId, Tenant};
use crate::sweep::run::{Swept, sweep};

impl Storage {
    /// Puts retention and holds into force, all at once. Until the first call nothing is deleted.
    pub fn set_policies(&self, rules: Rules) {
        self.shared.policies.replace(rules);
    }

    /// Waits until whatever was deleting from the table is done: after a hold was put into force and this has
    /// returned, nothing of the table goes (R1).
    pub async fn settle(&self, table: &TableId) {
        if let Some(table) = self.shared.tables.get(table) {
            drop(table.log.lock().await);
        }
    }

    /// Notes how the clocks stand; `at` is the monotonic clock. Whether ages are believed.
    pub fn observe_clock(&self, at: Instant) -> bool {
        self.shared.clock.observe((self.shared.now)(), at)
    }

    /// Expires one dataset because somebody asked for it by name, or tells what would go.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the store does not answer, `Kind::Corrupt` naming a file that does not read.
    pub async fn expire(
        &self,
        table: &TableId,
        is_dry: bool,
        at: Instant,
    ) -> Result<std::result::Result<Expiry, Refused>> {
        run::by_name(&self.shared, table, is_dry, at).await
    }

    /// Expires every dataset that has a policy, of one tenant or of all; `is_asked` where somebody asked for it.
    pub async fn expire_all(
        &self,
        scope: Option<&Tenant>,
        is_asked: bool,
        at: Instant,
    ) -> Vec<(TableId, Ended)> {
        run::scheduled(&self.shared, scope, is_asked, at).await
    }

    /// Deletes what no version names any more, of one tenant or of all.
    pub async fn sweep(&self, scope: Option<&Tenant>, at: Instant) -> Swept {
        sweep(&self.shared, scope, at).await
    }

    /// Writes a checkpoint of every table that has commits behind its last; returns how many were written.
    ///
    /// # Errors
    /// As for the first table that fails; the others were tried.
    pub async fn checkpoint(&self, scope: Option<&Tenant>) -> Result<u64> {
        let (mut count, mut failed) = (0, None);
        for table in self.shared.tables.all() {
            if scope.is_some_and(|tenant| table.id.tenant != *tenant) {
                continue;
            }
            let log = table.log.lock().await;
            let mut state = table.published().state.clone();
            if state.version <= state.checkpoint {
                continue;
            }
            match log.checkpoint(&mut state).await {
                Ok(()) => {
                    count += 1;
                    table.publish(state);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(count), Err)
    }
}
