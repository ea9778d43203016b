//! The faults themselves: seeded, each of them real, and none where the odds are nought.

use std::time::Duration;

use object_store::memory::InMemory;
use object_store::{Error, WriteMultipart};
use tokio::time::timeout;

use super::*;

const SEEDS: u64 = 40;

fn path(name: &str) -> Path {
    Path::from(format!("here/{name}"))
}

fn body(length: usize) -> PutPayload {
    vec![7_u8; length].into()
}

/// How one request ended, in a word that two runs can be compared by.
fn word<T>(result: &Result<T>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |_| "well".to_owned())
}

/// A bit of everything; returns how each request ended.
async fn use_it(store: &FaultyStore) -> Vec<String> {
    let mut ends = Vec::new();
    for number in 0..6 {
        let name = path(&number.to_string());
        ends.push(word(&store.put(&name, body(100)).await));
        ends.push(word(&store.put_opts(&name, body(9), PutMode::Create.into()).await));
        let got = match store.get(&name).await {
            Ok(result) => result.bytes().await,
            Err(error) => Err(error),
        };
        ends.push(word(&got));
        ends.push(word(&store.get_range(&name, 2..5).await));
        ends.push(word(&store.head(&name).await));
        ends.push(word(&store.list(None).try_collect::<Vec<_>>().await.map(|listed| listed.len())));
        let behind = store.list_with_offset(None, &path("2")).try_collect::<Vec<_>>().await;
        ends.push(word(&behind));
        ends.push(word(&store.list_with_delimiter(Some(&Path::from("here"))).await));
        ends.push(word(&store.copy(&name, &path(&format!("copy-{number}"))).await));
        ends.push(word(&store.copy_if_not_exists(&name, &path("copy")).await));
        ends.push(word(&store.delete(&name).await));
        match store.put_multipart(&name).await {
            Ok(mut upload) => {
                ends.push(word(&upload.put_part(body(50)).await));
                ends.push(word(&upload.put_part(body(50)).await));
                let completed = upload.complete().await;
                ends.push(word(&completed));
                if completed.is_err() {
                    ends.push(word(&upload.abort().await));
                }
            }
            Err(error) => ends.push(error.to_string()),
        }
    }
    ends
}

#[tokio::test(start_paused = true)]
async fn same_seed_gives_same_faults() {
    let mut lives = Vec::new();
    for seed in 0..SEEDS {
        let mut twice = Vec::new();
        for _ in 0..2 {
            let store = FaultyStore::new(Arc::new(InMemory::new()), seed, Odds::all(100));
            twice.push((use_it(&store).await, store.counts()));
        }
        assert_eq!(twice[0], twice[1], "seed {seed}");
        lives.push(twice.remove(0).0);
    }
    lives.sort();
    lives.dedup();
    assert_eq!(lives.len() as u64, SEEDS, "two seeds gave the same faults");
}

#[tokio::test(start_paused = true)]
async fn every_fault_occurs_and_none_without_odds() {
    let mut seen = [0; Fault::ALL.len()];
    for seed in 0..SEEDS {
        let store = FaultyStore::new(Arc::new(InMemory::new()), seed, Odds::all(50));
        use_it(&store).await;
        for fault in Fault::ALL {
            seen[fault as usize] += store.counts().faults(fault);
        }
        let store = FaultyStore::new(Arc::new(InMemory::new()), seed, Odds::none());
        use_it(&store).await;
        assert!(Fault::ALL.iter().all(|fault| store.counts().faults(*fault) == 0), "seed {seed}");
        assert_eq!(store.counts().requests(Request::Put), 12);
        assert_eq!(store.counts().requests(Request::Head), 6);
    }
    assert!(seen.iter().all(|count| *count > 0), "some fault never occurred: {seen:?} of {:?}", Fault::ALL);
}

