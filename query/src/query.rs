//! The crate's one object: takes a request on any thread, runs it on threads of its own (X1).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, ready};
use http::{HeaderName, HeaderValue};
use object_store::prefix::PrefixStore;
use storage::record::{Dataset, Kind, TableId, Tenant};
use storage::threads::on_each;
use storage::{Principal, Storage, cores};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::error::Elapsed;

use crate::budget::Budget;
use crate::endpoints::{self, Call, Endpoint};
use crate::plan::session::Sessions;
use crate::refusal::Refusal;
use crate::turns::Turns;
use crate::view::View;
use crate::worker::{self, Asked, FORWARD_THREADS, Lender, Pool};

/// Stack of a query thread, in bytes. The planner recurses once for each operator of a chain; this bears the
/// guard's bound several times over, and only what is touched costs memory.
const STACK_BYTES: usize = 64 << 20;

/// Queries that make their reply at once, for each thread: most wait for the object store. A reply is at most
/// 64 MiB of JSON beside what the memory pool accounts.
const RUNNING_PER_THREAD: usize = 4;

/// Threads at most that read files for typed reads. Chosen: what a disk answers at once; reads over thousands of files
/// made a hundred of them, and each keeps freed pieces for itself.
const FILE_THREADS_MAX: usize = 8;

/// How long such a thread outlives its last read: while it lives, what it freed is kept for it.
const FILE_THREAD_IDLE: Duration = Duration::from_secs(2);

/// Bounds of the query side.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory that all running reads in this process together may reserve, in bytes.
    pub memory_bytes: usize,
    /// How long one query may run.
    pub time_max: Duration,
    /// Rows of a JSON reply to SQL at most.
    pub rows_max: usize,
    /// Threads that queries run on.
    pub threads: usize,
    /// The workers that answer SQL.
    pub workers: worker::Options,
    /// Called by each thread of queries before it waits: the engine gives unused memory back to the system there.
    pub at_rest: fn(),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            time_max: Duration::from_secs(30),
            rows_max: 10_000,
            threads: 2,
            workers: worker::Options::default(),
            at_rest: || {},
        }
    }
}

/// One read, with the principal that its credential proved.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which read.
    pub endpoint: Endpoint,
    /// The last part of the path, decoded, where it is an id.
    pub path_id: Option<String>,
    /// The query string as sent.
    pub query: Option<String>,
    /// The `Accept` header.
    pub accept: Option<String>,
    /// The request's body.
    pub body: Bytes,
    /// Who asks.
    pub principal: Principal,
    /// Now, nanoseconds since 1970 UTC.
    pub now_ns: i64,
    /// The request's correlation id, for logs.
    pub correlation_id: String,
}

/// A reply's body.
#[derive(Debug)]
pub enum Body {
    /// All of it.
    Full(Bytes),
    /// Pieces as they are made; `Err` cuts the reply. Dropping the receiver cancels the query.
    Stream(mpsc::Receiver<Result<Bytes, ()>>),
}

/// A reply.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Body,
}

/// Answers reads.
#[derive(Debug)]
pub struct Query {
    storage: Arc<Storage>,
    inner: Arc<Inner>,
    /// Where SQL is answered.
    workers: Pool,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Inner {
    sessions: Sessions,
    /// Typed reads: so many at once, and every tenant has turns (X2).
    turns: Arc<Turns>,
    options: Options,
}

impl Query {
    /// Starts the query threads.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(storage: Arc<Storage>, options: Options) -> std::io::Result<Self> {
        let runtime = runtime(&options)?;
        let sessions = Sessions::new(options.memory_bytes, options.threads);
        let workers = Pool::start(options.workers.clone(), options.at_rest)?;
        let running_max = options.threads.max(1) * RUNNING_PER_THREAD;
        Ok(Self {
            storage,
            inner: Arc::new(Inner { sessions, turns: Turns::new(running_max), options }),
            workers,
            runtime: Some(runtime),
        })
    }

    /// Has the threads of queries give back what they keep for their next work. One that sleeps since its last query would
    /// keep it until the next.
    pub fn rest(&self) {
        let Options { threads, at_rest, .. } = &self.inner.options;
        if let Some(runtime) = &self.runtime {
            on_each(runtime.handle(), (*threads).max(1), *at_rest);
        }
        on_each(self.workers.handle(), FORWARD_THREADS, *at_rest);
    }

