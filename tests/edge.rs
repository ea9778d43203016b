//! The HTTP edge under clients that are many, slow, keyless or clumsy: what they may hold, and what others still get.

mod bodies;
mod connections;
mod http2;
mod keep_alive;
mod order;
mod rates;
mod secrecy;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{Response, Server, parse};

/// Longer than any bound of the edge: only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads one response off a kept connection; `None` where it ends before one is whole.
fn read_one(stream: &mut TcpStream) -> Option<Response> {
    let mut answer = Vec::new();
    let mut bytes = [0; 16 << 10];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(count) => answer.extend_from_slice(&bytes[..count]),
        }
        if let Some(response) = parse(&answer) {
            return Some(response);
        }
    }
}

/// Whether a kept connection was closed by the server.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let read = stream.read(&mut [0; 1]);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match read {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

/// A value of `/metrics`.
fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}

/// Waits for something to become true.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The engine's resident memory in bytes.
fn resident(server: &Server) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", server.pid())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn head(key: &str, target: &str, fields: &[(&str, &str)]) -> String {
    let mut text = format!("POST {target} HTTP/1.1\r\nHost: x\r\n");
    if !key.is_empty() {
        text.push_str(&format!("Authorization: Bearer {key}\r\n"));
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

fn write(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}
