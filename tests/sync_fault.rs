//! Calls of the kernel that fail under the log and the store: nothing that failed is a 2xx, nothing acknowledged is lost
//! (W3, F14; G5).
//!
//! One test fails the C library's `fdatasync` by a shim that is compiled here. The other has `strace` fail or shorten the
//! n-th call of each kind; `FLOODMARK_SYSCALL_CASES=60` tries more of them.

mod matrix;

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{KEY, Server, request, skipped};

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
static int calls = 0;
int fdatasync(int fd) {
    static int (*real)(int) = 0;
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *nth = getenv("FAIL_FDATASYNC");
    if (nth && __sync_add_and_fetch(&calls, 1) == atoi(nth)) { errno = EIO; return -1; }
    return real(fd);
}
"#;

fn shim(folder: &std::path::Path) -> Option<PathBuf> {
    let source = folder.join("shim.c");
    let library = folder.join("shim.so");
    std::fs::write(&source, SHIM).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .status();
    match built {
        Ok(status) if status.success() => Some(library),
        _ => {
            skipped("no C compiler at hand: the failing sync was not tried");
            None
        }
    }
}

#[test]
fn a_failed_sync_is_never_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = shim(folder.path()) else { return };
    let library = library.to_str().unwrap();
    for nth in ["1", "2", "5"] {
        let mut server = Server::start_with(&[("LD_PRELOAD", library), ("FAIL_FDATASYNC", nth)]);
        let bearer = format!("Bearer {KEY}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/x-ndjson")];
        let mut acknowledged = 0;
        for n in 0..50 {
            let body = format!("{{\"n\":{n}}}");
            match request(server.addr, "POST", "/api/v1/events", &headers, body.as_bytes()) {
                Ok(response) if response.status == 200 => acknowledged += 1,
                Ok(response) => {
                    assert_eq!(response.status, 503, "{}", response.text());
                    assert!(response.header("retry-after").is_some());
                    break;
                }
                Err(_) => break,
            }
        }
        assert_eq!(acknowledged, nth.parse::<i64>().unwrap() - 1, "each request is one sync here");
        assert_eq!(server.wait().code(), Some(70), "a sync error ends the process with 70");
        server.set_environment(&[]);
        server.restart();
        let stored = server.count("SELECT count(*) FROM events");
        // The failed one may or may not be on the disk: it was never acknowledged.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&stored),
            "{acknowledged} acknowledged, {stored} stored"
        );
    }
}
