//! An open leaves the tombstones where they are; whoever needs them gets all of them, whatever became of the file.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::Pointer;
use crate::commit::tests::{ROOT, change, grow, log};
use crate::commit::{State, TableLog};
use crate::fixture::run;

const NOW_MS: i64 = 5_000;

async fn bytes(store: &dyn ObjectStore, path: &Path) -> Vec<u8> {
    store.get(path).await.unwrap().bytes().await.unwrap().to_vec()
}

async fn put(store: &dyn ObjectStore, path: &Path, bytes: Vec<u8>) {
    store.put(path, PutPayload::from(bytes)).await.unwrap();
}

/// A table of 67 commits with checkpoints at 39 and 59 and more, its log, and itself as its writer knows it.
async fn table() -> (Arc<dyn ObjectStore>, TableLog, State) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let grown = grow(&store, State::empty(), 67).await;
    let log = log(&store);
    assert_eq!(grown.checkpoint, Some(59));
    assert!(grown.tombstones.len() > 50, "{}", grown.tombstones.len());
    (store, log, grown)
}

fn is_same(state: &State, grown: &State) -> bool {
    state.holds_the_same(grown) && state.buries_the_same(grown)
}

#[test]
fn an_open_leaves_the_tombstones_and_a_sweep_gets_them() {
    run(async || {
        let (store, log, grown) = table().await;
        let opened = log.load().await.unwrap();
        assert!(!opened.is_whole() && opened.holds_the_same(&grown));
        assert!(opened.tombstones.len() < 10, "those alone that came behind the checkpoint");
        let read = log.refresh(opened.clone(), NOW_MS).await.unwrap();
        assert!(read.is_whole() && is_same(&read, &grown));
        // A checkpoint that is made of an open one has them as well.
        let mut kept = opened;
        log.checkpoint(&mut kept).await.unwrap();
        assert_eq!(kept.checkpoint, Some(66));
        let again = log.refresh(log.load().await.unwrap(), NOW_MS).await.unwrap();
        assert!(is_same(&again, &grown));
        drop(store);
    });
}

/// A change whose file was dead before the table was opened landed: it is not made twice, and not refused.
#[test]
fn a_commit_knows_what_died_before_the_open() {
    run(async || {
        let (_store, log, grown) = table().await;
        let late = crate::commit::Change { guards: Vec::new(), ..change(12, vec!["gone".into()]) };
        assert!(grown.tombstones.contains(&late.adds[0].path));
        let committed = log.commit(log.load().await.unwrap(), &late).await.unwrap();
        assert!(committed.is_in);
        assert!(is_same(&committed.state, &grown), "and nothing was put for it");
    });
}

/// F24: the short way is a hint. Where it is wrong the whole file is read; where that is damaged, another.
#[test]
fn whatever_became_of_the_checkpoint_the_tombstones_are_found() {
    run(async || {
        let place = |log: &TableLog| (log.path("_last_checkpoint"), log.checkpoint_path(59));
        let edit = |pointer: &[u8], from: &str, to: &str| {
            let text = std::str::from_utf8(pointer).unwrap();
            assert!(text.contains(from), "{text}");
            text.replace(from, to).into_bytes()
        };
        for damage in 0..9 {
            let (store, log, grown) = table().await;
            let (pointer, last) = place(&log);
            let said = bytes(&*store, &pointer).await;
            let file = bytes(&*store, &last).await;
            let live = Pointer::parse(&said).unwrap().live.unwrap();
            assert_eq!(live.end, file.len() as u64);
            let at = |from: u64| format!("\"{from}\"");
            match damage {
                0 => put(&*store, &last, file[..file.len() - 9].to_vec()).await,
                1 => put(&*store, &last, Vec::new()).await,
                // Only the tombstones: the open does not see it.
                2 => put(&*store, &last, [vec![0x55; 300], file[300..].to_vec()].concat()).await,
                3 => put(&*store, &pointer, edit(&said, &at(live.start), "\"7\"")).await,
                4 => put(&*store, &pointer, edit(&said, &at(live.start), &at(live.start + 1))).await,
                5 => put(&*store, &pointer, edit(&said, &at(live.start), &at(live.end + 1))).await,
                6 => put(&*store, &pointer, edit(&said, &at(live.start), "\"x\"")).await,
                // Another process's file of the same version.
                7 => {
                    let size = live.end.to_string();
                    put(&*store, &pointer, edit(&said, &size, &(live.end + 40).to_string())).await;
                }
                _ => put(&*store, &pointer, edit(&said, "floodmark.liveAt", "other")).await,
            }
            let opened = log.load().await.unwrap();
            assert!(opened.holds_the_same(&grown), "damage {damage}");
            let read = log.refresh(opened, NOW_MS).await.unwrap();
            assert!(read.is_whole() && is_same(&read, &grown), "damage {damage}");
        }
    });
}

/// Behind an open state its checkpoint may be cleaned up; what this process's snapshots name stays pinned (R1).
#[test]
fn a_checkpoint_that_went_meanwhile_is_replaced_by_a_later_one() {
    run(async || {
        let (store, log, grown) = table().await;
        let opened = log.load().await.unwrap();
        let reader = opened.files.iter().next().cloned().unwrap();
        let later = grow(&store, grown, 90).await;
        store.delete(&Path::from(format!("{ROOT}/_delta_log/{:020}.checkpoint.parquet", 59))).await.unwrap();
        let read = log.refresh(opened, NOW_MS).await.unwrap();
        assert!(is_same(&read, &later));
        assert!(read.tombstones.get(&reader.path).unwrap().pin.strong_count() > 0);
    });
}
