//! What a worker is lent for one query: tables of the tenant's view, pruned file lists, hot rows, files or ranges of them.
//!
//! This is the one door through which data reaches a worker (T1). It answers from snapshots that were taken for this
//! query, reads no file that is not on a list it gave, and no range outside of one.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use storage::memory::{Charge, Memory, Pool};
use storage::reader::{Damaged, OpenFile, Proofs, ProvenStore, Snapshot};
use storage::record::Tenant;
use tokio::task::spawn_blocking;

use super::hot::{self, Wanted};
use super::wire::{self, Ask, Given, READ_BYTES_MAX};
use crate::plan::table;
use crate::prune::{self, Bounds};
use crate::refusal::Refusal;

/// Scans of one query: more than a plan within its bounds has.
const SCANS_MAX: usize = 1_000;

/// How often an answer that waits for memory looks whether there is some.
const PACE_STEP: Duration = Duration::from_millis(5);

/// Finds a table by its name, as the caller sees it.
type Find = dyn Fn(&str) -> Option<Arc<Snapshot>> + Send + Sync;

/// Lends to one query.
pub struct Lender {
    find: Arc<Find>,
    store: Arc<dyn ObjectStore>,
    proofs: Arc<Proofs>,
    memory: Arc<Memory>,
    tenant: Tenant,
    lent: Mutex<Lent>,
    /// Whether files were found not to be on this machine.
    is_far: AtomicBool,
    /// Bytes of objects that went through the server.
    passed_bytes: AtomicU64,
}

#[derive(Default)]
struct Lent {
    tables: BTreeMap<String, Arc<Snapshot>>,
    scans: Vec<Arc<Scan>>,
    /// Sizes of the files of all scans, by path.
    files: HashMap<String, u64>,
}

struct Scan {
    snapshot: Arc<Snapshot>,
    wanted: Wanted,
}

/// A gift to send.
pub struct Loan {
    /// The answer.
    pub given: Given,
    /// Its bytes.
    pub tail: Bytes,
    /// A file that goes with it.
    pub file: Option<File>,
    /// What they take of the server's memory: to be held until they are sent.
    _charge: Option<Charge>,
}

impl Loan {
    fn charged(charge: Charge, given: Given, tail: impl Into<Bytes>) -> Self {
        Self { _charge: Some(charge), ..Self::of(given, tail) }
    }

    fn of(given: Given, tail: impl Into<Bytes>) -> Self {
        Self { given, tail: tail.into(), file: None, _charge: None }
    }
}

impl Lender {
    /// Lends the tables that `find` finds, whose files are in `store`, rooted at the tenant's prefix.
    pub fn new(
        find: impl Fn(&str) -> Option<Arc<Snapshot>> + Send + Sync + 'static,
        store: Arc<dyn ObjectStore>,
        proofs: Arc<Proofs>,
        (memory, tenant): (Arc<Memory>, Tenant),
    ) -> Self {
        let (find, lent) = (Arc::new(find), Mutex::default());
        Self {
            find,
            store,
            proofs,
            memory,
            tenant,
            lent,
            is_far: AtomicBool::new(false),
            passed_bytes: AtomicU64::new(0),
        }
    }

    /// Takes memory for so many bytes on their way, and waits where the tenant's reads hold their share of it: that is
    /// the back-pressure on its workers. The end of the query ends the wait.
    async fn room(&self, bytes: u64) -> Charge {
        let bytes = bytes.min(self.memory.alone_max(Pool::Read));
        loop {
            if self.memory.has_room(Pool::Read, Some(&self.tenant), bytes)
                && let Ok(charge) = self.memory.take(Pool::Read, Some(&self.tenant), bytes)
            {
                return charge;
            }
            tokio::time::sleep(PACE_STEP).await;
        }
    }

    /// Answers what a worker asks. What it may not have is refused; the worker goes on or not as it likes.
    pub async fn answer(&self, ask: Ask) -> Loan {
        let answered = match ask {
            Ask::Table { name } => self.table(name).await,
            Ask::Scan { table, projection, time_ns, sources } => {
                self.scan(&table, projection, Bounds { time_ns, sources }).await
            }
            Ask::Hot { scan, at } => self.hot(scan, at).await,
            Ask::Open { path } => self.open(&path).await,
            Ask::Read { path, ranges } => self.read(&path, &ranges).await,
        };
        answered.unwrap_or_else(|refusal| Loan::of(Given::Refused((&refusal).into()), Bytes::new()))
    }

