//! How a world ends: everything works again, what was acknowledged gets into the tables, what nothing names is swept.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;

use super::clock;
use super::disk::DiskOdds;
use super::failpoints;
use super::operator;
use super::oracle;
use super::store::{FaultyStore, Odds};
use super::world::{Running, measure, tables};
use crate::caretaker::Rounds;
use crate::deployment::{Storage, World};
use crate::policies::Rules;
use crate::record::TableId;
use crate::sweep;

impl Running {
    /// Everything works again: what was acknowledged gets into the tables and out of the log.
    pub(super) async fn end(&mut self) -> Result<(), String> {
        self.disk.set_odds(DiskOdds::default());
        failpoints::arm(None, Rc::new(|| ()));
        let store = FaultyStore::new(Arc::clone(&self.objects) as _, self.script.seed, Odds::none());
        let Some(storage) = self.start(&store).await? else {
            return if self.report.damaged > 0 {
                Ok(())
            } else {
                Err("the power went off at the end".into())
            };
        };
        self.oracle.check(&storage, &self.objects, &self.ledger.borrow()).await?;
        storage.flush().await.map_err(|error| format!("the last flush failed: {error}"))?;
        self.oracle.check(&storage, &self.objects, &self.ledger.borrow()).await?;
        let storage = self.faulty_sweep(storage, &store).await?;
        if self.script.keeps_house {
            self.tidy_up(&storage).await?;
        }
        let levels = storage.levels();
        if levels.hot_rows != 0 || levels.hot_bytes != 0 {
            return Err(format!(
                "{} rows, {} bytes stay hot after a flush",
                levels.hot_rows, levels.hot_bytes
            ));
        }
        for table in tables() {
            let rows =
                storage.snapshot(&table).map_or(0, |snapshot| snapshot.files.iter().map(|f| f.rows).sum());
            let measured = self.measured(&storage, &table).await?;
            let is_whole = !self.ledger.borrow().cutoffs.contains_key(&table);
            if is_whole && rows != measured {
                return Err(format!("{table}: {rows} rows, {measured} durations"));
            }
        }
        Ok(())
    }

    /// A sweep in which the script's fault happens, where it is one of a sweep; then a start, where it killed.
    async fn faulty_sweep(
        &mut self,
        storage: Arc<Storage>,
        store: &Arc<FaultyStore>,
    ) -> Result<Arc<Storage>, String> {
        let is_of_a_sweep = |step: &str| step.starts_with("sweep.") || step.starts_with("clean.");
        let Some(fault) = self.script.fault.filter(|(step, ..)| is_of_a_sweep(step)) else {
            return Ok(storage);
        };
        let (disk, kill_store) = (Arc::clone(&self.disk), Arc::clone(store));
        let kill = Rc::new(move || {
            disk.power_off();
            kill_store.power_off();
        });
        failpoints::arm(Some(fault), kill);
        let disk = Arc::clone(&self.disk);
        tokio::select! {
            // What it says is the fault's; whether anything was lost shows after.
            _ = AssertUnwindSafe(self.tidy_up(&storage)).catch_unwind() => {}
            () = disk.off() => {}
        }
        failpoints::arm(None, Rc::new(|| ()));
        self.disk.restart();
        let store = FaultyStore::new(Arc::clone(&self.objects) as _, self.script.seed, Odds::none());
        let storage = self.start(&store).await?.ok_or("the power went off after a sweep")?;
        self.oracle.check(&storage, &self.objects, &self.ledger.borrow()).await?;
        Ok(storage)
    }

    /// Merges and sweeps until nothing is left to do: what no version names is gone, what one names is there.
    async fn tidy_up(&mut self, storage: &Storage) -> Result<(), String> {
        let shared = storage.shared();
        shared.policies.replace(Rules::default());
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
            let begun = Instant::now();
            while Rounds::new(begun).next(&shared, &stopped, begun).await {}
            sweep::run::sweep(&shared, None, operator::monotonic()).await;
        }
        self.oracle.check(storage, &self.objects, &self.ledger.borrow()).await?;
        for table in tables() {
            let Some(snapshot) = storage.snapshot(&table) else { continue };
            let live =
                snapshot.files.iter().map(|file| format!("{}/{}", table.prefix(), file.path)).collect();
            let there = oracle::data_files(&self.objects, &table).await;
            if there != live {
                return Err(format!("{table}: {} files in the store, {} live", there.len(), live.len()));
            }
        }
        let again = Storage::recover(
            self.options(),
            World {
                disk: Arc::clone(&self.disk) as _,
                store: Arc::clone(&self.objects) as _,
                now: clock::now,
            },
            None,
            measure,
            |_| (),
        );
        let again = again.await.map_err(|error| format!("a start after the sweep: {error:?}"))?;
        self.oracle.check(&again, &self.objects, &self.ledger.borrow()).await
    }

    /// Durations that the latency table of `table`'s tenant holds.
    async fn measured(&self, storage: &Storage, table: &TableId) -> Result<u64, String> {
        use arrow::array::AsArray;
        use object_store::ObjectStoreExt;
        let Some(stored) = storage.latency(&table.tenant).stored else { return Ok(0) };
        let mut count = 0;
        for file in &stored.files {
            let path = object_store::path::Path::from(format!("{}/{}", stored.table.prefix(), file.path));
            let bytes = self.objects.get(&path).await.map_err(|error| error.to_string())?;
            let bytes = bytes.bytes().await.map_err(|error| error.to_string())?;
            let rows = crate::segment::read(file, bytes, &stored.schema, 8192).map_err(|e| e.to_string())?;
            for batch in rows {
                let batch = batch.map_err(|error| error.to_string())?;
                let counts = batch.column_by_name("count").expect("latency rows have counts");
                let counts = counts.as_primitive::<arrow::datatypes::Int64Type>();
                count += u64::try_from(arrow::compute::sum(counts).unwrap_or(0)).unwrap_or(0);
            }
        }
        Ok(count)
    }
}
