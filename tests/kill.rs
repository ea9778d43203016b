//! Pulling the plug under load: acknowledged is there exactly once, and in order (A1, A3; G1).
//!
//! `FLOODMARK_KILL_ROUNDS=500 cargo test --workspace --test it -- kill --nocapture` runs any number of rounds; the seed is
//! printed, and `FLOODMARK_KILL_SEED` repeats one. With `FLOODMARK_KILL_STATE=DIR` the data folder and the ledger of what
//! was acknowledged stay in DIR, and the same command goes on with the round where an earlier one stopped.

pub mod check;
pub mod client;
pub mod ledger;
pub mod random;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use check::Check;
use client::{HopelessOnPanic, Load};
use ledger::{Account, Ledger};
use random::Random;

use crate::harness::Server;

/// Clients that declare idempotency keys, and clients that do not.
const CLIENTS: [(&str, bool); 6] = [
    ("keyed0", true),
    ("keyed1", true),
    ("keyed2", true),
    ("keyed3", true),
    ("bare0", false),
    ("bare1", false),
];

/// Between two batches of a client: five hundred rounds are some twenty million records then.
const PAUSE: Duration = Duration::from_millis(20);

/// Rounds between two checks of everything from the beginning.
const WHOLE_EACH: u64 = 100;

/// MiB of log that the measured recovery reads: in a short run, and in a long one.
const RECOVERY_MIB: (u64, u64) = (16, 512);

