//! One run of the server: opens what is kept, serves it, and leaves in order.
//!
//! Start: configuration, master key, storage (which replays its log), tenants and keys, lanes. End: a signal
//! drains; a failed sync (W3) ends at once, and the next start replays.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use storage::{ErrorKind, Recovery, Storage, cores, threads};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::identity::{Identity, master};
use crate::jobs::{self, Jobs};
use crate::metrics::{Metrics, Process};
use crate::rest::{Due, Quiet};
use crate::state::origin::{self, Origin};
use crate::state::proof::Prover;
use crate::state::store::Store;
use crate::state::{self, State, bootstrap};
use crate::turns::Turns;
use crate::{allocator, http, lane, logs, private};

/// How long what is under way may take once a signal came; with storage's own end this stays within 10 s.
const DRAIN_MAX: Duration = Duration::from_secs(7);

/// How long storage may take to stop its background work.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// How long lanes have to answer 503 after a failed sync.
const POISONED_GRACE: Duration = Duration::from_millis(100);

/// Threads of administration and of the accepted connections' small answers.
const CONTROL_THREADS: usize = 2;

/// Changes of state that one tenant may have under way: they wait for each other, and for those of other tenants.
const ADMIN_CHANGES_MAX: usize = 8;

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: i32 = 4_096;

/// Why a run ended, or did not begin.
#[derive(Debug)]
pub struct Exit {
    code: u8,
    text: String,
}

impl Exit {
    fn failed(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }
}

impl From<config::Error> for Exit {
    fn from(error: config::Error) -> Self {
        Self { code: 78, text: error.to_string() }
    }
}

impl From<storage::Error> for Exit {
    fn from(error: storage::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Corrupt => 65,
            ErrorKind::Poisoned => 70,
            ErrorKind::Invalid => 78,
            _ => 1,
        };
        Self { code, text: error.to_string() }
    }
}

impl From<state::Error> for Exit {
    fn from(error: state::Error) -> Self {
        let code = match error {
            state::Error::Corrupt(_) | state::Error::Forged(_) => 65,
            state::Error::Forbidden(_) => 78,
            _ => 1,
        };
        Self { code, text: error.to_string() }
    }
}

/// Writes a line for the person who started the process, to standard error.
pub fn say(line: &str) {
    // Nobody to tell is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs the server until it is told to stop, and returns the process' exit code. `alongside` runs with it,
/// knowing the address it listens on.
pub fn run<F>(config: Config, alongside: impl FnOnce(std::net::SocketAddr, Option<String>) -> F) -> ExitCode
where
    F: Future<Output = ()> + Send + 'static,
{
    match serve(config, alongside) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            say(&format!("floodmark: {}", exit.text));
            ExitCode::from(exit.code)
        }
    }
}

