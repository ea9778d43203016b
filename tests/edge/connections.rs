//! Connections without a key are few and cheap, and never in the way of those with one.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{connect, head, is_closed, metric, read_one, resident, until, write};
use crate::harness::{KEY, Server};

const EVENTS: [(&str, &str); 2] = [("Content-Type", "application/x-ndjson"), ("Content-Length", "8")];

fn post(stream: &mut TcpStream) -> Option<u16> {
    stream.write_all((head(KEY, "/api/v1/events", &EVENTS) + "{\"n\":1}\n").as_bytes()).ok()?;
    Some(read_one(stream)?.status)
}

/// Asks what is answered from memory and leaves nothing behind.
fn ask(stream: &mut TcpStream) -> Option<u16> {
    let text = head(KEY, "/api/v1/system/status", &[]).replacen("POST", "GET", 1);
    stream.write_all(text.as_bytes()).ok()?;
    Some(read_one(stream)?.status)
}

fn connections(server: &Server) -> f64 {
    metric(server, "floodmark_connections")
}

/// An address holds so many connections that showed no key; the newest are let in, and who shows a key stays.
#[test]
fn strangers_of_one_address_are_bounded_and_clients_are_not() {
    let server = Server::start();
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = connect(server.addr);
        assert_eq!(post(&mut client), Some(200));
        clients.push(client);
    }
    let mut strangers = Vec::new();
    for at in 0..300 {
        let mut stream = connect(server.addr);
        // Half of a head, and none.
        if at % 2 == 0 {
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Half: ");
        }
        strangers.push(stream);
        if at % 50 == 49 {
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    // The next newcomers take the places of those that waited longest.
    strangers.extend((0..300).map(|_| {
        std::thread::sleep(Duration::from_millis(1));
        connect(server.addr)
    }));
    until("connections without a key stay", || connections(&server) < 100.0 + 300.0);
    std::thread::sleep(Duration::from_millis(300));
    strangers.extend((0..200).map(|_| connect(server.addr)));
    until("the oldest without a key are closed", || {
        strangers.iter_mut().take(300).filter_map(|stream| is_closed(stream).then_some(())).count() > 200
    });
    for client in &mut clients {
        assert_eq!(post(client), Some(200), "a client that showed a key was closed");
    }
}

/// Thousands of partial heads cost little and stop nobody.
#[test]
fn partial_heads_cost_little_and_stop_nobody() {
    let server = Server::start();
    let mut warm = connect(server.addr);
    assert_eq!(post(&mut warm), Some(200));
    let before = resident(&server);
    let half = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Half: {}", "a".repeat(30 << 10));
    let mut held = Vec::new();
    let mut slowest = Duration::ZERO;
    let mut peak = before;
    for at in 0..3_000 {
        if let Ok(mut stream) = TcpStream::connect(server.addr) {
            let _ = stream.write_all(half.as_bytes());
            held.push(stream);
        }
        if at % 100 == 0 {
            let begun = Instant::now();
            assert_eq!(post(&mut warm), Some(200));
            let mut fresh = connect(server.addr);
            assert_eq!(post(&mut fresh), Some(200), "a newcomer with a key gets in");
            slowest = slowest.max(begun.elapsed());
            peak = peak.max(resident(&server));
        }
    }
    println!("3000 partial heads: {} KiB more, slowest request {slowest:?}", (peak - before) >> 10);
    assert!(peak - before < 96 << 20, "3000 partial heads took {} bytes", peak - before);
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    // A head past its bound is refused before it is whole.
    let mut long = connect(server.addr);
    let text = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: {}", "a".repeat(100 << 10));
    let _ = long.write_all(text.as_bytes());
    assert_eq!(read_one(&mut long).map(|response| response.status), Some(431));
    let mut long = connect(server.addr);
    let _ = long.write_all(format!("GET /{}", "a".repeat(100 << 10)).as_bytes());
    assert_eq!(read_one(&mut long).map(|response| response.status), Some(414));
}

/// What an idle connection of a client costs is what it is charged.
#[test]
fn an_idle_connection_costs_what_it_is_charged() {
    let server = Server::start();
    let open = |count: usize| -> Vec<TcpStream> {
        (0..count)
            .map(|_| {
                let mut stream = connect(server.addr);
                assert_eq!(ask(&mut stream), Some(200));
                stream
            })
            .collect()
    };
    let warm = open(50);
    let (real, charged) =
        (resident(&server), metric(&server, "floodmark_memory_pool_used_bytes{pool=\"edge\"}"));
    let held = open(500);
    let real = resident(&server).saturating_sub(real) as f64 / held.len() as f64;
    let charged =
        (metric(&server, "floodmark_memory_pool_used_bytes{pool=\"edge\"}") - charged) / held.len() as f64;
    println!("an idle connection: {real:.0} bytes, charged {charged:.0}");
    assert!(real < 2.0 * charged, "an idle connection takes {real:.0} bytes and is charged {charged:.0}");
    drop(warm);
}

/// What goes on reading past a broken framing would be a request that nobody checked.
#[test]
fn a_framing_that_cannot_be_followed_ends_the_connection() {
    let server = Server::start();
    let spaces = " ".repeat(100);
    let zeros = "0".repeat(70);
    let smuggled = "GET /healthz HTTP/1.1\nHost: x\r\n\r\n";
    let start = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/x-ndjson\r\n"
    );
    for text in [
        format!("{start}Content-Length:{spaces}8\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!(
            "{start}Transfer-Encoding:{spaces}chunked\r\nContent-Length:{spaces}8\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("{start}Transfer-Encoding: chunked\r\n\r\n8;{spaces}\n{{\"n\":1}}\n\r\n0\r\n\r\n"),
        format!("{start}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{start}Transfer-Encoding: chunked\r\n\r\n8\r\n{{\"n\":1}}\nXX0\r\n\r\n{smuggled}"),
    ] {
        let mut stream = connect(server.addr);
        write(&mut stream, text.as_bytes());
        let response = read_one(&mut stream).unwrap_or_else(|| panic!("no answer: {text:?}"));
        assert_eq!(response.status, 400, "{text:?}: {}", response.text());
        assert_eq!(response.header("connection"), Some("close"), "{text:?}");
        assert!(read_one(&mut stream).is_none(), "a second answer: {text:?}");
    }
    // Many zeros are a good size, and the head behind is read.
    let mut stream = connect(server.addr);
    let text =
        format!("{start}Transfer-Encoding: chunked\r\n\r\n{zeros}8\r\n{{\"n\":1}}\n\r\n{zeros}\r\n\r\n");
    write(&mut stream, text.as_bytes());
    assert_eq!(read_one(&mut stream).map(|response| response.status), Some(200));
    write(&mut stream, smuggled.as_bytes());
    assert_eq!(read_one(&mut stream).map(|response| response.status), Some(400));
}