    fn lent(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn table(&self, name: String) -> Result<Loan, Refusal> {
        let known = self.lent().tables.get(&name).cloned();
        let snapshot = match known {
            Some(snapshot) => snapshot,
            None => {
                let (find, asked) = (Arc::clone(&self.find), name.clone());
                // T1: what is not in the view is not there, whoever else has it.
                let found = spawn_blocking(move || find(&asked)).await.map_err(|_| Refusal::bug())?;
                let snapshot = found.ok_or_else(Refusal::table_not_found)?;
                self.lent().tables.insert(name, Arc::clone(&snapshot));
                snapshot
            }
        };
        let given = Given::Table { kind: snapshot.kind.as_str().to_owned(), rows: table::rows(&snapshot) };
        Ok(Loan::of(given, hot::schema(&snapshot.schema)?))
    }

    /// A scan's list, and its first file with it: most queries that are waited for read few files, and ask once less.
    async fn scan(
        &self,
        table: &str,
        projection: Option<Vec<usize>>,
        bounds: Bounds,
    ) -> Result<Loan, Refusal> {
        let (scan, files, hot_rows) = self.list(table, projection, bounds)?;
        // What is wrong with it is said when it is asked for.
        let opened = match files.first() {
            Some(first) if !self.is_far.load(Ordering::Relaxed) => self.open(&first.path).await.ok(),
            _ => None,
        };
        let (file, first) = opened.map_or((None, None), |loan| (loan.file, Some(Box::new(loan.given))));
        Ok(Loan { file, ..Loan::of(Given::Scan { scan, files, hot_rows, first }, Bytes::new()) })
    }

    /// The number of a new scan, its files, and how many hot rows it has.
    fn list(
        &self,
        table: &str,
        projection: Option<Vec<usize>>,
        bounds: Bounds,
    ) -> Result<(usize, Vec<wire::File>, u64), Refusal> {
        let mut lent = self.lent();
        let snapshot = Arc::clone(lent.tables.get(table).ok_or_else(Refusal::bug)?);
        let columns = snapshot.schema.fields().len();
        if lent.scans.len() >= SCANS_MAX || projection.iter().flatten().any(|at| *at >= columns) {
            return Err(Refusal::bug());
        }
        let files: Vec<wire::File> = prune::files(&snapshot.files, &bounds)
            .iter()
            .map(|file| wire::File {
                path: format!("{}/{}", snapshot.table.dataset, file.path),
                bytes: file.bytes,
                rows: file.rows,
                time_ns: file.time_ns,
            })
            .collect();
        lent.files.extend(files.iter().map(|file| (file.path.clone(), file.bytes)));
        let hot_rows = snapshot.hot_rows();
        let scan = lent.scans.len();
        lent.scans.push(Arc::new(Scan { snapshot, wanted: Wanted { projection, bounds } }));
        Ok((scan, files, hot_rows))
    }

    async fn hot(&self, scan: usize, at: (usize, usize)) -> Result<Loan, Refusal> {
        let scan = Arc::clone(self.lent().scans.get(scan).ok_or_else(Refusal::bug)?);
        // Columns side by side, and the same as a message.
        let charge = self.room(2 * hot::PIECE_BYTES_MAX as u64).await;
        let taken = spawn_blocking(move || hot::take(&scan.snapshot, &scan.wanted, at));
        let (bytes, next) = taken.await.map_err(|_| Refusal::bug())??;
        Ok(Loan::charged(charge, Given::Hot { next }, bytes))
    }

    /// The store, which proves what it gives out of the tables that were lent.
    fn proven(&self) -> ProvenStore {
        let tables: Vec<_> = self.lent().tables.values().cloned().collect();
        ProvenStore::rooted(Arc::clone(&self.store), Arc::clone(&self.proofs), tables)
    }

    /// The size of a file that was listed.
    fn listed(&self, path: &str) -> Result<u64, Refusal> {
        // T1: a path that was not on a list is nobody's.
        self.lent().files.get(path).copied().ok_or_else(Refusal::bug)
    }

    async fn open(&self, path: &str) -> Result<Loan, Refusal> {
        self.listed(path)?;
        let location = Path::parse(path).map_err(|_| Refusal::bug())?;
        let opened = self.proven().open(&location).await.map_err(|error| refusal(path, &error))?;
        let Some(OpenFile { file, blocks }) = opened else {
            self.is_far.store(true, Ordering::Relaxed);
            return Ok(Loan::of(Given::Far, Bytes::new()));
        };
        let sums = blocks.map(|blocks| blocks.encode());
        Ok(Loan { file: Some(file), ..Loan::of(Given::File { sums }, Bytes::new()) })
    }

    async fn read(&self, path: &str, ranges: &[(u64, u64)]) -> Result<Loan, Refusal> {
        let size = self.listed(path)?;
        let mut total = 0_u64;
        for (begin, end) in ranges {
            if begin > end || *end > size {
                return Err(Refusal::bug());
            }
            total = total.saturating_add(end - begin);
        }
        if total > READ_BYTES_MAX {
            return Err(Refusal::bug());
        }
        let location = Path::parse(path).map_err(|_| Refusal::bug())?;
        let ranges: Vec<_> = ranges.iter().map(|(begin, end)| *begin..*end).collect();
        let copies = if ranges.len() > 1 { 2 } else { 1 };
        let charge = self.room(total * copies).await;
        let got =
            self.proven().get_ranges(&location, &ranges).await.map_err(|error| refusal(path, &error))?;
        self.passed_bytes.fetch_add(total, Ordering::Relaxed);
        Ok(match got.as_slice() {
            [only] => Loan::charged(charge, Given::Bytes, only.clone()),
            _ => Loan::charged(charge, Given::Bytes, got.concat()),
        })
    }

    /// Bytes of objects that went through the server.
    #[must_use]
    pub fn passed_bytes(&self) -> u64 {
        self.passed_bytes.load(Ordering::Relaxed)
    }
}

fn refusal(path: &str, error: &object_store::Error) -> Refusal {
    if Damaged::find(error).is_some() {
        return Refusal::corrupt_object(path);
    }
    match error {
        object_store::Error::NotFound { .. } => Refusal::corrupt_object(path),
        _ => Refusal::storage_unavailable(),
    }
}

impl std::fmt::Debug for Lender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lender")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};

