//! Calls of the kernel that fail under the log and the store: nothing that failed is a 2xx, nothing acknowledged is lost
//! (W3, F14; G5).
//!
//! `strace` fails the n-th call of a kind; writes to files are failed or shortened by a shim below the C library, which is
//! compiled here; `FLOODMARK_SYSCALL_CASES=60` tries more cases.

mod matrix;

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{KEY, Server, request, skipped};

/// The n-th call of one kind fails with an error number, or, where that is 0, writes half of what it was given. Only regular
/// files count: what wakes a thread is written too, and does not fail.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
static int calls = 0;
static int is_hit(const char *name, int fd) {
    const char *call = getenv("FAIL_CALL"), *when = getenv("FAIL_WHEN");
    struct stat file;
    if (!call || !when || strcmp(call, name) || fstat(fd, &file) || !S_ISREG(file.st_mode)) return 0;
    return __sync_add_and_fetch(&calls, 1) == atoi(when);
}
static int error_number(void) { const char *how = getenv("FAIL_ERRNO"); return how ? atoi(how) : EIO; }
int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (is_hit("fdatasync", fd)) { errno = error_number(); return -1; }
    return real(fd);
}
ssize_t write(int fd, const void *from, size_t count) {
    ssize_t (*real)(int, const void *, size_t) = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (is_hit("write", fd)) {
        if (error_number()) { errno = error_number(); return -1; }
        count = count > 1 ? count / 2 : count;
    }
    return real(fd, from, count);
}
ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    ssize_t (*real)(int, const void *, size_t, off64_t) =
        (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    if (is_hit("pwrite64", fd)) {
        if (error_number()) { errno = error_number(); return -1; }
        count = count > 1 ? count / 2 : count;
    }
    return real(fd, from, count, at);
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
        let mut server =
            Server::start_with(&[("LD_PRELOAD", library), ("FAIL_CALL", "fdatasync"), ("FAIL_WHEN", nth)]);
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
