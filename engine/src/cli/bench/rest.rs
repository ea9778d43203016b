//! What a server's tables take at rest: the bytes of the files that their last version names, and no others.

use std::fs;
use std::path::{Path, PathBuf};

use storage::{Error, ErrorKind, Result};

/// Bytes of the live files of every table in a data folder.
///
/// # Errors
/// `Kind::Unavailable` when the folder or a table does not read; `Kind::Corrupt` when a table's log cannot be.
pub async fn live_bytes(data: &Path) -> Result<u64> {
    let mut bytes = 0;
    for tenant in folders(&data.join("store/tenant"))? {
        for table in folders(&tenant)? {
            let mut told = Vec::new();
            match storage::inspect::table(&table, &mut told).await {
                // Reports lie beside the tables.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                outcome => outcome?,
            }
            bytes += bytes_of(&String::from_utf8_lossy(&told)).ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, format!("table {} is told otherwise", table.display()))
            })?;
        }
    }
    Ok(bytes)
}

/// The folders of a folder; none where it is not there yet.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Error::new(ErrorKind::Unavailable, "a folder does not read").with_source(error));
        }
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

/// The bytes in `events, version 3: 20 rows, 1234 bytes in 2 files`.
fn bytes_of(told: &str) -> Option<u64> {
    let (before, _) = told.lines().next()?.split_once(" bytes in ")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::bytes_of;

    #[test]
    fn the_first_line_tells_the_live_bytes() {
        assert_eq!(
            bytes_of("events, version 3: 20 rows, 1234 bytes in 2 files\ntransaction a: 1"),
            Some(1234)
        );
        assert_eq!(bytes_of("nothing"), None);
    }

    #[test]
    fn a_folder_without_tables_takes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("store/tenant/acme/reports")).expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(runtime.block_on(super::live_bytes(folder.path())).expect("it reads"), 0);
    }
}
