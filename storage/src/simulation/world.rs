//! One world: a seed decides the load, the faults and when the power goes off.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use object_store::memory::InMemory;
use tokio::task::LocalSet;

use super::clients::{Client, send};
use super::clock;
use super::disk::{DiskOdds, SimDisk};
use super::failpoints::{self, Action};
use super::operator;
use super::oracle::{Ledger, Oracle};
use super::random::Random;
use super::store::{FaultyStore, Odds};
use crate::bucket_log;
use crate::caretaker::Rounds;
use crate::deployment::{Storage, World};
use crate::error::Kind as ErrorKind;
use crate::faults::Bug;
use crate::keeper;
use crate::latency::{Measurement, Recorder};
use crate::options::{Options, WalPlace};
use crate::principal::Acknowledgement;
use crate::record::{Dataset, Kind, TableId, Tenant};

/// What a world is to go through.
#[derive(Clone, Debug)]
pub struct Script {
    /// Decides everything that is not said here.
    pub seed: u64,
    /// How often the process is started under load.
    pub lives: u64,
    /// Faults of the disk.
    pub disk: DiskOdds,
    /// Faults of the store, per mille and kind.
    pub store: u16,
    /// Whether the power is cut (and not just the process killed).
    pub cuts: bool,
    /// A fault at a step, in the first life.
    pub fault: Option<(&'static str, u64, Action)>,
    /// A bug to plant.
    pub bug: Option<Bug>,
    /// Whether files are merged and swept as well.
    pub keeps_house: bool,
    /// Whether an operator expires, holds, sweeps and moves the clock meanwhile (G22).
    pub operator: bool,
    /// Whether bits of synced bytes rot between two lives.
    pub rot: bool,
    /// Where clients want their writes.
    pub log: LogScript,
}

/// Where clients want their writes, and what of the machine may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogScript {
    /// On the machine's disk.
    Disk,
    /// Half of them in the bucket.
    Mixed,
    /// All of them in the bucket; the machine is lost between some lives.
    Object,
    /// The node has no log on its disk; the machine is lost between some lives.
    Bucket,
}

impl LogScript {
    fn loses_machine(self) -> bool {
        matches!(self, Self::Object | Self::Bucket)
    }

    fn level(self, client: u64) -> Acknowledgement {
        match self {
            Self::Object => Acknowledgement::Object,
            Self::Mixed if client.is_multiple_of(2) => Acknowledgement::Object,
            _ => Acknowledgement::Durable,
        }
    }
}

impl Script {
    /// A world of power cuts on a disk and a store that do not fail otherwise.
    pub fn power_cuts(seed: u64) -> Self {
        let disk = DiskOdds::default();
        Self {
            seed,
            lives: 3,
            disk,
            store: 0,
            cuts: true,
            fault: None,
            bug: None,
            keeps_house: false,
            operator: false,
            rot: false,
            log: LogScript::Disk,
        }
    }

    /// Whether clients rest long enough for heartbeats, and lives last longer: such worlds cost ten times as much.
    fn is_slow(&self) -> bool {
        self.seed % 20 == 4
    }

    /// The same with a log in the bucket, as the seed chooses.
    pub fn bucket_log(seed: u64) -> Self {
        let logs = [LogScript::Mixed, LogScript::Object, LogScript::Bucket];
        let log = logs[usize::try_from(seed / 5 % 3).expect("below three")];
        Self { log, ..Self::power_cuts(seed) }
    }
}

/// What a world came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows that were acknowledged.
    pub acknowledged: u64,
    /// Starts.
    pub starts: u64,
    /// Faults of disk and store.
    pub injected: u64,
    /// Rows that retention runs removed.
    pub expired: u64,
    /// Starts that named damage.
    pub damaged: u64,
    /// How often each step was passed.
    pub passed: BTreeMap<&'static str, u64>,
}

pub fn measure(_: Kind, batch: &arrow::array::RecordBatch) -> Measurement {
    use arrow::array::AsArray;
    let times = batch.column_by_name("time_ns").expect("rows have times");
    let mut recorder = Recorder::default();
    for time in times.as_primitive::<arrow::datatypes::Int64Type>().values() {
        recorder.record("s", "op", false, *time, 1_000);
    }
    recorder.take()
}

pub fn tables() -> Vec<TableId> {
    ["acme", "zebra"]
        .map(|tenant| TableId::new(Tenant::parse(tenant).expect("a tenant"), Dataset::built_in(Kind::Events)))
        .to_vec()
}

pub(super) struct Running {
    pub(super) script: Script,
    random: Random,
    pub(super) disk: Arc<SimDisk>,
    pub(super) objects: Arc<InMemory>,
    pub(super) ledger: Rc<RefCell<Ledger>>,
    clients: Vec<Rc<RefCell<Client>>>,
    pub(super) oracle: Oracle,
    pub(super) report: Report,
}