/// A store whose one fault always occurs, and the store behind it.
fn always(fault: Fault) -> (Arc<InMemory>, Arc<FaultyStore>) {
    let inner = Arc::new(InMemory::new());
    (Arc::clone(&inner), FaultyStore::new(inner, 1, Odds::none().with(fault, 1_000)))
}

#[tokio::test(start_paused = true)]
async fn failed_writes_stand_or_do_not_as_their_fault_says() {
    let (inner, store) = always(Fault::FailBefore);
    store.put(&path("a"), body(3)).await.unwrap_err();
    inner.head(&path("a")).await.unwrap_err();
    store.set_odds(Odds::none());
    store.put(&path("a"), body(3)).await.unwrap();

    let (inner, store) = always(Fault::FailAfter);
    store.put(&path("a"), body(3)).await.unwrap_err();
    assert_eq!(inner.head(&path("a")).await.unwrap().size, 3);

    let (inner, store) = always(Fault::LandLater);
    store.put(&path("a"), body(3)).await.unwrap_err();
    inner.head(&path("a")).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(DELAY_MS_MAX)).await;
    assert_eq!(inner.head(&path("a")).await.unwrap().size, 3);

    let (inner, store) = always(Fault::Conflict);
    let refused = store.put_opts(&path("a"), body(3), PutMode::Create.into()).await.unwrap_err();
    assert!(matches!(refused, Error::AlreadyExists { .. } | Error::Precondition { .. }), "{refused}");
    inner.head(&path("a")).await.unwrap_err();
    store.put(&path("a"), body(3)).await.unwrap();

    let (inner, store) = always(Fault::Truncate);
    store.put(&path("a"), body(1_000)).await.unwrap();
    assert!(inner.head(&path("a")).await.unwrap().size < 1_000);
    let mut upload = WriteMultipart::new(store.put_multipart(&path("b")).await.unwrap());
    upload.write(&[1; 1_000]);
    upload.finish().await.unwrap();
    assert!(inner.head(&path("b")).await.unwrap().size < 1_000);
}

#[tokio::test(start_paused = true)]
async fn reads_fail_are_cut_or_behind() {
    let (inner, store) = always(Fault::FailRead);
    inner.put(&path("a"), body(3)).await.unwrap();
    store.get(&path("a")).await.unwrap_err();

    let (inner, store) = always(Fault::CutRead);
    inner.put(&path("a"), body(3)).await.unwrap();
    store.get(&path("a")).await.unwrap().bytes().await.unwrap_err();
    store.list(None).try_collect::<Vec<_>>().await.unwrap_err();

    let (_, store) = always(Fault::StaleList);
    store.put(&path("a"), body(3)).await.unwrap();
    assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap(), []);
    tokio::time::sleep(Duration::from_millis(STALE_MS_MAX)).await;
    assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_everything_until_it_ends() {
    let store = FaultyStore::new(Arc::new(InMemory::new()), 1, Odds::none());
    store.put(&path("a"), body(3)).await.unwrap();
    store.outage(true);
    store.put(&path("b"), body(3)).await.unwrap_err();
    store.get(&path("a")).await.unwrap_err();
    store.list(None).try_collect::<Vec<_>>().await.unwrap_err();
    store.outage(false);
    store.get(&path("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_power_calls_hang_and_late_writes_land_by_the_seed() {
    let (mut landed, mut lost) = (0, 0);
    for seed in 0..SEEDS {
        let inner = Arc::new(InMemory::new());
        let odds = Odds::none().with(Fault::LandLater, 1_000);
        let store = FaultyStore::new(Arc::<InMemory>::clone(&inner), seed, odds);
        store.put(&path("a"), body(3)).await.unwrap_err();
        store.power_off();
        timeout(Duration::from_secs(3_600), store.head(&path("a"))).await.unwrap_err();
        if inner.head(&path("a")).await.is_ok() { landed += 1 } else { lost += 1 }
    }
    assert!(landed > 0 && lost > 0, "{landed} landed, {lost} did not");
}
