//! A disk that is really full, under load: 503 and nothing else, reads go on, nothing acknowledged is lost, and room that
//! comes back is used at once (F16, G6).
//!
//! The data folder is a small file system of its own, which only root may mount. `FLOODMARK_DISK_CYCLES=200` fills and
//! frees it as often.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::harness::{KEY, Response, Server, request, skipped};
use crate::kill::check::everything;
use crate::kill::client::{HopelessOnPanic, Load, send};
use crate::kill::ledger::Account;

/// Size of the file system.
const DISK: &str = "size=192m";

/// Cycles that one deployment goes through: rows stay, and would fill the disk for good.
const CYCLES_EACH: u64 = 10;

/// How soon ingest resumes once there is room.
const RESUME_MAX: Duration = Duration::from_secs(2);

/// How much memory may grow while the disk is full, in KiB.
const GROWTH_KIB_MAX: u64 = 64 << 10;

const ENVIRONMENT: [(&str, &str); 3] = [
    ("FLOODMARK_STORAGE__SEAL_AGE_MS", "300"),
    ("FLOODMARK_STORAGE__WAL_SEGMENT_BYTES", "1048576"),
    ("FLOODMARK_QUERY__TIME_MAX_MS", "600000"),
];

/// A small file system that goes with the test.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "floodmark"]).arg(folder.path()).output();
        if !done.is_ok_and(|done| done.status.success()) {
            skipped("no file system can be mounted here (root may): a full disk was not tried");
            return None;
        }
        Some(Self { folder })
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    /// Fills what is free but for `left` bytes.
    fn fill(&self, left: u64) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        for block in [1 << 20, 64 << 10, 4 << 10] {
            while file.write_all(&vec![7; block]).is_ok() {}
        }
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(left)).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

/// Resident memory of a process.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends one record and gives the answer, which is one of two.
fn probe(server: &Server) -> Response {
    let bearer = format!("Bearer {KEY}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/x-ndjson")];
    let response =
        request(server.addr, "POST", "/api/v1/events", &headers, b"{\"source\":\"probe\"}").unwrap();
    let is_refused = response.status == 503 && response.header("retry-after").is_some();
    assert!(response.status == 200 || is_refused, "{} {}", response.status, response.text());
    response
}

/// Waits until a record is answered with `status`; gives how long that took.
fn wait_for(server: &Server, status: u16, at_most: Duration) -> Duration {
    let begun = Instant::now();
    while probe(server).status != status {
        assert!(
            begun.elapsed() < at_most,
            "no {status} within {at_most:?}: {}",
            server.get("/readyz").text()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

/// What the cycles saw.
#[derive(Default)]
struct Seen {
    resumed_max: Duration,
    growth_kib_max: u64,
}

/// Fills the disk, looks, kills now and then, frees the disk, looks.
fn cycle(round: u64, disk: &Disk, server: &mut Server, load: &Load, seen: &mut Seen) {
    // Every third time the load itself meets the end of the disk, below what readiness watches for.
    let left = [0, 0, 2 << 20][round as usize % 3];
    disk.fill(left);
    wait_for(server, 503, Duration::from_secs(20));
    let before = resident_kib(server.pid());
    if round % 2 == 1 {
        server.kill();
        server.restart();
        *load.addr.lock().unwrap() = server.addr;
    }
    let begun = Instant::now();
    let mut most = before;
    while begun.elapsed() < Duration::from_secs(1) {
        probe(server);
        assert!(server.count("SELECT count(*) FROM events") > 0, "reads go on");
        most = most.max(resident_kib(server.pid()));
        std::thread::sleep(Duration::from_millis(50));
    }
    seen.growth_kib_max = seen.growth_kib_max.max(most.saturating_sub(before));
    // Whatever sealing made room for, a full disk stays full.
    disk.fill(0);
    wait_for(server, 503, Duration::from_secs(20));
    let ready = server.get("/readyz");
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert_eq!(ready.json()["checks"]["disk"]["status"], "failing", "{}", ready.text());
    disk.free();
    seen.resumed_max = seen.resumed_max.max(wait_for(server, 200, Duration::from_secs(20)));
}

fn look(accounts: &[Mutex<Account>]) -> Vec<Account> {
    accounts.iter().map(|account| account.lock().unwrap().clone()).collect()
}

#[test]
fn a_full_disk_refuses_and_resumes() {
    let cycles: u64 = std::env::var("FLOODMARK_DISK_CYCLES").map_or(5, |cycles| cycles.parse().unwrap());
    let mut seen = Seen::default();
    let mut acknowledged = 0;
    let mut done = 0;
    while done < cycles {
        let Some(disk) = Disk::mount() else { return };
        let data = disk.folder.path().join("data");
        let mut server = Server::start_on(&data, &ENVIRONMENT);
        assert!(reserve_of(&data) > 0, "disk is kept back");
        let accounts = [("keyed0", true), ("bare0", false)]
            .map(|(name, is_declared)| Mutex::new(Account::new(name.to_owned(), is_declared)));
        let load = Load { pause: Duration::from_millis(20), ..Load::new(server.addr) };
        std::thread::scope(|scope| {
            let _ends = HopelessOnPanic(&load);
            for account in &accounts {
                scope.spawn(|| send(account, &load));
            }
            for _ in 0..CYCLES_EACH.min(cycles - done) {
                wait_for(&server, 200, Duration::from_secs(20));
                cycle(done, &disk, &mut server, &load, &mut seen);
                everything(&server, &look(&accounts), false).unwrap();
                done += 1;
            }
        });
        server.kill();
        server.restart();
        everything(&server, &look(&accounts), true).unwrap();
        acknowledged += look(&accounts).iter().map(Account::acknowledged).sum::<u64>();
    }
    println!(
        "{done} times full and free: {acknowledged} records acknowledged, 0 lost, 0 twice; resumed within {} ms; memory \
         grew by {} KiB at most",
        seen.resumed_max.as_millis(),
        seen.growth_kib_max,
    );
    assert!(seen.resumed_max <= RESUME_MAX, "resumed after {:?}", seen.resumed_max);
    assert!(seen.growth_kib_max <= GROWTH_KIB_MAX, "memory grew by {} KiB", seen.growth_kib_max);
}

fn reserve_of(data: &Path) -> u64 {
    fs::metadata(data.join("reserve")).map_or(0, |metadata| metadata.len())
}
