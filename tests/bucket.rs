//! The same life on a bucket: acknowledged, sealed, killed, read back. Needs an S3-compatible server, which
//! `.ci/bucket` installs and starts.

use crate::harness::{Server, skipped};

#[test]
fn a_bucket_holds_what_a_folder_holds() {
    let Ok(bucket) = std::env::var("FLOODMARK_BUCKET_URL") else {
        skipped("no bucket is at hand: set FLOODMARK_BUCKET_URL (s3://…) and AWS_*, or run .ci/bucket");
        return;
    };
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let url = format!("{bucket}/{started}");
    let mut server = Server::start_with(&[("FLOODMARK_STORAGE__STORE_URL", url.as_str())]);
    let send = |server: &Server, from: u64, to: u64| {
        let lines: String = (from..to).map(|n| format!("{{\"event_type\":\"b\",\"n\":{n}}}\n")).collect();
        let response = server.post("/api/v1/events", "application/x-ndjson", lines.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
    };
    let check = |server: &Server, rows: i64, when: &str| {
        let found = &server.sql("SELECT count(*) AS rows, count(DISTINCT n) AS once FROM events")[0];
        assert_eq!((found["rows"].as_i64(), found["once"].as_i64()), (Some(rows), Some(rows)), "{when}");
    };
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
    assert!(!server.data().join("store").exists(), "sealed rows went to the folder, not to the bucket");
}
