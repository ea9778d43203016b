//! A session against a server that answers by script: what it sends again, and with what.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;

/// One connection's answers; the connection closes after the last, without saying so.
type Script = &'static [&'static str];

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";

/// Serves `scripts`, one a connection, and returns the heads of the requests it saw.
fn serve(scripts: &'static [Script]) -> (Client, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port on loopback");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let thread = std::thread::spawn(move || {
        let mut heads = Vec::new();
        for script in scripts {
            let (mut stream, _) = listener.accept().expect("the session connects");
            for answer in *script {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("readable") == 1 {
                    head.push(byte[0]);
                }
                heads.push(String::from_utf8(head).expect("text").to_ascii_lowercase());
                stream.write_all(answer.as_bytes()).expect("writable");
            }
        }
        heads
    });
    (Client::new(&url, Some("fm_key".into())).expect("own url"), thread)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

#[test]
fn a_closed_idle_connection_is_replaced() {
    let (client, server) = serve(&[&[OK], &[OK]]);
    block_on(async {
        let mut session = client.session();
        for _ in 0..2 {
            let reply = session.send(&Call::get("/readyz")).await.expect("answered");
            assert_eq!(&reply.body[..], b"ok");
        }
    });
    let heads = server.join().expect("served");
    assert!(heads[0].starts_with("get /readyz http/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("authorization: bearer fm_key\r\n"), "{}", heads[0]);
}

#[test]
fn one_connection_serves_many_calls() {
    let (client, server) = serve(&[&[OK, OK, OK]]);
    block_on(async {
        let mut session = client.session();
        for _ in 0..3 {
            session.send(&Call::get("/")).await.expect("answered");
        }
    });
    assert_eq!(server.join().expect("served").len(), 3);
}

#[test]
fn every_attempt_carries_the_same_idempotency_key() {
    let (client, server) = serve(&[&[BUSY, BUSY, OK]]);
    let mut call = Call::post("/api/v1/events", "application/x-ndjson", "");
    call.idempotency_key = Some("send-1-0".into());
    let retry = Retry { attempts_max: 5, ..Retry::PATIENT };
    let reply = block_on(async { client.session().send_with_retry(&call, &retry).await }).expect("answered");
    assert_eq!(reply.status, StatusCode::OK);
    let heads = server.join().expect("served");
    assert_eq!(heads.len(), 3);
    assert!(heads.iter().all(|head| head.contains("idempotency-key: send-1-0\r\n")), "{heads:?}");
}

#[test]
fn an_answer_that_never_comes_times_out_and_a_broken_one_is_told() {
    let (client, server) = serve(&[&["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort"]]);
    let broken = block_on(async { client.session().send(&Call::get("/")).await }).expect_err("cut short");
    assert_eq!(broken.kind(), ErrorKind::Broken);
    server.join().expect("served");

    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a free port on loopback");
    let url = format!("http://{}", silent.local_addr().expect("it is bound"));
    let client = Client::new(&url, None).expect("own url").with_reply_time_max(Duration::from_millis(50));
    let late = block_on(async { client.session().send(&Call::get("/")).await }).expect_err("nobody answers");
    assert_eq!(late.kind(), ErrorKind::TimedOut);
    drop(silent);
    let gone = block_on(async { client.session().send(&Call::get("/")).await }).expect_err("nobody listens");
    assert_eq!(gone.kind(), ErrorKind::Unreachable);
}
