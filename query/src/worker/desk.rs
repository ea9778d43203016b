//! The worker's end of the socket: sends reports, asks for what it needs, and hands out what comes.
//!
//! The worker's main thread alone reads; whoever asked waits for its own number. Writing blocks: a server that does
//! not read holds the query back, which is the point.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::sync::{Semaphore, oneshot};

use super::wire::{self, ASKS_MAX, Ask, Given, LENT_BYTES_MAX, PREFIX_BYTES, ToServer, ToWorker};
use crate::refusal::Refusal;

/// What was given for one ask.
#[derive(Debug)]
pub struct Gift {
    /// The answer.
    pub given: Given,
    /// Its bytes.
    pub tail: Bytes,
    /// The file that came with it.
    pub file: Option<File>,
}

/// A frame that has come, with its tail and the file that was lent with it.
pub type Came = (ToWorker, Bytes, Option<File>);

/// Reads frames, on the main thread.
pub struct Inbox {
    stream: UnixStream,
}

impl Inbox {
    /// Reads from that socket.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// The next frame; `None` once the server has gone.
    ///
    /// # Errors
    /// The system's, or a frame that cannot be read.
    pub fn next(&mut self) -> io::Result<Option<Came>> {
        let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
        let mut prefix = [0; PREFIX_BYTES];
        let (begun, file) = self.begin(&mut prefix)?;
        match self.stream.read_exact(prefix.get_mut(begun..).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (head_bytes, tail_bytes) = wire::lengths(prefix, LENT_BYTES_MAX).map_err(malformed)?;
        let mut head = vec![0; head_bytes];
        let mut tail = vec![0; tail_bytes];
        self.stream.read_exact(&mut head)?;
        self.stream.read_exact(&mut tail)?;
        Ok(Some((wire::head(&head).map_err(malformed)?, Bytes::from(tail), file)))
    }

    /// Reads some of a frame's first bytes, and the file that comes with them: the system gives it with the first byte of
    /// what it was sent with, and no bytes of another frame beside.
    fn begin(&mut self, prefix: &mut [u8]) -> io::Result<(usize, Option<File>)> {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut with = RecvAncillaryBuffer::new(&mut space);
            let bytes = &mut [IoSliceMut::new(prefix)];
            let came = match recvmsg(&self.stream, bytes, &mut with, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => continue,
                came => came?,
            };
            let file = with.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut files) => files.next(),
                _ => None,
            });
            return Ok((came.bytes, file.map(File::from)));
        }
    }
}

/// Where a query asks and reports.
pub struct Desk {
    stream: Mutex<UnixStream>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Gift>>>,
    next_id: AtomicU64,
    /// The query that is answered now.
    number: AtomicU64,
    room: Semaphore,
}

impl Desk {
    /// A desk that writes to that socket.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream: Mutex::new(stream),
            waiting: Mutex::default(),
            next_id: AtomicU64::new(0),
            number: AtomicU64::new(0),
            room: Semaphore::new(ASKS_MAX),
        }
    }

    /// Begins a query: what was asked before is nobody's any more.
    pub fn begin(&self, number: u64) {
        self.number.store(number, Ordering::Relaxed);
        self.waiting().clear();
    }

    /// Hands out what was given.
    pub fn deliver(&self, id: u64, gift: Gift) {
        if let Some(asked) = self.waiting().remove(&id) {
            // Who asked may have gone: a limit was reached.
            drop(asked.send(gift));
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the server refuses.
    pub async fn ask(&self, ask: Ask) -> Result<Gift, Refusal> {
        let _room = self.room.acquire().await;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(id, sender);
        let number = self.number.load(Ordering::Relaxed);
        self.report(&ToServer::Ask { number, id, ask }, &[]).map_err(|_| Refusal::bug())?;
        let gift = receiver.await.map_err(|_| Refusal::bug())?;
        match gift.given {
            Given::Refused(refused) => Err(refused.into()),
            _ => Ok(gift),
        }
    }

    /// Reports.
    ///
    /// # Errors
    /// The system's: the server has gone.
    pub fn report(&self, head: &ToServer, tail: &[u8]) -> io::Result<()> {
        let begin = wire::begin(head, tail.len());
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(&begin)?;
        stream.write_all(tail)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Gift>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write as _};
    use std::os::unix::net::UnixStream;

    use super::Inbox;

    // B1: no memory is taken for it.
    #[test]
    fn a_loan_over_its_bound_is_not_taken() {
        for (tail_bytes, expected) in
            [(256 << 20, ErrorKind::UnexpectedEof), ((256 << 20) + 1, ErrorKind::InvalidData)]
        {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(&2_u32.to_le_bytes()).unwrap();
            theirs.write_all(&u32::to_le_bytes(tail_bytes)).unwrap();
            theirs.write_all(b"{}").unwrap();
            drop(theirs);
            assert_eq!(Inbox::new(ours).next().unwrap_err().kind(), expected, "{tail_bytes}");
        }
    }
}
