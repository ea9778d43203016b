//! A folder that an earlier build wrote opens, answers as it did then, and goes on (A3): whatever changes.
//!
//! `tests/fixtures/old-data/folder.tar.zst` holds a data folder as `kill -9` left it, and a backup of it;
//! `manifest.json` beside it holds what the build that wrote them answered. `old_data/make.rs` made both, with
//! `FLOODMARK_BIN=BUILD FLOODMARK_MAKE_OLD_DATA=tests/fixtures/old-data cargo test --workspace --test it -- old_data`.
//! They are never made again: a later format gets a folder of its own beside them.

mod make;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{KEY, Response, Server, floodmark};

/// Declared keys count for ever: the folder gets older than a day. Merges follow seals at once.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("FLOODMARK_STORAGE__IDEMPOTENCY_HOURS", "1000000"),
    ("FLOODMARK_STORAGE__WAL_SEGMENT_BYTES", "1048576"),
    ("FLOODMARK_STORAGE__COMPACT_FILES_MIN", "2"),
    ("FLOODMARK_STORAGE__COMPACT_QUIET_MS", "1000"),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/old-data")
}

/// What the old build answered.
struct Manifest(Value);

impl Manifest {
    fn read() -> Self {
        Self(serde_json::from_slice(&fs::read(fixtures().join("manifest.json")).unwrap()).unwrap())
    }

    fn key<'a>(&'a self, name: &'a str) -> &'a str {
        if name == "default" { KEY } else { self.0["keys"][name].as_str().unwrap() }
    }

    fn rows(&self, table: &str) -> i64 {
        self.0["rows"][table].as_i64().unwrap()
    }

    /// Asks again what was asked then.
    fn ask(&self, server: &Server, asked: &Value) -> Response {
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        let mut headers = vec![("Content-Type", text("content_type"))];
        headers.extend(asked["idempotency_key"].as_str().map(|key| ("Idempotency-Key", key)));
        headers.retain(|(_, value)| !value.is_empty());
        server.send(self.key(text("key")), text("method"), text("target"), &headers, text("body").as_bytes())
    }

    /// Every answer of then is an answer of now: each row by each route.
    fn is_answered(&self, server: &Server) {
        for asked in self.0["answers"].as_array().unwrap() {
            let answer = self.ask(server, asked);
            assert_eq!(answer.status, asked["status"], "{asked:#}: {}", answer.text());
            if let Err(what) = holds(&answer.json(), &asked["reply"], "") {
                panic!("{} {}: {what}\n{}", asked["target"], asked["body"], answer.text());
            }
        }
    }

    /// Requests under declared keys get the reply of then, and other payloads none.
    fn is_replayed(&self, server: &Server) {
        let declared = self.0["declared"].as_array().unwrap();
        assert!(declared.len() >= 4);
        for asked in declared {
            let answer = self.ask(server, asked);
            assert_eq!(answer.header("idempotency-replayed"), Some("true"), "{asked:#}: {}", answer.text());
            assert_eq!(answer.status, asked["status"]);
            let reply: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
            holds(&reply, &asked["reply"], "").unwrap();
            let mut other = asked.clone();
            other["body"] = format!("{} ", asked["body"].as_str().unwrap()).into();
            assert_eq!(self.ask(server, &other).status, 422, "{asked:#}");
        }
    }

    fn is_revoked(&self, server: &Server) {
        let key = self.key("acme_revoked");
        for (method, target) in [("POST", "/api/v1/events"), ("GET", "/api/v1/events")] {
            assert_eq!(
                server.send(key, method, target, &[], b"{}").status,
                401,
                "a revoked key stays revoked"
            );
        }
    }
}

/// Whether `now` says everything that `then` says; more is new, and no loss.
fn holds(now: &Value, then: &Value, at: &str) -> Result<(), String> {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => then.iter().try_for_each(|(key, then)| {
            holds(now.get(key).unwrap_or(&Value::Null), then, &format!("{at}/{key}"))
        }),
        (Value::Array(now), Value::Array(then)) if now.len() == then.len() => now
            .iter()
            .zip(then)
            .enumerate()
            .try_for_each(|(index, (now, then))| holds(now, then, &format!("{at}/{index}"))),
        (now, then) if now == then => Ok(()),
        (now, then) => Err(format!("{at} is {now} and was {then}")),
    }
}

fn unpack(to: &Path) {
    let packed = fs::File::open(fixtures().join("folder.tar.zst")).unwrap();
    let bytes = zstd::decode_all(packed).unwrap();
    let mut tar =
        Command::new("tar").arg("-xf").arg("-").arg("-C").arg(to).stdin(Stdio::piped()).spawn().unwrap();
    tar.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(tar.wait().unwrap().success());
}

#[test]
fn a_folder_of_an_earlier_build_opens_and_goes_on() {
    if let Some(out) = std::env::var_os("FLOODMARK_MAKE_OLD_DATA") {
        return make::make(Path::new(&out));
    }
    let manifest = Manifest::read();
    let folder = tempfile::tempdir().unwrap();
    unpack(folder.path());
    let mut server = Server::start_on(&folder.path().join("data"), &ENVIRONMENT);
    manifest.is_answered(&server);
    manifest.is_replayed(&server);
    manifest.is_revoked(&server);

    // What the old build wrote is sealed, merged, and written beside.
    server.flush();
    manifest.is_answered(&server);
    goes_on(&manifest, &mut server);
    server.kill();
    restores(&manifest, folder.path());
}

/// Writes to every table, seals, merges, is killed and starts again: the old rows and the new ones are there.
fn goes_on(manifest: &Manifest, server: &mut Server) {
    let rounds = 3;
    for round in 0..rounds {
        make::send_more(server, manifest.key("acme_ingest"), round);
        server.flush();
    }
    let merges = |server: &Server| {
        let metrics = server.get("/metrics").text();
        let line = metrics.lines().find(|line| line.starts_with("floodmark_compactions_total "));
        line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok()).unwrap_or_default()
    };
    let begun = Instant::now();
    while merges(server) < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is merged");
        std::thread::sleep(Duration::from_millis(100));
    }
    make::send_more(server, manifest.key("acme_ingest"), rounds);
    server.kill();
    server.restart();
    for (table, each) in make::MORE {
        let expected = manifest.rows(table) + each * (i64::from(rounds) + 1);
        assert_eq!(server.count(&format!("SELECT count(*) FROM {table}")), expected, "{table}");
    }
    manifest.is_replayed(server);
    manifest.is_revoked(server);
}

/// The backup that the old build took becomes a folder of the present build.
fn restores(manifest: &Manifest, folder: &Path) {
    let (from, to) = (folder.join("backup"), folder.join("restored"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (code, told) = floodmark(&["backup", "--check", &path(&from)]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = floodmark(&["restore", "--from", &path(&from), "--data", &path(&to)]);
    assert_eq!(code, Some(0), "{told}");
    let server = Server::start_on(&to, &ENVIRONMENT);
    manifest.is_answered(&server);
    manifest.is_replayed(&server);
    manifest.is_revoked(&server);
}
