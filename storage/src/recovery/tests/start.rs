//! A start succeeds on whatever this process or a newer one wrote, and on whatever else stands in its folders. Damage to
//! acknowledged rows alone stops it, by file and offset.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::RecordBatch;

use crate::deployment::Storage;
use crate::error::{Error, Kind as ErrorKind};
use crate::fixture::{rows, table};
use crate::latency::{Measure, Measurement, Recorder};
use crate::options::Options;
use crate::record::{Dataset, Kind, TableId, Tenant};
use crate::wal::frame::{HEADER_BYTES, Header};
use crate::wal::segment;

const NOW_NS: i64 = 1_700_000_000_000_000_000;

fn measure(_: Kind, batch: &RecordBatch) -> Measurement {
    let mut recorder = Recorder::default();
    for _ in 0..batch.num_rows() {
        recorder.record("s", "op", false, NOW_NS, 1_000);
    }
    recorder.take()
}

fn panicking(_: Kind, _: &RecordBatch) -> Measurement {
    panic!("a row that cannot be measured")
}

fn options(data: &Path) -> Options {
    Options {
        data: data.to_owned(),
        seal_age_ms: 3_600_000_000,
        wal_segment_bytes: 1 << 20,
        disk_free_bytes_min: 1,
        disk_reserve_bytes: 0,
        ..Options::default()
    }
}

async fn open_with(options: Options, measure: Measure) -> Result<Arc<Storage>, Error> {
    let opened = Storage::open(options, measure, || NOW_NS, |_| ());
    tokio::time::timeout(Duration::from_secs(60), opened).await.expect("a start ends")
}

async fn open(data: &Path) -> Result<Arc<Storage>, Error> {
    open_with(options(data), measure).await
}

/// Ends the process that has the folder: its lane writes its last mark first, and none into what comes after.
async fn close(storage: Arc<Storage>) {
    storage.close().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
}

fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(async { test().await }));
}

fn other() -> TableId {
    TableId::new(Tenant::parse("other").unwrap(), Dataset::parse("events").unwrap())
}

/// Rows of a table: in files, and hot.
fn counted(storage: &Storage, table: &TableId) -> (u64, usize) {
    let Some(snapshot) = storage.snapshot(table) else { return (0, 0) };
    let hot = snapshot.hot.iter().map(|rows| rows.num_rows()).sum();
    (snapshot.files.iter().map(|file| file.rows).sum(), hot)
}

/// A folder with three rows sealed and two in the log, of two tenants each.
async fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(folder.path()).await.unwrap();
    let writer = storage.writer(0).unwrap();
    for (times, is_sealed) in [(&[1, 2, 3][..], true), (&[4, 5], false)] {
        for table in [table(), other()] {
            writer.append(&table, rows(times), None).await.unwrap();
        }
        if is_sealed {
            storage.flush().await.unwrap();
        }
    }
    close(storage).await;
    folder
}

