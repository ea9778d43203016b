//! One query in its worker: guard, plan, scan, render.

use std::collections::BTreeMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{
    EmptyRecordBatchStream, ExecutionPlan, SendableRecordBatchStream, execute_stream,
};
use futures::{FutureExt, StreamExt};
use storage::record::Kind;
use tokio::runtime::Runtime;

use super::desk::Desk;
use super::hot;
use super::serve::Allocator;
use super::store::Lent;
use super::table::{Read, Remote};
use super::wire::{Ask, Configure, Given, PIECE_BYTES_MAX, Question, ToServer};
use crate::plan::attr::{self, Shape};
use crate::plan::guard::{self, Checked};
use crate::plan::session::{Session, Sessions};
use crate::plan::{batch, functions, size, work};
use crate::refusal::{Failure, Refusal};
use crate::render::{self, Whole};

/// Bytes of a reply that are held back before its head is sent: what fails until then is told with a status.
const HELD_BYTES_MAX: usize = 1 << 20;
/// How often the server is told how far a query is.
const TICK: Duration = Duration::from_millis(200);
/// How long a query may take to let go of its memory once it is over.
const RELEASE_MAX: Duration = Duration::from_millis(500);
/// Of the memory that a query may take, the part that the query engine may account, in hundredths. The rest is for what
/// it does not: plans, results of functions, decoded pages, the reply.
const ACCOUNTED_PERCENT: u64 = 70;

/// Where a worker answers one query after the other.
pub struct Room {
    desk: Arc<Desk>,
    sessions: Sessions,
    allocator: Allocator,
    /// Whether freed memory of a query was not given back yet.
    keeps: AtomicBool,
    running: Mutex<Option<Running>>,
    is_over: AtomicBool,
}

/// What can be said of the query that runs.
#[derive(Clone)]
struct Running {
    store: Arc<Lent>,
    read: Arc<Read>,
    plan: Option<Arc<dyn ExecutionPlan>>,
}

/// Ends the thread that tells how far queries are.
pub struct Ticker(Arc<Room>);

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

