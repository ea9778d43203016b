//! Memory under the worst that can be sent: what is counted is what is held, the cap holds, and the idle give it back.
//!
//! It prints what it saw, so that a run tells how far the counted sum and the process's real size are apart.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::adversary::largest_gauges;
use crate::harness::{Server, request};

const MEMORY_MAX: u64 = 350_000_000;

/// What the process may be larger than its cap: pages that the allocator keeps between two uses, and those of the
/// binary itself, which a debug build has five times of.
const SLACK: f64 = 1.25;

/// How far the counted sum may be from the real size at the peak.
const APART_MAX: f64 = 0.25;

#[derive(Default)]
struct Seen {
    real: u64,
    counted: u64,
    pools: String,
}

/// The process's real size, and what it counts.
fn look(server: &Server) -> Option<Seen> {
    let text = request(server.addr, "GET", "/metrics", &[], b"").ok()?.text();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    Some(Seen {
        real: value("process_resident_memory_bytes")? as u64,
        counted: value("floodmark_memory_used_bytes")? as u64,
        pools: format!(
            "{}; waits for its next use: {} MB",
            largest_gauges(&text).join(", "),
            value("floodmark_memory_kept_bytes")? as u64 / 1_000_000
        ),
    })
}

/// Bodies that make much of little: many tiny records, wide rows, rare keys, distinct names, long values.
fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let lines = |count: usize, line: &dyn Fn(usize) -> String| {
        (0..count).flat_map(|at| line(at).into_bytes()).collect::<Vec<u8>>()
    };
    let wide = |at: usize| {
        let fields: String = (0..200).map(|n| format!("\"k{n}\":{at},")).collect();
        format!("{{{fields}\"n\":1}}\n")
    };
    let mut sparse = wide(0).into_bytes();
    sparse.extend_from_slice(&b"{}\n".repeat(50_000));
    vec![
        ("empty records", b"{}\n".repeat(90_000)),
        ("wide rows", lines(800, &wide)),
        ("rare keys", sparse),
        ("distinct keys", lines(2_000, &|at| format!("{{\"key-{at}\":{at}}}\n"))),
        (
            "distinct sources and names",
            lines(1_000, &|at| {
                format!("{{\"source\":\"s{at}\",\"event_type\":\"e{at}\",\"duration_ms\":{at}}}\n")
            }),
        ),
        ("long values", lines(8, &|at| format!("{{\"v\":\"{}{at}\"}}\n", "x".repeat(900_000)))),
    ]
}

/// Anonymous memory of the process in bytes: pages of the binary are the kernel's to drop.
fn anonymous(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the kernel tells it");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// A burst of bodies leaves nothing behind: what lanes freed goes back to the system once they rest.
#[test]
fn lanes_at_rest_give_memory_back() {
    let server = Server::start_with(&[("FLOODMARK_MEMORY_MAX", &MEMORY_MAX.to_string())]);
    let headers = [("Content-Type", "application/x-ndjson")];
    // Records that are all bad are decoded and kept nowhere: the burst is the lanes' alone.
    let line = format!("{{\"v\":\"{}\",\"tenant\":1}}\n", "x".repeat(200_000));
    let burst = line.repeat(45).into_bytes();
    let key = server.tenant("acme");
    assert_eq!(server.send(&key, "POST", "/api/v1/events", &headers, line.as_bytes()).status, 400);
    std::thread::sleep(Duration::from_secs(3));
    let idle = anonymous(&server);
    let peak = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..8)
                        .map(|_| {
                            let status = server.send(&key, "POST", "/api/v1/events", &headers, &burst).status;
                            assert!(matches!(status, 400 | 503), "{status}");
                            anonymous(&server)
                        })
                        .max()
                })
            })
            .collect();
        senders.into_iter().filter_map(|sender| sender.join().unwrap()).max().unwrap_or(0)
    });
    let begun = Instant::now();
    let mut rested = anonymous(&server);
    while rested as f64 > 1.3 * idle as f64 && begun.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(200));
        rested = anonymous(&server);
    }
    println!(
        "anonymous memory: idle {} MiB, peak {} MiB, {} MiB after {:.1} s",
        idle >> 20,
        peak >> 20,
        rested >> 20,
        begun.elapsed().as_secs_f64()
    );
    assert!(peak as f64 > 1.3 * idle as f64, "the burst is none: {peak} bytes against {idle}");
    assert!(rested as f64 <= 1.3 * idle as f64, "{rested} bytes 30 s after the end, {idle} when idle");
}

#[test]
fn the_cap_holds_and_is_counted_and_the_idle_give_memory_back() {
    let server = Server::start_with(&[("FLOODMARK_MEMORY_MAX", &MEMORY_MAX.to_string())]);
    let key = server.tenant("acme");
    // Once through everything, so that what is kept for good is there.
    for (_, body) in bodies() {
        let small = body.get(..body.len().min(2_000)).unwrap_or_default();
        server.send(&key, "POST", "/api/v1/events", &[("Content-Type", "application/x-ndjson")], small);
    }
    server.flush();
    std::thread::sleep(Duration::from_secs(3));
    let idle = look(&server).expect("metrics").real;
    let is_over = AtomicBool::new(false);
    let bodies = bodies();
    let (peak, refused) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = Seen::default();
            while !is_over.load(Ordering::Relaxed) {
                if let Some(seen) = look(&server)
                    && seen.real > peak.real
                {
                    peak = seen;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            peak
        });
        let senders: Vec<_> = (0..8)
            .map(|sender| {
                let (bodies, key, server) = (&bodies, &key, &server);
                scope.spawn(move || {
                    let mut refused = 0;
                    let begun = Instant::now();
                    for at in 0.. {
                        if begun.elapsed() > Duration::from_secs(15) {
                            break;
                        }
                        let (name, body) = &bodies[(sender + at) % bodies.len()];
                        let headers = [("Content-Type", "application/x-ndjson")];
                        let response = server.send(key, "POST", "/api/v1/events", &headers, body);
                        assert!(
                            matches!(response.status, 200 | 400 | 413 | 429 | 503),
                            "{name}: {}",
                            response.text()
                        );
                        refused += usize::from(response.status == 503);
                    }
                    refused
                })
            })
            .collect();
        let refused: usize = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        is_over.store(true, Ordering::Relaxed);
        (watcher.join().unwrap(), refused)
    });
    let apart = (peak.real as f64 - peak.counted as f64).abs() / peak.real as f64;
    println!(
        "idle {} MiB; peak: real {} MiB, counted {} MiB, {:.0} % apart ({}); {refused} refused",
        idle >> 20,
        peak.real >> 20,
        peak.counted >> 20,
        100.0 * apart,
        peak.pools
    );
    server.flush();
    let begun = Instant::now();
    let rested = loop {
        let now = look(&server).expect("metrics").real;
        if now as f64 <= 1.3 * idle as f64 || begun.elapsed() > Duration::from_secs(30) {
            break now;
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    println!("{} MiB {:.0} s after the end", rested >> 20, begun.elapsed().as_secs_f64());
    assert!(rested as f64 <= 1.3 * idle as f64, "{rested} bytes 30 s after the end, {idle} when idle");
    assert!(peak.real as f64 <= SLACK * MEMORY_MAX as f64, "{} bytes under a cap of {MEMORY_MAX}", peak.real);
    assert!(apart <= APART_MAX, "counted {} of {} bytes", peak.counted, peak.real);
}
