//! SQL in worker processes, through the real binary: what a statement may cost, whom it may hurt, what it can reach.
//! Invariants X2, X3, T1, B1.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::Response;
use crate::harness::{KEY, Server};

const TIME_MAX: Duration = Duration::from_millis(3_000);
/// How much later than its limit an answer may come.
const LATE_MAX: Duration = Duration::from_millis(500);
/// What a machine that runs other tests at the same time may take on top.
const NOISE: Duration = Duration::from_secs(2);
/// What one worker may hold, in bytes: its part, 64 MiB, and the pages of a binary built for tests.
const WORKER_HOLDS_MAX: u64 = 128_000_000 + (64 << 20) + (160 << 20);
/// What the server itself may take while its workers are tried, in bytes.
const SERVER_GROWS_MAX: u64 = 64 << 20;

fn server(environment: &[(&str, &str)]) -> Server {
    // The later of two values wins.
    let mut all = vec![("FLOODMARK_QUERY__TIME_MAX_MS", "3000"), ("FLOODMARK_QUERY__WORKERS_WARM", "2")];
    all.extend_from_slice(environment);
    Server::start_with(&all)
}

fn ask(server: &Server, key: &str, sql: &str, accept: &str) -> Response {
    let headers = [("Content-Type", "application/json"), ("Accept", accept)];
    server.send(key, "POST", "/api/v1/sql", &headers, json!({"query": sql}).to_string().as_bytes())
}

