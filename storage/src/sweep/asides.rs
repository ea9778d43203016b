//! What puts into a local folder left half-written: `name#uuid` beside the object that never came to be.
//!
//! A put takes seconds. What two sweeps see, an hour apart, belongs to a process that died.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::clock_trust;

/// Asides that are remembered at once (B1).
const ASIDES_MAX: usize = 10_000;

/// Deletes the asides below `root` that an earlier sweep saw already; returns how many.
///
/// What cannot be read or deleted is left to the next sweep.
pub fn sweep(root: &Path, seen: &mut HashMap<PathBuf, Instant>, at: Instant) -> u64 {
    let mut before = std::mem::take(seen);
    let mut deleted = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if is_aside(&path) && seen.len() < ASIDES_MAX {
                let first = before.remove(&path).unwrap_or(at);
                if at.saturating_duration_since(first) >= clock_trust::APART && fs::remove_file(&path).is_ok()
                {
                    deleted += 1;
                } else {
                    seen.insert(path, first);
                }
            }
        }
    }
    deleted
}

/// Whether a file is one that `storage/src/store/folder.rs` writes beside its target.
fn is_aside(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.rsplit_once('#').is_some_and(|(_, id)| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Instant;

    use super::sweep;
    use crate::clock_trust;

    // B1: those beyond are looked at once these are gone.
    #[test]
    fn few_asides_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        for at in 0..10_010 {
            std::fs::write(folder.path().join(format!("a#{at}")), b"").unwrap();
        }
        let (mut seen, at) = (HashMap::new(), Instant::now());
        assert_eq!(sweep(folder.path(), &mut seen, at), 0);
        assert_eq!(seen.len(), 10_000);
        assert_eq!(sweep(folder.path(), &mut seen, at + clock_trust::APART), 10_000);
        assert_eq!(seen.len(), 10);
    }
}
