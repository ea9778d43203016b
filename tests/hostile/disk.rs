//! What lies in the data folder: whose it is, what an edit or a flipped bit of it may do, what a start reads.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{KEY, Server};

const NDJSON: &str = "application/x-ndjson";

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        found.push(path.clone());
        if path.is_dir() && !path.is_symlink() {
            found.extend(files(&path));
        }
    }
    found.sort();
    found
}

fn events(count: u64) -> String {
    (0..count).map(|n| format!("{{\"id\":\"e{n}\",\"n\":{n},\"message\":\"message {n}\"}}\n")).collect()
}

#[test]
fn the_data_folder_is_its_owners_alone() {
    let server = Server::start();
    server.post("/api/v1/events", NDJSON, events(10).as_bytes());
    server.flush();
    server.post("/api/v1/events", NDJSON, events(10).as_bytes());
    let mut open = Vec::new();
    for path in files(server.data()) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            open.push(format!("{mode:o} {}", path.display()));
        }
    }
    assert!(open.is_empty(), "others may look at {open:#?}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

/// A flipped bit in a file of rows: named, and never an answer with other rows.
#[test]
fn a_flipped_bit_is_never_answered() {
    let mut server = Server::start();
    server.post("/api/v1/events", NDJSON, events(200).as_bytes());
    server.flush();
    let right = server.sql("SELECT id, n, message FROM events ORDER BY n");
    server.terminate();
    let parquet = files(&server.data().join("store/tenant/default/events"));
    let parquet =
        parquet.iter().find(|path| path.extension().is_some_and(|extension| extension == "parquet")).unwrap();
    let bytes = fs::read(parquet).unwrap();
    let mut told = 0;
    let flips = 16;
    for flip in 0..flips {
        let at = (bytes.len() - 1) * flip / (flips - 1);
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (flip % 8);
        fs::write(parquet, &flipped).unwrap();
        server.restart();
        let body = br#"{"query":"SELECT id, n, message FROM events ORDER BY n"}"#;
        let answer = server.post("/api/v1/sql", "application/json", body);
        if answer.status == 200 {
            assert_eq!(answer.json()["rows"].as_array(), Some(&right), "byte {at} of {}", bytes.len());
        } else {
            told += 1;
        }
        assert!(server.ended().is_none(), "byte {at} ends the process");
        assert_eq!(server.post("/api/v1/sql", "application/json", b"{\"query\":\"select 1\"}").status, 200);
        server.kill();
    }
    println!("{told} of {flips} flips were told");
    assert!(told > 0, "no flip is told");
}

/// Who may write to the bucket makes no operator of a key.
#[test]
fn an_edited_record_of_the_system_is_refused() {
    let mut server = Server::start();
    let acme = server.tenant("acme");
    let ingest = server.key(&acme, "ingest");
    server.terminate();
    let keys = server.data().join("store/system/keys");
    let mut edited = String::new();
    for path in files(&keys) {
        let text = fs::read_to_string(&path).unwrap();
        if text.contains("\"ingest\"") {
            fs::write(&path, text.replace("\"ingest\"", "\"operator\"")).unwrap();
            edited = path.file_stem().unwrap().to_string_lossy().into_owned();
        }
    }
    assert!(!edited.is_empty(), "the record of an ingest key is found");
    match server.try_restart() {
        Ok(()) => {
            let asked = server.send(&ingest, "GET", "/api/v1/tenants", &[], b"");
            assert!(matches!(asked.status, 401 | 403), "{} {}", asked.status, asked.text());
            assert!(server.log.lock().unwrap().contains(&edited), "the object is named");
        }
        Err(status) => {
            assert!(matches!(status.code(), Some(65 | 78)), "{status}");
            assert!(server.refused().contains(&edited), "the object is named");
        }
    }
}

/// Copies a folder with everything in it.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    let done = Command::new("cp").arg("-a").arg(from.join(".")).arg(to.path()).status();
    assert!(done.unwrap().success());
    to
}

/// Starts on a folder that somebody has changed; gives the server, or how it ended and what it said.
fn start(data: &Path) -> Result<Server, (Option<i32>, String)> {
    let begun = Instant::now();
    let server = Server::try_start_on(data, &[]);
    assert!(begun.elapsed() < Duration::from_secs(60), "a start hangs");
    server.map_err(|(status, told)| (status.code(), told))
}

