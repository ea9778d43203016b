//! A standing adversary: one tenant does what a key may do, with malice, and another measures its own service (X2, X3).
//!
//! `FLOODMARK_ADVERSARY_SECONDS=2400 FLOODMARK_ADVERSARY_SEED=7 cargo test --workspace --test it -- adversary --nocapture`
//! attacks for as long; `FLOODMARK_BIN` names another build. The server has 1 GB of memory, with everything it
//! starts, and a disk of 2 GB. What must hold: the process never dies, no input causes a 5xx but 503 with
//! `Retry-After`, and every record that was acknowledged, to either tenant, is there once, also after `kill -9`. What it
//! measures is printed beside its goal; in a long run, where times mean something, the goals are asserted.
//!
//! `FLOODMARK_STATEMENTS=20000 cargo test --workspace --test it -- statements --nocapture` sends as many generated
//! statements and looks at when each is answered. `FLOODMARK_FOOTPRINT=all cargo test --workspace --test it -- footprint
//! --nocapture` prints what memory each kind of body takes for each of its bytes.

pub mod attack;
pub mod bodies;
pub mod calm;
mod footprint;
pub mod scene;
pub mod statements;
pub mod wire;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use attack::Keys;
use calm::{Account, Service};
use scene::Scene;
use wire::Wire;

use crate::harness::place::{MemoryGroup, SmallDisk, free_share, resident, resident_of_all};
use crate::harness::{KEY, Server};
use crate::kill::random::Random;

/// Memory of the server and everything it starts.
const MEMORY_BYTES: u64 = 1 << 30;
/// Where there are no groups: address space of each process, which is more than what it uses.
const ADDRESS_KIB: u64 = 6 << 20;
const DISK_BYTES: u64 = 2 << 30;
/// The share of the disk that stays free of what the attackers may have stored.
const DISK_SPARED: f64 = 0.55;

/// Clients of the attacker.
const ATTACKERS: u64 = 10;
/// A run of at least so many seconds is long: its goals are asserted.
const LONG_SECONDS: u64 = 300;

/// A run of fewer does not wait for the memory to come down as long as it may take.
const SHORT_SECONDS: u64 = 60;

/// Another tenant's p99 under attack, in times of its quiet value.
const SLOWER_MAX: f64 = 3.0;
/// When another tenant's `select 1` is answered at the latest.
const SELECT_MAX: Duration = Duration::from_secs(1);
/// Memory after the end, in times of its idle value, and when.
const LEFT_MAX: f64 = 1.3;
const LEFT_AFTER: Duration = Duration::from_secs(30);
/// When the server is healthy again after the end, at the latest.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// How far the sum of the budgets and the memory of the process may be apart.
const GAUGE_APART_MAX: f64 = 0.25;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// The server within its bounds.
pub struct Bounded {
    pub server: Server,
    pub group: Option<MemoryGroup>,
    _disk: Option<SmallDisk>,
    _folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// One such server at a time: two that are attacked on one machine would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

impl Bounded {
    pub fn start(environment: &[(&str, &str)]) -> Self {
        // A test that failed before left nothing behind that could be wrong.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let disk = SmallDisk::mount(DISK_BYTES);
        let group = MemoryGroup::make(MEMORY_BYTES);
        let root = disk.as_ref().map_or_else(|| folder.path().to_owned(), SmallDisk::path);
        let before = match &group {
            Some(group) => group.enter(),
            None => format!("ulimit -v {ADDRESS_KIB}"),
        };
        let server = Server::start_within(&root.join("data"), environment, before);
        Self { server, group, _disk: disk, _folder: folder, _alone: alone }
    }

    /// Memory of the server and everything it started, now.
    pub fn used(&self) -> u64 {
        match &self.group {
            Some(group) => group.used(),
            None => resident_of_all(self.server.pid()).0,
        }
    }

    /// What reads [`Self::used`], for a thread of its own.
    pub fn watcher(&self) -> Box<dyn Fn() -> u64 + Send + Sync> {
        match &self.group {
            Some(group) => Box::new(group.reader()),
            None => {
                let pid = self.server.pid();
                Box::new(move || resident_of_all(pid).0)
            }
        }
    }

    /// Processes that the kernel ended for memory.
    pub fn kills(&self) -> u64 {
        self.group.as_ref().map_or(0, MemoryGroup::kills)
    }

