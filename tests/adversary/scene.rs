//! What the clients of a run share: where the server is, whether to go on, what was seen.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::wire::{Answer, Wire};

/// Requests of each client that are told when the server dies.
const LAST: usize = 6;

/// Failures that are kept; more say no more.
const FAILURES_MAX: usize = 50;

#[derive(Debug, Default)]
pub struct Scene {
    /// Where the server is.
    pub addr: Mutex<Option<SocketAddr>>,
    /// Nobody sends any more.
    pub is_over: Arc<AtomicBool>,
    /// The attackers hold back what would be stored: the disk is to outlive the run.
    pub is_sparing: AtomicBool,
    seen: Mutex<BTreeMap<(String, String), u64>>,
    last: Mutex<BTreeMap<String, VecDeque<String>>>,
    failures: Mutex<Vec<String>>,
    pub requests: AtomicU64,
}

impl Scene {
    pub fn at(&self) -> SocketAddr {
        self.addr.lock().unwrap().expect("the server is started before its clients")
    }

    /// A connection of an attacker, who gives up when the scene is over.
    pub fn connect(&self) -> std::io::Result<Wire> {
        Wire::connect_until(self.at(), &self.is_over)
    }

    pub fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    /// Notes what a client is about to send.
    pub fn sends(&self, client: &str, what: &str) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap();
        let last = last.entry(client.to_owned()).or_default();
        last.push_back(what.chars().take(400).collect());
        if last.len() > LAST {
            last.pop_front();
        }
    }

    /// Counts an answer, or what came instead; an answer that no input may cause is a failure.
    pub fn sees(&self, door: &str, what: &str, answer: &std::io::Result<Answer>) {
        let told = match answer {
            Ok(answer) => {
                let is_refusal = answer.status == 503 && answer.header("retry-after").is_some();
                if answer.status >= 500 && !is_refusal {
                    let body = String::from_utf8_lossy(&answer.body).into_owned();
                    self.fails(format!("{door}: {} to {what:.300}: {body:.300}", answer.status));
                }
                answer.status.to_string()
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                self.fails(format!("{door}: no answer in a minute to {what:.300}"));
                "no answer in a minute".into()
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => "given up at the end".into(),
            Err(_) => "closed without an answer".into(),
        };
        *self.seen.lock().unwrap().entry((door.to_owned(), told)).or_default() += 1;
    }

    pub fn fails(&self, why: String) {
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < FAILURES_MAX {
            failures.push(why);
        }
    }

    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    /// Statuses of each door.
    pub fn statuses(&self) -> String {
        let mut doors: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((door, told), count) in self.seen.lock().unwrap().iter() {
            doors.entry(door.clone()).or_default().push(format!("{told}: {count}"));
        }
        let lines: Vec<String> =
            doors.iter().map(|(door, told)| format!("  {door}: {}", told.join(", "))).collect();
        lines.join("\n")
    }

    /// The last requests of each client.
    pub fn last_requests(&self) -> String {
        let last = self.last.lock().unwrap();
        let lines =
            last.iter().flat_map(|(client, last)| last.iter().map(move |what| format!("  {client}: {what}")));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Latencies of one kind of request, in microseconds.
#[derive(Debug, Default)]
pub struct Latencies(Mutex<Vec<u32>>);

impl Latencies {
    pub fn add(&self, took: Duration) {
        self.0.lock().unwrap().push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The time below which `quantile` of them stayed.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let mut all = self.0.lock().unwrap().clone();
        all.sort_unstable();
        let at = ((all.len() as f64 * quantile) as usize).min(all.len().saturating_sub(1));
        Duration::from_micros(all.get(at).copied().unwrap_or(0).into())
    }

    pub fn told(&self) -> String {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| self.quantile(quantile).as_secs_f64() * 1e3);
        format!("p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms of {}", self.count())
    }
}
