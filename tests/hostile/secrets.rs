//! Secrets and people in places that were not looked at: ids of requests, odd spellings.

use std::fs;
use std::path::Path;

use super::{Body, NDJSON, Stage};

/// Whether a file below a folder holds these bytes.
fn holds(folder: &Path, needle: &[u8]) -> Option<String> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let found = if path.is_dir() {
            holds(&path, needle)
        } else {
            let bytes = fs::read(&path).unwrap_or_default();
            bytes.windows(needle.len()).any(|window| window == needle).then(|| path.display().to_string())
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// An admin's key as correlation id, an e-mail address as idempotency key: neither in log, rows, disk nor echo.
#[test]
fn ids_of_requests_that_are_secrets_are_kept_nowhere() {
    let mut stage = Stage::new(&[("FLOODMARK_LOG", "debug")]);
    let secret = stage.evil.clone();
    let address = "anna.secret@bank.example";
    let send = |stage: &Stage| {
        let headers = [
            ("Content-Type", NDJSON),
            ("X-Correlation-ID", secret.as_str()),
            ("X-Request-ID", "4111111111111111"),
            ("Idempotency-Key", address),
        ];
        stage.ask(&stage.evil, "POST", "/api/v1/events", &headers, b"{\"n\":1}\n")
    };
    let first = send(&stage);
    assert_eq!(first.status, 200);
    assert_eq!(send(&stage).header("idempotency-replayed"), Some("true"), "the key still counts");
    assert!(!first.head.contains(&secret), "echoed: {}", first.head);
    let refused = stage.ask("no-such-key", "GET", "/api/v1/events", &[("X-Correlation-ID", &secret)], b"");
    assert!(!refused.head.contains(&secret) && !String::from_utf8_lossy(&refused.body).contains(&secret));
    let rows = stage.sql("SELECT correlation_id, id FROM events");
    assert!(!String::from_utf8_lossy(&rows.body).contains(&secret));
    for flushed in [false, true] {
        let log = stage.bounded.server.log.lock().unwrap().clone();
        assert!(!log.contains(&secret) && !log.contains(address), "in the log");
        for needle in [secret.as_bytes(), address.as_bytes()] {
            if let Some(file) = holds(stage.bounded.server.data(), needle) {
                panic!("{file} holds {:?}", String::from_utf8_lossy(needle));
            }
        }
        if !flushed {
            stage.flush();
        }
    }
    stage.bounded.server.kill();
    stage.bounded.server.restart();
    assert_eq!(send(&stage).header("idempotency-replayed"), Some("true"), "also after kill -9");
    assert_eq!(stage.count("SELECT count(*) FROM events"), 1);
}

/// Cards, addresses and passwords in spellings that hide them.
#[test]
fn spellings_that_hide_a_secret_do_not() {
    let stage = Stage::new(&[]);
    let cases = [
        ("thin spaces", "card 4111\u{2009}1111\u{2009}1111\u{2009}1111 paid", "1111\u{2009}1111"),
        ("figure spaces", "card 4111\u{2007}1111\u{2007}1111\u{2007}1111 paid", "1111\u{2007}1111"),
        ("dashes with spaces", "card 4111 - 1111 - 1111 - 1111 paid", "1111 - 1111"),
        ("slashes", "card 4111/1111/1111/1111 paid", "1111/1111"),
        ("fullwidth digits", "card ４１１１１１１１１１１１１１１１ paid", "１１１１１１"),
        ("arabic digits", "card ٤١١١١١١١١١١١١١١١ paid", "١١١١١١"),
        ("invisible characters", "card 4111\u{200b}1111\u{200b}1111\u{200b}1111 paid", "1111\u{200b}1111"),
        ("an escaped at", "mail anna\\u{40}bank.example", "bank.example"),
        ("a percent at", "mail anna%u0040bank.example", "bank.example"),
        ("an option", "mysql -u root -pS3cr3tW0rd db", "S3cr3tW0rd"),
        ("curl", "curl -u admin:S3cr3tW0rd https://h.example/", "S3cr3tW0rd"),
        ("yaml on the next line", "password:\n  S3cr3tW0rd\nuser: a", "S3cr3tW0rd"),
        ("base32", "token MFXG4YKAMJQW42ZOMV4GC3LQNRSQ====", "MFXG4YKAMJQW42ZOMV4GC3LQNRSQ"),
        (
            "utf-16 as hex",
            "61006e006e0061004000620061006e006b002e006500780061006d0070006c006500",
            "61006e006e0061004000",
        ),
        ("fullwidth at", "mail anna＠bank.example", "anna＠bank.example"),
    ];
    let text: String = cases
        .iter()
        .enumerate()
        .map(|(n, (_, text, _))| format!("{}\n", serde_json::json!({"n": n, "message": text})))
        .collect();
    assert_eq!(stage.send(&Body::events(text)).status, 200);
    let rows = stage.sql("SELECT n, message FROM events ORDER BY n");
    let rows: serde_json::Value = serde_json::from_slice(&rows.body).unwrap();
    let kept: Vec<&str> = cases
        .iter()
        .zip(rows["rows"].as_array().unwrap())
        .filter(|((_, _, secret), row)| row["message"].as_str().unwrap().contains(secret))
        .map(|((name, _, _), _)| *name)
        .collect();
    assert!(kept.is_empty(), "in clear: {kept:?}");
}
