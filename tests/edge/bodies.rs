//! Bodies in flight have one budget in bytes: one tenant's many never take what another's small ones need.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{connect, head, metric, read_one, resident, write};
use crate::harness::Server;

const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");
const BODY_BYTES: usize = 9_900_000;

/// X2: two hundred bodies of nearly ten megabytes, sent but for their end, stay within the cap, and a second tenant's
/// small requests go on. Past their share they are told so, on connections that live or say that they close.
#[test]
fn bodies_that_are_held_back_stay_within_their_share() {
    // Both tenants have one address here: a newcomer of it is not to take the place of the other's unproven connection.
    let environment = [("FLOODMARK_MEMORY_MAX", "350MB"), ("FLOODMARK_CONNECTIONS_PER_IP_MAX", "1000")];
    let server = Server::start_with(&environment);
    let (heavy, light) = (server.tenant("heavy"), server.tenant("light"));
    let length = BODY_BYTES.to_string();
    let before = resident(&server);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (slowest, peak, statuses) = std::thread::scope(|scope| {
        let small = scope.spawn(|| {
            let (mut slowest, mut peak) = (Duration::ZERO, 0);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let begun = Instant::now();
                let stored = server.send(&light, "POST", "/api/v1/events", &[NDJSON], b"{\"n\":1}\n");
                assert_eq!(stored.status, 200, "{}", stored.text());
                slowest = slowest.max(begun.elapsed());
                peak = peak.max(resident(&server));
                std::thread::sleep(Duration::from_millis(20));
            }
            (slowest, peak)
        });
        let senders: Vec<_> = (0..200)
            .map(|_| {
                let text = head(&heavy, "/api/v1/events", &[NDJSON, ("Content-Length", &length)]);
                let mut stream = connect(server.addr);
                stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
                scope.spawn(move || -> (TcpStream, Option<u16>) {
                    write(&mut stream, text.as_bytes());
                    let piece = vec![b' '; 64 << 10];
                    let mut left = BODY_BYTES - 1;
                    while left > 0 {
                        let Some(piece) = piece.get(..left.min(piece.len())) else { break };
                        if stream.write_all(piece).is_err() {
                            break;
                        }
                        left -= piece.len();
                    }
                    stream.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
                    let status = read_one(&mut stream).map(|response| {
                        if response.status == 503 {
                            assert!(response.header("retry-after").is_some());
                            assert!(response.text().contains("share_exceeded"), "{}", response.text());
                        }
                        response.status
                    });
                    (stream, status)
                })
            })
            .collect();
        let ended: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let (slowest, peak) = small.join().unwrap();
        (slowest, peak, ended.iter().map(|(_, status)| *status).collect::<Vec<_>>())
    });
    let refused = statuses.iter().filter(|status| **status == Some(503)).count();
    let grown = peak.saturating_sub(before);
    println!(
        "200 bodies held: {refused} refused, {} MiB more at the peak, slowest small request {slowest:?}",
        grown >> 20
    );
    assert!(refused > 100, "{statuses:?}");
    assert!(grown < 160 << 20, "the bodies took {grown} bytes");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    super::until("the memory of bodies is given back", || {
        metric(&server, "floodmark_memory_pool_used_bytes{pool=\"edge\"}") < 10e6
    });
}

/// A body that one tenant may never hold is refused for good, not for now.
#[test]
fn a_body_beyond_its_tenants_share_is_too_large() {
    let server = Server::start_with(&[
        ("FLOODMARK_MEMORY_MAX", "140MB"),
        ("FLOODMARK_INGEST__BODY_BYTES_MAX", "100000000"),
    ]);
    let length = (20 << 20).to_string();
    let key = crate::harness::KEY;
    let mut stream = connect(server.addr);
    write(&mut stream, head(key, "/api/v1/events", &[NDJSON, ("Content-Length", &length)]).as_bytes());
    let response = read_one(&mut stream).expect("an answer");
    assert_eq!(response.status, 413, "{}", response.text());
    assert!(response.text().contains("memory_max"), "{}", response.text());
    // Without a length it is refused as soon as it has grown past its share.
    let mut stream = connect(server.addr);
    write(&mut stream, head(key, "/api/v1/events", &[NDJSON, ("Transfer-Encoding", "chunked")]).as_bytes());
    let mut piece = format!("{:x}\r\n", 64 << 10).into_bytes();
    piece.extend_from_slice(&vec![b' '; 64 << 10]);
    piece.extend_from_slice(b"\r\n");
    for _ in 0..400 {
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
    assert_eq!(read_one(&mut stream).map(|response| response.status), Some(413));
    assert_eq!(server.post("/api/v1/events", NDJSON.1, b"{\"n\":1}\n").status, 200);
}