/// A start follows no link, reads nothing whole that has no bound, hangs on nothing, and names what is wrong.
#[test]
fn odd_files_are_named_and_do_not_hang_a_start() {
    let mut server = Server::start_with(&[
        ("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000"),
        ("FLOODMARK_STORAGE__WAL_SEGMENT_BYTES", "1048576"),
    ]);
    server.post("/api/v1/events", NDJSON, events(50).as_bytes());
    server.flush();
    let headers = [("Content-Type", NDJSON), ("Idempotency-Key", "a")];
    server.send(KEY, "POST", "/api/v1/events", &headers, events(50).as_bytes());
    server.kill();
    let victim = tempfile::tempdir().unwrap();
    let precious = victim.path().join("precious");
    let is_whole = || fs::read(&precious).unwrap() == b"precious";
    let on = |change: &dyn Fn(&Path)| {
        let folder = copy(server.data());
        fs::write(&precious, "precious").unwrap();
        change(folder.path());
        (start(folder.path()), folder)
    };
    for name in ["reserve", "lock"] {
        let (_started, _folder) = on(&|data| {
            let _ = fs::remove_file(data.join(name));
            symlink(&precious, data.join(name)).unwrap();
        });
        assert!(is_whole(), "{name} follows a link");
    }
    // Sparse: eight gigabytes that are not there. Bounded memory, and everything acknowledged.
    let (started, _folder) = on(&|data| {
        let lane = files(&data.join("wal"))
            .into_iter()
            .find(|path| path.extension().is_some_and(|one| one == "wal"))
            .unwrap();
        let name = format!("{:016}.wal", 900_000);
        fs::File::create(lane.parent().unwrap().join(name)).unwrap().set_len(8 << 30).unwrap();
    });
    if let Ok(server) = started {
        assert_eq!(server.count("SELECT count(*) FROM events"), 100);
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < 1 << 20, "{peak} KiB for an empty segment");
    }
    for junk in ["../../../etc", "", "zz", &"a".repeat(100_000)] {
        let (started, _folder) = on(&|data| fs::write(data.join("wal/node"), junk).unwrap());
        match started {
            Ok(server) => assert_eq!(server.count("SELECT count(*) FROM events"), 100, "{junk:.20}"),
            Err((code, told)) => {
                assert!(matches!(code, Some(65 | 78)) && told.contains("node"), "{code:?} {told:.400}");
            }
        }
    }
    let (started, _folder) = on(&|data| {
        let lane = data.join("wal/0");
        fs::write(lane.join(format!("{:016}.keys", 0)), "{\"tenant\":\"default\"\nnot json\n").unwrap();
    });
    match started {
        Ok(server) => assert_eq!(server.count("SELECT count(*) FROM events"), 100),
        Err((code, told)) => assert!(code == Some(65) && told.contains(".keys"), "{code:?} {told:.400}"),
    }
    let (started, _folder) = on(&|data| {
        let log = data.join("store/tenant/default/events/_delta_log");
        let commit =
            files(&log).into_iter().find(|path| path.extension().is_some_and(|one| one == "json")).unwrap();
        let length = fs::metadata(&commit).unwrap().len();
        fs::File::options().write(true).open(&commit).unwrap().set_len(length / 2).unwrap();
    });
    match started {
        Ok(server) => assert_eq!(server.count("SELECT count(*) FROM events"), 100, "no row is lost silently"),
        Err((code, told)) => assert!(code == Some(65) && told.contains("00000000"), "{code:?} {told:.400}"),
    }
    // A pipe where an object should be: nobody waits for its other end.
    let (started, _folder) = on(&|data| {
        let pipe = data.join("store/system/keys/pipe.json");
        fs::create_dir_all(pipe.parent().unwrap()).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    });
    if let Ok(server) = started {
        assert_eq!(server.get("/api/v1/keys").status, 200);
    }
    // A byte beyond the synced end is a torn tail, and no more.
    let (started, _folder) = on(&|data| {
        let segment = files(&data.join("wal/0"))
            .into_iter()
            .rfind(|path| path.extension().is_some_and(|one| one == "wal"))
            .unwrap();
        let file = fs::File::options().write(true).open(&segment).unwrap();
        file.write_all_at(b"torn", fs::metadata(&segment).unwrap().len() - 4).unwrap();
    });
    assert_eq!(
        started
            .map_err(|(code, told)| format!("{code:?} {told}"))
            .unwrap()
            .count("SELECT count(*) FROM events"),
        100
    );
}
