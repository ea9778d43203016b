//! Two processes under one node's name: a split brain, or one that was thought dead (F21).

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use tokio::task::LocalSet;

use super::clients::{Client, send};
use super::clock;
use super::disk::SimDisk;
use super::failpoints;
use super::oracle::{Ledger, Oracle};
use super::random::Random;
use super::store::{FaultyStore, Odds};
use super::tests::number;
use super::world::{measure, tables};
use crate::bucket_log;
use crate::deployment::{Storage, World};
use crate::faults::Bug;
use crate::keeper;
use crate::options::{Options, WalPlace};
use crate::principal::Acknowledgement;

/// F20, F21: a process that another took the log over from acknowledges nothing that the other does not have.
#[test]
fn a_log_on_the_bucket_has_one_process() {
    let seeds = match number("FLOODMARK_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let from = number("FLOODMARK_SEED_FROM").unwrap_or(0);
            from..from + number("FLOODMARK_SEEDS").unwrap_or(30)
        }
    };
    let count = seeds.end - seeds.start;
    let (mut fenced, mut rows) = (0, 0);
    for seed in seeds {
        let (was_fenced, acknowledged) = two_processes(seed, None).unwrap_or_else(|error| panic!("{error}"));
        fenced += u64::from(was_fenced);
        rows += acknowledged;
    }
    println!(
        "two processes: {count} seeds, {rows} rows acknowledged, the first fenced in {fenced}, 0 lost, 0 twice"
    );
    assert!(rows >= count && (count < 20 || fenced > 0), "{rows} rows, {fenced} fenced");
}

/// Plays one world; returns whether the first process was fenced, and how many rows both acknowledged.
///
/// # Errors
/// What went wrong, with the seed.
pub fn two_processes(seed: u64, bug: Option<Bug>) -> Result<(bool, u64), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    failpoints::plant(bug);
    let played = runtime.block_on(LocalSet::new().run_until(play(seed)));
    failpoints::plant(None);
    played.map_err(|error| format!("seed {seed}: {error}"))
}

struct Process {
    storage: Arc<Storage>,
    _stop: tokio::sync::watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

async fn start(
    seed: u64,
    number: u64,
    objects: &Arc<InMemory>,
    clients: &[Rc<RefCell<Client>>],
    ledger: &Rc<RefCell<Ledger>>,
) -> Result<Process, String> {
    let odds = Odds::all(u16::try_from(seed % 7 * 5).expect("below forty"));
    let store = FaultyStore::new(Arc::clone(objects) as _, seed * 3 + number, odds);
    let disk = SimDisk::new(seed * 3 + number, Path::new("/data"));
    let options = Options {
        data: "/data".into(),
        node: Some("sim".into()),
        wal_place: if seed.is_multiple_of(2) { WalPlace::Bucket } else { WalPlace::Disk },
        wal_segment_bytes: 64 << 10,
        wal_bytes_max: 2 << 20,
        seal_age_ms: [150, 2_500][usize::try_from(seed / 2 % 2).expect("below two")],
        disk_free_bytes_min: 0,
        disk_reserve_bytes: 0,
        ..Options::default()
    };
    let mut tries = 0;
    let storage = loop {
        let world = World { disk: Arc::clone(&disk) as _, store: Arc::clone(&store) as _, now: clock::now };
        match Storage::recover(options.clone(), world, None, measure, |_| ()).await {
            Ok(storage) => break storage,
            Err(error) if tries == 30 => return Err(format!("process {number} does not start: {error:?}")),
            Err(_) => tries += 1,
        }
        if tries == 20 {
            store.set_odds(Odds::none());
        }
    };
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let shared = storage.shared();
    let mut tasks = vec![tokio::task::spawn_local(async move { keeper::run(&shared, &mut stopped).await })];
    let shared = storage.shared();
    tasks.push(tokio::task::spawn_local(async move { bucket_log::run(&shared).await }));
    for (lane, client) in clients.iter().enumerate() {
        let writer = storage.writer(lane).map_err(|error| error.to_string())?;
        tasks.push(tokio::task::spawn_local(send(Rc::clone(client), writer, Rc::clone(ledger))));
    }
    Ok(Process { storage, _stop: stop, tasks })
}

async fn play(seed: u64) -> Result<(bool, u64), String> {
    clock::start();
    let mut random = Random::new(seed);
    let objects = Arc::new(InMemory::new());
    let ledger: Rc<RefCell<Ledger>> = Rc::default();
    let pause_ms = if seed % 3 == 2 { 5_000 } else { 100 };
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let mut client = Client::new(number, seed, tables(), pause_ms);
            client.level = Acknowledgement::Object;
            Rc::new(RefCell::new(client))
        })
        .collect();
    let first = start(seed, 0, &objects, &clients[..2], &ledger).await?;
    let longest = if seed % 3 == 2 { 150_000 } else { 2_000 };
    tokio::time::sleep(Duration::from_millis(random.below(longest))).await;
    // Another takes over; the first does not know.
    let second = start(seed, 1, &objects, &clients[2..], &ledger).await?;
    let mut oracle = Oracle::default();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(random.below(longest))).await;
        oracle.check(&second.storage, &objects, &ledger.borrow()).await?;
    }
    let was_fenced = first.storage.is_poisoned();
    if second.storage.is_poisoned() {
        return Err("the process that took over was fenced".into());
    }
    for task in first.tasks.iter().chain(&second.tasks) {
        task.abort();
    }
    tokio::time::sleep(Duration::from_secs(40)).await;
    oracle.check(&second.storage, &objects, &ledger.borrow()).await?;
    // What the log has now is what a third process finds.
    let none: Vec<Rc<RefCell<Client>>> = Vec::new();
    let third = start(0, 2, &objects, &none, &ledger).await?;
    oracle.check(&third.storage, &objects, &ledger.borrow()).await?;
    third.storage.flush().await.map_err(|error| error.to_string())?;
    oracle.check(&third.storage, &objects, &ledger.borrow()).await?;
    let acknowledged = ledger.borrow().acknowledged.values().map(|rows| rows.len() as u64).sum();
    Ok((was_fenced, acknowledged))
}
