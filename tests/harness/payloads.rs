//! Where the real payloads are, and what to say where they are not.

use std::io::Read;
use std::path::PathBuf;

/// A file of the shared payloads, inflated where it is stored as zstd; `None`, said aloud, where the folder is
/// absent.
pub fn shared_data(path: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("FLOODMARK_SHARED_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    let file = root.join(path);
    if !file.exists() {
        skipped(&format!("{path} is not at hand: set FLOODMARK_SHARED_DATA to the folder with the payloads"));
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