impl Room {
    /// A room for queries that may each take `query_bytes`.
    #[must_use]
    pub fn new(desk: Arc<Desk>, configure: &Configure, query_bytes: u64, allocator: Allocator) -> Self {
        let accounted = query_bytes / 100 * ACCOUNTED_PERCENT;
        Self {
            desk,
            sessions: Sessions::new(usize::try_from(accounted).unwrap_or(usize::MAX), configure.threads),
            allocator,
            keeps: AtomicBool::new(false),
            running: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// Runs a query of nothing, to have in memory what every query needs.
    pub fn warm(&self, runtime: &Runtime) {
        let store = Arc::new(Lent::new(Arc::clone(&self.desk)));
        let Ok(session) = self.sessions.over(store) else { return };
        let sql = "SELECT count(*), upper('a') FROM (VALUES (1), (2)) AS t(x) WHERE x > 1 ORDER BY 1";
        let Ok(checked) = guard::check(sql) else { return };
        let warmed = runtime.spawn(async move {
            let frame = session.plan(checked.query, Vec::new()).await?;
            frame.collect().await
        });
        drop(runtime.block_on(warmed));
    }

    /// Starts the thread that tells how far queries are: it runs whatever the query's own threads do.
    ///
    /// # Errors
    /// The system's.
    pub fn tick(self: &Arc<Self>) -> io::Result<Ticker> {
        let room = Arc::clone(self);
        std::thread::Builder::new().name("progress".into()).stack_size(256 << 10).spawn(move || {
            (room.allocator.begin_thread)();
            let mut last = (0, 0);
            while !room.is_over.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                let running = room.running().clone();
                let Some(running) = running else {
                    if room.keeps.swap(false, Ordering::Relaxed) {
                        (room.allocator.rest)();
                    }
                    continue;
                };
                let now = running.so_far();
                if now != last {
                    last = now;
                    let (rows, bytes) = now;
                    if room.desk.report(&ToServer::Progress { rows, bytes }, &[]).is_err() {
                        return;
                    }
                }
            }
        })?;
        Ok(Ticker(Arc::clone(self)))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one query, and says when nothing of it is left. Much that it has freed is given back first, since the server
    /// looks then how much the worker has grown; a little is kept for a query that follows at once.
    pub async fn answer(&self, question: Question) {
        // A panic of the query engine ends this query and nothing else; its text may quote values (P2).
        let answered = AssertUnwindSafe(self.query(&question)).catch_unwind().await;
        *self.running() = None;
        let refused = match answered {
            Ok(Ok(())) => None,
            Ok(Err(refusal)) => Some(refusal),
            Err(_) => Some(Refusal::bug()),
        };
        if let Some(refusal) = refused {
            // Where the engine stumbles over a statement it is still the statement's: an input never causes a 5xx.
            let refusal = if refusal == Refusal::bug() {
                Refusal::new(400, "query_failed", "the query engine cannot run this query")
            } else {
                refusal
            };
            drop(self.desk.report(&ToServer::Refused((&refusal).into()), &[]));
        }
        drop(question);
        let is_clean = self.is_released().await;
        self.keeps.store(self.allocator.keeps(), Ordering::Relaxed);
        drop(self.desk.report(&ToServer::Done { is_clean }, &[]));
    }

    /// Whether everything that the engine accounted was given back: tasks that were told to end have ended.
    async fn is_released(&self) -> bool {
        let step = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        while self.sessions.reserved_bytes() > 0 {
            if waited >= RELEASE_MAX {
                return false;
            }
            tokio::time::sleep(step).await;
            waited += step;
        }
        true
    }

    async fn query(&self, question: &Question) -> Result<(), Refusal> {
        let Checked { mut query, tables: named } = guard::check(&question.sql)?;
        functions::check(&query)?;
        let store = Arc::new(Lent::new(Arc::clone(&self.desk)));
        let read = Arc::new(Read::default());
        *self.running() = Some(Running { store: Arc::clone(&store), read: Arc::clone(&read), plan: None });
        let (mut shapes, mut tables) = (BTreeMap::new(), Vec::new());
        for name in named {
            let gift = self.desk.ask(Ask::Table { name: name.clone() }).await?;
            let Given::Table { kind, rows } = gift.given else { return Err(Refusal::bug()) };
            let (schema, _) = hot::decode(&gift.tail)?;
            let kind = Kind::parse(&kind).ok_or_else(Refusal::bug)?;
            shapes.insert(name.clone(), Shape { kind, schema: Arc::clone(&schema), rows });
            tables.push(Arc::new(Remote {
                name,
                schema,
                desk: Arc::clone(&self.desk),
                store: Arc::clone(&store),
                read: Arc::clone(&read),
            }));
        }
        attr::rewrite(&mut query, &shapes).map_err(|problem| Refusal::new(400, "invalid_query", problem))?;
        let session = self.sessions.over(Arc::clone(&store) as _).map_err(|_| Refusal::bug())?;
        let named = tables.iter().map(|table| (table.name.clone(), Arc::clone(table) as _)).collect();
        let fault = Fault { room: self, session: &session, tables: &tables };
        let frame = match session.plan(query, named).await {
            Ok(frame) => frame,
            Err(error) => return Err(fault.refusal(&error).await),
        };
        size::check(frame.logical_plan())?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let format = render::format(question.accept.as_deref(), &schema).map_err(|_| Refusal::bug())?;
        let frame = match (&format, frame) {
            (Some(_), frame) => frame,
            (None, frame) => match frame.limit(0, Some(question.rows_max + 1)) {
                Ok(limited) => limited,
                Err(error) => return Err(fault.refusal(&error).await),
            },
        };
        let (mut state, plan) = frame.into_parts();
        let optimized = match state.optimize(&plan) {
            Ok(plan) => plan,
            Err(error) => return Err(fault.refusal(&error).await),
        };
        size::check(&optimized)?;
        let rows_of = |name: &str| shapes.get(name).map_or(0, |shape| shape.rows);
        work::check(&optimized, &rows_of)?;
        *state.config_mut() = state.config().clone().with_batch_size(batch::rows(&optimized));
        let task = Arc::new(TaskContext::from(&state));
        let planned = state.query_planner().create_physical_plan(&optimized, &state);
        let plan = match AssertUnwindSafe(planned).catch_unwind().await {
            Ok(Ok(plan)) => plan,
            Ok(Err(error)) => return Err(fault.refusal(&error).await),
            Err(_) => return Err(fault.corrupt().await),
        };
        if let Some(running) = &mut *self.running() {
            running.plan = Some(Arc::clone(&plan));
        }
        let stream = match execute_stream(plan, task) {
            Ok(stream) => stream,
            Err(error) => return Err(fault.refusal(&error).await),
        };
        let mut rows = Rows { stream, fault };
        match format {
            Some(format) => self.stream(&mut rows, format).await,
            None => self.whole(&mut rows, question.rows_max).await,
        }
    }

    async fn whole(&self, rows: &mut Rows<'_>, rows_max: usize) -> Result<(), Refusal> {
        let schema = rows.stream.schema();
        let mut reply = Reply::new(&self.desk, "application/json");
        let mut whole = Whole::begin(&schema, rows_max, &mut reply.buffer);
        'all: while let Some(batch) = rows.next().await? {
            for row in 0..batch.num_rows() {
                if !whole.row(&batch, row, reply.sent_bytes, &mut reply.buffer) {
                    break 'all;
                }
                if reply.buffer.len() >= HELD_BYTES_MAX {
                    reply.send()?;
                }
            }
        }
        whole.end(&mut reply.buffer);
        reply.end()
    }

    async fn stream(&self, rows: &mut Rows<'_>, mut format: render::Format) -> Result<(), Refusal> {
        let mut reply = Reply::new(&self.desk, format.content_type());
        format.begin(&mut reply.buffer).map_err(|_| Refusal::bug())?;
        while let Some(batch) = rows.next().await? {
            // A slice at a time: a batch of long rows is many pieces, never one.
            for part in render::slices(&batch, PIECE_BYTES_MAX) {
                format.rows(&mut reply.buffer, &part).map_err(|_| Refusal::bug())?;
                if reply.buffer.len() >= HELD_BYTES_MAX || reply.is_begun {
                    reply.send()?;
                }
            }
        }
        format.end(&mut reply.buffer).map_err(|_| Refusal::bug())?;
        reply.end()
    }
}

impl Running {
    /// Rows and bytes read so far.
    fn so_far(&self) -> (u64, u64) {
        let hot = self.read.hot_rows.load(Ordering::Relaxed);
        let sealed = self.plan.as_ref().map_or(0, leaf_rows);
        (hot + sealed, self.store.read_bytes())
    }
}

/// Rows that the leaves of a running plan have given, without those that count for themselves.
fn leaf_rows(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let children = plan.children();
    if children.is_empty() {
        let rows = plan.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or(0);
        return rows as u64;
    }
    children.into_iter().map(leaf_rows).sum()
}

/// A reply on its way: held back at first, then sent piece by piece.
struct Reply<'a> {
    desk: &'a Desk,
    content_type: &'static str,
    buffer: Vec<u8>,
    is_begun: bool,
    sent_bytes: usize,
}

