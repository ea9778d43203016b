//! What a start needs of its disk.

mod memory;
mod start;

use std::path::Path;
use std::sync::Arc;

use object_store::memory::InMemory;
use tokio::task::LocalSet;

use crate::deployment::{Storage, World};
use crate::disk::Disk;
use crate::idempotency::beside::keep_beside;
use crate::options::Options;
use crate::record::Tenant;
use crate::simulation::clock;
use crate::simulation::disk::{DiskOdds, SimDisk};
use crate::simulation::world::measure;
use crate::writer::{Idempotency, Known};

fn options() -> Options {
    Options { data: "/data".into(), disk_reserve_bytes: 0, ..Options::default() }
}

async fn start(disk: &Arc<SimDisk>, objects: &Arc<InMemory>) -> Arc<Storage> {
    start_with(disk, objects, options()).await
}

async fn start_with(disk: &Arc<SimDisk>, objects: &Arc<InMemory>, options: Options) -> Arc<Storage> {
    let world = World { disk: Arc::clone(disk) as _, store: Arc::clone(objects) as _, now: clock::now };
    Storage::recover(options, world, None, measure, |_| ()).await.unwrap()
}

fn files_of_keys(disk: &SimDisk, folder: &Path) -> usize {
    disk.names(folder).unwrap().iter().filter(|name| name.ends_with(".keys")).count()
}

/// F16: what a full disk keeps a start from tidying stays, and is tidied once there is room.
#[tokio::test(start_paused = true)]
async fn a_start_needs_no_room() {
    LocalSet::new().run_until(starts_with_many_keys()).await;
}

async fn starts_with_many_keys() {
    clock::start();
    let disk = SimDisk::new(1, Path::new("/data"));
    let objects = Arc::new(InMemory::new());
    let tenant = Tenant::parse("acme").unwrap();
    drop(start(&disk, &objects).await.writer(0).unwrap());
    let folder = Path::new("/data/wal/0");
    for number in 1..=20 {
        let (key, reply) = (format!("k{number}").into(), (*b"{}").into());
        let key = Arc::new(Idempotency { key, fingerprint: [7; 16], status: 200, reply });
        keep_beside(&*disk, folder, number, &[(tenant.clone(), 5, key)]).unwrap();
    }
    for (full, files) in [(1_000, 20), (0, 1)] {
        disk.set_odds(DiskOdds { full, ..DiskOdds::default() });
        let storage = start(&disk, &objects).await;
        for number in 1..=20 {
            let known = storage.shared().keys.reserve(&tenant, &format!("k{number}"), [7; 16]);
            assert!(matches!(known, Known::Replayed(_)), "k{number}: {known:?}");
        }
        assert_eq!(files_of_keys(&disk, folder), files);
    }
}

/// Where memory holds fewer keys than the logs, the newest of all stand, whichever log they are in.
#[tokio::test(start_paused = true)]
async fn the_newest_keys_of_all_logs_stand() {
    LocalSet::new().run_until(starts_with_too_many_keys()).await;
}

async fn starts_with_too_many_keys() {
    clock::start();
    let disk = SimDisk::new(1, Path::new("/data"));
    let objects = Arc::new(InMemory::new());
    let tenant = Tenant::parse("acme").unwrap();
    let options = Options { idempotency_keys_max: 4, ..options() };
    let storage = start_with(&disk, &objects, options.clone()).await;
    drop((storage.writer(0).unwrap(), storage.writer(1).unwrap()));
    for (log, keys) in
        [("0", [("a", 90), ("b", 100)].as_slice()), ("1", &[("c", 1), ("d", 2), ("e", 3), ("f", 4)])]
    {
        let kept = |(key, at_ns): &(&str, i64)| {
            let reply = (*b"{}").into();
            let key = Idempotency { key: (*key).into(), fingerprint: [7; 16], status: 200, reply };
            (tenant.clone(), *at_ns, Arc::new(key))
        };
        let keys: Vec<_> = keys.iter().map(kept).collect();
        keep_beside(&*disk, &Path::new("/data/wal").join(log), 1, &keys).unwrap();
    }
    let storage = start_with(&disk, &objects, options).await;
    let known = |key: &&str| {
        let known = storage.shared().keys.reserve(&tenant, key, [7; 16]);
        matches!(known, Known::Replayed(_))
    };
    let standing: Vec<_> = ["a", "b", "c", "d", "e", "f"].into_iter().filter(known).collect();
    assert_eq!(standing, ["a", "b", "e", "f"]);
}
