//! The server's end of the socket: reads what a worker reports, writes what it is given.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
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
        let begin = wire::begin(head, tail.len());
        let _turn = self.turn.lock().await;
        self.write_all(&begin).await?;
        self.write_all(tail).await
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
