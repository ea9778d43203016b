//! Files and nothing else: whatever else stands in the place of one neither hangs nor is followed.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Disk, LocalDisk, is_odd, read_small};

fn pipe(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn what_is_no_file_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), b"text").unwrap();
    fs::create_dir(at("folder")).unwrap();
    symlink(at("file"), at("link")).unwrap();
    symlink(at("folder"), at("linked")).unwrap();
    symlink(at("nothing"), at("dangling")).unwrap();
    pipe(&at("pipe"));
    for name in ["folder", "link", "dangling", "pipe"] {
        assert!(is_odd(&LocalDisk.read(&at(name)).unwrap_err()), "{name}");
        assert!(is_odd(&LocalDisk.read_at(&at(name), &mut [0; 4], 0).unwrap_err()), "{name}");
        assert!(is_odd(&LocalDisk.len(&at(name)).unwrap_err()), "{name}");
        assert!(is_odd(&LocalDisk.open(&at(name)).unwrap_err()), "{name}");
        assert!(is_odd(&LocalDisk.next_data(&at(name), 0).unwrap_err()), "{name}");
    }
    let mut names = LocalDisk.names(folder.path()).unwrap();
    names.sort();
    assert_eq!(names, ["file", "folder", "linked"]);
    assert_eq!(LocalDisk.read(&at("file")).unwrap(), b"text");
}

#[test]
fn a_small_file_is_small() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    File::create(&path).unwrap().set_len(8 << 30).unwrap();
    let error = read_small(&LocalDisk, &path, 64).unwrap_err();
    assert!(error.to_string().contains("8589934592 bytes, and 64"), "{error}");
}

#[test]
fn a_hole_is_stepped_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    File::create(&path).unwrap().set_len(8 << 30).unwrap();
    assert_eq!(LocalDisk.next_data(&path, 0).unwrap(), None);
    LocalDisk.open(&path).unwrap().write_at(b"x", 4 << 30).unwrap();
    let at = LocalDisk.next_data(&path, 0).unwrap().unwrap();
    assert!(at > 0 && at <= 4 << 30, "{at}");
    let mut bytes = [0; 4];
    assert_eq!(LocalDisk.read_at(&path, &mut bytes, 4 << 30).unwrap(), 4);
    assert_eq!(&bytes, b"x\0\0\0");
    assert_eq!(LocalDisk.read_at(&path, &mut bytes, (8 << 30) - 2).unwrap(), 2, "its end");
}
