//! Which call fails how, and when; and what must hold then.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{KEY, Server, request, skipped};

/// Calls that strace fails, and how.
const TRACED: [(&str, &str); 16] = [
    ("pwrite64", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("pwrite64", "EINTR"),
    ("fdatasync", "EIO"),
    ("fdatasync", "ENOSPC"),
    ("fsync", "EIO"),
    ("fsync", "ENOSPC"),
    ("fallocate", "EIO"),
    ("fallocate", "ENOSPC"),
    ("fallocate", "EINTR"),
    ("link,linkat", "EIO"),
    ("link,linkat", "ENOSPC"),
    ("rename,renameat,renameat2", "EIO"),
    ("rename,renameat,renameat2", "ENOSPC"),
    ("unlink,unlinkat", "EIO"),
    ("ftruncate", "EIO"),
];

/// At which call of its kind after the first batch a traced fault begins, and how many calls it meets.
const TRACED_WHEN: [&str; 4] = ["1", "3", "7", "2..9"];

/// Writes to files that the shim fails with an error's number, or makes short (0).
const SHIMMED: [(&str, &str); 5] =
    [("write", "5"), ("write", "28"), ("write", "4"), ("write", "0"), ("pwrite64", "0")];

/// At which call since the start: the first few write the state of a new deployment.
const SHIMMED_WHEN: [&str; 4] = ["8", "11", "15", "30"];

/// One call that fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Traced(&'static str, &'static str, &'static str),
    Shimmed(&'static str, &'static str, &'static str),
}

fn faults() -> Vec<Fault> {
    let traced =
        TRACED_WHEN.iter().flat_map(|when| TRACED.iter().map(|(calls, how)| Fault::Traced(calls, how, when)));
    let shimmed = SHIMMED_WHEN
        .iter()
        .flat_map(|when| SHIMMED.iter().map(|(call, errno)| Fault::Shimmed(call, errno, when)));
    traced.chain(shimmed).collect()
}

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
    fn attach(pid: u32, calls: &str, error: &str, when: &str) -> Self {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error={error}:when={when}"), "-p", &pid.to_string()])
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

fn run(fault: Fault, shim: &str) -> Result<(Outcome, u64), String> {
    let mut environment = ENVIRONMENT.to_vec();
    if let Fault::Shimmed(call, errno, when) = fault {
        environment.extend([
            ("LD_PRELOAD", shim),
            ("FAIL_CALL", call),
            ("FAIL_ERRNO", errno),
            ("FAIL_WHEN", when),
        ]);
    }
    let mut server = Server::start_with(&environment);
    server.set_environment(&ENVIRONMENT);
    let bearer = format!("Bearer {KEY}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/x-ndjson")];
    // The first before any fault, so that there is a table to ask for.
    let first = server.post("/api/v1/events", "application/x-ndjson", body(0).as_bytes());
    assert_eq!(first.status, 200, "{}", first.text());
    let strace = match fault {
        Fault::Traced(calls, error, when) => Some(Strace::attach(server.pid(), calls, error, when)),
        Fault::Shimmed(..) => None,
    };
    let (mut acknowledged, mut unknown) = (vec![0], Vec::new());
    for batch in 1..BATCHES {
        let body = body(batch);
        let begun = Instant::now();
        match request(server.addr, "POST", "/api/v1/events", &headers, body.as_bytes()) {
            Ok(response) if response.status == 200 => acknowledged.push(batch),
            // Busy or poisoned: whether it was written only a replay tells.
            Ok(response) if response.status == 503 && response.header("retry-after").is_some() => {
                unknown.push(batch);
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
    let folder = tempfile::tempdir().unwrap();
    if !is_allowed() {
        skipped("no strace that may trace: failing calls of the kernel were not tried");
        return;
    }
    let Some(shim) = super::shim(folder.path()) else { return };
    let cases: usize = std::env::var("FLOODMARK_SYSCALL_CASES").map_or(6, |cases| cases.parse().unwrap());
    let faults = faults();
    let (mut poisoned, mut records) = (0, 0);
    for case in 0..cases {
        // Spread over all of them, whatever the number: 29 has no factor in common with theirs.
        let fault = faults[case * 29 % faults.len()];
        let (outcome, acknowledged) = run(fault, shim.to_str().unwrap())
            .unwrap_or_else(|found| panic!("case {case}, {fault:?}: {found}"));
        poisoned += u64::from(outcome == Outcome::Poisoned);
        records += acknowledged;
        println!("{fault:?}: {outcome:?}, {acknowledged} acknowledged");
    }
    println!("{cases} cases: {poisoned} ended with 70, {records} records acknowledged, 0 lost, 0 twice");
}