    /// Bytes that running queries have reserved.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        self.inner.sessions.reserved_bytes()
    }

    /// The workers that answer SQL.
    #[must_use]
    pub fn workers(&self) -> &Pool {
        &self.workers
    }

    /// Answers one read. Call it from any thread; dropping the future cancels the work.
    ///
    /// # Errors
    /// The refusal to render as a problem.
    pub fn answer(&self, request: Request) -> impl Future<Output = Result<Answer, Refusal>> + Send + use<> {
        if request.endpoint == Endpoint::Sql {
            return match self.sql(request) {
                Ok(asked) => Either::Left(Either::Left(self.workers.ask(asked))),
                Err(refusal) => Either::Left(Either::Right(ready(Err(refusal)))),
            };
        }
        Either::Right(self.typed(request))
    }

    /// What a worker is asked, and what it may read: the tables of the principal, each taken when it is named.
    fn sql(&self, request: Request) -> Result<Asked, Refusal> {
        let question = endpoints::sql::question(&request, self.inner.options.rows_max)?;
        let Request { principal, correlation_id, .. } = request;
        let key = (principal.tenant.clone(), principal.roles);
        let storage = Arc::clone(&self.storage);
        let payer = (Arc::clone(self.storage.memory()), principal.tenant.clone());
        let rooted = PrefixStore::new(self.storage.object_store(), format!("tenant/{}", principal.tenant));
        let find = move |name: &str| {
            // What is left alone is no empty table.
            let table = TableId::new(principal.tenant.clone(), Dataset::parse(name).ok()?);
            if storage.why_left_alone(&table).is_some() {
                return None;
            }
            let view = View::open(&storage, &principal, |dataset, _| dataset == name);
            view.tables().get(name).cloned()
        };
        let lender = Lender::new(find, Arc::new(rooted), Arc::clone(self.storage.proofs()), payer);
        Ok(Asked { key, question, lender, time_max: self.inner.options.time_max, correlation_id })
    }

    /// A read that runs in this process.
    fn typed(&self, request: Request) -> impl Future<Output = Result<Answer, Refusal>> + Send + use<> {
        let storage = Arc::clone(&self.storage);
        let inner = Arc::clone(&self.inner);
        let runtime = self.runtime.as_ref().expect("a query lives as long as its runtime").handle();
        let time_max = self.inner.options.time_max;
        // Spawned here and not when first polled: what a future does is compiled where it is polled, and the
        // planner is not to be compiled once more with each of this crate's callers.
        let timed = spawn_bounded(runtime, self.workers.handle(), time_max, async move {
            let _turn = inner.turns.take(&request.principal.tenant).await?;
            let view = open(&storage, &request)?;
            answer_view(&view, &request, &inner.sessions).await
        });
        outcome(timed, time_max)
    }
}

/// A task's answer, unless it ran out of time or panicked.
type Timed = CancelOnDrop<Result<Result<Result<Answer, Refusal>, JoinError>, Elapsed>>;

fn spawn_bounded(
    runtime: &Handle,
    timer: &Handle,
    time_max: Duration,
    work: impl Future<Output = Result<Answer, Refusal>> + Send + 'static,
) -> Timed {
    // Two tasks on threads of their own: the clock runs on whatever the work does with its threads.
    let runs = CancelOnDrop(runtime.spawn(work));
    CancelOnDrop(timer.spawn(async move { tokio::time::timeout(time_max, runs).await }))
}