/// Seals and rotations often, so that kills meet them; fewer declared keys than are kept, so that each start forgets
/// the oldest, and several seconds of them; time for a check of everything.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("FLOODMARK_STORAGE__IDEMPOTENCY_KEYS_MAX", "1000"),
    ("FLOODMARK_STORAGE__SEAL_AGE_MS", "300"),
    ("FLOODMARK_STORAGE__WAL_SEGMENT_BYTES", "1048576"),
    ("FLOODMARK_QUERY__TIME_MAX_MS", "600000"),
];

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn acknowledged_survives_kill_exactly_once() {
    let rounds = variable("FLOODMARK_KILL_ROUNDS").unwrap_or(3);
    let state = std::env::var_os("FLOODMARK_KILL_STATE").map(PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let folder = state.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder).unwrap();
    let seed = variable("FLOODMARK_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let resumed = state.is_some().then(|| Ledger::resume(&folder)).flatten();
    let is_resumed = resumed.is_some();
    let ledger = resumed.unwrap_or_else(|| {
        let accounts = CLIENTS.map(|(name, is_declared)| Account::new(name.to_owned(), is_declared));
        Ledger::new(seed, accounts, state.as_deref())
    });
    println!("seed {}, {} of {rounds} rounds are done", ledger.seed, ledger.rounds);
    end_orphan(&folder);
    let mut server = Server::start_on(&folder.join("data"), &ENVIRONMENT);
    let mut check = Check::default();
    if is_resumed {
        let last = |name: &str| {
            let rows = server.sql(&format!("SELECT max(n) AS last FROM events WHERE source = '{name}'"));
            rows[0]["last"].as_u64()
        };
        ledger.skip_past(last);
        let newest = server.sql("SELECT max(time_ns) AS newest FROM events")[0]["newest"].as_i64();
        check.skip(&ledger.look(), newest.unwrap_or(0));
    }
    let restarts = run_rounds(&ledger, &mut server, &mut check, rounds, &folder);
    for state in ["hot and sealed", "flushed"] {
        check::everything(&server, &ledger.look(), true)
            .unwrap_or_else(|found| panic!("{state}, seed {}: {found}", ledger.seed));
        server.flush();
    }
    let accounts = ledger.look();
    let unknown: usize = accounts.iter().map(|account| account.unknown.len()).sum();
    println!(
        "{} rounds, {} records acknowledged, 0 lost, 0 twice, order kept; {unknown} batches of unknown fate, each whole \
         or absent; {} clients",
        rounds.max(ledger.rounds),
        accounts.iter().map(Account::acknowledged).sum::<u64>(),
        accounts.len(),
    );
    if let Some(mean) = restarts.total.checked_div(restarts.count) {
        println!(
            "{} restarts: {:.2} s each, the longest {:.2} s, with {:.1} MiB of log each",
            restarts.count,
            mean.as_secs_f64(),
            restarts.longest.as_secs_f64(),
            mib(restarts.wal_bytes) / f64::from(restarts.count),
        );
    }
    drop(server);
    measure_recovery(if rounds < 100 { RECOVERY_MIB.0 } else { RECOVERY_MIB.1 });
}

/// What starting again took.
#[derive(Debug, Default)]
struct Restarts {
    count: u32,
    total: Duration,
    longest: Duration,
    wal_bytes: u64,
}

/// Runs the rounds that are left under load from every client, and checks each.
fn run_rounds(
    ledger: &Ledger,
    server: &mut Server,
    check: &mut Check,
    rounds: u64,
    folder: &Path,
) -> Restarts {
    let mut restarts = Restarts::default();
    let load = Load { pause: PAUSE, ..Load::new(server.addr) };
    let mut random = Random(ledger.random);
    std::thread::scope(|scope| {
        let _ends = HopelessOnPanic(&load);
        let clients: Vec<_> =
            ledger.accounts.iter().map(|account| scope.spawn(|| client::send(account, &load))).collect();
        for round in ledger.rounds..rounds {
            std::thread::sleep(Duration::from_millis(random.below(2_000)));
            let assault = Assault::draw(&mut random);
            assault.run(server, &mut random, &load, &mut restarts);
            std::fs::write(folder.join("engine.pid"), server.pid().to_string()).unwrap();
            assert!(!clients.iter().any(|client| client.is_finished()), "a client gave up in round {round}");
            let accounts = ledger.look();
            let mut found = check.newest(server, &accounts);
            if (round + 1) % WHOLE_EACH == 0 {
                found = found.and_then(|()| check::everything(server, &accounts, false));
                println!("round {}: everything was checked from the beginning", round + 1);
            }
            found.unwrap_or_else(|found| panic!("round {round}, {assault:?}, seed {}: {found}", ledger.seed));
            ledger.keep(round + 1, random.0);
        }
    });
    restarts
}

/// One way to disturb the engine.
#[derive(Clone, Copy, Debug)]
enum Assault {
    Kill,
    Terminate,
    TerminateTwice,
    StopThenKill,
    StopThenContinue,
    KillWhileStarting,
}

impl Assault {
    fn draw(random: &mut Random) -> Self {
        match random.below(16) {
            0..6 => Self::Kill,
            6..8 => Self::Terminate,
            8..10 => Self::TerminateTwice,
            10..12 => Self::StopThenKill,
            12..13 => Self::StopThenContinue,
            _ => Self::KillWhileStarting,
        }
    }

    /// Disturbs the engine and has it serve again.
    fn run(self, server: &mut Server, random: &mut Random, load: &Load, restarts: &mut Restarts) {
        match self {
            Self::Kill => server.kill(),
            Self::Terminate => assert!(server.terminate().success(), "a drained engine ends with 0"),
            Self::TerminateTwice => {
                server.signal("TERM");
                std::thread::sleep(Duration::from_millis(random.below(50)));
                server.signal("TERM");
                // 1 where the second met it draining.
                let code = server.wait().code();
                assert!(matches!(code, Some(0 | 1)), "asked twice it ends with {code:?}");
            }
            Self::StopThenKill => {
                server.signal("STOP");
                std::thread::sleep(Duration::from_millis(random.below(300)));
                server.kill();
            }
            Self::StopThenContinue => {
                server.signal("STOP");
                std::thread::sleep(Duration::from_millis(random.below(1_000)));
                server.signal("CONT");
                return;
            }
            Self::KillWhileStarting => {
                server.kill();
                for _ in 0..=random.below(3) {
                    server.start_and_kill(Duration::from_millis(random.below(150)));
                }
            }
        }
        let wal_bytes = server.wal_bytes();
        let begun = Instant::now();
        server.restart();
        let took = begun.elapsed();
        *load.addr.lock().unwrap() = server.addr;
        restarts.count += 1;
        restarts.total += took;
        restarts.longest = restarts.longest.max(took);
        restarts.wal_bytes += wal_bytes;
    }
}

/// Fills a log that nothing seals, kills, and prints what reading it back takes for each GiB.
fn measure_recovery(log_mib: u64) {
    let environment = [
        ("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000"),
        ("FLOODMARK_STORAGE__SEAL_ROWS", "1000000000"),
        ("FLOODMARK_STORAGE__SEAL_BYTES", "1073741824"),
        ("FLOODMARK_MEMORY_MAX", "9GiB"),
        // Segments are preallocated: small ones are full ones.
        ("FLOODMARK_STORAGE__WAL_SEGMENT_BYTES", "1048576"),
    ];
    let mut server = Server::start_with(&environment);
    let begun = Instant::now();
    server.kill();
    server.restart();
    let empty = begun.elapsed();
    let accounts = ["recovery0", "recovery1"].map(|name| Mutex::new(Account::new(name.to_owned(), false)));
    let load = Load::new(server.addr);
    std::thread::scope(|scope| {
        let _ends = HopelessOnPanic(&load);
        for account in &accounts {
            scope.spawn(|| client::send(account, &load));
        }
        while server.wal_bytes() < log_mib << 20 {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    server.kill();
    let wal_bytes = server.wal_bytes();
    let begun = Instant::now();
    server.restart();
    let took = begun.elapsed();
    let each = took.saturating_sub(empty).as_secs_f64() / (wal_bytes as f64 / f64::from(1 << 30));
    println!(
        "recovery: {:.2} s with {:.0} MiB of log, {:.2} s without: {each:.1} s for each GiB",
        took.as_secs_f64(),
        mib(wal_bytes),
        empty.as_secs_f64(),
    );
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Ends the engine that a run left behind when it was itself killed: it still holds the data folder.
fn end_orphan(folder: &Path) {
    let Ok(pid) = std::fs::read_to_string(folder.join("engine.pid")) else { return };
    let Ok(command) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return };
    let data = folder.join("data");
    let names_the_folder =
        command.split(|byte| *byte == 0).any(|part| part == data.as_os_str().as_encoded_bytes());
    if names_the_folder {
        let _ = std::process::Command::new("kill").args(["-KILL", &pid]).status();
        while Path::new(&format!("/proc/{pid}")).exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
