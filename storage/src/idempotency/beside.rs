//! Declared keys in files beside a log: they outlive the segments of their frames.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, is_odd, read_small, replace};
use crate::record::Tenant;
use crate::wal::frame::IdempotencyText;
use crate::wal::log::Remembered;
use crate::writer::Idempotency;

#[derive(Serialize, Deserialize)]
struct Line {
    tenant: String,
    at_ns: i64,
    #[serde(flatten)]
    idempotency: IdempotencyText,
}

/// Writes the keys of a segment to `{segment}.keys` beside it, durably; nothing where there are none.
///
/// # Errors
/// As writing a file.
pub fn keep_beside(disk: &dyn Disk, folder: &Path, segment: u64, keys: &[Remembered]) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    replace(disk, &folder.join(format!("{segment:016}.keys")), &encode_lines(keys))
}

/// Keys as lines of JSON.
pub fn encode_lines(keys: &[Remembered]) -> Vec<u8> {
    let mut text = Vec::new();
    for (tenant, at_ns, idempotency) in keys {
        let line = Line {
            tenant: tenant.to_string(),
            at_ns: *at_ns,
            idempotency: IdempotencyText::from(&**idempotency),
        };
        serde_json::to_writer(&mut text, &line).expect("plain data becomes JSON");
        text.push(b'\n');
    }
    text
}

/// Reads what [`encode_lines`] made; returns how many lines were something else, too.
///
/// A line that does not read costs its key and no more: a client that sends the same again is stored twice at worst, and
/// every acknowledged row is where it was. It is named by `name`, its number and where it begins.
pub fn decode_lines(name: &str, text: &[u8]) -> (Vec<Remembered>, u64) {
    let (remembered, Broken { count, named }) = read_lines(text);
    for (line, offset) in named {
        tracing::error!(file = name, line, offset, "no declared key stands here: it is passed over");
    }
    (remembered, count)
}

/// Lines that are no keys.
#[derive(Debug, Default)]
struct Broken {
    count: u64,
    /// The first of them: their numbers, and where they begin.
    named: Vec<(usize, usize)>,
}

fn read_lines(text: &[u8]) -> (Vec<Remembered>, Broken) {
    let read = |line: &[u8]| {
        let line: Line = serde_json::from_slice(line).ok()?;
        let tenant = Tenant::stored(&line.tenant).ok()?;
        Some((tenant, line.at_ns, Arc::new(Idempotency::try_from(line.idempotency).ok()?)))
    };
    let (mut remembered, mut broken, mut at) = (Vec::new(), Broken::default(), 0);
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let offset = at;
        at += line.len() + 1;
        if line.is_empty() {
            continue;
        }
        match read(line) {
            Some(key) => remembered.push(key),
            None => {
                broken.count += 1;
                if broken.named.len() < NAMED_MAX {
                    broken.named.push((index + 1, offset));
                }
            }
        }
    }
    (remembered, broken)
}

/// Lines of a file that are named when they do not read; the others are counted.
const NAMED_MAX: usize = 10;

/// Bytes of one file of keys that a start reads; what stands beyond is no key of ours. Chosen: far above what all
/// tenants' keys may take.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Files of keys beside a log above which a start writes one instead. Chosen: a handful of reads.
const FILES_MAX: usize = 8;

/// Reads the keys kept beside a log, in the order they were acknowledged in.
///
/// However old they say they are: a clock that jumped while nothing ran must not make the log forget. They
/// age anew from the start, and their number is bounded.
///
/// Returns how many lines were no keys, too.
///
/// # Errors
/// As reading files.
pub fn read_beside(disk: &dyn Disk, folder: &Path) -> io::Result<(Vec<Remembered>, u64)> {
    let (mut remembered, mut broken) = (Vec::new(), 0);
    for (_, path) in files_beside(disk, folder)? {
        let text = match read_small(disk, &path, FILE_BYTES_MAX) {
            Err(error) if is_odd(&error) || error.kind() == io::ErrorKind::FileTooLarge => {
                tracing::error!(path = %path.display(), %error, "no file of declared keys: it is left alone");
                broken += 1;
                continue;
            }
            text => text?,
        };
        let (keys, not_keys) = decode_lines(&path.to_string_lossy(), &text);
        remembered.extend(keys);
        broken += not_keys;
    }
    Ok((remembered, broken))
}

/// The file that many are gathered in. Segments count from 1: a trim never writes over it.
const GATHERED: u64 = 0;

/// Replaces many files of keys beside a log by one that holds the last `keys_max` of each tenant, durably.
///
/// `remembered` is what [`read_beside`] gave. The segment of a file that goes may still be there: its keys are written
/// anew when it is trimmed.
///
/// # Errors
/// As writing and deleting files; every key is in a file all the while.
pub fn gather_beside(
    disk: &dyn Disk,
    folder: &Path,
    remembered: &[Remembered],
    keys_max: usize,
) -> io::Result<()> {
    let files = files_beside(disk, folder)?;
    if files.len() <= FILES_MAX {
        return Ok(());
    }
    let mut counts: HashMap<&Tenant, usize> = HashMap::new();
    let mut kept: Vec<Remembered> = Vec::new();
    for key in remembered.iter().rev() {
        let count = counts.entry(&key.0).or_default();
        *count += 1;
        if *count <= keys_max {
            kept.push(key.clone());
        }
    }
    kept.reverse();
    keep_beside(disk, folder, GATHERED, &kept)?;
    for (number, path) in &files {
        if *number != GATHERED {
            disk.remove(path)?;
        }
    }
    disk.sync_folder(folder)
}

