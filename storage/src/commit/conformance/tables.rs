//! The commit protocol on a store: each change once, whoever races and whatever a put says about its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::commit::{Change, Operation, State, TableLog};
use crate::error::Kind as ErrorKind;
use crate::reader::DataFile;
use crate::record::Kind;
use crate::record::fit::Columns;
use crate::simulation::store::{Fault, FaultyStore, Odds};

pub type Store = Arc<dyn ObjectStore>;

const ROOT: &str = "tenants/t/events";

/// Milliseconds since 1970 UTC at which every test happens.
pub const NOW_MS: i64 = 1_800_000_000_000;

pub fn log(store: &Store) -> TableLog {
    TableLog::new(Arc::clone(store), ROOT.to_owned())
}

/// A file that is in no table yet, under a name of its own.
pub fn file() -> DataFile {
    DataFile {
        path: format!("date=2026-01-01/{}.parquet", uuid::Uuid::new_v4()),
        bytes: 10,
        rows: 1,
        time_ns: (1, 2),
        source: None,
        digest: None,
        blocks: None,
        stats: None,
    }
}

/// Change `number` of a writer, counted from 1.
pub fn append(writer: &str, number: i64, file: DataFile) -> Change {
    Change {
        operation: Operation::Append,
        kind: Kind::Events,
        columns: Columns::new(Kind::Events),
        adds: vec![file],
        removes: Vec::new(),
        txns: vec![(writer.to_owned(), number)],
        guards: vec![(writer.to_owned(), (number > 1).then(|| number - 1))],
        now_ms: NOW_MS,
    }
}

/// The same rows in one file.
pub fn compact(removes: Vec<String>, file: DataFile) -> Change {
    let operation = Operation::Compact;
    Change { operation, removes, txns: Vec::new(), guards: Vec::new(), ..append("", 0, file) }
}

fn paths(state: &State) -> BTreeSet<String> {
    state.files.iter().map(|file| file.path.clone()).collect()
}

/// The commits in the store, by version: never a hole, never two.
pub async fn commits(store: &Store) -> Vec<String> {
    let prefix = Path::from(format!("{ROOT}/_delta_log"));
    let listed: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
    let mut names: Vec<_> = listed
        .iter()
        .filter_map(|object| {
            object.location.filename().filter(|name| name.ends_with(".json")).map(str::to_owned)
        })
        .collect();
    names.sort();
    let expected: Vec<_> = (0..names.len()).map(|version| format!("{version:020}.json")).collect();
    assert_eq!(names, expected, "versions are not contiguous");
    let mut texts = Vec::new();
    for name in names {
        let bytes = store.get(&prefix.clone().join(name)).await.unwrap().bytes().await.unwrap();
        texts.push(String::from_utf8(bytes.to_vec()).unwrap());
    }
    texts
}

/// A1, C2: N writers, M appends each, each of them in the table exactly once.
pub async fn every_append_comes_in_once(store: Store) {
    const WRITERS: usize = 6;
    const APPENDS: i64 = 6;
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let log = log(&store);
            let (mut state, mut added) = (State::empty(), Vec::new());
            for number in 1..=APPENDS {
                let file = file();
                added.push(file.path.clone());
                let committed =
                    log.commit(state, &append(&format!("w{writer}"), number, file)).await.unwrap();
                assert!(committed.is_in);
                state = committed.state;
            }
            added
        })
    });
    let mut expected = BTreeSet::new();
    for added in join_all(writers).await {
        expected.extend(added.unwrap());
    }
    let state = log(&store).load().await.unwrap();
    assert_eq!(paths(&state), expected);
    let count = WRITERS * usize::try_from(APPENDS).unwrap();
    assert_eq!((expected.len(), commits(&store).await.len()), (count, count));
    assert!((0..WRITERS).all(|writer| state.txns[&format!("w{writer}")] == APPENDS));

    // Who tries again does not bring it in again.
    let again = log(&store).commit(State::empty(), &append("w0", APPENDS, file())).await.unwrap();
    assert!(again.is_in);
    assert_eq!(paths(&again.state), expected);
    assert_eq!(commits(&store).await.len(), count);
}

/// F24: a put that landed and was reported as failed is found, and not put again.
pub async fn an_ambiguous_put_is_told_by_what_stands_there(store: Store) {
    let faulty: Store = FaultyStore::new(Arc::clone(&store), 0, Odds::none().with(Fault::FailAfter, 1_000));
    let (mut state, mut expected) = (State::empty(), BTreeSet::new());
    for number in 1..=5 {
        let file = file();
        expected.insert(file.path.clone());
        let committed = log(&faulty).commit(state, &append("w", number, file)).await.unwrap();
        assert!(committed.is_in);
        state = committed.state;
    }
    assert_eq!(paths(&state), expected);
    assert_eq!(paths(&log(&store).load().await.unwrap()), expected);
    assert_eq!(commits(&store).await.len(), 5);
}

/// F24: 409 and 412 where nothing stands mean "try again later", not "in" and not "taken".
pub async fn a_refused_put_of_nobody_changes_nothing(store: Store) {
    let faulty: Store = FaultyStore::new(Arc::clone(&store), 0, Odds::none().with(Fault::Conflict, 1_000));
    let file = file();
    let change = append("w", 1, file.clone());
    let error = log(&faulty).commit(State::empty(), &change).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(commits(&store).await.len(), 0);
    assert!(log(&store).commit(State::empty(), &change).await.unwrap().is_in);
    assert_eq!(paths(&log(&store).load().await.unwrap()), BTreeSet::from([file.path]));
}