    /// What to say of an end that should not be.
    pub fn told(&mut self) -> String {
        let ended = self.server.ended().map_or("runs".to_owned(), |status| status.to_string());
        let kills = self.kills();
        let log = self.server.log.lock().unwrap();
        let tail: Vec<&str> = log.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!(
            "the process: {ended}; ended by the kernel for memory: {kills} times; its last lines:\n{}",
            tail.join("\n")
        )
    }
}

/// The sum of the gauges of memory, where the server has them and answers.
pub fn gauge(scene: &Scene) -> Option<u64> {
    let answer = scene
        .connect()
        .and_then(|mut wire| wire.ask("GET", "/metrics", &[("Connection", "close")], b""))
        .ok()?;
    gauges_in(&String::from_utf8_lossy(&answer.body))
}

/// The same in an exposition.
fn gauges_in(text: &str) -> Option<u64> {
    let lines = text.lines().filter(|line| line.starts_with("floodmark_memory_used_bytes"));
    let values: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() as u64)
}

/// The pools that lend most, as text.
pub fn largest_gauges(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("floodmark_memory_pool_used_bytes"));
    let mut gauges: Vec<(u64, &str)> = lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(labels, value)| Some((value.parse::<f64>().ok()? as u64, labels)))
        .collect();
    gauges.sort_unstable_by(|a, b| b.cmp(a));
    gauges.iter().take(6).map(|(bytes, labels)| format!("{labels} {}", megabytes(*bytes))).collect()
}

/// Memory over time, looked at while others work.
#[derive(Default)]
struct Watch {
    peak: u64,
    largest_child: u64,
    children_max: usize,
    /// At the peak of what the gauges say: they, and the memory of the server's own process.
    gauge: Mutex<Option<(u64, u64)>>,
}

