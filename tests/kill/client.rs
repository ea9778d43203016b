//! A client under load: one batch at a time, in order, on a connection each.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::ledger::{Account, BATCH};
use crate::harness::{KEY, request};

/// How long a client waits before it tries again.
const PAUSE: Duration = Duration::from_millis(20);

/// What the clients are told.
#[derive(Debug)]
pub struct Load {
    /// Where the engine is: another port after each start.
    pub addr: Mutex<SocketAddr>,
    /// Send what is under way and then no more.
    pub is_over: AtomicBool,
    /// Nobody will answer any more.
    pub is_hopeless: AtomicBool,
    /// Between two batches of a client.
    pub pause: Duration,
}

impl Load {
    pub fn new(addr: SocketAddr) -> Self {
        let (is_over, is_hopeless) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { addr: Mutex::new(addr), is_over, is_hopeless, pause: Duration::ZERO }
    }
}

/// Lets the clients end when the test fails between two starts.
#[derive(Debug)]
pub struct HopelessOnPanic<'a>(pub &'a Load);

impl Drop for HopelessOnPanic<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        self.0.is_hopeless.fetch_or(std::thread::panicking(), Ordering::Relaxed);
    }
}

/// Sends batches until it is told to stop, and settles each before the next.
///
/// With declared keys a batch is sent again, under the same key, until it is acknowledged. Without, it is sent again only
/// where it was surely not stored (no connection, or a refusal), and else noted as unknown.
pub fn send(account: &Mutex<Account>, load: &Load) {
    let (name, is_declared) = {
        let account = account.lock().unwrap();
        (account.name.clone(), account.is_declared)
    };
    while !load.is_over.load(Ordering::Relaxed) {
        let batch = account.lock().unwrap().batches;
        let key = is_declared.then(|| format!("{name}-{batch}"));
        let is_acknowledged = settle(&name, key.as_deref(), batch, load);
        let mut account = account.lock().unwrap();
        if !is_acknowledged {
            account.unknown.push(batch);
        }
        account.batches += 1;
        drop(account);
        std::thread::sleep(load.pause);
    }
}

/// Sends one batch until its fate is known or cannot be; returns whether it was acknowledged.
fn settle(name: &str, key: Option<&str>, batch: u64, load: &Load) -> bool {
    let first = batch * BATCH;
    let body: String =
        (first..first + BATCH).map(|n| format!("{{\"source\":\"{name}\",\"n\":{n}}}\n")).collect();
    let bearer = format!("Bearer {KEY}");
    let mut headers = vec![("Authorization", bearer.as_str()), ("Content-Type", "application/x-ndjson")];
    headers.extend(key.map(|key| ("Idempotency-Key", key)));
    while !load.is_hopeless.load(Ordering::Relaxed) {
        let at = *load.addr.lock().unwrap();
        match request(at, "POST", "/api/v1/events", &headers, body.as_bytes()) {
            Ok(response) if response.status == 200 => return true,
            Ok(response) if response.status == 409 => {}
            Ok(response) if response.status == 503 && response.header("retry-after").is_some() => {}
            Ok(response) => panic!("{name}: {} {}", response.status, response.text()),
            Err(error) if key.is_none() && error.kind() != ErrorKind::ConnectionRefused => return false,
            Err(_) => {}
        }
        std::thread::sleep(PAUSE);
    }
    false
}