fn pipe(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn odd_files_are_no_reason_not_to_start() {
    run(async || {
        let folder = folder().await;
        let data = folder.path();
        let log = data.join("store/tenant/acme/events/_delta_log");
        for place in [data.join("wal"), data.join("wal/0"), data.join("store/tenant"), log.clone()] {
            pipe(&place.join("pipe"));
            pipe(&place.join("7"));
            pipe(&place.join(format!("{:016}.wal", 77)));
            pipe(&place.join(format!("{:016}.keys", 77)));
            pipe(&place.join(format!("{:020}.json", 77)));
            symlink("/dev/zero", place.join(format!("{:016}.wal", 78))).unwrap();
            symlink(place.join("loop"), place.join("loop")).unwrap();
            fs::create_dir(place.join(format!("{:016}.wal", 79))).unwrap();
            fs::write(place.join("stray.json"), b"{").unwrap();
            fs::write(place.join("notes.txt"), b"theirs").unwrap();
            fs::write(place.join("80.wal"), b"theirs").unwrap();
        }
        fs::write(data.join("wal/9"), b"a file in the place of a lane").unwrap();
        fs::create_dir(data.join("wal/07")).unwrap();
        fs::create_dir_all(data.join("store/tenant/No Tenant/events")).unwrap();
        fs::create_dir_all(data.join("store/tenant/acme/No Dataset")).unwrap();
        // What sorts behind every commit and is empty, and a pointer that points nowhere.
        fs::write(log.join("_last_checkpoint"), b"").unwrap();
        fs::write(log.join("zzz.json"), b"").unwrap();
        for _ in 0..2 {
            let storage = open(data).await.unwrap();
            assert_eq!((counted(&storage, &table()), counted(&storage, &other())), ((3, 2), (3, 2)));
            close(storage).await;
        }
        assert_eq!(fs::read(data.join("wal/0/notes.txt")).unwrap(), b"theirs");
        let storage = open(data).await.unwrap();
        storage.writer(0).unwrap().append(&table(), rows(&[6]), None).await.unwrap();
        storage.flush().await.unwrap();
        assert_eq!(counted(&storage, &table()), (6, 0));
        close(storage).await;
    });
}

#[test]
fn a_link_in_the_place_of_a_file_of_ours_is_named_and_not_followed() {
    run(async || {
        for name in ["lock", "reserve", "wal/node"] {
            let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let other = elsewhere.path().join("other");
            fs::write(&other, b"theirs").unwrap();
            fs::create_dir(folder.path().join("wal")).unwrap();
            for plant in [0, 1, 2] {
                let path = folder.path().join(name);
                match plant {
                    0 => symlink(&other, &path).unwrap(),
                    1 => pipe(&path),
                    _ => fs::create_dir(&path).unwrap(),
                }
                let options = Options { disk_reserve_bytes: 1 << 20, ..options(folder.path()) };
                let error = open_with(options, measure).await.unwrap_err();
                let is_named = error.to_string().contains(&*path.to_string_lossy());
                assert!(error.kind() == ErrorKind::Corrupt && is_named, "{error}");
                if plant == 2 { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
            }
            assert_eq!(fs::read(&other).unwrap(), b"theirs");
        }
    });
}

#[test]
fn the_name_of_the_folder_is_a_name() {
    run(async || {
        let folder = folder().await;
        let path = folder.path().join("wal/node");
        let node = fs::read(&path).unwrap();
        for bad in [&b""[..], b"../../etc", b"a/b", b"A", b"\xff\xfe", &[b'a'; 65], b"a b", b"a\nb"] {
            fs::write(&path, bad).unwrap();
            let error = open(folder.path()).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("wal/node"), "{error}");
        }
        fs::write(&path, node).unwrap();
        close(open(folder.path()).await.unwrap()).await;
    });
}

#[test]
fn a_sparse_segment_costs_no_memory_and_no_time() {
    run(async || {
        let folder = folder().await;
        let lane = folder.path().join("wal/0");
        let last = *segment::list(&crate::disk::LocalDisk, &lane).unwrap().last().unwrap();
        for (number, bytes) in [(last, 8_u64 << 30), (last + 1, 64 << 30)] {
            let path = segment::path(&lane, number);
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
                .unwrap()
                .set_len(bytes)
                .unwrap();
        }
        let begun = std::time::Instant::now();
        let storage = open(folder.path()).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_eq!(counted(&storage, &table()), (3, 2));
        close(storage).await;
        // Whatever a hole ends with: it was never acknowledged, and is cut off.
        let path = segment::path(&lane, last + 1);
        let file = File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        file.write_all_at(b"FMW1 not a frame", (8 << 30) - 1).unwrap();
        let storage = open(folder.path()).await.unwrap();
        assert_eq!(counted(&storage, &table()), (3, 2));
        close(storage).await;
    });
}

/// Turns every frame of the log that holds rows of `wanted` into one of a newer version, or of a kind yet to come.
fn make_newer(lane: &Path, wanted: &TableId, by_version: bool) {
    for number in segment::list(&crate::disk::LocalDisk, lane).unwrap() {
        let path = segment::path(lane, number);
        let mut bytes = fs::read(&path).unwrap();
        let mut at = 0;
        while let Some((header, payload)) = Header::frame(&bytes[at..]) {
            let (mut header, mut payload) = (header, payload.to_vec());
            let (begin, len) = (at + HEADER_BYTES, payload.len());
            let tenant = format!("\"tenant\":\"{}\"", wanted.tenant);
            if memchr::memmem::find(&payload, tenant.as_bytes()).is_some() {
                if by_version {
                    header.version = b'2';
                } else {
                    let kind = b"\"kind\":\"events\"";
                    let kind_at = memchr::memmem::find(&payload, kind).unwrap();
                    payload[kind_at..kind_at + kind.len()].copy_from_slice(b"\"kind\":\"futuro\"");
                }
                header.payload_crc = crc32c::crc32c(&payload);
                bytes[begin..begin + len].copy_from_slice(&payload);
                bytes[at..begin].copy_from_slice(&header.encode());
            }
            at = begin + len;
        }
        fs::write(&path, bytes).unwrap();
    }
}

/// As a newer build would read it again.
fn make_known(lane: &Path, by_version: bool) {
    for number in segment::list(&crate::disk::LocalDisk, lane).unwrap() {
        let path = segment::path(lane, number);
        let mut bytes = fs::read(&path).unwrap();
        let mut at = 0;
        while let Some((mut header, payload)) = Header::frame(&bytes[at..]) {
            let mut payload = payload.to_vec();
            let (begin, len) = (at + HEADER_BYTES, payload.len());
            if let Some(kind_at) =
                memchr::memmem::find(&payload, b"\"kind\":\"futuro\"").filter(|_| !by_version)
            {
                payload[kind_at..kind_at + 15].copy_from_slice(b"\"kind\":\"events\"");
            }
            header.version = crate::wal::frame::VERSION;
            header.payload_crc = crc32c::crc32c(&payload);
            bytes[begin..begin + len].copy_from_slice(&payload);
            bytes[at..begin].copy_from_slice(&header.encode());
            at = begin + len;
        }
        fs::write(&path, bytes).unwrap();
    }
}

/// One can roll back and forward again: rows that this build does not read stay in the log, and no row of their table is
/// put after them.
#[test]
fn frames_of_a_newer_build_outlive_this_one() {
    run(async || {
        for by_version in [true, false] {
            let folder = folder().await;
            let lane = folder.path().join("wal/0");
            make_newer(&lane, &other(), by_version);
            for _ in 0..2 {
                let storage = open(folder.path()).await.unwrap();
                assert_eq!(storage.passed_over()[0], ("frames", 1));
                assert!(storage.snapshot(&other()).is_none() && storage.why_left_alone(&other()).is_some());
                let writer = storage.writer(0).unwrap();
                let refused = writer.append(&other(), rows(&[9]), None).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Newer, "{refused}");
                writer.append(&table(), rows(&[6]), None).await.unwrap();
                storage.flush().await.unwrap();
                close(storage).await;
            }
            make_known(&lane, by_version);
            let storage = open(folder.path()).await.unwrap();
            assert_eq!(counted(&storage, &other()), (3, 2), "by version: {by_version}");
            storage.flush().await.unwrap();
            assert_eq!((counted(&storage, &table()), counted(&storage, &other())), ((7, 0), (5, 0)));
            close(storage).await;
        }
    });
}

