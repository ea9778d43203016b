//! A worker as the server holds it: a child process and its socket.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::child::{End, Process, Reaper};
use super::link::Link;
use super::wire::{Configure, ToServer, ToWorker};

/// The running binary itself, whatever became of its file since.
pub const BINARY: &str = "/proc/self/exe";
/// How long a worker may take to be ready.
const READY_MAX: Duration = Duration::from_secs(30);

/// How workers come to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Launch {
    /// Not at all: SQL is not answered.
    #[default]
    Never,
    /// This binary, as `sql-worker`.
    Process,
    /// A thread of this process over the same protocol, for tests of this crate: it cannot be killed.
    #[cfg(test)]
    Thread,
    /// A thread that is ready, and gone before it takes a query.
    #[cfg(test)]
    Gone,
    /// A thread that takes its query and goes, and a process that stays.
    #[cfg(test)]
    Staying,
}

/// Bounds of the workers.
#[derive(Clone, Debug)]
pub struct Options {
    /// How they come to be.
    pub launch: Launch,
    /// Workers at once, warm or busy.
    pub workers_max: usize,
    /// Workers kept ready that have served nobody.
    pub warm: usize,
    /// Memory of one worker, in bytes, all told.
    pub memory_bytes: u64,
    /// Threads of one worker.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { launch: Launch::Never, workers_max: 4, warm: 1, memory_bytes: 128 << 20, threads: 2 }
    }
}

/// A worker that waits for a query or answers one. Dropping it kills it.
pub struct Worker {
    process: Option<Process>,
    /// Its socket.
    pub link: Link,
    /// Queries it has answered.
    pub served: u64,
    /// What it held when it was ready, in bytes.
    ready_bytes: u64,
}

impl Worker {
    /// A worker that is whatever is at the other end of a socket.
    #[cfg(test)]
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { process: None, link: Link::new(stream)?, served: 0, ready_bytes: 0 })
    }

    /// Tells it what it may use, and waits until it is ready.
    async fn ready(mut self, options: &Options) -> io::Result<Self> {
        let configure = Configure { threads: options.threads, memory_bytes: options.memory_bytes };
        self.link.writer().write(&ToWorker::Configure(configure), &[]).await?;
        match tokio::time::timeout(READY_MAX, self.link.read()).await {
            Ok(Ok(Some((ToServer::Ready { confined_by }, _)))) => {
                tracing::debug!(confined_by = confined_by.join(","), "a SQL worker is ready");
            }
            Ok(Err(error)) => return Err(error),
            _ => return Err(io::ErrorKind::TimedOut.into()),
        }
        self.ready_bytes = self.held_bytes();
        Ok(self)
    }

    /// Memory it holds now beyond what it held when it was ready, in bytes.
    #[must_use]
    pub fn grown_bytes(&self) -> u64 {
        self.held_bytes().saturating_sub(self.ready_bytes)
    }

    /// Memory that it has written and holds now, in bytes.
    fn held_bytes(&self) -> u64 {
        let Some(process) = &self.process else { return 0 };
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.process.as_ref().is_some_and(Process::has_ended)
    }

    /// Kills it at once; [`Self::end`] waits for the rest.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    /// Waits until nothing is left that it held, and says how it ended. Blocks: milliseconds after a kill.
    pub fn end(&mut self) -> End {
        self.process.as_mut().map_or(End::Crashed, Process::end)
    }
}

/// What a start gives: the process, where there is one, and the server's end of the socket.
type Started = io::Result<(Option<Child>, UnixStream)>;

/// Starts workers, each from the one thread that lives as long as the server wants any: the kernel ends a worker with
/// the thread that started it.
#[derive(Clone)]
pub struct Starter {
    asked: mpsc::Sender<oneshot::Sender<Started>>,
    reaper: Reaper,
    options: Options,
}

impl Starter {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's.
    pub fn new(options: Options) -> io::Result<Self> {
        // Each start has a place among the processes, so no more of them wait.
        let (asked, mut asks) = mpsc::channel::<oneshot::Sender<Started>>(options.workers_max.max(1));
        let launch = options.launch.clone();
        let reaper = Reaper::start()?;
        let buries = reaper.clone();
        std::thread::Builder::new().name("sql-starter".into()).spawn(move || {
            while let Some(reply) = asks.blocking_recv() {
                // Who asked may have gone: what was started is dropped, which ends it.
                if let Err(Ok((Some(child), _))) = reply.send(start(&launch)) {
                    buries.bury(child);
                }
            }
        })?;
        Ok(Self { asked, reaper, options })
    }

    /// Starts a worker, and waits until it is ready.
    ///
    /// # Errors
    /// The system's, or a worker that does not get ready.
    pub async fn start(&self) -> io::Result<Worker> {
        let (reply, started) = oneshot::channel();
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.asked.send(reply).await.map_err(|_| gone())?;
        let (child, stream) = started.await.map_err(|_| gone())??;
        let process = child.map(|child| Process::new(child, self.reaper.clone()));
        let worker = Worker { process, link: Link::new(stream)?, served: 0, ready_bytes: 0 };
        worker.ready(&self.options).await
    }
}

fn start(launch: &Launch) -> Started {
    match launch {
        Launch::Never => Err(io::ErrorKind::Unsupported.into()),
        Launch::Process => {
            let (ours, theirs) = UnixStream::pair()?;
            let child = Command::new(BINARY)
                .arg0("floodmark")
                .arg("sql-worker")
                .env_clear()
                .current_dir("/")
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            Ok((Some(child), ours))
        }
        #[cfg(test)]
        Launch::Thread => {
            let (ours, theirs) = UnixStream::pair()?;
            std::thread::Builder::new()
                .stack_size(64 << 20)
                .spawn(move || super::serve::serve(theirs, false, super::Allocator::default()))?;
            Ok((None, ours))
        }
        #[cfg(test)]
        Launch::Gone => {
            let (ours, theirs) = UnixStream::pair()?;
            std::thread::spawn(move || tests::be_ready_and_go(theirs));
            Ok((None, ours))
        }
        #[cfg(test)]
        Launch::Staying => {
            let (ours, theirs) = UnixStream::pair()?;
            std::thread::spawn(move || tests::take_a_query_and_go(theirs));
            Ok((Some(Command::new("sleep").arg("60").spawn()?), ours))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::{Options, Worker};
    use crate::worker::desk::{Desk, Inbox};
    use crate::worker::wire::ToServer;

    /// A worker that is ready, and gone before it takes a query.
    pub fn be_ready_and_go(stream: UnixStream) -> io::Result<()> {
        Inbox::new(stream.try_clone()?).next()?;
        Desk::new(stream).report(&ToServer::Ready { confined_by: Vec::new() }, &[])
    }

    /// A worker that takes its query and closes its socket.
    pub fn take_a_query_and_go(stream: UnixStream) -> io::Result<()> {
        let mut inbox = Inbox::new(stream.try_clone()?);
        inbox.next()?;
        let desk = Desk::new(stream);
        desk.report(&ToServer::Ready { confined_by: Vec::new() }, &[])?;
        inbox.next()?;
        desk.report(&ToServer::Progress { rows: 7, bytes: 0 }, &[])
    }

    // B1: by a clock that stands still but for what is waited for.
    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_get_ready_is_given_up() {
        let (ours, _mute) = UnixStream::pair().unwrap();
        let options = Options::default();
        let ready = Worker::over(ours).unwrap().ready(&options);
        let ready = tokio::time::timeout(Duration::from_secs(31), ready).await;
        let error = ready.expect("it is waited for no longer").err().expect("it never says a word");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