    use super::Lender;
    use crate::fixture::{Fixture, Sealed, T0, row};
    use crate::worker::wire::{Ask, Given};
    use storage::memory::Memory;
    use storage::record::{Draft, Kind, Tenant};

    fn status(given: &Given) -> u16 {
        match given {
            Given::Refused(refused) => refused.status,
            _ => 200,
        }
    }

    async fn lender() -> Lender {
        let fixture = fixture().await;
        let rooted = object_store::prefix::PrefixStore::new(Arc::clone(&fixture.store), "tenant/a");
        lender_of(&fixture, rooted)
    }

    async fn fixture() -> Fixture {
        let mut fixture = Fixture::new();
        let one = |draft: &mut Draft| row(draft, T0, "s", |_| {});
        fixture.table("a", "events", Kind::Events, &[(Sealed::Yes, &one), (Sealed::No, &one)]).await;
        fixture
    }

    fn lender_of(fixture: &Fixture, rooted: impl ObjectStore) -> Lender {
        let snapshot = Arc::new(fixture.snapshots[0].clone());
        Lender::new(
            move |name| (name == "events").then(|| Arc::clone(&snapshot)),
            Arc::new(rooted),
            Arc::default(),
            (Memory::new(64 << 20, 0), Tenant::parse("a").unwrap()),
        )
    }

    fn scan() -> Ask {
        Ask::Scan {
            table: "events".into(),
            projection: Some(vec![0]),
            time_ns: (i64::MIN, i64::MAX),
            sources: None,
        }
    }