impl<'a> Reply<'a> {
    fn new(desk: &'a Desk, content_type: &'static str) -> Self {
        Self { desk, content_type, buffer: Vec::new(), is_begun: false, sent_bytes: 0 }
    }

    fn head(&mut self, bytes: Option<usize>) -> Result<(), Refusal> {
        self.is_begun = true;
        let head = ToServer::Head { content_type: self.content_type.to_owned(), bytes };
        self.desk.report(&head, &[]).map_err(|_| Refusal::bug())
    }

    /// Sends what is there. Waits while the server does not read.
    fn send(&mut self) -> Result<(), Refusal> {
        if !self.is_begun {
            self.head(None)?;
        }
        for piece in self.buffer.chunks(PIECE_BYTES_MAX) {
            self.desk.report(&ToServer::Piece, piece).map_err(|_| Refusal::bug())?;
        }
        self.sent_bytes += self.buffer.len();
        self.buffer.clear();
        Ok(())
    }

    fn end(mut self) -> Result<(), Refusal> {
        if !self.is_begun {
            self.head(Some(self.buffer.len()))?;
        }
        self.send()?;
        self.desk.report(&ToServer::End, &[]).map_err(|_| Refusal::bug())
    }
}

/// One running result.
struct Rows<'a> {
    stream: SendableRecordBatchStream,
    fault: Fault<'a>,
}

impl Rows<'_> {
    /// The next batch that has rows; `None` at the end.
    async fn next(&mut self) -> Result<Option<RecordBatch>, Refusal> {
        loop {
            // A decoder's panic is caught here, where the file at fault can still be found.
            match AssertUnwindSafe(self.stream.next()).catch_unwind().await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(batch))) if batch.num_rows() == 0 => {}
                Ok(Some(Ok(batch))) => return Ok(Some(batch)),
                Ok(Some(Err(error))) => {
                    self.let_go();
                    return Err(self.fault.refusal(&error).await);
                }
                Err(_) => {
                    self.let_go();
                    return Err(self.fault.corrupt().await);
                }
            }
        }
    }

    /// Lets go of what the query holds: what a file holds is looked at with all the memory there is.
    fn let_go(&mut self) {
        self.stream = Box::pin(EmptyRecordBatchStream::new(self.stream.schema()));
    }
}

/// Finds out what a failure means to the caller.
struct Fault<'a> {
    room: &'a Room,
    session: &'a Session,
    tables: &'a [Arc<Remote>],
}

impl Fault<'_> {
    async fn refusal(&self, error: &DataFusionError) -> Refusal {
        match Failure::of(error) {
            Failure::Refused(refusal) => refusal,
            Failure::Engine => Refusal::bug(),
            Failure::MaybeCorrupt => self.corrupt().await,
        }
    }

    /// Names the first object that cannot be decoded; our bug if all can. A store that is away is no damage.
    async fn corrupt(&self) -> Refusal {
        self.room.is_released().await;
        for table in self.tables {
            if table.store.was_away() {
                return Refusal::storage_unavailable();
            }
            for file in table.store.files_of(&table.name) {
                let probe = AssertUnwindSafe(self.session.decode(&table.schema, &file)).catch_unwind().await;
                if table.store.was_away() {
                    return Refusal::storage_unavailable();
                }
                match probe {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => match Failure::of(&error) {
                        Failure::Refused(refusal) if matches!(refusal.status, 422 | 503) => return refusal,
                        _ => return Refusal::corrupt_object(&file.path),
                    },
                    Err(_) => return Refusal::corrupt_object(&file.path),
                }
            }
        }
        Refusal::bug()
    }
}