/// C2: a file leaves a table once; who comes second changes nothing.
pub async fn of_two_that_remove_a_file_one_comes_in(store: Store) {
    let (first, second) = (file(), file());
    let state = log(&store).commit(State::empty(), &append("w", 1, first.clone())).await.unwrap().state;
    let state = log(&store).commit(state, &append("w", 2, second.clone())).await.unwrap().state;
    let changes: Vec<_> =
        (0..4).map(|_| compact(vec![first.path.clone(), second.path.clone()], file())).collect();
    let (state, store_of_race) = (&state, &store);
    let ends = join_all(
        changes
            .iter()
            .map(async |change| log(store_of_race).commit(state.clone(), change).await.unwrap().is_in),
    )
    .await;
    let winners: Vec<_> =
        changes.iter().zip(&ends).filter(|(_, is_in)| **is_in).map(|(change, _)| change).collect();
    assert_eq!(winners.len(), 1, "{ends:?}");
    let loaded = log(&store).load().await.unwrap();
    assert_eq!(paths(&loaded), BTreeSet::from([winners[0].adds[0].path.clone()]));
    assert_eq!(commits(&store).await.len(), 3, "a refused change left a commit");
    assert!(loaded.tombstones.contains(&first.path) && loaded.tombstones.contains(&second.path));
}

/// F24: who asks again for a change whose put landed after all is told that it is in. Were it told "refused",
/// its new file would be swept while the table names it.
pub async fn a_change_that_landed_late_is_not_taken_for_refused(store: Store) {
    let old = file();
    let state = log(&store).commit(State::empty(), &append("w", 1, old.clone())).await.unwrap().state;
    let change = compact(vec![old.path], file());
    let first = log(&store).commit(state.clone(), &change).await.unwrap();
    assert!(first.is_in);
    // From the state before, and from the state now: the caller may know either.
    for state in [state, log(&store).load().await.unwrap()] {
        let again = log(&store).commit(state, &change).await.unwrap();
        assert!(again.is_in, "a change that is in the table was reported as refused");
    }
    // From before its files came: what a state does not know yet is not gone.
    assert!(
        log(&store).commit(State::empty(), &change).await.unwrap().is_in,
        "seed 391: an old state refused it"
    );
    let moved_on = compact(vec![change.adds[0].path.clone()], file());
    let state = log(&store).commit(first.state, &moved_on).await.unwrap().state;
    assert!(log(&store).commit(state, &change).await.unwrap().is_in, "its file was compacted since");
    assert_eq!(commits(&store).await.len(), 3);
}

/// An open leaves what is dead in the checkpoint, and the next commit finds it there.
pub async fn an_open_leaves_what_is_dead(store: Store) {
    let log = log(&store);
    let (first, second) = (file(), file());
    let state = log.commit(State::empty(), &append("a", 1, first.clone())).await.unwrap().state;
    let state = log.commit(state, &append("a", 2, second.clone())).await.unwrap().state;
    let change = compact(vec![first.path.clone(), second.path.clone()], file());
    let mut state = log.commit(state, &change).await.unwrap().state;
    log.checkpoint(&mut state).await.unwrap();
    let opened = log.load().await.unwrap();
    assert!(!opened.is_whole() && opened.tombstones.is_empty(), "the whole checkpoint was read");
    assert_eq!(paths(&opened), paths(&state));
    let next = log.commit(opened, &append("a", 3, file())).await.unwrap().state;
    assert!(next.is_whole() && next.tombstones.len() == 2);
    assert!(next.tombstones.contains(&first.path) && next.tombstones.contains(&second.path));
}

/// Opening from a checkpoint gives what opening from all commits gives, whoever appends meanwhile.
pub async fn checkpoints_keep_up_with_appends(store: Store) {
    const APPENDS: i64 = 12;
    let writer = async |name: &str| {
        let log = log(&store);
        let mut state = State::empty();
        for number in 1..=APPENDS {
            state = log.commit(state, &append(name, number, file())).await.unwrap().state;
            if number % 3 == 0 {
                log.checkpoint(&mut state).await.unwrap();
            }
        }
    };
    let reader = async {
        let mut last = None;
        for _ in 0..8 {
            let state = log(&store).load().await.unwrap();
            assert!(state.version >= last, "a table went back from {last:?} to {:?}", state.version);
            last = state.version;
        }
    };
    futures::join!(writer("a"), writer("b"), reader);

    let loaded = log(&store).load().await.unwrap();
    assert!(loaded.checkpoint.is_some(), "no checkpoint was read");
    assert_eq!(commits(&store).await.len(), 2 * usize::try_from(APPENDS).unwrap());
    let pointer = Path::from(format!("{ROOT}/_delta_log/_last_checkpoint"));
    let bytes = store.get(&pointer).await.unwrap().bytes().await.unwrap();
    store.delete(&pointer).await.unwrap();
    let replayed = log(&store).load().await.unwrap();
    assert_eq!((loaded.version, paths(&loaded)), (replayed.version, paths(&replayed)));
    assert_eq!(loaded.txns, replayed.txns);
    store.put(&pointer, PutPayload::from(bytes)).await.unwrap();
    let mut state = log(&store).load().await.unwrap();
    log(&store).checkpoint(&mut state).await.unwrap();
    assert_eq!(log(&store).load().await.unwrap().checkpoint, state.version, "the pointer was not replaced");
}
