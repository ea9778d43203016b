//! Storage without its threads: a test seals and merges when it wants, on a store that fails when it wants.

use std::fmt;
use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as StoreResult,
};

use crate::commit::{Change, Operation, TableLog};
use crate::compact::run::compact;
use crate::deployment::{Shared, World};
use crate::disk::LocalDisk;
use crate::hot::HotChunk;
use crate::latency::Measurement;
use crate::memory::Pool;
use crate::options::Options;
use crate::reader::DataFile;
use crate::record::{Clean, Dataset, Draft, Field, Kind, TableId, Tenant, Value};
use crate::seal::run::seal;
use crate::segment::{self, Fingerprint};
use crate::table::Table;

pub const START_NS: i64 = 1_700_000_000_000_000_000;

pub fn start_ns() -> i64 {
    START_NS
}

/// A local store that fails on demand.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    /// No commit gets in.
    pub refuses_commits: AtomicBool,
    /// Segments lose their last byte on the way.
    pub cuts_segments: AtomicBool,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, payload: PutPayload, opts: PutOptions) -> StoreResult<PutResult> {
        let is_commit = at.filename().is_some_and(|name| name.ends_with(".json"));
        if is_commit && self.refuses_commits.load(Ordering::Relaxed) {
            return Err(StoreError::Generic { store: "faulty", source: "refused".into() });
        }
        if !is_commit && self.cuts_segments.load(Ordering::Relaxed) {
            let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
            let cut = bytes[..bytes.len() - 1].to_vec();
            return self.inner.put_opts(at, cut.into(), opts).await;
        }
        self.inner.put_opts(at, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// One table of events on a folder.
pub struct Rig {
    pub folder: Arc<tempfile::TempDir>,
    pub store: Arc<Faulty>,
    pub shared: Arc<Shared>,
}

pub fn id() -> TableId {
    TableId::new(Tenant::parse("acme").unwrap(), Dataset::parse("events").unwrap())
}

/// Three files of a tier are merged; a date is quiet only when the clock moves.
pub fn options(data: &FsPath) -> Options {
    Options {
        data: data.to_owned(),
        compact_files_min: 3,
        disk_reserve_bytes: 0,
        checkpoint_commits: 4,
        row_group_rows: 50,
        ..Options::default()
    }
}

/// A chunk of events that are numbered in the attribute `n`, on two dates, of three sources or none; chunks of
/// another `shape` have other attributes.
pub fn chunk(numbers: Range<i64>, shape: u8) -> RecordBatch {
    let mut draft = Draft::new(Kind::Events);
    for n in numbers {
        draft.begin_row();
        // Neither rising nor unique: ties are for writer and seq to settle.
        let day_ns = (n % 2) * 86_400_000_000_000;
        draft.set_int(Field::TimeNs, START_NS + day_ns + (n * 7_919 % 13) * 1_000);
        draft.set_int(Field::ObservedNs, START_NS);
        if n % 4 > 0 {
            draft.set_text(Field::Source, ["a", "b", "c"][n as usize % 3]);
        }
        draft.set_text(Field::EventType, if n % 5 == 0 { "start" } else { "stop" });
        draft.set_text(Field::Id, &format!("id-{n}"));
        let _ = draft.attribute("n", Value::Int(n));
        match shape {
            0 => {}
            1 => drop(draft.attribute("note", Value::Text("grüße"))),
            2 => drop(draft.attribute("ratio", Value::Double(n as f64 / 3.0))),
            _ => drop(draft.attribute("flag", Value::Bool(n % 2 == 0))),
        }
        draft.end_row();
    }
    Clean::attest(&mut draft, 1).batch().clone()
}

impl Rig {
    pub async fn new() -> Self {
        Self::on(Arc::new(tempfile::tempdir().unwrap()), start_ns).await
    }

    /// A start on a folder, as after a crash.
    pub async fn on(folder: Arc<tempfile::TempDir>, now: fn() -> i64) -> Self {
        let options = options(folder.path());
        let store = Arc::new(Faulty {
            inner: crate::store::open(&options).unwrap(),
            refuses_commits: AtomicBool::new(false),
            cuts_segments: AtomicBool::new(false),
        });
        let world = World { disk: Arc::new(LocalDisk), store: Arc::clone(&store) as _, now };
        let shared = Shared::read(options, world, |_, _| Measurement::default(), |_| ()).await.unwrap();
        Self { folder, store, shared }
    }

    pub fn table(&self) -> Arc<Table> {
        self.shared.table(&id(), Kind::Events).unwrap()
    }

    /// Makes a chunk hot, as frame `seq` of a log.
    pub fn push(&self, seq: u64, first_seq: u64, batch: RecordBatch) {
        let table = self.table();
        let batch = table.fit(batch);
        table.push(Arc::new(HotChunk {
            writer: "w-0".into(),
            seq,
            first_seq,
            charge: self.shared.memory.count(Pool::Hot, None, 1),
            measurement: Arc::default(),
            batch,
            appended_ns: START_NS,
        }));
    }

    pub async fn seal(&self) -> crate::Result<u64> {
        seal(&self.shared.tools(), &self.table(), None, START_NS).await
    }

    /// Chunk after chunk into files of their own: numbers `0..chunks * 10`.
    pub async fn sealed(chunks: i64) -> Self {
        let rig = Self::new().await;
        for at in 0..chunks {
            rig.push(at as u64 + 1, at as u64 * 10, chunk(at * 10..at * 10 + 10, (at % 4) as u8));
            assert_eq!(rig.seal().await.unwrap(), 10);
        }
        rig
    }

    /// Merges until nothing is due.
    pub async fn compact(&self) {
        while compact(&self.shared, || true).await {}
    }

    pub fn files(&self) -> Vec<Arc<DataFile>> {
        self.table().published().files().cloned().collect()
    }

    pub fn on_disk(&self, file: &DataFile) -> std::path::PathBuf {
        self.folder.path().join("store").join(id().prefix()).join(&file.path)
    }

    /// The rows of a file, in its order.
    pub async fn rows(&self, file: &DataFile) -> RecordBatch {
        let path = Path::from(format!("{}/{}", id().prefix(), file.path));
        let bytes = self.store.get(&path).await.unwrap().bytes().await.unwrap();
        let schema = Arc::clone(self.table().columns().schema());
        let rows: Vec<_> = segment::read(file, bytes, &schema, 1_000).unwrap().map(Result::unwrap).collect();
        concat_batches(&schema, &rows).unwrap()
    }

    /// The numbers that a snapshot finds, sorted.
    pub async fn numbers(&self) -> Vec<i64> {
        let snapshot = self.table().snapshot();
        let mut numbers: Vec<i64> =
            snapshot.hot.iter().flat_map(|rows| column(&rows.project(&snapshot.schema, None))).collect();
        for file in &snapshot.files {
            numbers.extend(column(&self.rows(file).await));
        }
        numbers.sort_unstable();
        numbers
    }

    /// The numbers that a snapshot finds, sorted, and the fingerprint of all its rows; every file is sorted, and
    /// is what its statistics say.
    pub async fn found(&self) -> (Vec<i64>, Fingerprint) {
        let snapshot = self.table().snapshot();
        let mut numbers = Vec::new();
        let mut fingerprint = Fingerprint::default();
        for file in &snapshot.files {
            let rows = self.rows(file).await;
            let again = segment::write(Kind::Events, &rows, 50).unwrap();
            let sorted: Vec<_> = segment::open("again", again.bytes, &rows.schema(), rows.num_rows())
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(concat_batches(&rows.schema(), &sorted).unwrap(), rows, "{} is not sorted", file.path);
            assert_eq!(again.statistics.rows(), file.rows);
            assert_eq!(again.statistics.time_ns(), Some(file.time_ns));
            assert_eq!(again.statistics.source(), file.source.as_ref());
            fingerprint.add(&rows);
            numbers.extend(column(&rows));
        }
        for rows in &snapshot.hot {
            let rows = rows.project(&snapshot.schema, None);
            fingerprint.add(&rows);
            numbers.extend(column(&rows));
        }
        numbers.sort_unstable();
        (numbers, fingerprint)
    }

    /// What another process would do: takes a file out of the table, behind this one's back.
    pub async fn remove_elsewhere(&self, path: &str) {
        let log = TableLog::new(Arc::clone(&self.shared.store), id().prefix());
        let state = log.load().await.unwrap();
        let change = Change {
            operation: Operation::Expire,
            kind: Kind::Events,
            columns: state.columns().unwrap().unwrap(),
            adds: Vec::new(),
            removes: vec![path.to_owned()],
            txns: Vec::new(),
            guards: Vec::new(),
            now_ms: START_NS / 1_000_000,
        };
        assert!(log.commit(state, &change).await.unwrap().is_in);
    }
}

pub fn column(rows: &RecordBatch) -> Vec<i64> {
    rows.column_by_name("n").unwrap().as_primitive::<Int64Type>().values().to_vec()
}

pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}