impl Watch {
    /// Looks until `until`; gives back early when the server is dead.
    fn over(&mut self, bounded: &mut Bounded, scene: &Scene, until: Instant) -> bool {
        let pid = bounded.server.pid();
        let gauges = &self.gauge;
        let (mut peak, mut largest_child, mut children_max) =
            (self.peak, self.largest_child, self.children_max);
        let is_watched = AtomicBool::new(true);
        let is_alive = std::thread::scope(|scope| {
            // On a thread of its own: a server that does not answer is looked at all the same.
            scope.spawn(|| {
                while is_watched.load(Ordering::Relaxed) {
                    if let Some(gauge) = gauge(scene) {
                        let now = resident(pid);
                        let mut most = gauges.lock().unwrap();
                        if most.is_none_or(|(most, _)| gauge > most) {
                            *most = Some((gauge, now));
                        }
                    }
                    std::thread::sleep(Duration::from_millis(500));
                }
            });
            let mut looks = 0_u64;
            let mut is_alive = true;
            while is_alive && Instant::now() < until {
                is_alive = bounded.server.ended().is_none();
                peak = peak.max(bounded.used());
                let (_, child, children) = resident_of_all(pid);
                (largest_child, children_max) = (largest_child.max(child), children_max.max(children));
                if looks.is_multiple_of(10) {
                    let is_low = free_share(bounded.server.data()) < DISK_SPARED;
                    scene.is_sparing.store(is_low, Ordering::Relaxed);
                }
                looks += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
            is_watched.store(false, Ordering::Relaxed);
            is_alive
        });
        (self.peak, self.largest_child, self.children_max) = (peak, largest_child, children_max);
        is_alive
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

#[test]
fn an_adversary_takes_nobody_elses_service() {
    let seconds = variable("FLOODMARK_ADVERSARY_SECONDS").unwrap_or(20);
    let seed = variable("FLOODMARK_ADVERSARY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}, {seconds} s; FLOODMARK_ADVERSARY_SEED={seed} repeats it");
    let is_long = seconds >= LONG_SECONDS;
    let mut bounded = Bounded::start(&[]);
    let (evil, calm) = (bounded.server.tenant("evil"), bounded.server.tenant("calm"));
    let keys = Keys {
        ingest: bounded.server.key(&evil, "ingest"),
        analyst: bounded.server.key(&evil, "analyst"),
        admin: evil.clone(),
    };
    let scene = Scene::default();
    *scene.addr.lock().unwrap() = Some(bounded.server.addr);
    let account = Account::new("calm", "/api/v1/events", 1);
    let counted = Account::new("counted", "/api/v1/events?dataset=counted", 32);

    // Quiet: what the second tenant is used to, and what the server is when idle.
    let quiet = Service::default();
    let quiet_for = Duration::from_secs((seconds / 8).clamp(5, 60));
    calm::live(&scene, &quiet, &account, &calm, Instant::now() + quiet_for);
    let idle = bounded.used();

    let attacked = Service::default();
    let mut watch = Watch::default();
    let until = Instant::now() + Duration::from_secs(seconds);
    let is_alive = std::thread::scope(|scope| {
        scope.spawn(|| calm::live(&scene, &attacked, &account, &calm, until));
        scope.spawn(|| {
            let mut wire = None;
            while scene.goes_on() {
                counted.send(&scene, &mut wire, &keys.ingest);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        for number in 0..ATTACKERS {
            let (scene, keys) = (&scene, &keys);
            let random = Random(seed.wrapping_mul(1_000).wrapping_add(number));
            scope.spawn(move || attack::client(scene, &format!("attacker {number}"), keys, random));
        }
        let is_alive = watch.over(&mut bounded, &scene, until);
        scene.is_over.store(true, Ordering::Relaxed);
        is_alive
    });
    println!("{} requests\n{}", scene.requests.load(Ordering::Relaxed), scene.statuses());
    println!("another tenant, quiet:\n{}\nunder attack:\n{}", quiet.told(), attacked.told());
    println!("{}", attacked.slowest());
    println!(
        "memory: idle {}, peak {} of {}; largest child {}, {} children at most",
        megabytes(idle),
        megabytes(watch.peak),
        megabytes(MEMORY_BYTES),
        megabytes(watch.largest_child),
        watch.children_max
    );
    let gauge = *watch.gauge.lock().unwrap();
    match gauge {
        Some((gauge, resident)) => {
            println!(
                "the gauges' sum at its peak: {}, the process then: {}",
                megabytes(gauge),
                megabytes(resident)
            );
        }
        None => println!("the server has no gauges of memory"),
    }
    if !is_alive || bounded.server.ended().is_some() {
        panic!(
            "seed {seed}: the server is dead; {}\nlast requests:\n{}",
            bounded.told(),
            scene.last_requests()
        );
    }
    assert_eq!(bounded.kills(), 0, "seed {seed}: {}", bounded.told());

    let left_after = if seconds < SHORT_SECONDS { Duration::from_secs(5) } else { LEFT_AFTER };
    let left = memory_left(&bounded, idle, left_after);
    println!(
        "memory after the end: {}, {left:.2} times idle (goal: at most {LEFT_MAX}); the gauges' sum then: {}",
        megabytes(bounded.used()),
        gauges_in(&bounded.server.get("/metrics").text()).map_or("no gauges".to_owned(), megabytes)
    );
    let text = bounded.server.get("/metrics").text();
    println!("  of them: {}", largest_gauges(&text).join(", "));
    let begun = Instant::now();
    while !answers(&bounded.server) {
        let is_late = begun.elapsed() > ANSWERS_WITHIN;
        assert!(
            !is_late,
            "seed {seed}: the server answers nobody any more; {}\nlast requests:\n{}",
            bounded.told(),
            scene.last_requests()
        );
    }
    let is_in_account = |bounded: &Bounded, when: &str| {
        let calm_records = account
            .check(&bounded.server, &calm, "events")
            .unwrap_or_else(|why| panic!("seed {seed}, {when}: {why}"));
        let evil_records = counted
            .check(&bounded.server, &evil, "counted")
            .unwrap_or_else(|why| panic!("seed {seed}, {when}: {why}"));
        println!("{when}: {calm_records} and {evil_records} records acknowledged, 0 lost, 0 twice");
    };
    is_in_account(&bounded, "at the end");
    let log = bounded.server.log.lock().unwrap().clone();
    let panicked: String =
        log.lines().filter(|line| line.contains("panicked")).take(10).collect::<Vec<_>>().join("\n");
    bounded.server.kill();
    let begun = Instant::now();
    if let Err(status) = bounded.server.try_restart() {
        panic!("seed {seed}: no start after kill -9: {status}; {}", bounded.told());
    }
    println!("started again in {:.1} s", begun.elapsed().as_secs_f64());
    memory_left(&bounded, idle, Duration::from_secs(5));
    println!("memory then, with what the attack stored: {}", megabytes(bounded.used()));
    is_in_account(&bounded, "after kill -9");
    let failures = scene.failures();
    assert!(failures.is_empty(), "seed {seed}: answers that no input may cause:\n{}", failures.join("\n"));
    assert!(panicked.is_empty(), "seed {seed}: an input reached a panic:\n{panicked}");

    let times = attacked.ingest.quantile(0.99).as_secs_f64() / quiet.ingest.quantile(0.99).as_secs_f64();
    println!(
        "another tenant's p99 under attack is {times:.1} times its quiet value (goal: at most {SLOWER_MAX})"
    );
    if is_long {
        assert!(attacked.ingest.count() > 0, "seed {seed}: nothing of another tenant was taken");
        assert!(times <= SLOWER_MAX, "seed {seed}: another tenant is {times:.1} times slower");
        let slowest = attacked.selects.quantile(1.0);
        assert!(slowest <= SELECT_MAX, "seed {seed}: another tenant's select 1 took {slowest:?}");
        assert_eq!(
            attacked.refused[2].load(Ordering::Relaxed),
            0,
            "seed {seed}: another tenant's select 1 was refused"
        );
        assert!(left <= LEFT_MAX, "seed {seed}: {left:.2} times the idle memory is left");
        if let Some((gauge, resident)) = gauge {
            let apart = (gauge as f64 - resident as f64).abs() / resident as f64;
            println!(
                "the gauges' sum and the process are {:.0} % apart (goal: {:.0} %)",
                apart * 1e2,
                GAUGE_APART_MAX * 1e2
            );
        }
    }
}

/// Whether the server says that it is healthy, within seconds.
fn answers(server: &Server) -> bool {
    let over = Arc::new(AtomicBool::new(false));
    let asked = Instant::now();
    let Ok(mut wire) = Wire::connect_until(server.addr, &over) else { return false };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) && asked.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(20));
            }
            over.store(true, Ordering::Relaxed);
        });
        let answer = wire.ask("GET", "/healthz", &[("Connection", "close")], b"");
        over.store(true, Ordering::Relaxed);
        answer.is_ok_and(|answer| answer.status == 200)
    })
}

