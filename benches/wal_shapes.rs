//! Stage `wal_shape`: who syncs? Two lanes on two cores, one or eight connections each, NDJSON decoded for real.
//!
//! `lane_owns_log`: a lane decodes what its connections had ready, appends once, syncs once and answers all.
//! `one_committer`: lanes hand encoded frames to a committer's queue and go on decoding until all connections wait for
//! an answer; the committer writes and syncs whatever the queue holds. `docs/decisions/0003-log-per-lane.md` rests
//! on this.

use std::fs::File;
use std::io::{Seek, Write};
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use ingest::scrub::{Rules, Scrubber, scrub};
use storage::inspect::encode_frame;
use storage::record::{Dataset, Kind, TableId, Tenant};

use crate::bodies::Body;
use crate::decode::Decoder;
use crate::scrub::{chunks, decoded};

const LANES: usize = 2;
const SEGMENT_BYTES: usize = 64 << 20;

/// A log as the engine preallocates it, written around and around.
struct Log {
    file: File,
    written: usize,
}

impl Log {
    fn new() -> Self {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&vec![0; SEGMENT_BYTES]).and_then(|()| file.sync_all()).expect("64 MiB of space");
        file.rewind().expect("it rewinds");
        Self { file, written: 0 }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.written + bytes.len() > SEGMENT_BYTES {
            self.file.rewind().expect("it rewinds");
            self.written = 0;
        }
        self.file.write_all(bytes).expect("the disk takes it");
        self.written += bytes.len();
    }

    fn sync(&self) {
        self.file.sync_data().expect("the disk takes it");
    }
}

/// A request's body, and what reads it.
struct Work {
    kind: Kind,
    body: Body,
    decode: Decoder,
    table: TableId,
}

/// A lane's own tools.
struct Lane<'w> {
    work: &'w Work,
    scrubber: Scrubber,
    rules: Rules,
}

impl<'w> Lane<'w> {
    fn new(work: &'w Work) -> Self {
        Self { work, scrubber: Scrubber::default(), rules: Rules::default_on() }
    }

    /// Does for one request what comes before it is appended.
    fn request(&mut self, frame: &mut Vec<u8>) {
        let mut draft = decoded(self.work.kind, &self.work.body, self.work.decode);
        let (clean, _) = scrub(&mut self.scrubber, &self.rules, &mut draft).expect("it scrubs");
        encode_frame(frame, &self.work.table, &clean);
    }
}

fn lane_owns_log(work: &Work, connections: usize, requests: u64) -> Duration {
    longest(|ready| {
        let (mut lane, mut log, mut frames) = (Lane::new(work), Log::new(), Vec::new());
        ready.wait();
        let begun = Instant::now();
        let mut left = requests;
        while left > 0 {
            let group = left.min(connections as u64);
            frames.clear();
            for _ in 0..group {
                lane.request(&mut frames);
            }
            log.append(&frames);
            log.sync();
            left -= group;
        }
        begun.elapsed()
    })
}

type Handed = (Vec<u8>, SyncSender<Vec<u8>>);

fn one_committer(work: &Work, connections: usize, requests: u64) -> Duration {
    let (sender, queue) = sync_channel::<Handed>(LANES * connections);
    let log = Log::new();
    let committer = thread::spawn(move || commit(log, &queue));
    let took = longest(|ready| {
        let (mut lane, sender) = (Lane::new(work), sender.clone());
        let (answer, answers) = sync_channel(connections);
        let mut buffers = vec![Vec::new(); connections];
        ready.wait();
        let begun = Instant::now();
        for _ in 0..requests {
            let mut frame: Vec<u8> =
                buffers.pop().unwrap_or_else(|| answers.recv().expect("the committer answers"));
            frame.clear();
            lane.request(&mut frame);
            sender.send((frame, answer.clone())).expect("the committer runs");
        }
        while buffers.len() < connections {
            buffers.push(answers.recv().expect("the committer answers"));
        }
        begun.elapsed()
    });
    drop(sender);
    committer.join().expect("no panic");
    took
}

fn commit(mut log: Log, queue: &Receiver<Handed>) {
    let mut group: Vec<Handed> = Vec::new();
    while let Ok(first) = queue.recv() {
        group.push(first);
        group.extend(queue.try_iter());
        for (frame, _) in &group {
            log.append(frame);
        }
        log.sync();
        for (frame, answer) in group.drain(..) {
            answer.send(frame).expect("the lane waits");
        }
    }
}

/// The longest that a lane took, once all were ready.
fn longest(lane: impl Fn(&Barrier) -> Duration + Sync) -> Duration {
    let ready = Barrier::new(LANES);
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(|| lane(&ready))).collect();
        lanes.into_iter().map(|lane| lane.join().expect("no panic")).max().unwrap_or_default()
    })
}

/// Times a request of 1,000 records on each of two lanes, from its body to its sync.
pub fn stage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal_shape");
    let [_, (_, kind, body, decode), _] = chunks();
    let tenant = Tenant::parse("acme").expect("a good id");
    let table = TableId::new(tenant, Dataset::parse("events").expect("a good id"));
    let work = Work { kind, body, decode, table };
    group.throughput(Throughput::Elements(LANES as u64 * 1_000));
    group.sample_size(20);
    for connections in [1, 8] {
        group.bench_function(format!("lane_owns_log/{connections}"), |bencher| {
            bencher.iter_custom(|requests| lane_owns_log(&work, connections, requests));
        });
        group.bench_function(format!("one_committer/{connections}"), |bencher| {
            bencher.iter_custom(|requests| one_committer(&work, connections, requests));
        });
    }
    group.finish();
}