/// Sends a query and reads nothing of its answer.
fn ask_and_wait(server: &Server, sql: &str, accept: &str) -> TcpStream {
    let body = json!({"query": sql}).to_string();
    let mut stream = TcpStream::connect(server.addr).unwrap();
    let head = format!(
        "POST /api/v1/sql HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Accept: {accept}\r\nContent-Length: {}\r\n\r\n{body}",
        server.addr,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Takes minutes over [`slow_rows`], in steps that nothing interrupts, and hardly any memory.
const SLOW: &str = "SELECT sum(levenshtein(t, repeat('xy', 10000))) FROM events";

fn slow_rows() -> Vec<u8> {
    format!("{{\"a\":1,\"t\":\"{}\"}}\n", "ab".repeat(20_000)).repeat(100).into_bytes()
}

fn status_of(pid: u32, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")))?;
    Some(line.trim().to_owned())
}

/// Memory that no file stands behind: pages of the binary come and go with what runs.
fn resident_bytes(pid: u32) -> u64 {
    let text = status_of(pid, "RssAnon").unwrap_or_default();
    text.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// The server's children and their states.
fn workers(server: &Server) -> Vec<(u32, String)> {
    let parent = server.pid().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| status_of(*pid, "PPid").as_deref() == Some(&parent))
        .filter_map(|pid| Some((pid, status_of(pid, "State")?)))
        .collect()
}

fn metric(server: &Server, line: &str) -> u64 {
    let text = server.get("/metrics").text();
    let value = text.lines().find_map(|one| one.strip_prefix(line));
    value.map_or(0, |value| value.trim().parse::<f64>().unwrap() as u64)
}

/// Waits until a worker is ready, and gives its process.
fn ready_worker(server: &Server) -> u32 {
    eventually("a worker is ready", || {
        let is_ready = metric(server, "floodmark_sql_workers_ready ") > 0;
        is_ready
            .then(|| workers(server).into_iter().find(|(pid, _)| !is_measured(*pid)).map(|(pid, _)| pid))?
    })
}

/// A worker that starts has its own size open until its limits stand; the ready one may not be the first in the list.
fn is_measured(pid: u32) -> bool {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|to| to.ends_with("status"))
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `c0` is a table, each further one two uses of the one before it.
fn doubling(depth: usize) -> String {
    let mut sql = "WITH c0 AS (SELECT 1 AS x)".to_owned();
    for at in 1..=depth {
        sql.push_str(&format!(", c{at} AS (SELECT a.x FROM c{} a, c{} b)", at - 1, at - 1));
    }
    format!("{sql} SELECT count(*) FROM c{depth}")
}

/// A value that each level around it makes twice as long; `twice` says how.
fn growing(depth: usize, twice: impl Fn(&str) -> String) -> String {
    let innermost = "SELECT repeat('x', 16) AS x0 FROM events".to_owned();
    let grown = (0..depth).fold(innermost, |inner, at| {
        format!("SELECT {} AS x{} FROM ({inner})", twice(&format!("x{at}")), at + 1)
    });
    format!("SELECT max(length(x{depth})) FROM ({grown})")
}

/// X3, X2: none outlives its limit, none takes the server's memory, and another tenant's queries go on meanwhile.
#[test]
fn hostile_statements_end_in_time_and_hurt_nobody_else() {
    let server = server(&[]);
    let other = server.tenant("other");
    let row = format!("{{\"t\":\"{}\"}}\n", "ab".repeat(4_000));
    assert_eq!(server.post("/api/v1/events", "application/x-ndjson", row.repeat(400).as_bytes()).status, 200);
    ready_worker(&server);
    assert_eq!(ask(&server, &other, "SELECT 1 AS n", "application/json").status, 200);
    let before = resident_bytes(server.pid());
    let statements = [
        "SELECT repeat(repeat(repeat('aaaaaaaaaa', 10000), 10000), 10000)".to_owned(),
        "SELECT array_repeat(array_repeat(array_repeat(1, 10000), 10000), 10000)".to_owned(),
        "SELECT lpad(repeat(lpad('a', 10000), 10000), 10000)".to_owned(),
        "SELECT replace(replace(repeat('a', 10000), 'a', repeat('a', 10000)), 'a', repeat('a', 10000))".to_owned(),
        "SELECT arrow_cast(NULL, 'FixedSizeList(2000000000, Int64)')".to_owned(),
        "SELECT NULL::INT[2000000000]".to_owned(),
        "SELECT sum(levenshtein(a.t, b.t)) FROM events a, events b".to_owned(),
        "SELECT levenshtein(repeat('ab', 10000), repeat('xy', 10000)) + levenshtein(repeat('abc', 10000), repeat('cba', 10000))".to_owned(),
        "SELECT count(*) FROM events a, events b, events c WHERE a.t || b.t < c.t".to_owned(),
        "SELECT * FROM events a, events b, events c, events d ORDER BY a.t || d.t".to_owned(),
        doubling(7),
        doubling(30),
        growing(25, |x| format!("{x} || {x}")),
        growing(25, |x| format!("concat({x}, {x})")),
        "SELECT string_agg(a.t, b.t) FROM events a, events b".to_owned(),
        "SELECT array_agg(a.t) FROM events a, events b, events c".to_owned(),
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT sum(n) FROM r".to_owned(),
        "SELECT count(*) FROM events GROUP BY CUBE(a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p)".to_owned(),
    ];
    for sql in &statements {
        let begun = Instant::now();
        let (hostile, meanwhile) = std::thread::scope(|scope| {
            let hostile = scope.spawn(|| (ask(&server, KEY, sql, "application/json"), begun.elapsed()));
            std::thread::sleep(Duration::from_millis(100));
            for (pid, _) in workers(&server) {
                let held = resident_bytes(pid);
                assert!(held < WORKER_HOLDS_MAX, "{sql}: a worker holds {held}");
            }
            let asked = Instant::now();
            let small = ask(&server, &other, "SELECT 1 AS n", "application/json");
            (hostile.join().unwrap(), (small.status, asked.elapsed()))
        });
        let (answer, took) = hostile;
        let name = &sql[..sql.len().min(70)];
        println!("{:>4} ms {} {name}", took.as_millis(), answer.status);
        assert!(matches!(answer.status, 200 | 400 | 422), "{name}: {}", answer.text());
        assert!(took <= TIME_MAX + LATE_MAX + NOISE, "{name}: {took:?}");
        assert!(meanwhile.0 == 200 && meanwhile.1 < Duration::from_secs(1) + NOISE, "{name}: {meanwhile:?}");
        let grown = resident_bytes(server.pid()).saturating_sub(before);
        assert!(grown < SERVER_GROWS_MAX, "{name}: the server grew by {grown}");
    }
    assert_eq!(server.count("SELECT count(*) FROM events"), 400);
}

/// X3: which bound was met, and how far the query was.
#[test]
fn an_answer_says_which_bound_was_met_and_how_far_it_was() {
    let server = server(&[]);
    server.post("/api/v1/events", "application/x-ndjson", &slow_rows());
    ready_worker(&server);
    let late = ask(&server, KEY, SLOW, "*/*");
    assert_eq!(
        (late.status, late.json()["code"].as_str().unwrap()),
        (422, "query_timeout"),
        "{}",
        late.text()
    );
    let detail = late.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("longer than 3 s") && detail.contains("rows"), "{detail}");
    let large = ask(&server, KEY, &growing(25, |x| format!("{x} || {x}")), "*/*");
    assert_eq!(
        (large.status, large.json()["code"].as_str().unwrap()),
        (422, "query_limit"),
        "{}",
        large.text()
    );
    assert!(large.json()["detail"].as_str().unwrap().contains("memory"), "{}", large.text());
    assert!(metric(&server, "floodmark_sql_workers_ended_total{reason=\"timeout\"}") >= 1);
    assert_eq!(server.count("SELECT count(*) FROM events"), 100);
}

/// T1, X3: nothing of the server, of its files or of another tenant is in a worker's reach.
#[test]
fn a_worker_has_nothing_but_its_socket() {
    let server = server(&[
        ("FLOODMARK_OPERATOR_KEY", "an-operator-key-for-tests-only-0123456789"),
        ("FLOODMARK_QUERY__TIME_MAX_MS", "60000"),
    ]);
    server.post("/api/v1/events", "application/x-ndjson", b"{\"a\":1}");
    server.flush();
    assert_eq!(server.count("SELECT count(*) FROM events WHERE a = 1"), 1);
    let pid = ready_worker(&server);
    let of = |path: &str| PathBuf::from(format!("/proc/{pid}/{path}"));
    assert_eq!(std::fs::read(of("environ")).unwrap(), b"", "its environment is empty");
    assert_eq!(std::fs::read_link(of("cwd")).unwrap(), PathBuf::from("/"));
    let mut sockets = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(of("fd")).unwrap() {
        let to = std::fs::read_link(entry.unwrap().path()).unwrap().display().to_string();
        if to.starts_with("socket:") {
            sockets.insert(to);
        } else {
            let is_lent = to.ends_with(".parquet");
            assert!(to == "/dev/null" || to.starts_with("anon_inode:") || is_lent, "{to}");
        }
    }
    assert_eq!(sockets.len(), 1, "{sockets:?}");
    let limits = std::fs::read_to_string(of("limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    assert!(limit("Max address space").parse::<u64>().unwrap() < 8 << 30, "{limits}");
    assert_eq!((limit("Max core file size"), limit("Max processes")), ("0".to_owned(), "0".to_owned()));
    assert!(limit("Max open files").parse::<u64>().unwrap() <= 128);
    assert_eq!(status_of(pid, "NoNewPrivs").as_deref(), Some("1"));
    let seccomp = status_of(pid, "Seccomp").unwrap_or_default();
    assert!(seccomp == "2" || seccomp.is_empty(), "seccomp holds where the kernel has it: {seccomp}");
    assert_eq!(std::fs::read_to_string(of("oom_score_adj")).unwrap().trim(), "1000");
}

/// A worker that ends is one failed query, and a fresh worker.
#[test]
fn a_worker_that_dies_is_one_failed_query() {
    let server = server(&[("FLOODMARK_QUERY__TIME_MAX_MS", "30000")]);
    server.post("/api/v1/events", "application/x-ndjson", &slow_rows());
    ready_worker(&server);
    for signal in ["KILL", "ILL"] {
        let answer = std::thread::scope(|scope| {
            let sql = SLOW;
            let asked = scope.spawn(|| ask(&server, KEY, sql, "*/*"));
            eventually("it runs", || (metric(&server, "floodmark_sql_queries_running ") > 0).then_some(()));
            std::thread::sleep(Duration::from_millis(300));
            for (pid, _) in workers(&server) {
                let pid = pid.to_string();
                std::process::Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
            }
            asked.join().unwrap()
        });
        let expected = if signal == "KILL" { (422, "query_limit") } else { (503, "worker_failed") };
        assert_eq!((answer.status, answer.json()["code"].as_str().unwrap()), expected, "{}", answer.text());
        assert_eq!(server.count("SELECT count(*) FROM events"), 100);
    }
}

/// B1: whatever became of them, no worker stays and none is a zombie.
#[test]
fn no_worker_leaks() {
    let server = server(&[("FLOODMARK_QUERY__TIME_MAX_MS", "1000"), ("FLOODMARK_QUERY__WORKERS_MAX", "3")]);
    let other = server.tenant("other");
    server.post("/api/v1/events", "application/x-ndjson", &slow_rows());
    ready_worker(&server);
    let statements =
        ["SELECT 1 AS n", "SELECT count(*) FROM events", "SELECT nope FROM events", "SELECT 1/0", SLOW];
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (server, other) = (&server, &other);
            scope.spawn(move || {
                for at in 0..50_usize {
                    let sql = statements[(at + thread) % if at % 10 == 0 { 5 } else { 4 }];
                    let key = if thread % 2 == 0 { KEY } else { other };
                    if at % 7 == 3 {
                        drop(ask_and_wait(server, sql, "*/*"));
                    } else {
                        let status = ask(server, key, sql, "*/*").status;
                        assert!(matches!(status, 200 | 400 | 422 | 503), "{sql}: {status}");
                    }
                    let alive = workers(server);
                    assert!(alive.len() <= 4, "more than three and one that is being ended: {alive:?}");
                }
            });
        }
    });
    eventually("nothing runs or waits, and no zombie stays", || {
        let is_quiet = metric(&server, "floodmark_sql_queries_running ") == 0
            && metric(&server, "floodmark_sql_queries_waiting ") == 0;
        let all = workers(&server);
        (is_quiet && all.len() <= 3 && all.iter().all(|(_, state)| !state.starts_with('Z'))).then_some(())
    });
    eventually("a query is answered within its second", || {
        let answer = ask(&server, KEY, "SELECT count(*) AS n FROM events", "*/*");
        (answer.status == 200 && answer.json()["rows"] == json!([{"n": 100}])).then_some(())
    });
}

