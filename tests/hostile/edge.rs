//! Connections that hold on to much, heads that hide something, requests that cost nothing.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Body, JSON, NDJSON, Stage, is_told};
use crate::adversary::wire::Wire;
use crate::harness::{parse, raw};

/// Bodies that lack their last byte: together they hold no more than their budget, and others are answered.
#[test]
fn bodies_in_flight_have_one_budget() {
    let mut stage = Stage::new(&[]);
    stage.within_megabytes(300, |stage| {
        let length = 9_900_000;
        let text = vec![b'\n'; length - 1];
        let mut held = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(stage.bounded.server.addr).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            let head = format!(
                "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: {NDJSON}\r\nContent-Length: {length}\r\n\r\n",
                stage.evil
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&text));
            held.push(stream);
        }
        stage.is_served();
        std::thread::sleep(Duration::from_secs(1));
        stage.is_served();
    });
    stage.is_served();
}

/// Heads without an end, from somebody who has shown no key; whoever has shown one is answered meanwhile.
#[test]
fn heads_without_an_end_have_a_budget() {
    let mut stage = Stage::new(&[]);
    let mut known = Wire::connect(stage.bounded.server.addr).unwrap();
    let authorization = format!("Bearer {}", stage.calm);
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", NDJSON)];
    assert_eq!(known.ask("POST", "/api/v1/events", &headers, b"{}\n").unwrap().status, 200);
    stage.within_megabytes(100, |stage| {
        let head = format!("POST /api/v1/events HTTP/1.1\r\nHost: x\r\nX-A: {}", "a".repeat(15_000));
        let mut held = Vec::new();
        for _ in 0..1_500 {
            let Ok(mut stream) = TcpStream::connect(stage.bounded.server.addr) else { continue };
            stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            let _ = stream.write_all(head.as_bytes());
            held.push(stream);
        }
        for _ in 0..3 {
            let begun = Instant::now();
            let answer = known.ask("POST", "/api/v1/events", &headers, b"{}\n").unwrap();
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            assert!(begun.elapsed() <= super::SERVED_WITHIN, "{:?}", begun.elapsed());
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    std::thread::sleep(Duration::from_millis(500));
    stage.is_served();
}

/// A head whose end is not found is refused, and nothing behind it is taken for a request.
#[test]
fn a_head_that_is_lost_is_refused_and_its_connection_closed() {
    let mut stage = Stage::new(&[]);
    let addr = stage.bounded.server.addr;
    let key = stage.evil.clone();
    let post = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: {NDJSON}\r\n"
    );
    for (what, head) in [
        (
            "both lengths, many spaces",
            format!(
                "{post}Transfer-Encoding:{}chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
                " ".repeat(4_000)
            ),
        ),
        (
            "both lengths, tabs",
            format!(
                "{post}Content-Length: 5\r\nTransfer-Encoding:{}chunked\r\n\r\n0\r\n\r\n",
                "\t".repeat(4_000)
            ),
        ),
        (
            "a size of seventy zeros",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n{}\r\n\r\n", "0".repeat(70)),
        ),
        (
            "a size with a long extension",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(20_000)),
        ),
    ] {
        // A second request behind it, whose lines end in a way that two readers could read differently.
        let second = "GET /healthz HTTP/1.1\nHost: x\nConnection: close\n\n";
        let mut answer = Vec::new();
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(format!("{head}{second}").as_bytes()).unwrap();
        let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let first = parse(&answer).unwrap_or_else(|| panic!("{what}: {text:.300}"));
        let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        let is_right = match statuses[..] {
            ["400"] => true,
            ["200", second] => second == "400",
            _ => false,
        };
        assert!(is_right && matches!(first.status, 200 | 400), "{what}: {statuses:?} {text:.600}");
    }
    stage.is_served();
}

/// What is refused is spent too, and so is a query.
#[test]
fn a_refused_request_and_a_query_are_spent() {
    let stage = Stage::new(&[]);
    let limits = json!({"requests": {"quota": 3, "window_s": 3_600}});
    let ingest = stage.bounded.server.key(&stage.evil, "ingest");
    let analyst = stage.bounded.server.key(&stage.evil, "analyst");
    assert_eq!(stage.call(&stage.evil, "PUT", "/api/v1/limits", &limits).status, 200);
    let bad: Vec<u16> = (0..10)
        .map(|_| stage.ask(&ingest, "POST", "/api/v1/events", &[("Content-Type", NDJSON)], b"{").status)
        .collect();
    assert!(bad.contains(&429), "{bad:?}");
    let other = stage.ask(&stage.calm, "POST", "/api/v1/events", &[("Content-Type", NDJSON)], b"{}\n");
    assert_eq!(other.status, 200, "another tenant has its own");

    let second = stage.bounded.server.tenant("second");
    let analyst_of_second = stage.bounded.server.key(&second, "analyst");
    assert_eq!(stage.call(&second, "PUT", "/api/v1/limits", &limits).status, 200);
    let body = b"{\"query\":\"select 1\"}";
    let asked: Vec<u16> = (0..10)
        .map(|_| stage.ask(&analyst_of_second, "POST", "/api/v1/sql", &[("Content-Type", JSON)], body).status)
        .collect();
    assert!(asked.contains(&429), "{asked:?}");
    drop(analyst);
}

/// Jobs of one tenant leave room for another's.
#[test]
fn one_tenants_jobs_leave_room_for_anothers() {
    let mut stage = Stage::new(&[]);
    let job = json!({"kind": "checkpoint"});
    let asked: Vec<u16> =
        (0..300).map(|_| stage.call(&stage.evil, "POST", "/api/v1/jobs", &job).status).collect();
    assert!(asked.iter().any(|status| *status != 202), "one tenant queues jobs without end");
    let mine = stage.call(&stage.calm, "POST", "/api/v1/jobs", &job);
    assert_eq!(mine.status, 202, "{}", mine.text());
    let id = mine.json()["id"].as_str().unwrap().to_owned();
    for _ in 0..250 {
        stage.call(&stage.evil, "POST", "/api/v1/jobs", &job);
    }
    let found = stage.call(&stage.calm, "GET", &format!("/api/v1/jobs/{id}"), &serde_json::Value::Null);
    assert_eq!(found.status, 200, "another tenant's job is not forgotten: {}", found.text());
    stage.is_served();
}

/// A body refused before it is read leaves the process as it was.
#[test]
fn bombs_are_refused_before_they_are_memory() {
    let mut stage = Stage::new(&[]);
    let bomb = Body::events(" ".repeat(400 << 20)).gzip();
    stage.within_megabytes(224, |stage| {
        for _ in 0..5 {
            let answer = stage.send(&bomb);
            is_told(&answer, "a bomb");
            assert_ne!(answer.status, 200);
        }
        stage.is_served();
    });
    let response =
        raw(stage.bounded.server.addr, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(response.status, 200);
}