/// Plants the commit that follows the newest of the table.
fn plant(data: &Path, table: &TableId, line: &str) -> std::path::PathBuf {
    let log = data.join("store").join(table.prefix()).join("_delta_log");
    let commits = fs::read_dir(&log).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".json").and_then(|digits| digits.parse::<u64>().ok())
    });
    let path = log.join(format!("{:020}.json", commits.max().unwrap() + 1));
    fs::write(&path, line).unwrap();
    path
}

#[test]
fn a_table_of_a_newer_build_is_left_alone() {
    run(async || {
        for line in [
            r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"]}}"#,
            r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["rowTracking"]}}"#,
            r#"{"domainMetadata":{"domain":"d","configuration":"","removed":false}}"#,
            r#"{"metaData":{"id":"x","format":{"provider":"parquet"},"schemaString":"{\"type\":\"struct\",\"fields\":[]}","partitionColumns":["date"],"configuration":{"floodmark.kind":"metrics2"}}}"#,
            r#"{"metaData":{"id":"x","format":{"provider":"parquet"},"schemaString":"{\"type\":\"struct\",\"fields\":[]}","partitionColumns":["hour"],"configuration":{"floodmark.kind":"events"}}}"#,
            r#"{"add":{"path":"p","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true,"stats":"{\"numRecords\":1}","deletionVector":{"storageType":"u"}}}"#,
        ] {
            let folder = folder().await;
            let planted = plant(folder.path(), &other(), line);
            let storage = open(folder.path()).await.unwrap();
            assert_eq!(storage.passed_over()[1], ("tables", 1), "{line}");
            assert!(storage.snapshot(&other()).is_none());
            assert_eq!(counted(&storage, &table()), (3, 2));
            storage.flush().await.unwrap();
            close(storage).await;
            // What the log holds of it is there for the build that reads it.
            fs::remove_file(planted).unwrap();
            let storage = open(folder.path()).await.unwrap();
            assert_eq!(
                (counted(&storage, &table()), counted(&storage, &other())),
                ((5, 0), (3, 2)),
                "{line}"
            );
            close(storage).await;
        }
    });
}