/// Waits for the memory to come down, as long as it may take; in times of the idle value.
fn memory_left(bounded: &Bounded, idle: u64, at_most: Duration) -> f64 {
    let begun = Instant::now();
    loop {
        let left = bounded.used() as f64 / idle as f64;
        if left <= LEFT_MAX || begun.elapsed() > at_most {
            return left;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// What the statements of one server were answered.
struct Answered {
    slowest: (Duration, String),
    statuses: std::collections::BTreeMap<String, u64>,
}

/// How often a statement is sent again that was refused for its tenant's share.
const RETRIES: u32 = 20;

/// Sends `count` statements, four at a time.
fn answer_all(bounded: &mut Bounded, key: &str, count: u64, seed: u64, time_max: Duration) -> Answered {
    let scene = Scene::default();
    *scene.addr.lock().unwrap() = Some(bounded.server.addr);
    let answered =
        Mutex::new(Answered { slowest: (Duration::ZERO, String::new()), statuses: Default::default() });
    let next = AtomicU64::new(0);
    let mut watch = Watch::default();
    let idle = bounded.used();
    let is_alive = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count || !scene.goes_on() {
                            return;
                        }
                        let mut random = Random(seed.wrapping_mul(1_000_000).wrapping_add(number));
                        let (kind, query) = statements::statement(&mut random);
                        let mut told = answer_one(&scene, key, kind, &query);
                        // Its tenant had its share of turns: it is to be tried, not only refused.
                        for _ in 0..RETRIES {
                            if told.1 != "503" {
                                break;
                            }
                            std::thread::sleep(Duration::from_millis(200));
                            told = answer_one(&scene, key, kind, &query);
                        }
                        let mut answered = answered.lock().unwrap();
                        *answered.statuses.entry(format!("{kind}: {}", told.1)).or_default() += 1;
                        if told.0 > answered.slowest.0 {
                            answered.slowest = (told.0, format!("statement {number}, {kind}: {query:.500}"));
                        }
                    }
                })
            })
            .collect();
        let mut is_alive = true;
        while is_alive && clients.iter().any(|client| !client.is_finished()) {
            is_alive = watch.over(bounded, &scene, Instant::now() + Duration::from_millis(500));
        }
        scene.is_over.store(true, Ordering::Relaxed);
        is_alive
    });
    if !is_alive || bounded.server.ended().is_some() {
        panic!(
            "seed {seed}: the server is dead; {}\nlast requests:\n{}",
            bounded.told(),
            scene.last_requests()
        );
    }
    let answered = answered.into_inner().unwrap();
    println!(
        "{count} statements, {time_max:?} each: slowest {:?}: {}",
        answered.slowest.0, answered.slowest.1
    );
    for (told, count) in &answered.statuses {
        println!("  {told}: {count}");
    }
    println!(
        "memory: idle {}, peak {}; largest child {}, {} children at most",
        megabytes(idle),
        megabytes(watch.peak),
        megabytes(watch.largest_child),
        watch.children_max
    );
    let failures = scene.failures();
    assert!(failures.is_empty(), "seed {seed}: answers that no input may cause:\n{}", failures.join("\n"));
    answered
}

