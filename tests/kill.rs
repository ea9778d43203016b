//! Pulling the plug under load: acknowledged is there exactly once (A1, A3; G1).
//!
//! `FLOODMARK_KILL_ROUNDS=500 cargo test -p tests -- kill` runs any number of rounds; the seed is printed, and
//! `FLOODMARK_KILL_SEED` repeats one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{KEY, Server, request};

const CLIENTS: u64 = 4;
const BATCH: u64 = 50;

/// A small generator of our own: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// One client: sends batches under declared keys until it is told to stop, and sends a batch again, under the
/// same key, until it is acknowledged.
fn client(id: u64, addr: &Mutex<SocketAddr>, stop: &AtomicBool, acknowledged: &AtomicU64) -> u64 {
    let mut batch = 0;
    while !stop.load(Ordering::Relaxed) {
        let first = batch * BATCH;
        let body: String =
            (first..first + BATCH).map(|n| format!("{{\"source\":\"c{id}\",\"n\":{n}}}\n")).collect();
        let bearer = format!("Bearer {KEY}");
        let key = format!("c{id}-{batch}");
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/x-ndjson"),
            ("Idempotency-Key", key.as_str()),
        ];
        loop {
            let at = *addr.lock().unwrap();
            match request(at, "POST", "/api/v1/events", &headers, body.as_bytes()) {
                Ok(response) if response.status == 200 => break,
                Ok(response) if matches!(response.status, 409 | 429 | 503) => {}
                Ok(response) => panic!("client {id}: {} {}", response.status, response.text()),
                Err(_) => {}
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        acknowledged.fetch_add(BATCH, Ordering::Relaxed);
        batch += 1;
    }
    batch * BATCH
}

#[test]
fn acknowledged_survives_kill_exactly_once() {
    let rounds: u64 = std::env::var("FLOODMARK_KILL_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    let seed: u64 = std::env::var("FLOODMARK_KILL_SEED")
        .map_or_else(|_| u64::from(std::process::id()), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = Random(seed);
    // Seals and rotations often, so that kills meet them.
    let environment =
        [("FLOODMARK_STORAGE__SEAL_AGE_MS", "300"), ("FLOODMARK_STORAGE__WAL_SEGMENT_BYTES", "1048576")];
    let mut server = Server::start_with(&environment);
    let addr = Arc::new(Mutex::new(server.addr));
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|id| {
            let (addr, stop, acknowledged) =
                (Arc::clone(&addr), Arc::clone(&stop), Arc::clone(&acknowledged));
            std::thread::spawn(move || client(id, &addr, &stop, &acknowledged))
        })
        .collect();
    for round in 0..rounds {
        std::thread::sleep(Duration::from_millis(random.next() % 2_000));
        if random.next().is_multiple_of(4) {
            assert!(server.terminate().success(), "round {round}: seed {seed}");
        } else {
            server.kill();
        }
        server.restart();
        *addr.lock().unwrap() = server.addr;
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let sent: BTreeMap<u64, u64> =
        clients.into_iter().enumerate().map(|(id, client)| (id as u64, client.join().unwrap())).collect();
    for state in ["hot and sealed", "flushed"] {
        for (id, sent) in &sent {
            let row = &server.sql(&format!(
                "SELECT count(*) AS rows, count(DISTINCT n) AS distinct_rows, max(n) AS last FROM events WHERE source = 'c{id}'"
            ))[0];
            let rows = row["rows"].as_u64().unwrap();
            let distinct = row["distinct_rows"].as_u64().unwrap();
            assert_eq!((rows, distinct), (*sent, *sent), "{state}, client {id}, seed {seed}");
            if *sent > 0 {
                assert_eq!(row["last"].as_u64().unwrap(), sent - 1);
            }
        }
        server.flush();
    }
    println!(
        "{rounds} rounds, {} records acknowledged, 0 lost, 0 twice",
        acknowledged.load(Ordering::Relaxed)
    );
}
