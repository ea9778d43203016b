//! Many tables that trickle: a row a minute each, in virtual time.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::sync::watch;

use super::counting::Counting;
use super::{median, memory_bytes, size};
use crate::caretaker::Rounds;
use crate::deployment::{Shared, Storage, World};
use crate::disk::LocalDisk;
use crate::fixture::{HOUR, run};
use crate::keeper;
use crate::latency::{Measurement, Recorder};
use crate::memory::Pool;
use crate::options::Options;
use crate::policies::Rules;
use crate::principal::Acknowledgement;
use crate::record::{Clean, Dataset, Draft, Field, Kind, TableId, Tenant, Value};
use crate::seal::plan::Budget;
use crate::sweep::run::sweep;

const START_NS: i64 = 4_000_000_000_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;

/// Seconds between two rows of a table.
const EVERY_S: u64 = 60;

/// What the figures of the documentation were measured with; smaller sizes get their share of the budget.
const TENANTS: u64 = 2_000;

thread_local! {
    static BEGUN: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
}

/// The wall clock goes with the paused monotonic one.
fn now() -> i64 {
    let passed = BEGUN.get().map_or(0, |begun| i64::try_from(begun.elapsed().as_nanos()).unwrap());
    START_NS + passed
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

/// One span or log record, with a dozen fields and two attributes.
fn row(kind: Kind, number: u64) -> Clean {
    let mut draft = Draft::new(kind);
    draft.begin_row();
    draft.set_int(Field::TimeNs, now());
    draft.set_int(Field::ObservedNs, now());
    draft.set_text(Field::Source, "checkout");
    draft.set_text(Field::Id, &format!("{number:032x}"));
    let _ = draft.attribute("http.status_code", Value::Int(200));
    let _ = draft.attribute("http.route", Value::Text("/cart/{id}"));
    draft.end_row();
    let clean = Clean::attest(&mut draft, 1);
    if kind == Kind::Logs {
        return clean;
    }
    let mut recorder = Recorder::default();
    recorder.record("checkout", "cart", false, now(), 1_000_000 + number as i64 % 1_000);
    clean.with_measurement(recorder.take())
}

/// Files that a merge will still take: in dates of more than one file, those below half the target.
///
/// The policy of `compact/plan.rs` at rest: a date is one file, or its files are half the target and more.
fn below_policy(shared: &Shared) -> u64 {
    let half = shared.options.compact_bytes_target / 2;
    let mut below = 0;
    for table in shared.tables.all() {
        let mut dates: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for file in table.published().files() {
            dates.entry(file.path.split('/').next().unwrap().into()).or_default().push(file.bytes);
        }
        let small = |sizes: &Vec<u64>| sizes.iter().filter(|bytes| **bytes < half).count() as u64;
        below += dates.values().filter(|sizes| sizes.len() > 1).map(small).sum::<u64>();
    }
    below
}

async fn objects(store: &InMemory) -> (u64, u64) {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    (listed.len() as u64, listed.iter().map(|object| object.size).sum())
}

async fn compact_all(shared: &Shared) {
    let stopped = watch::Sender::new(false).subscribe();
    let begun = Instant::now();
    while Rounds::new(begun).next(shared, &stopped, begun + Duration::from_secs(1)).await {}
}

/// B1, issue 3: requests, objects and memory of tables that each get a row a minute; at rest no file is smaller
/// than the policy of compaction.
#[expect(clippy::print_stdout, reason = "a test says what it measured")]
#[test]
fn thousands_of_tables_trickle() {
    let tenants = size("FLOODMARK_TENANTS", 20);
    let datasets = size("FLOODMARK_DATASETS", 3);
    let hours = size("FLOODMARK_HOURS", 1);
    run(async move || {
        tokio::time::pause();
        BEGUN.set(Some(tokio::time::Instant::now()));
        let folder = tempfile::tempdir().unwrap();
        let memory = Arc::new(InMemory::new());
        let store = Counting::new(Arc::clone(&memory) as _);
        let per_minute = Options::default().seal_commits_per_minute;
        let options = Options {
            data: folder.path().to_owned(),
            disk_reserve_bytes: 0,
            disk_free_bytes_min: 1,
            seal_commits_per_minute: (per_minute * tenants / TENANTS).max(4),
            ..Options::default()
        };
        let world = World { disk: Arc::new(LocalDisk), store: Arc::clone(&store) as _, now };
        let storage =
            Storage::recover(options, world, None, |_, _| Measurement::default(), |_| ()).await.unwrap();
        let shared = storage.shared();
        shared.policies.replace(Rules::default());
        let writer = storage.writer(0).unwrap();
        let kinds = [Kind::Events, Kind::Spans, Kind::Logs];
        let tables: Vec<(TableId, Kind)> = (0..tenants * datasets)
            .map(|at| {
                let tenant = Tenant::parse(&format!("t{}", at / datasets)).unwrap();
                let dataset = Dataset::parse(&format!("d{}", at % datasets)).unwrap();
                (TableId::new(tenant, dataset), kinds[(at % datasets) as usize % kinds.len()])
            })
            .collect();
        let mut budget = Budget::full(shared.options.seal_commits_per_minute);
        let (mut appended, mut oldest_max_ns) = (0, 0);
        let begun = Instant::now();
        let at = || tokio::time::Instant::now().into_std();
        for hour in 0..hours {
            let (mut hot_max, mut commits) = (0, shared.stats.seals.load(Ordering::Relaxed));
            for second in 0..3_600 {
                for (table, kind) in tables.iter().skip((second % EVERY_S) as usize).step_by(EVERY_S as usize)
                {
                    writer
                        .append_at(Acknowledgement::Buffered, table, row(*kind, appended), None)
                        .await
                        .unwrap();
                    appended += 1;
                }
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                hot_max = hot_max.max(shared.memory.used(Pool::Hot));
                pass(Duration::from_secs(1)).await;
                keeper::round(&shared, &mut budget).await;
                let oldest = shared.tables.waiting().iter().filter_map(|table| table.backlog().2).min();
                oldest_max_ns = oldest_max_ns.max(oldest.map_or(0, |oldest| now() - oldest));
                compact_all(&shared).await;
            }
            let (count, bytes) = objects(&memory).await;
            commits = shared.stats.seals.load(Ordering::Relaxed) - commits;
            let asked = store.take();
            println!(
                "hour {hour}: {} tables, {appended} rows in all; {commits} seals; {asked:?}; {} requests a table, {} bytes put; \
                 {count} objects of {bytes} bytes; {} files below policy; hot bytes at most {hot_max}; rows waited \
                 at most {} s; write amplification {:.2}; memory {} (at most {})",
                tables.len(),
                asked.all() / tables.len() as u64,
                asked.bytes_put / tables.len() as u64,
                below_policy(&shared),
                oldest_max_ns / SECOND_NS,
                shared.stats.write_amplification(),
                memory_bytes("VmRSS"),
                memory_bytes("VmHWM"),
            );
            assert!(hot_max <= shared.memory.max(Pool::Hot));
            let budgeted = shared.options.seal_commits_per_minute * 61;
            assert!(commits <= budgeted, "{commits} seals of {budgeted}");
        }
        let (mut rounds, mut looks) = (Vec::new(), Vec::new());
        for _ in 0..9 {
            let mut spent = Budget::full(0);
            let start = Instant::now();
            keeper::round(&shared, &mut spent).await;
            rounds.push(start.elapsed());
            let start = Instant::now();
            compact_all(&shared).await;
            looks.push(start.elapsed());
        }
        println!(
            "with {} tables waiting a round of the keeper takes {:?}, a look of the caretaker {:?}; {:?} of real time",
            shared.tables.waiting().len(),
            median(rounds),
            median(looks),
            begun.elapsed(),
        );
        keeper::flush(&shared).await.unwrap();
        for _ in 0..3 {
            pass(24 * HOUR).await;
            compact_all(&shared).await;
        }
        assert_eq!(below_policy(&shared), 0);
        sweep(&shared, None, at()).await;
        pass(24 * HOUR).await;
        let swept = sweep(&shared, None, at()).await;
        let (count, bytes) = objects(&memory).await;
        let rows: u64 = storage.versions().iter().map(|table| table.rows).sum();
        println!("at rest: {swept:?}; {count} objects of {bytes} bytes; {:?}", store.take());
        assert!(rows >= appended, "{rows} rows of {appended}, and latency");
        // Of each table one file a date, and a log of a bounded length: the commits kept, their checkpoints, the pointer.
        let log_max = shared.options.log_keep_commits + 2 * shared.options.checkpoint_commits;
        let log_max = log_max + log_max / shared.options.checkpoint_commits + 2;
        let dates = 2 + hours / 24;
        let bound = (tables.len() as u64 + tenants) * (dates + log_max);
        assert!(count <= bound, "{count} objects of {bound}");
        assert_eq!(swept.failed + swept.orphans, 0);
    });
}
