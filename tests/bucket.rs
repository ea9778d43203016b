//! The same life on every store: acknowledged, sealed, killed, read back. A folder is always at hand; an
//! S3-compatible server and an Azure one are what `.ci/bucket` installs and starts.

mod lost_machine;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Server, skipped};

/// The variable's URL with a prefix that nothing else ever used.
fn fresh(variable: &str) -> Option<String> {
    let Ok(bucket) = std::env::var(variable) else {
        skipped(&format!(
            "{variable} names no bucket: run .ci/bucket, or set it and the bucket's credentials"
        ));
        return None;
    };
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    Some(format!("{bucket}/{started}"))
}

fn send(server: &Server, from: u64, to: u64) {
    let lines: String = (from..to).map(|n| format!("{{\"event_type\":\"b\",\"n\":{n}}}\n")).collect();
    let response = server.post("/api/v1/events", "application/x-ndjson", lines.as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
}

fn check(server: &Server, rows: i64, when: &str) {
    let found = &server.sql("SELECT count(*) AS rows, count(DISTINCT n) AS once FROM events")[0];
    assert_eq!((found["rows"].as_i64(), found["once"].as_i64()), (Some(rows), Some(rows)), "{when}");
}

/// A whole life on the store at `url`.
fn lives(url: &str, environment: &[(&str, &str)]) {
    let environment: Vec<_> =
        [("FLOODMARK_STORAGE__STORE_URL", url)].into_iter().chain(environment.iter().copied()).collect();
    let mut server = Server::start_with(&environment);
    send(&server, 0, 1_000);
    server.flush();
    send(&server, 1_000, 1_500);
    check(&server, 1_500, "sealed and hot");
    server.kill();
    server.restart();
    check(&server, 1_500, "after kill -9");
    server.flush();
    // Enough commits for a checkpoint to be written and read.
    for number in 0..25 {
        send(&server, 1_500 + number, 1_501 + number);
        server.flush();
    }
    assert!(server.terminate().success());
    server.restart();
    check(&server, 1_525, "after many commits and a restart");
    assert!(!server.data().join("store").exists(), "sealed rows went to the data folder, not to the store");
}

#[test]
fn a_folder_by_url_holds_what_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    lives(&format!("file://{}/store", folder.path().display()), &[]);
    assert!(folder.path().join("store").read_dir().unwrap().next().is_some());
}

#[test]
fn an_s3_bucket_holds_what_a_folder_holds() {
    let Some(url) = fresh("FLOODMARK_BUCKET_URL") else { return };
    lives(&url, &[]);
}

#[test]
fn an_azure_container_holds_what_a_folder_holds() {
    let Some(url) = fresh("FLOODMARK_AZURE_URL") else { return };
    lives(&url, &[]);
}

/// `FLOODMARK_BUCKET_CA` is the authority of the server that `AWS_ENDPOINT` names, which no system trusts.
#[test]
fn a_private_authority_is_trusted_only_where_it_is_named() {
    let Ok(ca) = std::env::var("FLOODMARK_BUCKET_CA") else {
        skipped("FLOODMARK_BUCKET_CA names no authority: run .ci/bucket");
        return;
    };
    let Some(url) = fresh("FLOODMARK_BUCKET_URL") else { return };
    let named = [("FLOODMARK_STORAGE__STORE_CA", ca.as_str())];
    lives(&url, &named);

    let mut server = Server::start();
    server.kill();
    server.set_environment(&[("FLOODMARK_STORAGE__STORE_URL", &url)]);
    let told = server.refused();
    assert!(told.contains("set storage.store_ca to the PEM file of the authority"), "{told}");
}

/// Stands before the bucket's server and can stop answering.
struct Door {
    addr: SocketAddr,
    is_shut: Arc<AtomicBool>,
}