fn serve<F>(
    config: Config,
    alongside: impl FnOnce(std::net::SocketAddr, Option<String>) -> F,
) -> Result<(), Exit>
where
    F: Future<Output = ()> + Send + 'static,
{
    let started_ns = Clock::now_ns();
    let level = config.settings.log.parse().expect("the level was checked with the configuration");
    logs::start(level, config.settings.log_format);
    raise_descriptors();
    allocator::give_back_beside();
    let data = &config.settings.data;
    private::data_folder(data)
        .map_err(|error| Exit::failed(format!("cannot make the data folder {}: {error}", data.display())))?;
    let root = storage::local_root(&config.settings.storage);
    let has_deployment = root.as_ref().is_some_and(|root| root.join("system/master.json").exists());
    let configured_key = config.secrets.master_key.as_ref();
    let master = master::load(configured_key, data, config.is_loopback(), has_deployment)?;
    if let Some(root) = &root {
        // Told before the log is replayed and anything is written.
        origin::is_ours_in(root, &master.derived.check)?;
    }
    let derived = &master.derived;
    let identity = Arc::new(Identity::new(derived.pepper.clone()));
    let configured = bootstrap::configured(&config, &identity)?;
    let shared = lane::shared(&config, &derived.scrub)?;
    // Bound before anything is replayed, so that a taken port is told at once; heard only once ready.
    let socket = bind(&config)?;

    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .on_thread_park(allocator::tidy)
        .enable_all()
        .build()
        .map_err(|error| Exit::failed(format!("cannot start threads: {error}")))?;
    let app = control.block_on(async {
        let options = storage::Options {
            at_rest: allocator::tidy,
            declared_key_secret: storage::DeclaredKeySecret::new(*derived.declared),
            ..config.settings.storage.clone()
        };
        let progress = Progress::default();
        if root.is_none() {
            origin::is_ours(&*storage::open_store(&options)?, &derived.check).await?;
        }
        let storage =
            Storage::open(options, ingest::measure::measure, Clock::now_ns, |at| progress.show(at)).await?;
        // The data folder is this process's from here on.
        master.save()?;
        let prover = Prover::new(derived.state.clone());
        let mark = origin::mark(&config.settings.data);
        let objects = storage.object_store();
        let adopts = config.settings.adopt_state;
        if let Origin::TakenOver(records) =
            origin::check(&*objects, &prover, &derived.check, &mark, adopts).await?
        {
            say(&format!(
                "{records} records of tenants, keys and policies had no proof of origin and were taken over as they \
                 are; from now on one without is refused"
            ));
        }
        let store = Arc::new(Store::new(objects, prover));
        let state = State::load(Arc::clone(&store), Arc::clone(&identity), configured).await?;
        let bootstrap_key = bootstrap::first_start(&state, &config, Clock::now_ns()).await?;
        if let Some(key) = &bootstrap_key {
            say(&format!(
                "bootstrap key (admin of tenant default, operator; shown this once): {}",
                key.as_str()
            ));
        }
        for (tenant, policy) in state.all_limits().await {
            shared.admit.set(&tenant, policy);
        }
        // R1: nothing is deleted before storage knows every hold.
        storage.set_policies(state.rules().await);
        let jobs = Jobs::load(store).await?;
        jobs::start(Arc::clone(&jobs), Arc::clone(&storage), &config.settings.jobs)
            .map_err(|error| Exit::failed(format!("cannot start the thread of jobs: {error}")))?;
        let query = query::Query::new(Arc::clone(&storage), config.query_options())
            .map_err(|error| Exit::failed(format!("cannot start query threads: {error}")))?;
        let app = Arc::new(App {
            identity,
            state,
            storage,
            jobs,
            query,
            ingest: shared,
            metrics: Metrics::default(),
            readiness: crate::api::Readiness::default(),
            control: control.handle().clone(),
            admin_turns: Turns::new(ADMIN_CHANGES_MAX),
            connections: AtomicUsize::new(0),
            underway: Arc::new(AtomicUsize::new(0)),
            started_ns,
            config,
        });
        Ok::<_, Exit>((app, bootstrap_key))
    })?;
    let (app, bootstrap_key) = app;
    // This thread has read tables and logs, and from here on only waits.
    allocator::rest();

    let listener = listen(socket)?;
    let lanes = http::start(&app, listener)
        .map_err(|error| Exit::failed(format!("cannot start the ingest lanes: {error}")))?;
    let addr = lanes.addr();
    app.metrics.idle.measure();
    control.spawn(watch(Arc::clone(&app)));
    let beside = control.spawn(alongside(addr, bootstrap_key.map(|key| key.as_str().to_owned())));
    say(&format!("listening http={addr} grpc=-"));

    let ended = control.block_on(async {
        tokio::select! {
            () = app.storage.poisoned() => End::Poisoned,
            signal = first_signal() => End::Signal(signal),
        }
    });
    beside.abort();
    match ended {
        End::Poisoned => {
            std::thread::sleep(POISONED_GRACE);
            say("floodmark: the log did not sync; the next start replays it");
            // Lanes may still wait on the log that failed: nothing of them is to be joined (W3).
            std::process::exit(70);
        }
        End::Signal(name) => {
            tracing::info!(signal = name, "draining");
            control.spawn(async {
                first_signal().await;
                // Asked twice: what is not acknowledged yet was not promised.
                std::process::exit(1);
            });
            lanes.drain(DRAIN_MAX);
            let closed =
                control.block_on(async { tokio::time::timeout(CLOSE_MAX, app.storage.close()).await });
            tracing::info!(is_whole = closed.is_ok(), "stopped");
            control.shutdown_background();
            Ok(())
        }
    }
}

/// Gives back unused memory sooner while the process is near its cap: what one thread's heap has freed, another's
/// cannot use. Keeps a core for writes while there are some.
async fn watch(app: Arc<App>) {
    let memory_max = app.storage.memory().memory_max();
    let mut cores_watch = cores::Watch::default();
    let mut quiet = Quiet::default();
    let mut look = allocator::LOOK;
    loop {
        tokio::time::sleep(look).await;
        if let Some(due) = quiet.due() {
            if due == Due::First {
                app.ingest.scrub.load().forget();
            }
            threads::on_each(&app.control, CONTROL_THREADS, allocator::tidy);
            app.query.rest();
            allocator::release();
        }
        cores_watch.look(app.storage.stats().syncs.load(Ordering::Relaxed), look);
        look = allocator::watch(Process::this().resident_bytes, memory_max);
    }
}

enum End {
    Poisoned,
    Signal(&'static str),
}

/// Waits for SIGTERM or SIGINT.
async fn first_signal() -> &'static str {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the defaults end the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

fn bind(config: &Config) -> Result<socket2::Socket, Exit> {
    let addr = config.http_addr;
    let bound = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        Ok::<_, std::io::Error>(socket)
    };
    bound().map_err(|error| Exit::failed(format!("cannot bind http_addr {addr}: {error}")))
}

fn listen(socket: socket2::Socket) -> Result<TcpListener, Exit> {
    socket.listen(BACKLOG).map_err(|error| Exit::failed(format!("cannot listen: {error}")))?;
    Ok(socket.into())
}

/// As many descriptors as the system allows: each connection is one. What it refuses is no reason not to start.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Tells how far a long recovery is: a line at every tenth of it.
#[derive(Default)]
struct Progress {
    tenths: AtomicU64,
}

impl Progress {
    /// Shorter recoveries are over before anybody asks; a segment counts with its preallocated length.
    const BYTES_MIN: u64 = 512 << 20;

    fn show(&self, at: Recovery) {
        if at.bytes_total < Self::BYTES_MIN {
            return;
        }
        let tenths = at.bytes_done * 10 / at.bytes_total;
        if self.tenths.fetch_max(tenths, Ordering::Relaxed) < tenths {
            let mut line = String::new();
            let _ = write!(line, "recovering: {} of {} MiB", at.bytes_done >> 20, at.bytes_total >> 20);
            let _ = write!(line, ", {} rows not in a table yet", at.rows);
            say(&line);
        }
    }
}
