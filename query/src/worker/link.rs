//! The server's end of the socket: reads what a worker reports, writes what it is given.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::wire::{self, PIECE_BYTES_MAX, PREFIX_BYTES, ToServer, ToWorker};

/// Bytes that one read of the socket takes at most.
const READ_BYTES: usize = 64 << 10;

/// The reading half. Reading is cancel-safe: what has come stays in the buffer.
pub struct Link {
    stream: Arc<UnixStream>,
    buffer: BytesMut,
    writer: Writer,
}

/// The writing half; clones write whole frames in turn.
#[derive(Clone)]
pub struct Writer {
    stream: Arc<UnixStream>,
    turn: Arc<Mutex<()>>,
}

impl Link {
    /// Takes over a socket.
    ///
    /// # Errors
    /// The system's.
    pub fn new(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = Arc::new(UnixStream::from_std(stream)?);
        let writer = Writer { stream: Arc::clone(&stream), turn: Arc::default() };
        Ok(Self { stream, buffer: BytesMut::new(), writer })
    }

    /// The writing half.
    #[must_use]
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The next frame; `None` once the worker has gone.
    ///
    /// # Errors
    /// Where a frame is over its bound or cannot be read: the worker is not to be trusted any more.
    pub async fn read(&mut self) -> io::Result<Option<(ToServer, Bytes)>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.stream.readable().await?;
            self.buffer.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<(ToServer, Bytes)>> {
        let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let (head_bytes, tail_bytes) = wire::lengths(*prefix, PIECE_BYTES_MAX).map_err(malformed)?;
        if self.buffer.len() < PREFIX_BYTES + head_bytes + tail_bytes {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        let head = wire::head(&self.buffer.split_to(head_bytes)).map_err(malformed)?;
        Ok(Some((head, self.buffer.split_to(tail_bytes).freeze())))
    }
}

impl Writer {
    /// Writes one frame. Not cancel-safe: a worker that was told half of a frame is to be ended.
    ///
    /// # Errors
    /// The system's; the worker has gone.
    pub async fn write(&self, head: &ToWorker, tail: &[u8]) -> io::Result<()> {
        self.lend(head, tail, None).await
    }

    /// As [`Self::write`], and a file with it, which the worker has open from then on.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn lend(&self, head: &ToWorker, tail: &[u8], file: Option<&File>) -> io::Result<()> {
        let begin = wire::begin(head, tail.len());
        let _turn = self.turn.lock().await;
        let sent = match file {
            Some(file) => self.send_with(&begin, file).await?,
            None => 0,
        };
        self.write_all(begin.get(sent..).unwrap_or_default()).await?;
        self.write_all(tail).await
    }

    /// Sends a file with some of these bytes, the first at least; says how many were sent.
    async fn send_with(&self, bytes: &[u8], file: &File) -> io::Result<usize> {
        let send = || {
            let files = [file.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut with = SendAncillaryBuffer::new(&mut space);
            let fits = with.push(SendAncillaryMessage::ScmRights(&files));
            debug_assert!(fits, "it was made for one");
            Ok(sendmsg(&*self.stream, &[IoSlice::new(bytes)], &mut with, SendFlags::NOSIGNAL)?)
        };
        self.stream.async_io(Interest::WRITABLE, send).await
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::Link;
    use crate::worker::desk::Inbox;
    use crate::worker::wire::{Given, ToWorker};

    // X3: whatever was sent before and after it, a file comes with its own frame and no other.
    #[tokio::test]
    async fn a_file_comes_with_its_frame() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = Link::new(ours).unwrap();
        let mut inbox = Inbox::new(theirs);
        let sums = |at: u64| Some("x".repeat(at as usize * 1_000));
        for at in 0..9 {
            let lent = std::fs::File::from(memfd_create("lent", MemfdFlags::CLOEXEC).unwrap());
            std::os::unix::fs::FileExt::write_at(&lent, &[at as u8], 0).unwrap();
            let given = ToWorker::Given { id: at, given: Given::File { sums: sums(at) } };
            let file = (at % 3 != 1).then_some(&lent);
            link.writer().lend(&given, &vec![7; at as usize], file).await.unwrap();
        }
        drop(link);
        for at in 0..9 {
            let Some((ToWorker::Given { id, given: Given::File { sums: came } }, tail, file)) =
                inbox.next().unwrap()
            else {
                panic!("a file")
            };
            assert_eq!((id, came, tail.len()), (at, sums(at), at as usize));
            let mut bytes = Vec::new();
            assert_eq!(file.is_some(), at % 3 != 1);
            if let Some(mut file) = file {
                file.read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes, [at as u8]);
            }
        }
        assert!(inbox.next().unwrap().is_none());
    }
}
