//! The worker's main thread: confines the process, then reads what the server sends until the server goes.

use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::confine;
use super::desk::{Desk, Gift, Inbox};
use super::process::BINARY;
use super::run::Room;
use super::wire::{Configure, ToServer, ToWorker};

/// What a worker has its allocator do; nothing where it shares a process.
#[derive(Clone, Copy, Debug)]
pub struct Allocator {
    /// For each thread, before it allocates much: what one thread has freed, every other is to have. The limit is on
    /// address space, which an arena that is a thread's own keeps from the others.
    pub begin_thread: fn(),
    /// Gives back all that is free.
    pub rest: fn(),
    /// Bytes that are free and not given back.
    pub kept_bytes: fn() -> u64,
}

impl Allocator {
    /// After a query: gives back what is free where it is much, and says whether it is kept.
    pub fn keeps(self) -> bool {
        let is_little = (self.kept_bytes)() <= KEPT_BYTES_MAX;
        if !is_little {
            (self.rest)();
        }
        is_little
    }
}

impl Default for Allocator {
    fn default() -> Self {
        Self { begin_thread: || {}, rest: || {}, kept_bytes: || 0 }
    }
}

/// Bytes of freed memory that a worker keeps after a query, until it has rested for a tick: taking them again is a fault of
/// each page. Chosen: the pages and columns of a scan that are decoded at a time; a third of what a worker may grow by.
const KEPT_BYTES_MAX: u64 = 16 << 20;
/// Stack of a query thread, in bytes. The planner recurses once for each operator of a chain; this bears the
/// guard's bound several times over, and only what is touched costs memory.
const STACK_BYTES: usize = 64 << 20;
/// Threads of one query at most; more would need more address space for stacks than a worker begins with.
const THREADS_MAX: usize = 4;

/// The worker's `main`: takes the socket that stands as standard input, and serves until it is closed. At first it is
/// not limited, and starts itself once more so that its memory is limited from the first byte.
///
/// # Errors
/// What keeps the worker from starting, or a server that sends what cannot be read.
pub fn main(is_limited: bool, allocator: Allocator) -> io::Result<()> {
    if !is_limited {
        confine::begin()?;
        // Once more, under the limit: the same binary, even where its file was replaced meanwhile.
        let mut again = Command::new(BINARY);
        return Err(again.arg0("floodmark").args(["sql-worker", "--limited"]).env_clear().exec());
    }
    (allocator.begin_thread)();
    serve(UnixStream::from(confine::process()?), true, allocator)
}

/// Serves over a socket; confined where it has a process of its own.
///
/// # Errors
/// As [`main`].
pub fn serve(stream: UnixStream, has_process: bool, allocator: Allocator) -> io::Result<()> {
    let desk = Arc::new(Desk::new(stream.try_clone()?));
    let mut inbox = Inbox::new(stream);
    let Some((ToWorker::Configure(configure), ..)) = inbox.next()? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let configure = within(configure);
    let mut confined_by = Vec::new();
    let measure = has_process.then(confine::measure).transpose()?;
    // Before there is a second thread: it holds for those that are started afterwards.
    if has_process && confine::file_system() {
        confined_by.push("landlock".to_owned());
    }
    let runtime = runtime(&configure, allocator.begin_thread)?;
    let query_bytes = match measure {
        Some(measure) => {
            // A first query brings in what all queries need, so that it counts as the worker's own.
            Room::new(Arc::clone(&desk), &configure, configure.memory_bytes, allocator).warm(&runtime);
            (allocator.rest)();
            confine::memory(measure, configure.memory_bytes)?
        }
        None => configure.memory_bytes,
    };
    let room = Arc::new(Room::new(Arc::clone(&desk), &configure, query_bytes, allocator));
    let ticker = room.tick()?;
    if has_process && confine::calls() {
        confined_by.push("seccomp".to_owned());
    }
    desk.report(&ToServer::Ready { confined_by }, &[])?;
    let served = attend(&mut inbox, &desk, &room, &runtime);
    runtime.shutdown_background();
    drop(ticker);
    served
}

/// What a worker makes of what it may use.
fn within(configure: Configure) -> Configure {
    Configure { threads: configure.threads.clamp(1, THREADS_MAX), ..configure }
}

fn runtime(configure: &Configure, begin_thread: fn()) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(configure.threads)
        .thread_name("sql")
        .thread_stack_size(STACK_BYTES)
        .on_thread_start(begin_thread)
        .enable_time()
        .build()
}

/// Reads frames until the server goes.
fn attend(inbox: &mut Inbox, desk: &Desk, room: &Arc<Room>, runtime: &Runtime) -> io::Result<()> {
    while let Some((head, tail, file)) = inbox.next()? {
        match head {
            ToWorker::Query(question) => {
                desk.begin(question.number);
                // It has taken the query: from here on what becomes of it is the query's own.
                desk.report(&ToServer::Progress { rows: 0, bytes: 0 }, &[])?;
                let room = Arc::clone(room);
                runtime.spawn(async move { room.answer(question).await });
            }
            ToWorker::Given { id, given } => desk.deliver(id, Gift { given, tail, file }),
            ToWorker::Configure(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Allocator, runtime, within};
    use crate::worker::wire::Configure;

    // B1
    #[test]
    fn much_freed_memory_is_given_back_at_once() {
        static RESTED: AtomicU64 = AtomicU64::new(0);
        let allocator = |kept_bytes| Allocator {
            rest: || {
                RESTED.fetch_add(1, Ordering::Relaxed);
            },
            kept_bytes,
            ..Allocator::default()
        };
        assert!(allocator(|| 16 << 20).keeps());
        assert_eq!(RESTED.load(Ordering::Relaxed), 0);
        assert!(!allocator(|| (16 << 20) + 1).keeps());
        assert_eq!(RESTED.load(Ordering::Relaxed), 1);
    }

    // B1: a worker's address space has room for the stacks of so many.
    #[test]
    fn a_query_has_so_many_threads() {
        for (asked, given) in [(0, 1), (2, 2), (4, 4), (9, 4)] {
            let configure = within(Configure { threads: asked, memory_bytes: 1 << 20 });
            assert_eq!(runtime(&configure, || {}).unwrap().metrics().num_workers(), given, "{asked}");
        }
    }
}
