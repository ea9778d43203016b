//! A table's log over its life: cheap to open, short, and right when parts of it are lost or others write too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};

use super::{Change, Kept, Operation, State, TableLog};
use crate::fixture::run;
use crate::longevity::counting::Counting;
use crate::options::Options;
use crate::reader::DataFile;
use crate::record::Kind;
use crate::record::fit::Columns;
use crate::simulation::store::{Fault, FaultyStore, Odds};

pub(super) const ROOT: &str = "tenant/acme/events";

/// What opening a table costs.
#[derive(Clone, Copy, Debug)]
struct Cost {
    requests: u64,
    bytes: u64,
    seconds: f64,
}

async fn open_cost(store: &Arc<dyn ObjectStore>) -> (State, Cost) {
    let counting = Counting::new(Arc::clone(store));
    let log = TableLog::new(Arc::clone(&counting) as Arc<dyn ObjectStore>, ROOT.into());
    let begun = Instant::now();
    let state = log.load().await.unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let asked = counting.take();
    (state, Cost { requests: asked.all(), bytes: asked.bytes_got, seconds })
}

fn file(n: i64) -> DataFile {
    DataFile {
        path: format!("date=2026-01-01/{n:08}.parquet"),
        bytes: 1_000,
        rows: 1,
        time_ns: (n, n),
        source: None,
        digest: Some([7; 32]),
        blocks: None,
        stats: None,
    }
}

pub(super) fn change(n: i64, removes: Vec<String>) -> Change {
    Change {
        operation: if removes.is_empty() { Operation::Append } else { Operation::Compact },
        kind: Kind::Events,
        columns: Columns::new(Kind::Events),
        adds: vec![file(n)],
        removes,
        txns: vec![("w-0".into(), n)],
        guards: vec![("w-0".into(), (n > 0).then(|| n - 1))],
        now_ms: 1_000 + n,
    }
}

pub(super) fn log(store: &Arc<dyn ObjectStore>) -> TableLog {
    TableLog::new(Arc::clone(store), ROOT.into())
}

/// Goes on until `commits` are in, as a table lives within a day: every ninth commit compacts, every twentieth writes
/// a checkpoint, and nothing is old enough to be swept.
pub(super) async fn grow(store: &Arc<dyn ObjectStore>, mut state: State, commits: i64) -> State {
    let log = log(store);
    for n in state.version.map_or(0, |at| at + 1)..commits {
        let removes =
            if n % 9 == 8 { state.files.iter().map(|file| file.path.clone()).collect() } else { Vec::new() };
        let committed = log.commit(state, &change(n, removes)).await.unwrap();
        assert!(committed.is_in);
        state = committed.state;
        if n - state.checkpoint.unwrap_or(-1) >= 20 {
            log.checkpoint(&mut state).await.unwrap();
        }
    }
    state
}

async fn listed(store: &Arc<dyn ObjectStore>) -> Vec<ObjectMeta> {
    store.list(Some(&Path::from(ROOT))).try_collect().await.unwrap()
}

const BY_COUNT: Kept = Kept { commits: 100, since_ms: i64::MAX };

#[expect(clippy::print_stdout, reason = "a test says what it measured")]
async fn ten_thousand_open_as_ten(make: impl Fn() -> Arc<dyn ObjectStore>, commits: i64) {
    let few = make();
    grow(&few, State::empty(), 10).await;
    let (state, ten) = open_cost(&few).await;
    assert_eq!(state.version, Some(9));
    let many = make();
    let grown = grow(&many, State::empty(), commits).await;
    let (state, before) = open_cost(&many).await;
    assert!(state.holds_the_same(&grown));
    let objects = listed(&many).await;
    let deleted = log(&many).clean(&objects, BY_COUNT).await.unwrap();
    let left = listed(&many).await.len();
    assert!(deleted > 0 && left < 150, "{deleted} deleted, {left} left");
    let (state, after) = open_cost(&many).await;
    assert!(state.holds_the_same(&grown));
    println!(
        "open at 10 commits: {ten:?}; at {commits}: {before:?}, cleaned up ({deleted} objects gone): {after:?}; \
         time {:.2}x and {:.2}x",
        before.seconds / ten.seconds,
        after.seconds / ten.seconds
    );
    for cost in [before, after] {
        // Ten commits are read from the first; behind a checkpoint it is at most nineteen, and the checkpoint.
        assert!(cost.requests <= ten.requests + 10, "{cost:?} against {ten:?}");
        assert!(cost.bytes <= ten.bytes * 3, "{cost:?} against {ten:?}");
    }
}

#[test]
fn ten_thousand_commits_open_as_ten_do() {
    run(async || ten_thousand_open_as_ten(|| Arc::new(InMemory::new()), 10_008).await);
}

#[test]
fn a_folder_of_commits_opens_as_ten_do() {
    let folder = tempfile::tempdir().unwrap();
    let next = AtomicU64::new(0);
    let make = || {
        let path = folder.path().join(next.fetch_add(1, Relaxed).to_string());
        crate::store::open(&Options { data: path, ..Options::default() }).unwrap()
    };
    run(async || ten_thousand_open_as_ten(make, 308).await);
}

