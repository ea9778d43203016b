//! Which call fails how, and when; and what must hold then.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{KEY, Server, request, skipped};

/// Calls that write, sync or rename, and how each is made to fail. Short writes are not among them: an injected length
/// would claim bytes that were never written, which no engine can tell. A disk that is really full makes honest ones.
const FAULTS: [(&str, &str); 19] = [
    ("pwrite64", "error=EIO"),
    ("pwrite64", "error=ENOSPC"),
    ("pwrite64", "error=EINTR"),
    ("fdatasync", "error=EIO"),
    ("fdatasync", "error=ENOSPC"),
    ("fsync", "error=EIO"),
    ("fsync", "error=ENOSPC"),
    ("write", "error=EIO"),
    ("write", "error=ENOSPC"),
    ("write", "error=EINTR"),
    ("fallocate", "error=EIO"),
    ("fallocate", "error=ENOSPC"),
    ("fallocate", "error=EINTR"),
    ("link,linkat", "error=EIO"),
    ("link,linkat", "error=ENOSPC"),
    ("rename,renameat,renameat2", "error=EIO"),
    ("rename,renameat,renameat2", "error=ENOSPC"),
    ("unlink,unlinkat", "error=EIO"),
    ("ftruncate", "error=EIO"),
];

/// At which call of its kind a fault begins, and how many calls it meets: one, or all that follow for a while.
const WHEN: [&str; 4] = ["1", "3", "7", "2..9"];

/// Batches that are sent while calls fail: enough for a few seals and segments.
const BATCHES: u64 = 40;

/// Records in a batch: the log's segment of 1 MiB is full every few batches.
const RECORDS: u64 = 500;

/// How long an answer may take: faults do not hang.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// How soon everything is taken again once no call fails: the keeper looks five times a second.
const RESUME_MAX: Duration = Duration::from_secs(2);

const ENVIRONMENT: [(&str, &str); 2] =
    [("FLOODMARK_STORAGE__SEAL_AGE_MS", "200"), ("FLOODMARK_STORAGE__WAL_SEGMENT_BYTES", "1048576")];

/// The tracer of a running process.
struct Strace(Child);

