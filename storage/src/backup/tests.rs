//! Backups against what goes wrong with them: interruption, damage, a folder in use, a path that leads out.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::{check, restore, take};
use crate::deployment::Storage;
use crate::error::Kind as ErrorKind;
use crate::latency::Measurement;
use crate::options::Options;
use crate::reader::HotRows;
use crate::record::{Clean, Dataset, Draft, Field, Kind, TableId, Tenant};
use crate::writer::{Idempotency, Known};

fn now() -> i64 {
    1_700_000_000_000_000_000
}

fn measure(_: Kind, _: &RecordBatch) -> Measurement {
    Measurement::default()
}

fn table(dataset: &str) -> TableId {
    TableId::new(Tenant::parse("acme").unwrap(), Dataset::parse(dataset).unwrap())
}

fn chunk(rows: i64) -> Clean {
    let mut draft = Draft::new(Kind::Events);
    for n in 0..rows {
        draft.begin_row();
        draft.set_int(Field::TimeNs, now() + n);
        draft.set_int(Field::ObservedNs, now());
        draft.set_text(Field::Source, "s");
        draft.end_row();
    }
    Clean::attest(&mut draft, 1)
}

fn key(name: &str) -> Idempotency {
    Idempotency { key: name.into(), fingerprint: [1; 16], status: 200, reply: (*b"{}").into() }
}

fn options(data: &Path) -> Options {
    let seal_age_ms = 3_600_000;
    Options { data: data.to_owned(), seal_age_ms, wal_segment_bytes: 1 << 20, ..Options::default() }
}

async fn open(data: &Path) -> Arc<Storage> {
    Storage::open(options(data), measure, now, |_| ()).await.unwrap()
}

fn rows(storage: &Storage, dataset: &str) -> (u64, usize) {
    let snapshot = storage.snapshot(&table(dataset)).unwrap();
    let hot = snapshot.hot.iter().map(HotRows::num_rows).sum();
    (snapshot.files.iter().map(|file| file.rows).sum(), hot)
}

fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(async { test().await }));
}

/// A deployment with sealed and hot rows in two tables, and its backup, taken while it is open.
async fn backed_up(folder: &Path) -> Arc<Storage> {
    let storage = open(&folder.join("data")).await;
    let writer = storage.writer(0).unwrap();
    writer.append(&table("events"), chunk(3), Some(key("sealed"))).await.unwrap();
    writer.append(&table("late"), chunk(5), None).await.unwrap();
    storage.flush().await.unwrap();
    writer.append(&table("events"), chunk(4), Some(key("hot"))).await.unwrap();
    let manifest =
        take(&options(&folder.join("data")), &folder.join("backup"), false, now(), &|_| ()).await.unwrap();
    assert_eq!(manifest.tables.iter().map(|table| table.rows).sum::<u64>(), 8);
    assert!(!folder.join("data/backup").exists(), "nothing of the log is held any more");
    storage
}

/// F39: what was acknowledged is there once, keys are known, and a new epoch begins.
#[test]
fn a_restore_is_whole_and_a_new_epoch() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = backed_up(folder.path()).await;
        storage.close().await;
        drop(storage);
        let data = folder.path().join("restored");
        let restored =
            restore(&folder.path().join("backup"), options(&data), measure, now, &|_| ()).await.unwrap();
        assert_eq!((restored.log_rows, restored.keys), (4, 2));
        assert_ne!(*restored.node, *restored.manifest.node);
        let storage = open(&data).await;
        assert_eq!(rows(&storage, "events"), (7, 0));
        assert_eq!(rows(&storage, "late"), (5, 0));
        let writer = storage.writer(0).unwrap();
        for name in ["sealed", "hot"] {
            let known = writer.reserve(&table("events").tenant, name, [1; 16]);
            assert_eq!(known, Known::Replayed(Arc::new(key(name))));
        }
        let receipt = writer.append(&table("events"), chunk(2), None).await.unwrap();
        assert!(receipt.writer.starts_with(&*restored.node) && receipt.first_seq == 0, "{receipt:?}");
        storage.flush().await.unwrap();
        assert_eq!(rows(&storage, "events"), (9, 0));
        storage.close().await;
    });
}

#[test]
fn a_damaged_or_unfinished_backup_is_refused_and_named() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = backed_up(folder.path()).await;
        storage.close().await;
        let backup = folder.path().join("backup");
        let manifest = check(&backup, &|_| ()).unwrap();
        for file in &manifest.files {
            let path = backup.join(&file.path);
            let whole = fs::read(&path).unwrap();
            let mut other = whole.clone();
            let Some(last) = other.last_mut() else { continue };
            *last ^= 1;
            fs::write(&path, &other).unwrap();
            let error = check(&backup, &|_| ()).unwrap_err();
            assert!(error.kind() == ErrorKind::Corrupt && error.context().contains(&file.path), "{error}");
            fs::write(&path, &whole[..whole.len() - 1]).unwrap();
            assert!(check(&backup, &|_| ()).unwrap_err().context().contains(&file.path));
            fs::write(&path, &whole).unwrap();
        }
        for name in ["manifest.json", "manifest.b3"] {
            let text = fs::read(backup.join(name)).unwrap();
            let mut other = text.clone();
            other[9] ^= 1;
            fs::write(backup.join(name), &other).unwrap();
            assert_eq!(check(&backup, &|_| ()).unwrap_err().kind(), ErrorKind::Corrupt);
            fs::remove_file(backup.join(name)).unwrap();
            let error = check(&backup, &|_| ()).unwrap_err();
            assert!(error.context().contains("incomplete"), "{error}");
            fs::write(backup.join(name), &text).unwrap();
        }
        check(&backup, &|_| ()).unwrap();
    });
}

#[test]
fn folders_in_use_are_refused() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let storage = backed_up(folder.path()).await;
        storage.close().await;
        drop(storage);
        let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
        let again = take(&options(&data), &backup, false, now(), &|_| ()).await;
        assert_eq!(again.unwrap_err().kind(), ErrorKind::Invalid, "the backup's folder is not empty");
        let over = restore(&backup, options(&data), measure, now, &|_| ()).await;
        assert_eq!(over.unwrap_err().kind(), ErrorKind::Conflict, "the data folder is not empty");
        let none =
            take(&options(&folder.path().join("none")), &folder.path().join("out"), false, now(), &|_| ())
                .await;
        assert_eq!(none.unwrap_err().kind(), ErrorKind::Invalid, "no data folder");
        // As a restore leaves a folder when it is killed.
        fs::write(data.join("restoring"), b"").unwrap();
        let opened = Storage::open(options(&data), measure, now, |_| ()).await;
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::Conflict);
    });
}

#[test]
fn a_path_that_leads_out_of_the_backup_is_refused() {
    for path in ["../x", "/etc/x", "wal/../../x", ""] {
        let file = super::manifest::FileCopy { path: path.into(), bytes: 0, blake3: String::new() };
        assert!(file.below(Path::new("/data")).is_err(), "{path}");
    }
}