    // T1
    #[tokio::test]
    async fn only_listed_files_and_ranges_within_them_are_lent() {
        let lender = lender().await;
        let file = "events/date=2026-01-02/0000.parquet".to_owned();
        let open = |path: &str| Ask::Read { path: path.to_owned(), ranges: vec![(0, 1)] };
        assert_eq!(status(&lender.answer(open(&file)).await.given), 500);
        assert_eq!(status(&lender.answer(scan()).await.given), 500, "no table was asked for");
        assert_eq!(status(&lender.answer(Ask::Table { name: "other".into() }).await.given), 404);
        assert_eq!(status(&lender.answer(Ask::Table { name: "events".into() }).await.given), 200);
        let Given::Scan { files, hot_rows, .. } = lender.answer(scan()).await.given else { panic!("a scan") };
        assert_eq!((files.len(), files[0].path.as_str(), hot_rows), (1, file.as_str(), 1));
        for path in ["", "/etc/passwd", "../b/events/x", "events/_delta_log/00000000000000000000.json"] {
            assert_eq!(status(&lender.answer(open(path)).await.given), 500, "{path}");
        }
        assert_eq!(status(&lender.answer(open(&file)).await.given), 200);
        let near = |path: &str| Ask::Open { path: path.to_owned() };
        assert_eq!(status(&lender.answer(near("/etc/passwd")).await.given), 500);
        let loan = lender.answer(near(&file)).await;
        assert!(matches!(loan.given, Given::Far) && loan.file.is_none(), "it is in no folder");
        let size = files[0].bytes;
        for (range, expected) in
            [((0, size), 200), ((0, size + 1), 500), ((5, 4), 500), ((u64::MAX - 1, u64::MAX), 500)]
        {
            let loan = lender.answer(Ask::Read { path: file.clone(), ranges: vec![range] }).await;
            assert_eq!(status(&loan.given), expected, "{range:?}");
        }
        let columns = Ask::Scan {
            table: "events".into(),
            projection: Some(vec![10_000]),
            time_ns: (0, 0),
            sources: None,
        };
        assert_eq!(status(&lender.answer(columns).await.given), 500);
    }

    // T1
    #[tokio::test]
    async fn a_list_comes_with_its_first_file_open_and_no_other() {
        let fixture = fixture().await;
        let folder = tempfile::tempdir().unwrap();
        let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let path = Path::from("events/date=2026-01-02/0000.parquet");
        let stored = fixture.store.get(&Path::from(format!("tenant/a/{path}"))).await.unwrap();
        let bytes = stored.bytes().await.unwrap();
        local.put(&path, PutPayload::from_bytes(bytes.clone())).await.unwrap();
        let lender = lender_of(&fixture, local);
        lender.answer(Ask::Table { name: "events".into() }).await;
        let none = Ask::Scan { table: "events".into(), projection: None, time_ns: (0, 0), sources: None };
        let loan = lender.answer(none).await;
        assert!(loan.file.is_none(), "nothing of it can match");
        let loan = lender.answer(scan()).await;
        assert!(matches!(&loan.given, Given::Scan { files, .. } if files[0].path == path.as_ref()));
        let mut read = Vec::new();
        loan.file.unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes, "it is that file");
        // One that is not as it was committed is on the list, and what is wrong is said when it is asked for.
        std::fs::write(folder.path().join(path.as_ref()), b"short").unwrap();
        let loan = lender.answer(scan()).await;
        assert!(matches!(loan.given, Given::Scan { .. }) && loan.file.is_none());
        assert_eq!(status(&lender.answer(Ask::Open { path: path.to_string() }).await.given), 500);
    }

    // B1
    #[tokio::test]
    async fn what_is_lent_at_once_is_bounded() {
        let lender = lender().await;
        lender.answer(Ask::Table { name: "events".into() }).await;
        for _ in 0..1_000 {
            assert_eq!(status(&lender.answer(scan()).await.given), 200);
        }
        assert_eq!(status(&lender.answer(scan()).await.given), 500);
        let store = Arc::new(InMemory::new());
        store.put(&Path::from("big"), PutPayload::from(vec![0; 6 << 20])).await.unwrap();
        let payer = (Memory::new(64 << 20, 0), Tenant::parse("a").unwrap());
        let lender = Lender::new(|_| None, store, Arc::default(), payer);
        lender.lent().files.insert("big".into(), 6 << 20);
        let read = |end| Ask::Read { path: "big".into(), ranges: vec![(0, end)] };
        assert_eq!(lender.answer(read(4 << 20)).await.tail.len() as u64, 4 << 20);
        assert_eq!(status(&lender.answer(read((4 << 20) + 1)).await.given), 500);
        let twice = Ask::Read { path: "big".into(), ranges: vec![(0, 3 << 20), (0, 3 << 20)] };
        assert_eq!(status(&lender.answer(twice).await.given), 500);
    }
}