/// Plays a script to its end.
///
/// # Errors
/// What went wrong, with the seed.
pub fn play(script: &Script) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    failpoints::plant(script.bug);
    failpoints::take_passed();
    let played = runtime.block_on(AssertUnwindSafe(live(script.clone())).catch_unwind());
    failpoints::plant(None);
    failpoints::arm(None, Rc::new(|| ()));
    let named = |error: String| format!("seed {}: {error}", script.seed);
    match played {
        Ok(report) => report.map_err(named),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(named(format!("panicked: {}", text.unwrap_or_default())))
        }
    }
}

async fn live(script: Script) -> Result<Report, String> {
    clock::start();
    let data = PathBuf::from("/data");
    // In some worlds clients rest long enough for heartbeats.
    let pause_ms = match (script.is_slow(), script.log) {
        (true, LogScript::Disk) => 1_800,
        (true, _) => 8_000,
        (false, _) => 80,
    };
    let client = |number| {
        let mut client = Client::new(number, script.seed, tables(), pause_ms);
        client.level = script.log.level(number);
        Rc::new(RefCell::new(client))
    };
    let mut running = Running {
        random: Random::new(script.seed),
        disk: SimDisk::new(script.seed, &data),
        objects: Arc::new(InMemory::new()),
        ledger: Rc::default(),
        clients: (0..4).map(client).collect(),
        oracle: Oracle::default(),
        report: Report::default(),
        script,
    };
    for life in 0..running.script.lives {
        running.life(life).await?;
        if running.report.damaged > 0 {
            // Named: nothing goes on until somebody looks.
            return Ok(running.report);
        }
    }
    running.end().await?;
    running.report.passed = failpoints::take_passed();
    running.report.injected += running.disk.injected();
    let ledger = running.ledger.borrow();
    running.report.expired = ledger.gone.len() as u64;
    running.report.acknowledged = ledger.acknowledged.values().map(|rows| rows.len() as u64).sum();
    drop(ledger);
    Ok(running.report)
}

impl Running {
    /// Whether lives are long enough for what was trimmed of a log in the bucket to be deleted.
    fn is_long(&self) -> bool {
        self.script.log != LogScript::Disk && self.script.is_slow()
    }

    pub(super) fn options(&self) -> Options {
        Options {
            data: "/data".into(),
            node: (self.script.log != LogScript::Disk).then(|| "sim".into()),
            wal_place: if self.script.log == LogScript::Bucket { WalPlace::Bucket } else { WalPlace::Disk },
            wal_segment_bytes: 64 << 10,
            wal_bytes_max: 2 << 20,
            // Some worlds seal all the time, some hardly ever.
            seal_age_ms: match self.script.seed % 3 {
                0 if self.is_long() => 150_000,
                0 => 150,
                1 => 600,
                _ => 2_500,
            },
            seal_rows: if self.is_long() { 120 } else { 60 },
            checkpoint_commits: 3,
            compact_files_min: 3,
            compact_quiet_ms: 400,
            sweep_grace_hours: 1,
            log_keep_hours: 2,
            log_keep_commits: 5,
            disk_free_bytes_min: 0,
            disk_reserve_bytes: 0,
            ..Options::default()
        }
    }

    /// Starts storage, as often as it takes.
    pub(super) async fn start(&mut self, store: &Arc<FaultyStore>) -> Result<Option<Arc<Storage>>, String> {
        for attempt in 0.. {
            self.report.starts += 1;
            if attempt == 10 {
                store.set_odds(Odds::none());
                self.disk.set_odds(DiskOdds::default());
            }
            let store: Arc<dyn object_store::ObjectStore> = Arc::clone(store) as _;
            let world = World { disk: Arc::clone(&self.disk) as _, store, now: clock::now };
            let opened = Storage::recover(self.options(), world, None, measure, |_| ());
            let disk = Arc::clone(&self.disk);
            let opened = tokio::select! {
                opened = AssertUnwindSafe(opened).catch_unwind() => opened,
                () = disk.off() => return Ok(None),
            };
            match opened {
                Ok(Ok(storage)) => return Ok(Some(storage)),
                Ok(Err(_)) | Err(_) if self.disk.is_off() => return Ok(None),
                // An injected panic ends the process.
                Err(_) => {}
                Ok(Err(error)) if error.kind() == ErrorKind::Unavailable && attempt < 20 => {}
                Ok(Err(error)) if error.kind() == ErrorKind::Corrupt && self.script.rot => {
                    self.report.damaged += 1;
                    return Ok(None);
                }
                Ok(Err(error)) => return Err(format!("start {attempt} refused: {error:?}")),
            }
        }
        unreachable!("the loop ends by returning")
    }