async fn outcome(timed: Timed, time_max: Duration) -> Result<Answer, Refusal> {
    match timed.await {
        Ok(Ok(Ok(answer))) => answer,
        Ok(Err(_)) => Err(Refusal::query_timeout(time_max.as_secs_f64())),
        // Panics in decoders are caught where they are named (`scan`); this is for the rest.
        Ok(Ok(Err(_))) | Err(_) => Err(Refusal::bug()),
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        // A runtime dropped inside another one would block it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Takes snapshots of what the request reads, and of nothing else.
fn open(storage: &Storage, request: &Request) -> Result<View, Refusal> {
    let endpoint = request.endpoint;
    let wants = endpoint.reads(request.query.as_deref())?;
    refuse_left_alone(storage, &request.principal.tenant, &wants)?;
    Ok(View::open(storage, &request.principal, wants))
}

/// Refuses a request for a table that this build leaves alone: it would answer as if there were no rows.
fn refuse_left_alone(
    storage: &Storage,
    tenant: &Tenant,
    wants: impl Fn(&str, Kind) -> bool,
) -> Result<(), Refusal> {
    for (dataset, why) in storage.left_alone(tenant) {
        // What its rows are is not known; a dataset of a built-in name has that kind.
        if wants(dataset.as_str(), Kind::parse(dataset.as_str()).unwrap_or(Kind::System)) {
            let detail = format!("dataset {dataset} is left alone: {why}");
            return Err(Refusal::new(503, "table_left_alone", detail));
        }
    }
    Ok(())
}

/// Answers a request from what it may see.
///
/// # Errors
/// The refusal to render as a problem.
pub async fn answer_view(view: &View, request: &Request, sessions: &Sessions) -> Result<Answer, Refusal> {
    let budget = Budget::new(view.memory(), view.tenant());
    let session = sessions.open(view, &budget).map_err(|_| Refusal::bug())?;
    let call = Call {
        view,
        session: &session,
        budget: &budget,
        path_id: request.path_id.as_deref(),
        query: request.query.as_deref(),
    };
    endpoints::answer(request.endpoint, &call).await
}

/// A task that ends when nobody waits for it.
struct CancelOnDrop<T>(JoinHandle<T>);

impl<T> Future for CancelOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn runtime(options: &Options) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads.max(1))
        .max_blocking_threads(FILE_THREADS_MAX)
        .thread_keep_alive(FILE_THREAD_IDLE)
        .thread_name("query")
        .thread_stack_size(STACK_BYTES)
        .on_thread_park(options.at_rest)
        .on_thread_start(cores::give_way)
        .on_thread_stop(cores::end)
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::runtime::Handle;
    use tokio::sync::oneshot;

    use super::{Answer, Options, Refusal, outcome, runtime, spawn_bounded};

    // B1
    #[test]
    fn files_are_read_by_so_many_threads_at_most() {
        let runtime = runtime(&Options::default()).unwrap();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let reads: Vec<_> = (0..100)
            .map(|_| {
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                runtime.spawn_blocking(move || {
                    most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(10));
                    now.fetch_sub(1, Ordering::Relaxed);
                })
            })
            .collect();
        reads.into_iter().for_each(|read| runtime.block_on(read).unwrap());
        assert!((1..=8).contains(&most.load(Ordering::Relaxed)), "{most:?}");
    }

    async fn bounded(
        runtime: &Handle,
        time_max: Duration,
        work: impl Future<Output = Result<Answer, Refusal>> + Send + 'static,
    ) -> Result<Answer, Refusal> {
        outcome(spawn_bounded(runtime, runtime, time_max, work), time_max).await
    }

    // Q8
    #[tokio::test]
    async fn a_query_past_its_time_says_so() {
        let refusal = bounded(&Handle::current(), Duration::from_millis(5), std::future::pending()).await;
        let refusal = refusal.unwrap_err();
        assert_eq!((refusal.status, refusal.code), (422, "query_timeout"));
    }

    // F40
    #[tokio::test]
    async fn a_panic_ends_its_query_only() {
        let work = async { panic!("a decoder's bug") };
        assert_eq!(bounded(&Handle::current(), Duration::from_secs(9), work).await.unwrap_err().status, 500);
    }

    // Q9
    #[tokio::test]
    async fn nobody_waiting_cancels_the_work() {
        let (sender, receiver) = oneshot::channel::<()>();
        let work = async move {
            let _held = sender;
            std::future::pending().await
        };
        let handle = Handle::current();
        let waiting = bounded(&handle, Duration::from_secs(9), work);
        assert!(tokio::time::timeout(Duration::from_millis(5), waiting).await.is_err());
        // The sender is dropped with the work.
        assert!(tokio::time::timeout(Duration::from_secs(5), receiver).await.expect("cancelled").is_err());
    }
}