/// X3: nobody waits for the answer, so nobody computes it.
#[test]
fn a_client_that_leaves_ends_its_worker() {
    let server = server(&[("FLOODMARK_QUERY__TIME_MAX_MS", "60000")]);
    server.post("/api/v1/events", "application/x-ndjson", &slow_rows());
    ready_worker(&server);
    let sql = SLOW;
    let waits = ask_and_wait(&server, sql, "*/*");
    eventually("it runs", || (metric(&server, "floodmark_sql_queries_running ") == 1).then_some(()));
    drop(waits);
    eventually("its worker is ended", || {
        (metric(&server, "floodmark_sql_workers_ended_total{reason=\"client_left\"}") == 1).then_some(())
    });
    eventually("its place is free", || {
        (metric(&server, "floodmark_sql_queries_running ") == 0).then_some(())
    });
}

/// B1, X3: a client that does not read holds a worker until the deadline, and no more memory than a few pieces.
#[test]
fn a_client_that_does_not_read_holds_little_and_not_for_long() {
    let seldom = ("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000");
    let server = server(&[("FLOODMARK_QUERY__TIME_MAX_MS", "4000"), seldom]);
    let row = format!("{{\"t\":\"{}\"}}\n", "x".repeat(1_000));
    for _ in 0..4 {
        server.post("/api/v1/events", "application/x-ndjson", row.repeat(5_000).as_bytes());
    }
    ready_worker(&server);
    let before = resident_bytes(server.pid());
    let sql = "SELECT a.t, b.t AS u FROM events a, events b";
    let readers: Vec<TcpStream> =
        (0..12).map(|_| ask_and_wait(&server, sql, "application/x-ndjson")).collect();
    eventually("some run", || (metric(&server, "floodmark_sql_queries_running ") > 0).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    // The least of a second: what is held stays, what a heap keeps for its next use comes and goes.
    let looks = (0..10).map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        resident_bytes(server.pid())
    });
    let grown = looks.min().unwrap().saturating_sub(before);
    println!("the server grew by {} MiB", grown >> 20);
    assert!(grown < SERVER_GROWS_MAX, "the server grew by {grown}");
    eventually("all are over", || {
        let open = metric(&server, "floodmark_sql_queries_running ")
            + metric(&server, "floodmark_sql_queries_waiting ");
        (open == 0).then_some(())
    });
    drop(readers);
    assert_eq!(server.count("SELECT count(*) FROM events"), 20_000);
}

