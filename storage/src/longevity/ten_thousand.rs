//! A table of thousands of real commits opens and reads as one of ten does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::watch;

use super::counting::{Counting, Requests};
use super::{median, size};
use crate::caretaker::Rounds;
use crate::deployment::{Shared, World};
use crate::disk::LocalDisk;
use crate::fixture::{DAY_NS, rows, run, table as id};
use crate::hot::HotChunk;
use crate::latency::Measurement;
use crate::memory::Pool;
use crate::options::Options;
use crate::policies::Rules;
use crate::record::Kind;
use crate::seal::run::seal;
use crate::segment;
use crate::sweep::run::sweep;

const START_NS: i64 = 4_100_000_000_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;

static NOW_NS: AtomicI64 = AtomicI64::new(START_NS);

fn now() -> i64 {
    NOW_NS.load(Ordering::Relaxed)
}

fn pass(ns: i64) {
    NOW_NS.fetch_add(ns, Ordering::Relaxed);
}

fn options(data: &Path) -> Options {
    Options { data: data.to_owned(), disk_reserve_bytes: 0, disk_free_bytes_min: 1, ..Options::default() }
}

async fn open(data: &Path) -> (Arc<Counting>, Arc<Shared>) {
    let options = options(data);
    let store = Counting::new(crate::store::open(&options).unwrap());
    let world = World { disk: Arc::new(LocalDisk), store: Arc::clone(&store) as _, now };
    let shared = Shared::read(options, world, |_, _| Measurement::default(), |_| ()).await.unwrap();
    (store, shared)
}

async fn at_rest(shared: &Shared) {
    let stopped = watch::Sender::new(false).subscribe();
    let begun = Instant::now();
    while Rounds::new(begun).next(shared, &stopped, begun + Duration::from_secs(1)).await {}
}

/// What a life of a table came to.
#[derive(Debug)]
struct Grown {
    /// An open, and a read of all, right after the last commit.
    busy: Cost,
    /// Time that merging took.
    merging: Duration,
    /// Time that all of it took.
    all: Duration,
    /// How often each byte was written.
    amplification: f64,
}

/// `commits` seals of `rows_each` rows, with merges and sweeps as a deployment has them, and three quiet days after.
async fn grow(data: &Path, commits: u64, rows_each: u64) -> Grown {
    let (_, shared) = open(data).await;
    shared.policies.replace(Rules::default());
    let table = shared.table(&id(), Kind::Events).unwrap();
    let begun = Instant::now();
    let mut merging = Duration::ZERO;
    let mut hour = 0;
    let first_ns = now();
    // The clocks go together, or ages are not believed.
    let at = || begun + Duration::from_nanos((now() - first_ns) as u64);
    for seq in 1..=commits {
        pass(10 * SECOND_NS);
        let times: Vec<i64> =
            (0..rows_each as i64).map(|n| START_NS + (seq as i64 * rows_each as i64 + n) * 1_000).collect();
        let batch = table.fit(rows(&times).batch().clone());
        let first_seq = (seq - 1) * rows_each;
        let (writer, measurement): (Arc<str>, _) = ("w-0".into(), Arc::default());
        let appended_ns = now();
        let charge = shared.memory.count(Pool::Hot, None, 1);
        table.push(Arc::new(HotChunk { writer, seq, first_seq, batch, measurement, appended_ns, charge }));
        let sealed = seal(&shared.tools(), &table, None, now()).await.unwrap();
        assert_eq!(sealed, rows_each);
        let before = Instant::now();
        at_rest(&shared).await;
        merging += before.elapsed();
        if (now() - first_ns) / (3_600 * SECOND_NS) > hour {
            hour += 1;
            sweep(&shared, None, at()).await;
        }
    }
    let all = begun.elapsed();
    let busy = cost(data).await;
    for _ in 0..3 {
        pass(DAY_NS);
        at_rest(&shared).await;
        sweep(&shared, None, at()).await;
    }
    Grown { busy, merging, all, amplification: shared.stats.write_amplification() }
}