impl Strace {
    /// Attaches, and waits until it has; calls fail from then on.
    fn attach(pid: u32, fault: (&str, &str), when: &str) -> Self {
        let (calls, how) = fault;
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{how}:when={when}"), "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace is at hand");
        let begun = Instant::now();
        let is_traced = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.lines().any(|line| line == "TracerPid:\t0")
        };
        while !is_traced() {
            assert!(begun.elapsed() < ANSWER_MAX, "strace does not attach");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Threads are seized one by one after the first.
        std::thread::sleep(Duration::from_millis(50));
        Self(child)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Asked to end, it lets the process go on; killed, it would take it along.
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

fn is_allowed() -> bool {
    let injected = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"])
        .status();
    injected.is_ok_and(|status| status.success())
}

/// What one case came to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The process ended with 70 and said why.
    Poisoned,
    /// It went on.
    WentOn,
}

fn run(fault: (&str, &str), when: &str) -> Result<(Outcome, u64), String> {
    let mut server = Server::start_with(&ENVIRONMENT);
    let bearer = format!("Bearer {KEY}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/x-ndjson")];
    // The first before any fault, so that there is a table to ask for.
    let first = server.post("/api/v1/events", "application/x-ndjson", body(0).as_bytes());
    assert_eq!(first.status, 200, "{}", first.text());
    let strace = Strace::attach(server.pid(), fault, when);
    let (mut acknowledged, mut unknown) = (vec![0], Vec::new());
    for batch in 1..BATCHES {
        let body = body(batch);
        let begun = Instant::now();
        match request(server.addr, "POST", "/api/v1/events", &headers, body.as_bytes()) {
            Ok(response) if response.status == 200 => acknowledged.push(batch),
            // Busy or poisoned: whether it was written only a replay tells.
            Ok(response) if response.status == 503 && response.header("retry-after").is_some() => {
                unknown.push(batch)
            }
            Ok(response) => return Err(format!("{} {}", response.status, response.text())),
            Err(_) => unknown.push(batch),
        }
        if begun.elapsed() > ANSWER_MAX {
            return Err(format!("an answer took {:?}", begun.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = server.ended();
    drop(strace);
    let outcome = match ended.map(|status| status.code()) {
        Some(Some(70)) => Outcome::Poisoned,
        None => Outcome::WentOn,
        Some(code) => return Err(format!("it ended with {code:?}: {}", server.log.lock().unwrap())),
    };
    if outcome == Outcome::WentOn {
        let begun = Instant::now();
        while server.post("/api/v1/events", "application/x-ndjson", b"{\"source\":\"after\"}").status != 200 {
            if begun.elapsed() > RESUME_MAX {
                return Err(format!(
                    "nothing is taken once the fault is over: {}",
                    server.get("/readyz").text()
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        holds(&server, &acknowledged, &unknown).map_err(|found| format!("while it runs: {found}"))?;
        server.kill();
    }
    server.try_restart().map_err(|status| format!("the next start ends with {status}"))?;
    holds(&server, &acknowledged, &unknown).map_err(|found| format!("after a restart: {found}"))?;
    server.flush();
    holds(&server, &acknowledged, &unknown).map_err(|found| format!("flushed: {found}"))?;
    Ok((outcome, acknowledged.len() as u64 * RECORDS))
}

fn body(batch: u64) -> String {
    let records = batch * RECORDS..(batch + 1) * RECORDS;
    records.map(|n| format!("{{\"source\":\"s\",\"n\":{n}}}\n")).collect()
}

/// Each acknowledged batch is there once, each other one once or not at all.
fn holds(server: &Server, acknowledged: &[u64], unknown: &[u64]) -> Result<(), String> {
    let rows = server.sql(&format!(
        "SELECT n / {RECORDS} AS batch, count(*) AS \"rows\", count(DISTINCT n) AS numbers FROM events \
         WHERE source = 's' GROUP BY n / {RECORDS} ORDER BY 1"
    ));
    let found: Vec<u64> = rows
        .iter()
        .map(|row| {
            let number = |name: &str| row[name].as_u64().unwrap();
            if (number("rows"), number("numbers")) == (RECORDS, RECORDS) {
                return Ok(number("batch"));
            }
            Err(format!("of {RECORDS} rows: {row}"))
        })
        .collect::<Result<_, _>>()?;
    let lost: Vec<_> = acknowledged.iter().filter(|batch| !found.contains(batch)).collect();
    let foreign: Vec<_> =
        found.iter().filter(|batch| !acknowledged.contains(batch) && !unknown.contains(batch)).collect();
    if lost.is_empty() && foreign.is_empty() {
        Ok(())
    } else {
        Err(format!("lost {lost:?}, foreign {foreign:?}"))
    }
}

#[test]
fn a_failing_call_loses_nothing_that_was_acknowledged() {
    if !is_allowed() {
        skipped("no strace that may trace: failing calls of the kernel were not tried");
        return;
    }
    let cases: usize = std::env::var("FLOODMARK_SYSCALL_CASES").map_or(6, |cases| cases.parse().unwrap());
    let all = FAULTS.len() * WHEN.len();
    let (mut poisoned, mut records) = (0, 0);
    // Spread over the matrix, whatever the number: 29 has no factor in common with its size.
    for case in 0..cases {
        let at = case * 29 % all;
        let (fault, when) = (FAULTS[at % FAULTS.len()], WHEN[at / FAULTS.len()]);
        let (outcome, acknowledged) =
            run(fault, when).unwrap_or_else(|found| panic!("case {case}, {fault:?} at {when}: {found}"));
        poisoned += u64::from(outcome == Outcome::Poisoned);
        records += acknowledged;
        println!("{} {} at {when}: {outcome:?}, {acknowledged} acknowledged", fault.0, fault.1);
    }
    println!("{cases} cases: {poisoned} ended with 70, {records} records acknowledged, 0 lost, 0 twice");
}