/// The newest commit of the table.
fn newest(data: &Path, table: &TableId) -> std::path::PathBuf {
    let log = data.join("store").join(table.prefix()).join("_delta_log");
    let names = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|end| end == "json")).max().unwrap()
}

#[test]
fn a_damaged_commit_stops_a_start_by_name_and_place() {
    run(async || {
        let folder = folder().await;
        let path = newest(folder.path(), &other());
        let text = fs::read(&path).unwrap();
        let lines: Vec<usize> = memchr::memchr_iter(b'\n', &text).collect();
        let cuts = [
            0,
            1,
            lines[0],
            lines[0] + 1,
            lines[0] + 20,
            *lines.iter().rev().nth(1).unwrap() + 1,
            text.len() - 5,
        ];
        for cut in cuts {
            fs::write(&path, &text[..cut]).unwrap();
            let error = open(folder.path()).await.unwrap_err();
            let name = path.file_name().unwrap().to_str().unwrap();
            let text = error.to_string();
            assert!(error.kind() == ErrorKind::Corrupt && text.contains(name), "cut at {cut}: {text}");
            assert!(cut == 0 || text.contains("offset"), "cut at {cut}: {text}");
        }
        // The operator gives this table up, and no other.
        let storage = open_with(Options { salvage: true, ..options(folder.path()) }, measure).await.unwrap();
        assert!(storage.why_left_alone(&other()).is_some());
        assert_eq!(counted(&storage, &table()), (3, 2));
        storage.flush().await.unwrap();
        close(storage).await;
        fs::write(&path, &text).unwrap();
        let storage = open(folder.path()).await.unwrap();
        assert_eq!((counted(&storage, &table()), counted(&storage, &other())), ((5, 0), (3, 2)));
        close(storage).await;
    });
}

#[test]
fn rows_that_cannot_be_measured_are_read_back_all_the_same() {
    run(async || {
        let folder = folder().await;
        let storage = open_with(options(folder.path()), panicking).await.unwrap();
        assert_eq!((counted(&storage, &table()), counted(&storage, &other())), ((3, 2), (3, 2)));
        assert_eq!(storage.passed_over()[3], ("measure", 2));
        storage.flush().await.unwrap();
        assert_eq!(counted(&storage, &table()), (5, 0));
        close(storage).await;
    });
}

