//! The restore drill: a backup under load, the engine lost, a new folder of the backup (F39; A3).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::harness::{Server, floodmark};
use crate::kill::check::everything;
use crate::kill::client::{HopelessOnPanic, Load, send};
use crate::kill::ledger::{Account, BATCH};

/// Seals and rotations often, so that the backup meets them; time for a check of everything.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("FLOODMARK_STORAGE__SEAL_AGE_MS", "300"),
    ("FLOODMARK_STORAGE__WAL_SEGMENT_BYTES", "1048576"),
    ("FLOODMARK_QUERY__TIME_MAX_MS", "600000"),
];

/// Runs the clients until `until` returns.
fn load<R>(
    accounts: &[Mutex<Account>],
    server: &mut Server,
    until: impl FnOnce(&mut Server, &Load) -> R,
) -> R {
    let load = Load::new(server.addr);
    std::thread::scope(|scope| {
        let _ends = HopelessOnPanic(&load);
        for account in accounts {
            scope.spawn(|| send(account, &load));
        }
        until(server, &load)
    })
}

fn look(accounts: &[Mutex<Account>]) -> Vec<Account> {
    accounts.iter().map(|account| account.lock().unwrap().clone()).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn restore(from: &Path, data: &Path) -> (Option<i32>, String) {
    floodmark(&["restore", "--from", text(from), "--data", text(data)])
}

/// One data file of a backup.
fn some_segment(folder: &Path) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if let Some(found) = some_segment(&path) {
                return Some(found);
            }
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            return Some(path);
        }
    }
    None
}

#[test]
fn a_backup_under_load_restores_what_was_acknowledged_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (out, data) = (folder.path().join("backup"), folder.path().join("restored"));
    let mut server = Server::start_with(&ENVIRONMENT);
    let accounts = [("keyed0", true), ("keyed1", true), ("bare0", false)]
        .map(|(name, is_declared)| Mutex::new(Account::new(name.to_owned(), is_declared)));
    let before = load(&accounts, &mut server, |server, load| {
        std::thread::sleep(Duration::from_millis(1_500));
        let before = look(&accounts);
        let arguments = ["backup", "--with-master-key", "--data", text(server.data()), "--out", text(&out)];
        let (code, printed) = floodmark(&arguments);
        assert_eq!(code, Some(0), "{printed}");
        print!("{printed}");
        std::thread::sleep(Duration::from_millis(300));
        server.kill();
        load.is_hopeless.store(true, Ordering::Relaxed);
        before
    });
    let sent = look(&accounts);
    assert!(
        before.iter().zip(&sent).all(|(before, sent)| before.batches > 0 && before.batches < sent.batches)
    );
    drop(server);

    let (code, printed) = restore(&out, &data);
    assert_eq!(code, Some(0), "{printed}");
    print!("{printed}");
    let mut server = Server::start_on(&data, &ENVIRONMENT);
    everything(&server, &before, false).unwrap();

    // A client that lost every answer since sends it all again: what the backup has is known by its key, the rest is new.
    let again =
        before.iter().filter(|account| account.is_declared).cloned().map(Mutex::new).collect::<Vec<_>>();
    load(&again, &mut server, |_, _| {
        let is_behind = || {
            let again = look(&again);
            again.iter().zip(&sent).any(|(again, sent)| again.batches <= sent.batches)
        };
        while is_behind() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let first = ("keyed0", BATCH);
    let body: String = (0..first.1).map(|n| format!("{{\"source\":\"{}\",\"n\":{n}}}\n", first.0)).collect();
    let headers = [("Content-Type", "application/x-ndjson"), ("Idempotency-Key", "keyed0-0")];
    let replayed = server.send(crate::harness::KEY, "POST", "/api/v1/events", &headers, body.as_bytes());
    assert_eq!((replayed.status, replayed.header("idempotency-replayed")), (200, Some("true")));
    for _ in 0..2 {
        everything(&server, &look(&again), true).unwrap();
        server.flush();
    }
    refusals(folder.path(), &out, &data);
}

/// A used folder, a flipped byte and an interrupted backup.
fn refusals(folder: &Path, out: &Path, data: &Path) {
    let new = folder.join("new");
    assert_eq!(restore(out, data).0, Some(1), "a data folder in use is refused");
    let segment = some_segment(out).expect("something was sealed");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let name = text(segment.strip_prefix(out).unwrap()).to_owned();
    for (code, printed) in [restore(out, &new), floodmark(&["backup", "--check", text(out)])] {
        assert_eq!(code, Some(65), "{printed}");
        assert!(printed.contains(&name), "{printed}");
    }
    assert!(!new.exists(), "nothing was written");
    bytes[middle] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    assert_eq!(floodmark(&["backup", "--check", text(out)]).0, Some(0));
    fs::remove_file(out.join("manifest.b3")).unwrap();
    let (code, printed) = restore(out, &new);
    assert_eq!(code, Some(65), "{printed}");
    assert!(printed.contains("incomplete"), "{printed}");
}