/// Files of keys by the segment they are of, rising.
fn files_beside(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files: Vec<_> = disk
        .names(folder)?
        .into_iter()
        .filter_map(|name| {
            let number: u64 = name.strip_suffix(".keys")?.parse().ok()?;
            (name == format!("{number:016}.keys")).then(|| (number, folder.join(&name)))
        })
        .collect();
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{gather_beside, keep_beside, read_beside, read_lines};
    use crate::disk::LocalDisk;
    use crate::fixture::OddDisk;
    use crate::idempotency::in_order;
    use crate::record::Tenant;
    use crate::writer::Idempotency;

    fn done(key: &str) -> Arc<Idempotency> {
        Arc::new(Idempotency { key: key.into(), fingerprint: [7; 16], status: 200, reply: (*b"{}").into() })
    }

    #[test]
    fn keys_outlive_their_segment() {
        let folder = tempfile::tempdir().unwrap();
        let tenant = Tenant::parse("acme").unwrap();
        keep_beside(
            &LocalDisk,
            folder.path(),
            3,
            &[(tenant.clone(), 50, done("a")), (tenant.clone(), 60, done("b"))],
        )
        .unwrap();
        let both = vec![(tenant.clone(), 50, done("a")), (tenant, 60, done("b"))];
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap().0, both);
        gather_beside(&LocalDisk, folder.path(), &both, 1).unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap().0, both, "few files stay as they are");
    }

    #[test]
    fn many_files_of_keys_become_one() {
        let folder = tempfile::tempdir().unwrap();
        let tenant = Tenant::parse("acme").unwrap();
        for number in 1..=20 {
            let key = (tenant.clone(), i64::try_from(number).unwrap(), done(&format!("k{number}")));
            keep_beside(&LocalDisk, folder.path(), number, &[key]).unwrap();
        }
        let (all, _) = read_beside(&LocalDisk, folder.path()).unwrap();
        gather_beside(&LocalDisk, folder.path(), &all, 15).unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap().0, all[5..]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// A kill between a segment's keys and its end has it trimmed once more behind the next start.
    #[test]
    fn a_segment_that_is_trimmed_once_more_costs_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let tenant = Tenant::parse("acme").unwrap();
        let key = |number: u64| (tenant.clone(), number.cast_signed(), done(&format!("k{number}")));
        for number in 1..=20 {
            keep_beside(&LocalDisk, folder.path(), number, &[key(number)]).unwrap();
        }
        let all = || read_beside(&LocalDisk, folder.path()).unwrap().0;
        for _ in 0..2 {
            gather_beside(&LocalDisk, folder.path(), &all(), 100).unwrap();
            keep_beside(&LocalDisk, folder.path(), 20, &[key(20)]).unwrap();
        }
        assert_eq!(in_order(vec![all()]), (1..=20).map(key).collect::<Vec<_>>());
    }

    // B1: damage does not fill the log.
    #[test]
    fn few_lines_that_are_no_keys_are_named() {
        let (keys, broken) = read_lines("no key\n".repeat(5_000).as_bytes());
        assert_eq!((keys.len(), broken.count, broken.named.len()), (0, 5_000, 10));
        assert_eq!(broken.named[..2], [(1, 0), (2, 7)]);
    }

    // B1: a start does not read whatever stands there into memory.
    #[test]
    fn a_file_of_keys_that_is_too_long_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let key = (Tenant::parse("acme").unwrap(), 50, done("a"));
        keep_beside(&LocalDisk, folder.path(), 1, std::slice::from_ref(&key)).unwrap();
        assert_eq!(read_beside(&OddDisk::stretched(1 << 30), folder.path()).unwrap(), (vec![key], 0));
        assert_eq!(read_beside(&OddDisk::stretched((1 << 30) + 1), folder.path()).unwrap(), (Vec::new(), 1));
    }

    #[test]
    fn a_line_that_is_no_key_costs_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let tenant = Tenant::parse("acme").unwrap();
        let (a, b) = ((tenant.clone(), 50, done("a")), (tenant, 60, done("b")));
        keep_beside(&LocalDisk, folder.path(), 3, &[a.clone(), b.clone()]).unwrap();
        let path = folder.path().join(format!("{:016}.keys", 3));
        let text = std::fs::read_to_string(&path).unwrap();
        let (first, second) = text.split_once('\n').unwrap();
        std::fs::write(&path, format!("{first}\n\0\0\0\n{{}}\n{second}")).unwrap();
        std::fs::create_dir(folder.path().join(format!("{:016}.keys", 4))).unwrap();
        std::fs::write(folder.path().join("5.keys"), b"of nobody").unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap(), (vec![a.clone(), b], 3));
        std::fs::write(&path, format!("{first}\n{}", &second[..second.len() / 2])).unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap(), (vec![a], 2), "cut off");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(8 << 30).unwrap();
        assert_eq!(read_beside(&LocalDisk, folder.path()).unwrap(), (Vec::new(), 2), "sparse");
    }
}