/// A process that dies of a row's measurement (by memory: nothing is caught) dies of it twice, and the third goes on.
#[test]
fn what_starts_died_of_is_passed_over() {
    run(async || {
        let folder = folder().await;
        let seq = {
            let storage = open(folder.path()).await.unwrap();
            let seq = storage.shared().tables.get(&other()).unwrap().waiting()[0].seq;
            close(storage).await;
            seq
        };
        let node = fs::read_to_string(folder.path().join("wal/node")).unwrap();
        let writer = format!("{}-0", node.trim());
        for deaths in 0..4_u64 {
            let storage = open(folder.path()).await.unwrap();
            let is_passed_over = deaths >= u64::from(super::super::attempt::DEATHS_MAX);
            let unmeasured = storage.shared().stats.unmeasured_chunks.load(Ordering::Relaxed);
            assert_eq!(unmeasured, u64::from(is_passed_over), "after {deaths}");
            assert_eq!((counted(&storage, &table()), counted(&storage, &other())), ((3, 2), (3, 2)));
            close(storage).await;
            if is_passed_over {
                break;
            }
            // As it stands when the process is gone in the middle: begun, not ended.
            leave_note(folder.path(), "measure", &other(), &writer, seq, deaths + 1);
        }
    });
}

fn leave_note(data: &Path, step: &str, table: &TableId, writer: &str, seq: u64, deaths: u64) {
    let boot = crate::disk::Disk::boot(&crate::disk::LocalDisk).unwrap();
    let text = format!(
        r#"{{"step":"{step}","boot":"{boot}","table":"{table}","writer":"{writer}","seq":{seq},"deaths":{deaths}}}"#
    );
    let path = data.join("wal/attempt");
    let mut bytes = vec![b' '; 1_024];
    let at = if step == "measure" { 0 } else { 512 };
    bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_roll_up_that_processes_died_of_is_left_out_for_its_table() {
    run(async || {
        let folder = folder().await;
        leave_note(folder.path(), "roll_up", &other(), "w-0", 1, 2);
        let storage = open(folder.path()).await.unwrap();
        assert_eq!(storage.passed_over()[4], ("roll_up", 1));
        let hot = storage.latency(&other().tenant).hot;
        assert!(hot.iter().all(|measurement| measurement.series.is_empty()));
        assert!(!storage.latency(&table().tenant).hot[0].series.is_empty());
        storage.flush().await.unwrap();
        assert_eq!((counted(&storage, &table()), counted(&storage, &other())), ((5, 0), (5, 0)));
        close(storage).await;
    });
}

#[test]
fn lines_that_are_no_declared_keys_cost_no_start() {
    run(async || {
        let folder = folder().await;
        fs::write(folder.path().join("wal/0").join(format!("{:016}.keys", 1)), b"{\"tenant\":\n\nx").unwrap();
        let storage = open(folder.path()).await.unwrap();
        assert_eq!(storage.passed_over()[2], ("keys", 2));
        assert_eq!(counted(&storage, &table()), (3, 2));
        close(storage).await;
    });
}

#[test]
fn a_tenant_has_so_many_datasets_and_its_built_in_ones() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { datasets_max: 3, ..options(folder.path()) };
        let storage = open_with(options.clone(), measure).await.unwrap();
        let writer = storage.writer(0).unwrap();
        let named = |tenant: &str, name: &str| {
            TableId::new(Tenant::parse(tenant).unwrap(), Dataset::parse(name).unwrap())
        };
        for name in ["a", "b", "c"] {
            writer.append(&named("acme", name), rows(&[1]), None).await.unwrap();
        }
        let refused = writer.append(&named("acme", "d"), rows(&[1]), None).await.unwrap_err();
        assert!(refused.kind() == ErrorKind::Full && refused.to_string().contains("3 datasets"), "{refused}");
        writer.append(&named("acme", "a"), rows(&[2]), None).await.unwrap();
        writer.append(&named("acme", "events"), rows(&[1]), None).await.unwrap();
        writer.append(&named("other", "d"), rows(&[1]), None).await.unwrap();
        close(storage).await;
        drop(writer);
        // Those that are there already stay, whatever the bound is now.
        let storage = open_with(Options { datasets_max: 1, ..options }, measure).await.unwrap();
        assert_eq!(storage.datasets(&Tenant::parse("acme").unwrap()).len(), 4);
        close(storage).await;
    });
}
