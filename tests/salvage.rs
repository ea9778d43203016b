//! Rot in the write-ahead log, with the real process: a start names the place and stops; `--salvage` goes on without
//! what it names (W2, F13).

use std::time::Duration;

use crate::harness::{KEY, Server, request};

#[test]
fn a_damaged_log_stops_a_start_and_salvage_goes_on_without_what_it_names() {
    let mut server = Server::start_with(&[("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000")]);
    let bearer = format!("Bearer {KEY}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/x-ndjson")];
    for n in 0..40 {
        let body = format!("{{\"n\":{n}}}\n{{\"n\":{n}}}");
        let response = request(server.addr, "POST", "/api/v1/events", &headers, body.as_bytes()).unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }
    // A later frame marks the last one as synced.
    std::thread::sleep(Duration::from_millis(1_500));
    server.kill();

    let lanes = std::fs::read_dir(server.data().join("wal")).unwrap().filter_map(|lane| {
        let segment = lane.unwrap().path().join(format!("{:016}.wal", 1));
        std::fs::read(&segment).ok().map(|bytes| (segment, bytes))
    });
    let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let (segment, mut bytes) = lanes.max_by_key(|(_, bytes)| end(bytes)).unwrap();
    let at = end(&bytes) / 2;
    bytes[at] ^= 0x10;
    std::fs::write(&segment, &bytes).unwrap();

    assert_eq!(server.try_restart().unwrap_err().code(), Some(65), "corruption is named with 65");
    let said = server.refused();
    assert!(said.contains("is damaged: segment 1 at offset") && said.contains("--salvage"), "{said}");

    server.salvage();
    let log = server.log.lock().unwrap().clone();
    assert!(log.contains("cannot be read and is left out"), "{log}");
    assert!(log.contains("rows of this log were lost"), "what was lost is named by its rows: {log}");
    let left = server.count("SELECT count(*) FROM events");
    assert_eq!(left, 78, "one request of two rows was in the frame that rotted");
    let response = request(server.addr, "POST", "/api/v1/events", &headers, b"{\"n\":40}").unwrap();
    assert_eq!(response.status, 200);
    server.kill();
    server.restart();
    assert_eq!(server.count("SELECT count(*) FROM events"), left + 1, "the gap is known from here on");
}
