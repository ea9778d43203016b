//! What the server writes is its owner's alone, whatever mask it was started with.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::harness::Server;

fn modes(folder: &Path, open: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            open.push(format!("{} {mode:o}", entry.path().display()));
        }
        if metadata.is_dir() {
            modes(&entry.path(), open);
        }
    }
}

#[test]
fn nothing_it_writes_can_be_read_by_another_account() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start_on(&data, &[]);
    assert_eq!(server.post("/api/v1/events", "application/x-ndjson", b"{\"n\":1}\n").status, 200);
    server.flush();
    let mode = || std::fs::metadata(&data).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o700);
    let mut open = Vec::new();
    modes(&data, &mut open);
    assert!(open.is_empty(), "open to others:\n{}", open.join("\n"));
    // A folder from before is closed at the start.
    assert!(server.terminate().success());
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    server.restart();
    assert_eq!(mode(), 0o700);
    assert!(server.log.lock().unwrap().contains("open to other accounts"), "it says so");
}

#[test]
fn a_crash_leaves_no_core_file() {
    let server = Server::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{line}");
}
