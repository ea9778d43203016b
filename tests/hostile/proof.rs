//! What a proof costs, as a row of a table: what it is answered, the memory it takes, what another tenant notices.
//!
//! For the released binary: `FLOODMARK_PROOFS=1 FLOODMARK_BIN=… cargo test --workspace --test it -- hostile --nocapture`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::adversary::scene::Latencies;
use crate::adversary::wire::{Answer, Wire};

/// Between two requests of the other tenant.
const PAUSE: Duration = Duration::from_millis(20);

/// Watches one proof from its first request to its end, and prints its row then.
pub struct Proof {
    idle: u64,
    peak: Arc<AtomicU64>,
    others: Arc<Latencies>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    answers: Mutex<BTreeMap<u16, u64>>,
}

impl Proof {
    /// Begins to watch, if the table is asked for: `used` reads the memory of the server and its workers, `key` is the
    /// other tenant's.
    pub fn begin(addr: SocketAddr, key: &str, used: Box<dyn Fn() -> u64 + Send + Sync>) -> Option<Self> {
        std::env::var_os("FLOODMARK_PROOFS")?;
        let idle = used();
        let (peak, others) = (Arc::new(AtomicU64::new(idle)), Arc::new(Latencies::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let memory = std::thread::spawn({
            let (peak, is_over) = (Arc::clone(&peak), Arc::clone(&is_over));
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    peak.fetch_max(used(), Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
            }
        });
        let service = std::thread::spawn({
            let (others, is_over, key) = (Arc::clone(&others), Arc::clone(&is_over), format!("Bearer {key}"));
            move || {
                let headers = [("Authorization", key.as_str()), ("Content-Type", super::NDJSON)];
                let body = b"{\"source\":\"calm\"}\n";
                let mut wire = None;
                while !is_over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let kept = wire.take().map_or_else(|| Wire::connect(addr), Ok);
                    let answer = kept.and_then(|mut kept| {
                        let answer = kept.ask("POST", "/api/v1/events", &headers, body)?;
                        Ok((kept, answer))
                    });
                    // A server that a proof itself ends and starts answers nobody meanwhile.
                    if let Ok((kept, answer)) = answer {
                        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
                        others.add(begun.elapsed());
                        wire = Some(kept);
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        });
        let threads = vec![memory, service];
        Some(Self { idle, peak, others, is_over, threads, answers: Mutex::default() })
    }

    /// The attacker was answered.
    pub fn sees(&self, answer: &Answer) {
        *self.answers.lock().unwrap().entry(answer.status).or_default() += 1;
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let is_well = thread.join().is_ok();
            assert!(is_well || std::thread::panicking(), "the other tenant was refused");
        }
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let answers: Vec<String> = self
            .answers
            .lock()
            .unwrap()
            .iter()
            .map(|(status, count)| format!("{count} x {status}"))
            .collect();
        println!(
            "| `{name}` | {} | {} MB + {} MB | {} |",
            answers.join(", "),
            self.idle / 1_000_000,
            self.peak.load(Ordering::Relaxed).saturating_sub(self.idle) / 1_000_000,
            self.others.told()
        );
    }
}
