//! A node whose log is in the bucket, and whose machine is gone: everything acknowledged is found by another (F20), and
//! of two at a time one acknowledges (F21).

use super::{check, fresh};
use crate::harness::{KEY, Server, request};

const KEY_OF_ALL: (&str, &str) = ("FLOODMARK_MASTER_KEY", "Zmxvb2RtYXJrIHRlc3RzIG9ubHksIDMyIGJ5dGVzISE=");

/// Sends rows; returns the status, and whether it was answered from before.
fn send(server: &Server, key: &str, declared: Option<&str>, rows: std::ops::Range<u64>) -> (u16, bool) {
    let lines: String = rows.map(|n| format!("{{\"event_type\":\"b\",\"n\":{n}}}\n")).collect();
    let bearer = format!("Bearer {key}");
    let mut headers = vec![("Authorization", bearer.as_str()), ("Content-Type", "application/x-ndjson")];
    headers.extend(declared.map(|key| ("Idempotency-Key", key)));
    match request(server.addr, "POST", "/api/v1/events", &headers, lines.as_bytes()) {
        Ok(response) => (response.status, response.header("idempotency-replayed").is_some()),
        // A process that ends answers nobody.
        Err(_) => (0, false),
    }
}

/// A node's life over two machines and a split brain, on the store at `url`.
fn outlives(url: &str) {
    let environment = [
        ("FLOODMARK_STORAGE__STORE_URL", url),
        ("FLOODMARK_STORAGE__NODE", "a"),
        ("FLOODMARK_STORAGE__WAL_PLACE", "bucket"),
        ("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000"),
        KEY_OF_ALL,
    ];
    let mut server = Server::start_with(&environment);
    assert_eq!(send(&server, KEY, None, 0..500), (200, false));
    server.flush();
    assert_eq!(send(&server, KEY, Some("once"), 500..600), (200, false));
    assert_eq!(send(&server, KEY, None, 600..1_000), (200, false));
    check(&server, 1_000, "sealed and hot");
    assert_eq!(server.wal_bytes(), 0, "nothing of the log is on the disk");
    server.kill();
    drop(server);

    // Another machine, an empty disk.
    let mut first = Server::start_with(&environment);
    check(&first, 1_000, "after the machine was lost");
    assert_eq!(send(&first, KEY, Some("once"), 500..600), (200, true), "a declared key outlives it too");
    assert_eq!(send(&first, KEY, None, 1_000..1_100), (200, false));

    // A third starts while the second still runs.
    let second = Server::start_with(&environment);
    check(&second, 1_100, "taken over from a process that runs");
    let (status, _) = send(&first, KEY, None, 5_000..5_001);
    assert!(status == 0 || status == 503, "a fenced process acknowledged: {status}");
    assert_eq!(first.wait().code(), Some(70));
    assert!(first.log.lock().unwrap().contains("storage.node"), "it says why");
    assert_eq!(send(&second, KEY, None, 1_100..1_200), (200, false));
    second.flush();
    check(&second, 1_200, "sealed after all");
}

/// The level of one key, on a node that has a disk.
fn a_key_outlives(url: &str) {
    let environment = [
        ("FLOODMARK_STORAGE__STORE_URL", url),
        ("FLOODMARK_STORAGE__NODE", "b"),
        ("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000"),
        KEY_OF_ALL,
    ];
    let mut server = Server::start_with(&environment);
    let (code, made) =
        server.command(&["key", "create", "precious", "--role", "ingest", "--acknowledgement", "object"]);
    assert_eq!(code, Some(0), "{made}");
    let key = made["key"].as_str().unwrap().to_owned();
    assert_eq!(send(&server, KEY, None, 0..100), (200, false));
    assert_eq!(send(&server, &key, None, 100..300), (200, false));
    check(&server, 300, "both levels are readable");
    server.kill();
    drop(server);
    let server = Server::start_with(&environment);
    check(&server, 200, "the level durable is the disk's, the level object outlives it");
    server.flush();
    check(&server, 200, "sealed");
}

#[test]
fn a_log_in_a_folder_outlives_its_machine() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/store", folder.path().display());
    outlives(&url);
    a_key_outlives(&format!("{url}/of-a-key"));
}

#[test]
fn a_log_in_the_bucket_outlives_its_machine() {
    for variable in ["FLOODMARK_BUCKET_URL", "FLOODMARK_AZURE_URL"] {
        let Some(url) = fresh(variable) else { continue };
        outlives(&url);
        a_key_outlives(&format!("{url}/of-a-key"));
    }
}