/// Requests and time of an open, and of reading every row.
#[derive(Debug)]
struct Cost {
    open: Requests,
    read: Requests,
    open_time: Duration,
    read_time: Duration,
    rows: u64,
}

async fn cost(data: &Path) -> Cost {
    let (mut opens, mut reads, mut found) = (Vec::new(), Vec::new(), None);
    for _ in 0..7 {
        let begun = Instant::now();
        let (store, shared) = open(data).await;
        opens.push(begun.elapsed());
        let open = store.take();
        let begun = Instant::now();
        let table = shared.table(&id(), Kind::Events).unwrap();
        let snapshot = table.snapshot();
        let mut rows = 0;
        for file in &snapshot.files {
            let path = object_store::path::Path::from(format!("{}/{}", id().prefix(), file.path));
            let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
            for batch in segment::read(file, bytes, &snapshot.schema, 8_192).unwrap() {
                rows += batch.unwrap().num_rows() as u64;
            }
        }
        reads.push(begun.elapsed());
        found = Some((open, store.take(), rows));
    }
    let (open, read, rows) = found.unwrap();
    Cost { open, read, open_time: median(opens), read_time: median(reads), rows }
}

/// Files that are live, and objects of the log.
async fn objects(data: &Path) -> (usize, usize) {
    let store = crate::store::open(&options(data)).unwrap();
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let logs = listed.iter().filter(|object| object.location.as_ref().contains("_delta_log")).count();
    (listed.len() - logs, logs)
}

/// Issue 3: open and first query of ten thousand commits at most 1.5 times those of ten, files and log bounded.
#[expect(clippy::print_stdout, reason = "a test says what it measured")]
#[test]
fn thousands_of_commits_open_and_read_as_ten() {
    let commits = size("FLOODMARK_COMMITS", 300);
    run(async move || {
        let (few, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let grown_ten = grow(few.path(), 10, commits / 10).await;
        let ten = cost(few.path()).await;
        let grown = grow(many.path(), commits, 1).await;
        let all = cost(many.path()).await;
        let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
        let whole =
            |cost: &Cost| (cost.open.all() + cost.read.all(), cost.open.bytes_got + cost.read.bytes_got);
        println!("before the quiet days: at 10 commits {:?}, at {commits} {:?}", grown_ten.busy, grown.busy);
        println!(
            "{commits} commits in {:?}: merging {:.1} % of it, bytes written {:.2} times",
            grown.all,
            grown.merging.as_secs_f64() / grown.all.as_secs_f64() * 100.0,
            grown.amplification
        );
        println!("at 10 commits: {ten:?}, objects {:?}", objects(few.path()).await);
        println!("at {commits} commits: {all:?}, objects {:?}", objects(many.path()).await);
        println!(
            "times: requests {:.2}, bytes {:.2}, time to open {:.2}, to read {:.2}, both {:.2}",
            whole(&all).0 as f64 / whole(&ten).0 as f64,
            whole(&all).1 as f64 / whole(&ten).1 as f64,
            ratio(all.open_time, ten.open_time),
            ratio(all.read_time, ten.read_time),
            ratio(all.open_time + all.read_time, ten.open_time + ten.read_time),
        );
        assert_eq!((ten.rows, all.rows), (commits / 10 * 10, commits));
        assert!(whole(&all).0 * 2 <= whole(&ten).0 * 3, "requests");
        assert!(whole(&all).1 * 2 <= whole(&ten).1 * 3, "bytes");
        let (files, logs) = objects(many.path()).await;
        let options = options(many.path());
        assert_eq!(files, 1, "a quiet date is one file, and what it was made of is swept");
        let kept = options.log_keep_commits + 2 * options.checkpoint_commits;
        assert!(logs as u64 <= kept + kept / options.checkpoint_commits + 2, "{logs} objects of the log");
    });
}
