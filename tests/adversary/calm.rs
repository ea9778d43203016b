//! The second tenant: small requests, small reads, `select 1`; it measures its own service, and keeps account of what was
//! acknowledged to it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::scene::{Latencies, Scene};
use super::wire::Wire;
use crate::harness::Server;

/// Between two requests of one kind: ingest, typed reads, `select 1`.
const PACES: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(500), Duration::from_secs(1)];

/// Small reads that take turns.
const READS: [&str; 4] = [
    "/api/v1/events?limit=10",
    "/api/v1/services",
    "/api/v1/latency",
    "/api/v1/events?limit=10&source=calm&order=asc",
];

/// What the tenant saw in one phase.
#[derive(Debug, Default)]
pub struct Service {
    pub ingest: Latencies,
    pub reads: Latencies,
    pub selects: Latencies,
    /// Requests that were answered otherwise than with 200, or not at all.
    pub refused: [AtomicU64; 3],
    /// The record that took longest, where that was long: how long, when, and what others had sent last.
    slowest: Mutex<Option<(Duration, Duration, String)>>,
}

/// What a record takes that is looked into.
const SLOW: Duration = Duration::from_millis(500);

impl Service {
    pub fn told(&self) -> String {
        let [ingest, reads, selects] = [0, 1, 2].map(|kind| self.refused[kind].load(Ordering::Relaxed));
        format!(
            "  one record: {}; refused {ingest}\n  small reads: {}; refused {reads}\n  select 1: {}; refused {selects}",
            self.ingest.told(),
            self.reads.told(),
            self.selects.told()
        )
    }

    /// What is known of the record that took longest.
    pub fn slowest(&self) -> String {
        match &*self.slowest.lock().unwrap() {
            Some((took, at, last)) => format!("a record took {took:.1?} until {at:.0?}; sent last:\n{last}"),
            None => format!("no record took {SLOW:?}"),
        }
    }

    fn took(&self, took: Duration, at: Duration, scene: &Scene) {
        self.ingest.add(took);
        let mut slowest = self.slowest.lock().unwrap();
        if took >= SLOW && slowest.as_ref().is_none_or(|(longest, ..)| took > *longest) {
            *slowest = Some((took, at, scene.last_requests()));
        }
    }
}

/// A tenant that sends records one at a time, each with a number of its own.
#[derive(Debug)]
pub struct Account {
    pub source: &'static str,
    pub target: &'static str,
    /// Records of a request.
    pub each: u64,
    /// Requests whose fate is settled: acknowledged, or in `unknown`.
    pub done: AtomicU64,
    /// Requests whose answer was lost.
    pub unknown: Mutex<Vec<u64>>,
}

impl Account {
    pub fn new(source: &'static str, target: &'static str, each: u64) -> Self {
        Self { source, target, each, done: AtomicU64::new(0), unknown: Mutex::default() }
    }