impl Door {
    fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, is_shut) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let shut = Arc::clone(&is_shut);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(&server) else { continue };
                for (from, to) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))] {
                    let (from, to, shut) = (from.unwrap(), to.unwrap(), Arc::clone(&shut));
                    std::thread::spawn(move || pass(from, to, &shut));
                }
            }
        });
        Self { addr, is_shut }
    }
}

/// Passes bytes on until one side closes; what comes while the door is shut is swallowed.
fn pass(mut from: TcpStream, mut to: TcpStream, is_shut: &AtomicBool) {
    let mut bytes = vec![0; 65_536];
    while let Ok(length) = from.read(&mut bytes) {
        if length == 0 || (!is_shut.load(Ordering::SeqCst) && to.write_all(&bytes[..length]).is_err()) {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// B1, F20: a bucket that takes connections and never answers is told by readiness within seconds; ingest goes
/// on from the log, and what was taken meanwhile is sealed once the bucket is back.
#[test]
fn a_bucket_that_hangs_stops_neither_ingest_nor_readiness() {
    let Some(url) = fresh("FLOODMARK_BUCKET_URL") else { return };
    let Some(bucket) =
        std::env::var("AWS_ENDPOINT").ok().and_then(|at| at.strip_prefix("http://").map(str::to_owned))
    else {
        skipped("AWS_ENDPOINT is no http:// address: the bucket cannot be made to hang");
        return;
    };
    let door = Door::before(bucket);
    let endpoint = format!("http://{}", door.addr);
    let server = Server::start_with(&[
        ("FLOODMARK_STORAGE__STORE_URL", &url),
        ("AWS_ENDPOINT", &endpoint),
        ("FLOODMARK_STORAGE__STORE_CONNECT_TIMEOUT_MS", "1000"),
        ("FLOODMARK_STORAGE__STORE_TIMEOUT_MS", "2000"),
        ("FLOODMARK_STORAGE__STORE_RETRY_MS", "2000"),
    ]);
    send(&server, 0, 100);
    server.flush();
    let (code, made) =
        server.command(&["key", "create", "precious", "--role", "ingest", "--acknowledgement", "object"]);
    assert_eq!(code, Some(0), "{made}");
    let precious = made["key"].as_str().unwrap().to_owned();
    door.is_shut.store(true, Ordering::SeqCst);
    let headers = [("Content-Type", "application/x-ndjson")];
    let put = |line: &str| server.send(&precious, "POST", "/api/v1/events", &headers, line.as_bytes());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| put("{\"event_type\":\"b\",\"n\":200}\n"));
        // The bucket counts as away after five seconds.
        std::thread::sleep(Duration::from_secs(7));
        let refused = put("{\"event_type\":\"b\",\"n\":201}\n");
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
        hanging(&server);
        door.is_shut.store(false, Ordering::SeqCst);
        assert_eq!(waiting.join().unwrap().status, 200, "what waited is taken once the bucket is back");
    });
    server.flush();
    check(&server, 201, "after the bucket came back");
}

/// What a server whose bucket hangs still does.
fn hanging(server: &Server) {
    let begun = Instant::now();
    let ready = server.get("/readyz");
    assert!(begun.elapsed() < Duration::from_secs(5), "readiness took {:?}", begun.elapsed());
    assert!(ready.text().contains("object_store"), "{}", ready.text());
    assert_ne!(ready.json()["checks"]["object_store"]["status"], "ok", "{}", ready.text());
    send(server, 100, 200);
    // Sealed rows cannot be read now, which is no damage.
    let query = br#"{"query": "SELECT count(n) AS rows FROM events"}"#;
    let asked = server.post("/api/v1/sql", "application/json", query);
    assert_eq!(
        (asked.status, asked.json()["code"].as_str()),
        (503, Some("storage_unavailable")),
        "{}",
        asked.text()
    );
    let begun = Instant::now();
    let flushed = server.post("/api/v1/system/flush", "application/json", b"");
    assert_ne!(flushed.status, 200, "flushed into a bucket that hangs");
    assert!(begun.elapsed() < Duration::from_secs(15), "the flush took {:?}", begun.elapsed());
}