fn answer_one(scene: &Scene, key: &str, kind: &str, query: &str) -> (Duration, String) {
    let bearer = format!("Bearer {key}");
    let headers =
        [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("Connection", "close")];
    let body = serde_json::json!({"query": query}).to_string();
    scene.sends(kind, query);
    let begun = Instant::now();
    let answer = Wire::connect(scene.at())
        .and_then(|mut wire| wire.ask("POST", "/api/v1/sql", &headers, body.as_bytes()));
    let took = begun.elapsed();
    scene.sees(&format!("sql {kind}"), query, &answer);
    (took, answer.map_or_else(|error| error.to_string(), |answer| answer.status.to_string()))
}

/// A little of everything for the statements to read.
fn furnish(server: &Server, ingest: &str) {
    let mut random = Random(1);
    let text: String = (0..20_000)
        .map(|n| {
            format!(
                "{{\"source\":\"s{}\",\"n\":{n},\"message\":\"message {n} of {}\",\"duration_ms\":{}}}\n",
                n % 20,
                random.below(1_000),
                n % 90
            )
        })
        .collect();
    let headers = [("Content-Type", "application/x-ndjson")];
    assert_eq!(server.send(ingest, "POST", "/api/v1/events", &headers, text.as_bytes()).status, 200);
    for body in [bodies::KINDS[19].1(&mut random), bodies::KINDS[23].1(&mut random)] {
        let headers = [("Content-Type", body.content_type)];
        assert_eq!(
            server.send(ingest, "POST", &body.target, &headers, &body.bytes).status,
            200,
            "{}",
            body.target
        );
    }
}

#[test]
fn statements_are_answered_at_their_limit() {
    let count = variable("FLOODMARK_STATEMENTS").unwrap_or(100);
    let seed = variable("FLOODMARK_ADVERSARY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}; FLOODMARK_ADVERSARY_SEED={seed} repeats it");
    let is_long = count >= 1_000;
    // The long run asks one in a hundred at the default limit too.
    let rounds: &[(u64, Duration)] =
        &[(count, Duration::from_secs(1)), (count / 100, Duration::from_secs(30))];
    for (count, time_max) in &rounds[..if is_long { 2 } else { 1 }] {
        let milliseconds = time_max.as_millis().to_string();
        let mut bounded = Bounded::start(&[("FLOODMARK_QUERY__TIME_MAX_MS", &milliseconds)]);
        let tenant = bounded.server.tenant("evil");
        furnish(&bounded.server, &bounded.server.key(&tenant, "ingest"));
        let key = bounded.server.key(&tenant, "analyst");
        let answered = answer_all(&mut bounded, &key, *count, seed, *time_max);
        // A statement that runs is ended at its limit; what is slow in CI is the machine.
        let at_most = *time_max + if is_long { Duration::from_millis(500) } else { Duration::from_secs(10) };
        assert!(
            answered.slowest.0 <= at_most,
            "seed {seed}: {:?} for {}",
            answered.slowest.0,
            answered.slowest.1
        );
        assert_eq!(bounded.server.send(KEY, "GET", "/healthz", &[], b"").status, 200);
    }
}