    /// Sends one request until its fate is known or cannot be; tells how long the last try took and whether it was taken.
    pub fn send(&self, scene: &Scene, wire: &mut Option<Wire>, key: &str) -> Option<(Duration, bool)> {
        let number = self.done.load(Ordering::Relaxed);
        let (source, first) = (self.source, number * self.each);
        let body: String =
            (first..first + self.each).map(|n| format!("{{\"source\":\"{source}\",\"n\":{n}}}\n")).collect();
        let bearer = format!("Bearer {key}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/x-ndjson")];
        let begun = Instant::now();
        let open = match wire.take() {
            Some(open) => open,
            None => Wire::connect(scene.at()).ok()?,
        };
        let open = wire.insert(open);
        scene.sends(source, &format!("{} records from {first}", self.each));
        let answer = open.ask("POST", self.target, &headers, body.as_bytes());
        let took = begun.elapsed();
        scene.sees(&format!("{source} {}", self.target), source, &answer);
        let is_kept = answer.as_ref().is_ok_and(|answer| answer.is_kept);
        if !is_kept {
            *wire = None;
        }
        match answer {
            Ok(answer) if answer.status == 200 => {
                self.done.fetch_add(1, Ordering::Relaxed);
                Some((took, true))
            }
            // Refused, and so not stored.
            Ok(_) => Some((took, false)),
            Err(_) => {
                self.unknown.lock().unwrap().push(number);
                self.done.fetch_add(1, Ordering::Relaxed);
                Some((took, false))
            }
        }
    }

    /// Whether each record that was acknowledged is there once, and none that was never sent.
    pub fn check(&self, server: &Server, key: &str, table: &str) -> Result<u64, String> {
        let query = format!("SELECT n FROM {table} WHERE source = '{}'", self.source);
        let text = rows(server, key, &query)?;
        let each = usize::try_from(self.each).unwrap();
        let mut found = vec![0_u8; self.done.load(Ordering::Relaxed) as usize * each];
        for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
            let n: usize =
                line.trim().parse().map_err(|_| format!("{}: {line} is no number", self.source))?;
            let count = found.get_mut(n).ok_or_else(|| format!("{}: {n} was never settled", self.source))?;
            *count = count.saturating_add(1);
        }
        let unknown = self.unknown.lock().unwrap().clone();
        for (request, counts) in found.chunks(each).enumerate() {
            let is_unknown = unknown.contains(&(request as u64));
            let (absent, twice) = (counts.contains(&0), counts.iter().any(|count| *count > 1));
            let is_whole_or_absent = is_unknown && counts.iter().all(|count| *count == counts[0]);
            if twice || (absent && !is_whole_or_absent) {
                return Err(format!("{}: request {request} is there {counts:?} times", self.source));
            }
        }
        Ok(found.len() as u64 - unknown.len() as u64 * self.each)
    }
}

/// Every row of a query as CSV; refusals are waited for, the server has just been under attack.
pub fn rows(server: &Server, key: &str, query: &str) -> Result<String, String> {
    let body = serde_json::json!({"query": query}).to_string();
    let headers = [("Content-Type", "application/json"), ("Accept", "text/csv")];
    let begun = Instant::now();
    loop {
        let response = server.send(key, "POST", "/api/v1/sql", &headers, body.as_bytes());
        if response.status == 200 {
            return Ok(response.text());
        }
        if begun.elapsed() > Duration::from_secs(120) {
            return Err(format!("{query}: {} {}", response.status, response.text()));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Sends, reads and asks until the phase is over.
pub fn live(scene: &Scene, service: &Service, account: &Account, key: &str, until: Instant) {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut wire = None;
            while Instant::now() < until && scene.goes_on() {
                match account.send(scene, &mut wire, key) {
                    Some((took, true)) => service.took(took, begun.elapsed(), scene),
                    _ => drop(service.refused[0].fetch_add(1, Ordering::Relaxed)),
                }
                std::thread::sleep(PACES[0]);
            }
        });
        scope.spawn(|| {
            let mut turn = 0;
            while Instant::now() < until && scene.goes_on() {
                read(scene, key, "GET", READS[turn % READS.len()], b"", &service.reads, &service.refused[1]);
                turn += 1;
                std::thread::sleep(PACES[1]);
            }
        });
        while Instant::now() < until && scene.goes_on() {
            let body = b"{\"query\":\"select 1\"}";
            read(scene, key, "POST", "/api/v1/sql", body, &service.selects, &service.refused[2]);
            std::thread::sleep(PACES[2]);
        }
    });
}

fn read(
    scene: &Scene,
    key: &str,
    method: &str,
    target: &str,
    body: &[u8],
    latencies: &Latencies,
    refused: &AtomicU64,
) {
    let bearer = format!("Bearer {key}");
    let headers =
        [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("Connection", "close")];
    let begun = Instant::now();
    scene.sends("calm", target);
    let answer = Wire::connect(scene.at()).and_then(|mut wire| wire.ask(method, target, &headers, body));
    let is_taken = answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.is_whole);
    scene.sees(&format!("calm {}", target.split('?').next().unwrap()), target, &answer);
    if !is_taken {
        refused.fetch_add(1, Ordering::Relaxed);
    }
    // One that is not answered as it should be has no service for as long as it waited.
    latencies.add(begun.elapsed());
}
