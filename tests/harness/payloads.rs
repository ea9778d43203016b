//! Where the real payloads are, and what to say where they are not.

use std::io::Read;
use std::path::PathBuf;

/// The folder of the shared payloads; `None`, said aloud, where it is absent.
pub fn shared_folder() -> Option<PathBuf> {
    let root = std::env::var_os("FLOODMARK_SHARED_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    if !root.exists() {
        skipped("the real payloads are not at hand: set FLOODMARK_SHARED_DATA to their folder");
        return None;
    }
    Some(root)
}

/// A file of the shared payloads, inflated where it is stored as zstd; `None`, said aloud, where the folder is
/// absent.
pub fn shared_data(path: &str) -> Option<Vec<u8>> {
    let file = shared_folder()?.join(path);
    if !file.exists() {
        skipped(&format!("{path} is not among the real payloads"));
        return None;
    }
    let stored = std::fs::read(&file).expect("a file that exists reads");
    if path.ends_with(".zst") {
        let mut inflated = Vec::new();
        zstd::Decoder::new(&stored[..]).unwrap().read_to_end(&mut inflated).unwrap();
        return Some(inflated);
    }
    Some(stored)
}

/// Says plainly that something was not tried.
pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