/// What fails before anything was sent has a status; what fails later ends without its last chunk, and is logged.
#[test]
fn a_late_failure_cannot_be_taken_for_the_end() {
    let server = server(&[("FLOODMARK_QUERY__TIME_MAX_MS", "60000")]);
    let rows: String = (0..30_000).map(|i| format!("{{\"i\":{i},\"t\":\"{:0>100}\"}}\n", i)).collect();
    assert_eq!(server.post("/api/v1/events", "application/x-ndjson", rows.as_bytes()).status, 200);
    for accept in ["text/csv", "application/x-ndjson", "application/json"] {
        let early = ask(&server, KEY, "SELECT 1/(i-5000) AS x FROM events ORDER BY i", accept);
        assert_eq!(early.status, 400, "{accept}: {}", early.text());
    }
    for accept in ["text/csv", "application/x-ndjson", "application/vnd.apache.arrow.stream"] {
        // The time of the row that fails is far behind the first megabyte, and nothing sorts before it is sent.
        let sql = "SELECT t, t AS u, t AS v, 1/(i-29999) AS x FROM events";
        let mut stream = ask_and_wait(&server, sql, accept);
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let head = String::from_utf8_lossy(&all[..all.len().min(200)]).into_owned();
        assert!(head.starts_with("HTTP/1.1 200"), "{accept}: {head}");
        assert!(!all.ends_with(b"\r\n0\r\n\r\n"), "{accept}: the reply looks whole");
    }
    let log = eventually("a line of the log", || {
        let log = server.log.lock().unwrap().clone();
        log.contains("a SQL reply broke off").then_some(log)
    });
    assert!(log.contains("invalid_query"), "{log}");
}

