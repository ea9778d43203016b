//! What it costs to keep files few: reading back before a commit, and merging.
//!
//! ```text
//!   cargo bench -p benches --bench compaction             400,000 events at each size of a seal
//!   cargo bench -p benches --bench compaction -- 2000000
//! ```
//! Events of 391 bytes take the whole way but the socket: decoded, scrubbed, measured, appended with a sync, sealed
//! and merged, with the engine's own options; only seals are made by number of rows, so that a run is the same
//! everywhere. CPU is the process's by the kernel's account, of it the caretaker's thread.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

// `stages.rs` uses the rest of it.
#[allow(dead_code, reason = "one of its bodies is enough here")]
mod bodies;

use std::time::Duration;

use ingest::decode::{Context, IdSource, Limits, Precision, ndjson};
use ingest::measure::measure;
use ingest::scrub::{Rules, Scrubber, scrub};
use storage::inspect::{encode_segment, read_back_segment};
use storage::record::{Clean, Dataset, Draft, Kind, TableId, Tenant};
use storage::{Options, Storage, Writer};

/// Events in a request.
const CHUNK_ROWS: usize = 1_000;

/// Events in a seal: 10 s of 100, 1,000 and 10,000 events a second.
const SEAL_ROWS: [usize; 3] = [1_000, 10_000, 100_000];

fn now_ns() -> i64 {
    bodies::FIRST_NS + 3_600_000_000_000
}

fn clean(lines: &[u8]) -> Clean {
    let limits = Limits::default();
    let mut ids = IdSource::default();
    let mut ctx = Context {
        now_ns: now_ns(),
        oldest_ns: i64::MIN,
        limits: &limits,
        precision: Precision::Nanosecond,
        ids: &mut ids,
    };
    let mut draft = Draft::new(Kind::Events);
    ndjson::events_lines(lines, &mut ctx, &mut draft).expect("the body is good");
    let (clean, _) = scrub(&mut Scrubber::default(), &Rules::default_on(), &mut draft).expect("it scrubs");
    let measurement = measure(Kind::Events, clean.batch());
    clean.with_measurement(measurement)
}

/// CPU time of the process, seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells of processes");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
    let ticks: u64 = [11, 12].map(|at: usize| fields[at].parse::<u64>().expect("a number")).iter().sum();
    // The kernel's unit for users is a hundredth of a second on every platform that Rust knows.
    ticks as f64 / 100.0
}

/// CPU time of this thread: what else runs on the machine does not count.
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells of threads");
    Duration::from_nanos(stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number"))
}

fn time(mut work: impl FnMut()) -> Duration {
    work();
    let start = thread_cpu();
    (0..20).for_each(|_| work());
    (thread_cpu() - start) / 20
}

fn read_back(lines: &[&[u8]]) {
    for rows in [1_000, 50_000] {
        let chunk = clean(&lines[..rows.min(lines.len())].concat());
        let encode = time(|| drop(encode_segment(&chunk)));
        let both = time(|| drop(read_back_segment(&chunk)));
        let share = both.as_secs_f64() / encode.as_secs_f64() - 1.0;
        println!("a seal of {rows} rows: encoding {encode:.1?}, reading back adds {share:.2} of it");
    }
}

async fn append(storage: &Storage, writer: &Writer, lines: &[&[u8]], seal_rows: usize) {
    let tenant = Tenant::parse("acme").expect("a good id");
    let table = TableId::new(tenant, Dataset::parse("events").expect("a good id"));
    for seal in lines.chunks(seal_rows) {
        for chunk in seal.chunks(CHUNK_ROWS) {
            writer.append(&table, clean(&chunk.concat()), None).await.expect("the disk takes it");
        }
        storage.flush().await.expect("the folder takes it");
    }
}

async fn life(lines: &[&[u8]], seal_rows: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        data: folder.path().to_owned(),
        seal_rows: u64::MAX,
        seal_age_ms: u64::MAX,
        ..Options::default()
    };
    let storage =
        Storage::open(options, measure, now_ns, |_| ()).await.expect("the folder is new and writable");
    let writer = storage.writer(0).expect("the folder is writable");
    let cpu = cpu_seconds();
    append(&storage, &writer, lines, seal_rows).await;
    let sealed_files = lines.len().div_ceil(seal_rows);
    // The caretaker is done when it has looked twice and found nothing.
    let mut compactions = u64::MAX;
    loop {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let now = storage.stats().compactions.load(std::sync::atomic::Ordering::Relaxed);
        if now == compactions && storage.levels().files_waiting == 0 {
            break;
        }
        compactions = now;
    }
    let cpu = cpu_seconds() - cpu;
    let stats = storage.stats();
    let of_it = stats.caretaker_cpu_ns.load(std::sync::atomic::Ordering::Relaxed) as f64 / 1e9;
    println!(
        "{seal_rows:>7} | {sealed_files:>5} | {files:>5} | {amplification:.2} | {of_it:.2} of {cpu:.2} | {share:.1} %",
        files = storage.levels().files,
        amplification = stats.write_amplification(),
        share = of_it / cpu * 100.0,
    );
    storage.close().await;
}

fn main() {
    let rows = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(400_000);
    let body = bodies::events(rows);
    let lines: Vec<&[u8]> = body.bytes.split_inclusive(|byte| *byte == b'\n').collect();
    read_back(&lines);
    println!("rows a seal | seals | files left, with latency | times written | CPU-s of merging | share");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread of our own");
    for seal_rows in SEAL_ROWS {
        runtime.block_on(tokio::task::LocalSet::new().run_until(life(&lines, seal_rows)));
    }
}