    async fn life(&mut self, life: u64) -> Result<(), String> {
        let store = FaultyStore::new(
            Arc::clone(&self.objects) as _,
            self.script.seed.wrapping_add(life << 32),
            Odds::all(self.script.store),
        );
        self.disk.set_odds(self.script.disk);
        let fault = self.script.fault.filter(|_| life == 0);
        let (disk, kill_store) = (Arc::clone(&self.disk), Arc::clone(&store));
        failpoints::arm(
            fault,
            Rc::new(move || {
                disk.power_off();
                kill_store.power_off();
            }),
        );
        if fault.is_none() && self.random.happens(700) {
            self.disk.power_off_after(Some(1 + self.random.below(250)));
        }
        if let Some(storage) = self.start(&store).await? {
            self.oracle.check(&storage, &self.objects, &self.ledger.borrow()).await?;
            let local = LocalSet::new();
            let played = local.run_until(self.load(&storage)).await;
            drop(local);
            played?;
        }
        store.power_off();
        self.report.injected +=
            super::store::Fault::ALL.iter().map(|fault| store.counts().faults(*fault)).sum::<u64>();
        if self.script.cuts && self.random.happens(700) {
            self.disk.cut_and_restart();
        } else {
            self.disk.restart();
        }
        if self.script.log.loses_machine() && self.random.happens(400) {
            self.report.injected += self.disk.injected();
            self.disk = SimDisk::new(self.random.next(), &PathBuf::from("/data"));
        }
        Ok(())
    }

    /// Lets clients and keeper work until the power goes off, the log is poisoned, or time is up.
    async fn load(&mut self, storage: &Arc<Storage>) -> Result<(), String> {
        let mut tasks = Vec::new();
        for (number, client) in self.clients.iter().enumerate() {
            let Ok(writer) = (if number < 2 { storage.writer(number) } else { break }) else { break };
            // Two clients a lane: they share syncs.
            for client in [client, &self.clients[number + 2]] {
                let sending = send(Rc::clone(client), writer.clone(), Rc::clone(&self.ledger));
                tasks.push(tokio::task::spawn_local(sending));
            }
        }
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        let shared = storage.shared();
        let housekeeping = stopped.clone();
        tasks.push(tokio::task::spawn_local(async move { keeper::run(&shared, &mut stopped).await }));
        let shared = storage.shared();
        tasks.push(tokio::task::spawn_local(async move { bucket_log::run(&shared).await }));
        let shared = storage.shared();
        if self.script.keeps_house {
            tasks.push(tokio::task::spawn_local(async move {
                let begun = Instant::now();
                loop {
                    // A table is looked at in each. A panic ends a round, as in the real thread.
                    let mut rounds = Rounds::new(begun);
                    let round = rounds.next(&shared, &housekeeping, begun + Duration::from_secs(3_600));
                    let _ = AssertUnwindSafe(round).catch_unwind().await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }));
        }
        if self.script.operator {
            let random = Random::new(self.random.next());
            let operating = operator::operate(Arc::clone(storage), random, tables(), Rc::clone(&self.ledger));
            tasks.push(tokio::task::spawn_local(operating));
        }
        let longest = match (self.script.is_slow(), self.is_long()) {
            (_, true) => 200_000,
            (true, false) => 20_000,
            (false, false) => 1_500,
        };
        let lasts = Duration::from_millis(100 + self.random.below(longest));
        let end = tokio::time::Instant::now() + lasts;
        let mut next_check = tokio::time::Instant::now() + Duration::from_millis(self.random.below(1_500));
        loop {
            tokio::select! {
                biased;
                () = self.disk.off() => break,
                () = storage.poisoned() => break,
                () = tokio::time::sleep_until(end) => break,
                () = tokio::time::sleep_until(next_check) => {
                    next_check += Duration::from_millis(1 + self.random.below(1_500.max(longest / 20)));
                    self.oracle.check(storage, &self.objects, &self.ledger.borrow()).await?;
                }
            }
        }
        drop(stop);
        let has_panicked = tasks.iter().any(tokio::task::JoinHandle::is_finished) && self.script.operator;
        for task in tasks {
            task.abort();
            if has_panicked
                && let Err(error) = task.await
                && let Ok(panic) = error.try_into_panic()
                && let Some(text) = panic.downcast_ref::<String>()
                && !text.starts_with("injected")
            {
                return Err(text.clone());
            }
        }
        if self.script.rot && !self.disk.is_off() && !storage.is_poisoned() {
            // The heartbeat marks what was synced; then a bit turns.
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            self.disk.rot_somewhere(&mut self.random);
        }
        Ok(())
    }
}