/// Two tenants at once: each query has a bound of its own, so a large one never makes a small one fail.
#[test]
fn a_large_query_takes_no_memory_from_a_small_one() {
    let server = server(&[("FLOODMARK_QUERY__TIME_MAX_MS", "20000")]);
    let row = format!("{{\"t\":\"{}\"}}\n", "x".repeat(1_000));
    server.post("/api/v1/events", "application/x-ndjson", row.repeat(9_000).as_bytes());
    ready_worker(&server);
    std::thread::scope(|scope| {
        let large = scope.spawn(|| {
            let sql = "SELECT max(t), max(u), max(n) FROM (SELECT a.t, b.t AS u, row_number() OVER (ORDER BY a.t, b.t) AS n FROM events a, events b)";
            ask(&server, KEY, sql, "*/*")
        });
        for _ in 0..10 {
            let small = ask(&server, KEY, "SELECT t, count(*) AS n FROM events GROUP BY t", "*/*");
            assert_eq!(small.status, 200, "{}", small.text());
        }
        let large = large.join().unwrap();
        assert!(
            matches!(large.json()["code"].as_str(), Some("query_limit" | "query_timeout")),
            "{}",
            large.text()
        );
    });
}

/// Prints what a warm worker adds; the figures are the machine's, so nothing is asserted of them.
#[test]
fn what_a_worker_costs_is_printed() {
    let server = server(&[("FLOODMARK_QUERY__TIME_MAX_MS", "60000")]);
    let rows: String = (0..50_000).map(|i| format!("{{\"i\":{i}}}\n")).collect();
    server.post("/api/v1/events", "application/x-ndjson", rows.as_bytes());
    server.flush();
    ready_worker(&server);
    for sql in ["SELECT 1 AS n", "SELECT sum(i) AS n FROM events"] {
        server.sql(sql);
        let mut times: Vec<Duration> = (0..20)
            .map(|_| {
                let begun = Instant::now();
                assert_eq!(server.sql(sql).len(), 1);
                begun.elapsed()
            })
            .collect();
        times.sort();
        println!("{sql}: median {:?}, of 20 the slowest {:?}", times[10], times[19]);
    }
}
