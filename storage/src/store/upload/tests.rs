//! F23: what `put_object` says is in the store is in the store, whole.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::simulation::store::{Fault, FaultyStore, Odds, Request};

fn bytes(length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from(at * 7 % 251).expect("below 251")).collect()
}

#[tokio::test(start_paused = true)]
async fn large_objects_go_up_in_parts_and_small_ones_whole() {
    let check = async |length: usize, parts: u64| {
        let inner = Arc::new(InMemory::new());
        let store = FaultyStore::new(Arc::<InMemory>::clone(&inner), 0, Odds::none());
        let path = Path::from("object");
        put_object(&*store, &path, bytes(length)).await.unwrap();
        assert_eq!(store.counts().requests(Request::PutPart), parts, "{length} bytes");
        assert_eq!(store.counts().requests(Request::Put), u64::from(parts == 0), "{length} bytes");
        assert!(inner.get(&path).await.unwrap().bytes().await.unwrap() == bytes(length), "{length} bytes");
    };
    check(0, 0).await;
    check(PUT_PART_BYTES, 0).await;
    check(PUT_PART_BYTES + 1, 2).await;
    check(3 * PUT_PART_BYTES, 3).await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_taken_is_whole_whatever_went_wrong() {
    let (mut taken, mut refused, mut truncated, mut aborted) = (0, 0, 0, 0);
    for seed in 0..2_000 {
        let inner = Arc::new(InMemory::new());
        let store = FaultyStore::new(Arc::<InMemory>::clone(&inner), seed, Odds::all(60));
        let path = Path::from("object");
        // Each second object in parts.
        let length = if seed % 2 == 0 { 90 } else { 1_050 };
        match put_object_in(&*store, &path, bytes(length), 100).await {
            Ok(()) => {
                let stored = inner.get(&path).await.unwrap().bytes().await.unwrap();
                assert!(stored == bytes(length), "seed {seed}: taken and not whole");
                taken += 1;
            }
            Err(error) => {
                assert!(matches!(error.kind(), Kind::Unavailable | Kind::Corrupt), "seed {seed}");
                refused += 1;
            }
        }
        truncated += store.counts().faults(Fault::Truncate);
        aborted += store.counts().requests(Request::AbortMultipart);
    }
    assert!(taken > 0 && refused > 0 && truncated > 0 && aborted > 0);
}
