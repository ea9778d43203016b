//! Segments whose bytes are not what was committed (F40): never their rows, always their name.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use futures::FutureExt as _;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::{Damaged, OpenFile, Proofs, ProvenStore, remember};
use crate::reader::{DataFile, Snapshot};
use crate::record::{Dataset, Kind, TableId, Tenant, schema};
use crate::segment::Blocks;

const PLACE: &str = "tenant/acme/events/date=2026-01-02/a.parquet";

fn bytes() -> Vec<u8> {
    (0..300_000_u32).map(|at| (at * 31 / 7 % 251) as u8).collect()
}

/// A store over one file that is proved by the sums of its blocks, or by its digest alone.
fn over(inner: &Arc<impl ObjectStore>, proofs: &Arc<Proofs>, has_blocks: bool) -> ProvenStore {
    let bytes = bytes();
    let file = DataFile {
        path: "date=2026-01-02/a.parquet".into(),
        bytes: bytes.len() as u64,
        rows: 1,
        time_ns: (0, 0),
        source: None,
        digest: Some(*blake3::hash(&bytes).as_bytes()),
        blocks: has_blocks.then(|| Arc::new(Blocks::of(&bytes))),
        stats: None,
    };
    let snapshot = Snapshot {
        table: TableId::new(Tenant::parse("acme").unwrap(), Dataset::parse("events").unwrap()),
        kind: Kind::Events,
        version: Some(1),
        schema: schema::table_schema(Kind::Events, &[]),
        files: vec![Arc::new(file)],
        hot: Vec::new(),
    };
    ProvenStore::new(Arc::clone(inner) as _, Arc::clone(proofs), [Arc::new(snapshot)])
}

async fn put(inner: &impl ObjectStore, bytes: Vec<u8>) {
    inner.put(&Path::from(PLACE), PutPayload::from(bytes)).await.unwrap();
}

/// Whatever bit of whatever byte is flipped: each range that is read is what was written, or an error that names the
/// object; with sums and with a digest alone. An object that was mended is read again.
#[tokio::test]
async fn a_flipped_bit_is_never_given_out() {
    let path = Path::from(PLACE);
    for has_blocks in [true, false] {
        let (inner, proofs) = (Arc::new(InMemory::new()), Arc::new(Proofs::default()));
        let store = over(&inner, &proofs, has_blocks);
        let right = bytes();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..50 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut flipped = right.clone();
            let at = (random >> 20) as usize % flipped.len();
            flipped[at] ^= 1 << (random >> 60 & 7);
            put(&inner, flipped).await;
            let mut errors = 0;
            for range in [0..8_u64, 299_992..300_000, at as u64..at as u64 + 1, 100_000..200_000] {
                match store.get_range(&path, range.clone()).await {
                    Ok(found) => assert_eq!(found, right[range.start as usize..range.end as usize]),
                    Err(error) => {
                        assert_eq!(Damaged::find(&error).expect("it names the object").path, PLACE);
                        errors += 1;
                    }
                }
            }
            assert!(errors > 0, "the range of the flipped byte itself");
            put(&inner, right.clone()).await;
            assert_eq!(store.get_range(&path, at as u64..at as u64 + 1).await.unwrap(), right[at..=at]);
        }
        assert_eq!(proofs.damaged_count(), 50, "each damage is counted once");
        for other in [Vec::new(), right[..299_999].to_vec(), [&right[..], b"x"].concat()] {
            put(&inner, other).await;
            let error = store.get_range(&path, 299_992..300_000).await.unwrap_err();
            assert!(Damaged::find(&error).is_some(), "{error}");
        }
    }
}

/// A file with sums is not fetched for a page of it; one without is fetched once in each process.
#[tokio::test]
async fn a_page_costs_its_blocks() {
    let inner = Arc::new(InMemory::new());
    put(&inner, bytes()).await;
    let proofs = Arc::new(Proofs::default());
    let path = Path::from(PLACE);
    let store = over(&inner, &proofs, true);
    store.get_range(&path, 70_000..70_001).await.unwrap();
    assert!(proofs.proven.is_empty(), "nothing was read from end to end");
    let store = over(&inner, &proofs, false);
    store.get_range(&path, 70_000..70_001).await.unwrap();
    assert_eq!(proofs.proven.len(), 1);
    let ranges = store.get_ranges(&path, &[0..2, 299_998..300_000]).await.unwrap();
    assert_eq!(ranges.iter().map(bytes::Bytes::len).sum::<usize>(), 4);
}

/// A file of a folder is opened, with the sums that prove what is read of it or proved as a whole; one that is known to be
/// damaged is not. A store that is elsewhere opens nothing.
#[tokio::test]
async fn a_file_of_a_folder_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let inner = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let (proofs, path, right) = (Arc::new(Proofs::default()), Path::from(PLACE), bytes());
    for has_blocks in [true, false] {
        put(&*inner, right.clone()).await;
        let store = over(&inner, &proofs, has_blocks);
        let OpenFile { file, blocks } = store.open(&path).await.unwrap().unwrap();
        assert_eq!(blocks.is_some(), has_blocks);
        let mut read = vec![0; right.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, right);
        assert!(store.open(&Path::from("tenant/other/events/x")).await.is_err(), "no file of these tables");
    }
    let mut flipped = right.clone();
    flipped[10] ^= 1;
    put(&*inner, flipped).await;
    let store = over(&inner, &proofs, false);
    assert!(Damaged::find(&store.open(&path).await.unwrap_err()).is_some());
    put(&*inner, right[1..].to_vec()).await;
    let store = over(&inner, &proofs, true);
    assert!(Damaged::find(&store.open(&path).await.unwrap_err()).is_some(), "another size");
    let elsewhere = Arc::new(InMemory::new());
    put(&*elsewhere, right).await;
    assert!(over(&elsewhere, &Arc::default(), true).open(&path).await.unwrap().is_none());
}

/// What is damaged is not read again until it changes: the object is asked for its state alone.
#[tokio::test]
async fn a_damaged_object_is_left_alone() {
    let (inner, proofs) = (Arc::new(InMemory::new()), Arc::new(Proofs::default()));
    let mut flipped = bytes();
    flipped[10] ^= 1;
    put(&inner, flipped).await;
    let store = over(&inner, &proofs, true);
    let path = Path::from(PLACE);
    store.get_range(&path, 0..1).await.unwrap_err();
    let error = store.get_range(&path, 200_000..200_001).await.unwrap_err();
    assert!(Damaged::find(&error).is_some(), "a block that is whole, of a file that is not");
    assert_eq!(proofs.damaged_count(), 1);
}

/// B1: what is remembered of segments has an end.
#[test]
fn few_segments_are_remembered() {
    let proofs = Proofs::default();
    for key in 0..32 * 1024 + 100 {
        remember(&proofs.proven, key, 1);
    }
    assert!(proofs.proven.len() <= 32 * 1024);
}

/// B1: files without sums are read from end to end a few at a time, whoever asks.
#[tokio::test]
async fn few_digests_are_proved_at_once() {
    let inner = Arc::new(InMemory::new());
    put(&inner, bytes()).await;
    let proofs = Arc::new(Proofs::default());
    let store = over(&inner, &proofs, false);
    let path = Path::from(PLACE);
    let others = proofs.proving.acquire_many(4).await.unwrap();
    let mut read = Box::pin(store.get_range(&path, 0..1));
    assert!((&mut read).now_or_never().is_none(), "four are proved already");
    drop(others);
    assert_eq!(read.await.unwrap(), bytes()[..1]);
}
