use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::{Place, UNUSED_LOOKS};
use crate::commit::State;
use crate::commit::state_of;
use crate::memory::{Memory, Pool};
use crate::reader::DataFile;
use crate::table::Published;

fn file(number: usize) -> DataFile {
    DataFile {
        path: format!("date=2026-01-{:02}/0190-{number}.parquet", 1 + number % 28),
        bytes: 1_000 + number as u64,
        rows: number as u64,
        time_ns: (number as i64, number as i64 + 9),
        source: Some(("a".into(), format!("b{number}"))),
        digest: Some([number as u8; 32]),
        blocks: None,
        // Every third by another program.
        stats: number
            .is_multiple_of(3)
            .then(|| format!("{{\"numRecords\":{number},\"minValues\":{{\"time_ns\":{number}}}}}").into()),
    }
}

/// Version 7: `files` files, every fifth of which is removed.
fn state(files: usize) -> State {
    let removed: Vec<String> = (0..files).step_by(5).map(|number| file(number).path).collect();
    state_of(7, (0..files).map(file), &removed)
}

/// A place that counts in a budget of its own.
fn placed(published: Published) -> Place {
    Place::new(published, Memory::new(1 << 30, 0).count(Pool::Tables, None, 0))
}

fn paths(state: &State) -> Vec<String> {
    state.files.iter().map(|file| file.path.clone()).collect()
}

#[test]
fn what_rests_is_told_of_and_wakes_as_it_was() {
    let place = placed(Published::new(state(500)));
    let awake = place.summary();
    assert_eq!((awake.version, awake.files), (Some(7), 400));
    assert!(place.rest());
    assert_eq!(place.summary(), awake);
    assert_eq!(place.told(|state| (state.version, state.last_seq("w"))), (Some(7), 41));
    assert!(!place.rest(), "it rests");
    let (woken, expected) = (place.published(), Published::new(state(500)));
    assert!(woken.files().eq(expected.files()));
    assert_eq!(paths(&woken.state), paths(&expected.state));
    assert_eq!(woken.state.txns, expected.state.txns);
    let removed = |published: &Published| {
        let tombstones = published.state.tombstones.iter();
        tombstones.map(|dead| (dead.path.clone(), dead.removed_ms)).collect::<Vec<_>>()
    };
    assert_eq!(removed(&woken).len(), 100);
    assert_eq!(removed(&woken), removed(&expected));
    assert_eq!(place.summary(), awake);
}

/// R1: what a reader holds is pinned by it, so its version stays awake.
#[test]
fn a_version_of_which_anything_is_held_does_not_rest() {
    let place = placed(Published::new(state(50)));
    let version = place.published();
    assert!(!place.rest(), "the version is held");
    let one = Arc::clone(version.files().nth(3).unwrap());
    let all = version.state.clone();
    drop(version);
    assert!(!place.rest(), "its files are held");
    drop(all);
    assert!(!place.rest(), "one of its files is held");
    assert!(Arc::ptr_eq(place.published().files().nth(3).unwrap(), &one), "and is the same one afterwards");
    drop(one);

    // A snapshot holds a file that the version in force removed.
    let mut next = place.published().state.clone();
    let path = next.files.iter().next().unwrap().path.clone();
    let removed = next.files.remove(&path).unwrap();
    let pin = Arc::downgrade(&removed);
    next.tombstones.insert(crate::commit::Tombstone { path: path.into(), removed_ms: 5, pin });
    place.publish(Published::new(next));
    assert!(!place.rest(), "a removed file is held");
    drop(removed);
    assert!(place.rest());
}

#[test]
fn a_table_rests_when_nobody_has_used_it_for_a_while() {
    let place = placed(Published::new(state(50)));
    let looks = || (0..100).take_while(|_| !place.look(false)).count();
    // The first look finds that it was just made.
    assert_eq!(looks(), UNUSED_LOOKS as usize);
    assert!(!place.look(false), "once");
    drop(place.published());
    assert!(!place.look(false), "it was used since the last look");
    assert_eq!(looks(), UNUSED_LOOKS as usize - 1);
    place.publish(Published::new(state(60)));
    assert_eq!(place.summary().files, 48, "a new version takes the place of one at rest");
    assert_eq!(looks(), UNUSED_LOOKS as usize);
    // Being told of it is no use of its files.
    assert_eq!(place.summary().files, 48);
    let few = placed(Published::new(state(2)));
    assert!((0..100).all(|_| !few.look(false)), "few files take no room");
}

/// B1: what is known of files is counted, as much as it takes awake and as little as it takes at rest.
#[test]
fn what_a_version_takes_is_counted() {
    let memory = Memory::new(1 << 30, 0);
    let used = || memory.used(Pool::Tables);
    let place = Place::new(Published::new(state(500)), memory.count(Pool::Tables, None, 0));
    let awake = used();
    let names: usize = state(500).files.iter().map(|file| file.path.len() + size_of::<DataFile>()).sum();
    assert!((names as u64..4 * names as u64).contains(&awake), "{awake} for {names} bytes of text");
    assert!(place.rest());
    assert!(used() < awake / 4, "{} at rest, {awake} awake", used());
    place.publish(Published::new(state(1_000)));
    assert!((awake * 3 / 2..awake * 3).contains(&used()), "{} for twice {awake}", used());
    place.publish(Published::new(state(500)));
    assert_eq!(used(), awake);
    drop(place);
    assert_eq!(used(), 0);
}

/// Where memory for tables is short, those that were not used since the last look rest at once.
#[test]
fn an_unused_table_rests_at_once_where_memory_is_short() {
    let place = placed(Published::new(state(50)));
    assert!(!place.look(true), "it was just made");
    assert!(place.look(true));
    drop(place.published());
    assert!(!place.look(true), "it was used since the last look");
    assert!(place.look(true));
}

/// Readers and publishers meet it at any moment: each sees a whole version, and never an older one.
#[test]
fn it_is_woken_and_put_at_rest_while_others_read_and_publish() {
    let place = placed(Published::new(state_of(0, (0..20).map(file), &[])));
    let (is_over, rests) = (AtomicBool::new(false), AtomicUsize::new(0));
    let read = || {
        let mut last = 0;
        while !is_over.load(Ordering::Relaxed) {
            let published = place.published();
            let version = published.state.version.unwrap();
            assert!(version >= last, "{version} after {last}");
            assert_eq!(published.state.files.len() as i64, 20 + version);
            last = version;
            drop(published);
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let mut version = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                rests.fetch_add(usize::from(place.rest()), Ordering::Relaxed);
            }
        });
        scope.spawn(read);
        scope.spawn(read);
        while rests.load(Ordering::Relaxed) < 20 || version < 20 {
            std::thread::sleep(Duration::from_millis(10));
            version += 1;
            place.publish(Published::new(state_of(version, (0..20 + version as usize).map(file), &[])));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(place.published().state.files.len() as i64, 20 + version);
}