/// F24: whatever is lost of the short way, the long way leads to the same table.
#[test]
fn a_table_opens_without_its_checkpoint() {
    run(async || {
        let pointer = Path::from(format!("{ROOT}/_delta_log/_last_checkpoint"));
        let checkpoint =
            |version: i64| Path::from(format!("{ROOT}/_delta_log/{version:020}.checkpoint.parquet"));
        type Damage<'a> = &'a [(&'a Path, &'a [u8])];
        let (last, earlier) = (checkpoint(59), checkpoint(39));
        let stale: &[u8] = br#"{"version":19}"#;
        let wrong: &[u8] = br#"{"version":57}"#;
        let cases: &[Damage<'_>] = &[
            &[],
            &[(&pointer, b"{")],
            &[(&pointer, b"")],
            &[(&pointer, stale)],
            &[(&pointer, wrong)],
            &[(&last, b"PAR1 no more")],
            &[(&last, b""), (&pointer, b"[]")],
            &[(&last, b"x"), (&earlier, b"y")],
            &[(&last, b"x"), (&earlier, b"y"), (&checkpoint(19), b"z"), (&pointer, b"{}")],
        ];
        for damage in cases {
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let grown = grow(&store, State::empty(), 66).await;
            for (path, bytes) in *damage {
                store.put(path, PutPayload::from(bytes.to_vec())).await.unwrap();
            }
            let state = log(&store).load().await.unwrap();
            assert!(state.holds_the_same(&grown), "{damage:?}");
        }
    });
}

/// A store that fails on the long way is a store that fails, and no damage: whoever reads tries again.
#[tokio::test(start_paused = true)]
async fn a_read_that_fails_on_the_long_way_is_not_damage() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let grown = grow(&store, State::empty(), 25).await;
    store.put(&log(&store).checkpoint_path(19), PutPayload::from("PAR1")).await.unwrap();
    store.delete(&log(&store).path("_last_checkpoint")).await.unwrap();
    let mut read = 0;
    for seed in 0..60 {
        let odds = Odds::none().with(Fault::FailRead, 30);
        let faulty: Arc<dyn ObjectStore> = FaultyStore::new(Arc::clone(&store), seed, odds);
        match log(&faulty).load().await {
            Ok(state) => {
                assert!(state.holds_the_same(&grown));
                read += 1;
            }
            Err(error) => assert_eq!(error.kind(), crate::ErrorKind::Unavailable, "seed {seed}: {error}"),
        }
    }
    assert!((1..60).contains(&read), "{read} of 60 were read");
}

/// F24: what is cleaned up is missed by nobody, and the pointer's damage is borne afterwards too.
#[test]
fn a_cleaned_log_still_bears_a_damaged_checkpoint() {
    run(async || {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let grown = grow(&store, State::empty(), 330).await;
        let log = log(&store);
        assert_eq!(log.clean(&listed(&store).await, Kept { commits: 100, since_ms: 0 }).await.unwrap(), 0);
        assert!(log.clean(&listed(&store).await, BY_COUNT).await.unwrap() > 200);
        assert_eq!(log.clean(&listed(&store).await, BY_COUNT).await.unwrap(), 0, "once is enough");
        store.put(&log.path("_last_checkpoint"), PutPayload::from("{")).await.unwrap();
        store.put(&log.checkpoint_path(319), PutPayload::from("PAR1")).await.unwrap();
        assert!(log.load().await.unwrap().holds_the_same(&grown));
        // With the way to the newest commit gone it is damage, and named.
        store.delete(&log.commit_path(310)).await.unwrap();
        let error = log.load().await.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
        assert!(error.context().contains("310") || error.context().contains("319"), "{error}");
    });
}

/// C2: a writer that slept through a clean-up does not put its commit where nobody looks.
#[test]
fn a_writer_that_slept_finds_the_head() {
    run(async || {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let slept = grow(&store, State::empty(), 30).await;
        let reader = slept.files.iter().next().cloned().unwrap();
        let awake = grow(&store, slept.clone(), 400).await;
        let log = log(&store);
        assert!(log.clean(&listed(&store).await, BY_COUNT).await.unwrap() > 200);
        assert!(log.get(30).await.unwrap().is_none(), "its next number is free again");
        let late = Change {
            txns: vec![("w-1".into(), 1)],
            guards: vec![("w-1".into(), None)],
            now_ms: 9_000_000,
            ..change(7_777, Vec::new())
        };
        let committed = log.commit(slept, &late).await.unwrap();
        assert!(committed.is_in);
        assert_eq!(committed.state.version, Some(400));
        assert!(committed.state.files.len() > awake.files.len());
        assert!(log.load().await.unwrap().holds_the_same(&committed.state));
        if let Some(tombstone) = committed.state.tombstones.get(&reader.path) {
            assert!(tombstone.pin.strong_count() > 0, "R1: a snapshot names it still");
        }
    });
}

/// What was put a moment ago and a listing does not show yet is in the table all the same.
#[tokio::test(start_paused = true)]
async fn an_open_sees_past_a_listing_that_lags() {
    for commits in [0, 7, 40, 66] {
        let store =
            FaultyStore::new(Arc::new(InMemory::new()), 1, Odds::none().with(Fault::StaleList, 1_000));
        let store: Arc<dyn ObjectStore> = store;
        let grown = grow(&store, State::empty(), commits).await;
        assert!(listed(&store).await.len() < usize::try_from(commits).unwrap().max(1), "it does not lag");
        let opened = log(&store).load().await.unwrap();
        assert!(opened.holds_the_same(&grown), "{:?} of {:?}", opened.version, grown.version);
    }
}

/// A pointer leads only to what was read back, and never goes back.
#[test]
fn the_pointer_never_goes_back() {
    run(async || {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let early = grow(&store, State::empty(), 25).await;
        grow(&store, early.clone(), 65).await;
        let log = log(&store);
        log.checkpoint(&mut early.clone()).await.unwrap();
        let bytes = store.get(&log.path("_last_checkpoint")).await.unwrap().bytes().await.unwrap();
        let pointer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(pointer["version"], 59);
    });
}
