//! The bucket is away for six hours, and load goes on.

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
use super::oracle::{Ledger, Oracle};
use super::store::{FaultyStore, Odds};
use super::world::{measure, tables};
use crate::deployment::{Storage, World};
use crate::keeper;
use crate::options::Options;

/// What the disk holds, bytes; the log may take half of it.
const DISK_BYTES: u64 = 4 << 20;

/// F16, G7: before the disk is full ingest is told to come back; nothing that was acknowledged is lost; when the
/// bucket is back, so is everything else, without a restart.
#[test]
fn six_hours_without_a_bucket_lose_nothing() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(LocalSet::new().run_until(six_hours()));
}

async fn six_hours() {
    clock::start();
    let disk = SimDisk::new(7, Path::new("/data"));
    disk.set_capacity(DISK_BYTES);
    let objects = Arc::new(InMemory::new());
    let store = FaultyStore::new(Arc::clone(&objects) as _, 7, Odds::none());
    let options = Options {
        data: "/data".into(),
        // Named so that the keeper rests as it does before a bucket; the world's store stands in its place.
        store_url: Some("s3://bucket".into()),
        wal_segment_bytes: 64 << 10,
        wal_bytes_max: DISK_BYTES / 2,
        seal_age_ms: 2_000,
        disk_free_bytes_min: 256 << 10,
        disk_reserve_bytes: 0,
        ..Options::default()
    };
    let world = World { disk: Arc::clone(&disk) as _, store: Arc::clone(&store) as _, now: clock::now };
    let storage = Storage::recover(options, world, None, measure, |_| ()).await.unwrap();
    let ledger: Rc<RefCell<Ledger>> = Rc::default();
    let (_stop, mut stopped) = tokio::sync::watch::channel(false);
    let shared = storage.shared();
    tokio::task::spawn_local(async move { keeper::run(&shared, &mut stopped).await });
    let clients: Vec<_> =
        (0..4).map(|number| Rc::new(RefCell::new(Client::new(number, 7, tables(), 4_000)))).collect();
    for (lane, pair) in clients.chunks(2).enumerate() {
        let writer = storage.writer(lane).unwrap();
        for client in pair {
            tokio::task::spawn_local(send(Rc::clone(client), writer.clone(), Rc::clone(&ledger)));
        }
    }
    let acknowledged =
        || -> usize { ledger.borrow().acknowledged.values().map(std::collections::BTreeSet::len).sum() };
    let refused = || -> u64 { clients.iter().map(|client| client.borrow().refused).sum() };

    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(acknowledged() > 0 && refused() == 0, "all is well before");
    store.outage(true);
    let mut most_used = 0;
    for _ in 0..6 * 60 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        most_used = disk.used().max(most_used);
    }
    let (during, refusals) = (acknowledged(), refused());
    assert!(refusals > 0, "the budget fills within six hours");
    assert!(most_used <= DISK_BYTES / 2 + (1 << 10), "{most_used} bytes of log and the node's name");
    assert_eq!(disk.injected(), 0, "the disk was never full");
    assert!(!storage.is_poisoned());
    let mut oracle = Oracle::default();
    oracle.check(&storage, &objects, &ledger.borrow()).await.unwrap();

    store.outage(false);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let after = refused();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(refused(), after, "ingest is taken again within two minutes");
    assert!(acknowledged() > during);
    let levels = storage.levels();
    assert!(levels.hot_rows < 200, "the backlog drained: {} rows wait", levels.hot_rows);
    assert!(disk.used() < DISK_BYTES / 4, "the log is trimmed: {} bytes", disk.used());
    oracle.check(&storage, &objects, &ledger.borrow()).await.unwrap();
    storage.flush().await.unwrap();
    oracle.check(&storage, &objects, &ledger.borrow()).await.unwrap();
    println!(
        "six hours: {during} rows acknowledged until the end of them, {refusals} requests told to come back, at most \
         {most_used} of {DISK_BYTES} bytes used, {} rows in the end",
        acknowledged()
    );
}
