//! A socket as hyper sees it, and what is noticed of it on the way.
//!
//! hyper is lenient in two things that request smuggling lives on: lines that end without a carriage return, and
//! a body with both a length and a transfer encoding. [`Wire`] reads the first head of a connection along and
//! spoils it where it breaks these rules, so that hyper answers 400 and closes. Later heads of a connection
//! cannot be told from bodies here; for those hyper's own reading stands (the transfer encoding wins).
//!
//! [`Watch`] holds when something last moved, in ticks of the lane, for the sweep that closes slow connections.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Makes any head, at any point of it, one that cannot be parsed.
const SPOILER: &[u8] = b"\0\r\n\r\n";

/// Bytes of a first head that are checked; a longer one is refused for its length.
const HEAD_BYTES_MAX: usize = 128 << 10;

/// Bytes of a header line that tell its name.
const LINE_START_BYTES: usize = 20;

/// What the sweep wants of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    None,
    /// Finish what is under way and close.
    Finish,
    /// Close now.
    Kill,
}

/// What is known of one connection. Ticks are seconds of the lane, from 1; 0 = not.
#[derive(Debug)]
pub struct Watch {
    /// The lane's clock.
    pub tick: Rc<Cell<u64>>,
    /// Since when a request's head is being read.
    pub head_since: Cell<u64>,
    /// Since when the peer takes no bytes.
    pub blocked_since: Cell<u64>,
    /// When a request last began or ended.
    pub active_at: Cell<u64>,
    /// Requests being answered.
    pub requests: Cell<u32>,
    /// Response bodies not wholly handed over.
    pub bodies: Cell<u32>,
    /// Those of them that wait for us, not for the peer.
    pub bodies_of_ours: Cell<u32>,
    /// When a body last moved.
    pub body_moved_at: Cell<u64>,
    /// Whether a request was answered without reading its body.
    pub left_unread: Cell<bool>,
    /// HTTP/2: heads are frames among others, and are not timed alone.
    pub is_http2: Cell<bool>,
    wish: Cell<Wish>,
    notify: Notify,
}

/// Ticks a head may take.
const HEAD_TICKS: u64 = 10;
/// Ticks a peer may take no bytes. Chosen below the 30 s that are promised.
const BLOCKED_TICKS: u64 = 28;
/// Ticks a connection may be idle. Chosen above the 60 s at which collectors flush by default.
const IDLE_TICKS: u64 = 180;

impl Watch {
    /// Watches a connection that just opened.
    #[must_use]
    pub fn new(tick: Rc<Cell<u64>>) -> Self {
        let now = tick.get();
        Self {
            tick,
            head_since: Cell::new(now),
            blocked_since: Cell::new(0),
            active_at: Cell::new(now),
            requests: Cell::new(0),
            bodies: Cell::new(0),
            bodies_of_ours: Cell::new(0),
            body_moved_at: Cell::new(now),
            left_unread: Cell::new(false),
            is_http2: Cell::new(false),
            wish: Cell::new(Wish::None),
            notify: Notify::new(),
        }
    }

    /// What should become of the connection by now.
    #[must_use]
    pub fn judge(&self) -> Wish {
        let now = self.tick.get();
        let past = |since: u64, ticks: u64| since > 0 && now.saturating_sub(since) >= ticks;
        let is_stalled =
            self.bodies.get() > self.bodies_of_ours.get() && past(self.body_moved_at.get(), BLOCKED_TICKS);
        if past(self.head_since.get(), HEAD_TICKS)
            || past(self.blocked_since.get(), BLOCKED_TICKS)
            || is_stalled
        {
            return Wish::Kill;
        }
        let is_idle = self.requests.get() == 0 && self.bodies.get() == 0;
        if is_idle && past(self.active_at.get(), IDLE_TICKS) { Wish::Finish } else { Wish::None }
    }

    /// Tells the connection's task what to do.
    pub fn wish(&self, wish: Wish) {
        self.wish.set(wish);
        self.notify.notify_one();
    }

    /// Waits for a wish.
    pub async fn wished(&self) -> Wish {
        loop {
            match self.wish.replace(Wish::None) {
                Wish::None => self.notify.notified().await,
                wish => return wish,
            }
        }
    }

    /// A request's head is complete.
    pub fn begin(&self) {
        self.head_since.set(0);
        self.active_at.set(self.tick.get());
        self.requests.set(self.requests.get() + 1);
    }

    /// A request is answered, but for its body.
    pub fn end(&self) {
        self.active_at.set(self.tick.get());
        self.requests.set(self.requests.get().saturating_sub(1));
    }
}

/// The socket.
#[derive(Debug)]
pub struct Wire {
    io: TcpStream,
    watch: Rc<Watch>,
    head: Option<FirstHead>,
}

impl Wire {
    /// Wraps a socket whose first bytes are those of an HTTP/1 request (`checks_head`), or of HTTP/2.
    #[must_use]
    pub fn new(io: TcpStream, watch: Rc<Watch>, checks_head: bool) -> Self {
        Self { io, watch, head: checks_head.then(FirstHead::default) }
    }

    /// The socket again.
    #[must_use]
    pub fn into_inner(self) -> TcpStream {
        self.io
    }
}

/// Reads the first head along.
#[derive(Debug, Default)]
struct FirstHead {
    line: Vec<u8>,
    last: u8,
    line_bytes: usize,
    total: usize,
    has_length: bool,
    has_encoding: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    More,
    End,
    Broken,
}

impl FirstHead {
    fn see(&mut self, bytes: &[u8]) -> Seen {
        for &byte in bytes {
            self.total += 1;
            if self.total > HEAD_BYTES_MAX {
                return Seen::End;
            }
            if byte != b'\n' {
                self.line_bytes += 1;
                if self.line.len() < LINE_START_BYTES {
                    self.line.push(byte.to_ascii_lowercase());
                }
                self.last = byte;
                continue;
            }
            if self.last != b'\r' {
                return Seen::Broken;
            }
            // An empty line before the request line is allowed and ends nothing.
            if self.line_bytes == 1 && self.total > 2 {
                return if self.has_length && self.has_encoding { Seen::Broken } else { Seen::End };
            }
            self.has_length |= self.line.starts_with(b"content-length:");
            self.has_encoding |= self.line.starts_with(b"transfer-encoding:");
            self.line.clear();
            self.line_bytes = 0;
            self.last = 0;
        }
        Seen::More
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let watch = &this.watch;
        if buf.filled().len() > before && !watch.is_http2.get() {
            if watch.requests.get() == 0 && watch.head_since.get() == 0 {
                watch.head_since.set(watch.tick.get());
            }
            if let Some(head) = &mut this.head {
                match head.see(&buf.filled()[before..]) {
                    Seen::More => {}
                    Seen::End => this.head = None,
                    Seen::Broken => {
                        this.head = None;
                        buf.set_filled(before);
                        let room = buf.remaining().min(SPOILER.len());
                        buf.put_slice(&SPOILER[..room]);
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Wire {
    fn wrote<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &polled {
            Poll::Pending if self.watch.blocked_since.get() == 0 => {
                self.watch.blocked_since.set(self.watch.tick.get());
            }
            Poll::Pending => {}
            Poll::Ready(_) => self.watch.blocked_since.set(0),
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::{FirstHead, Seen, Watch, Wish};

    /// RELIABILITY B15, B20.
    #[test]
    fn a_head_that_two_readers_could_read_differently_is_broken() {
        let check = |text: &str, expected: Seen| {
            // Byte by byte and at once come to the same.
            assert_eq!(FirstHead::default().see(text.as_bytes()), expected, "{text:?}");
            let mut head = FirstHead::default();
            let got = text.bytes().map(|b| head.see(&[b])).find(|seen| *seen != Seen::More);
            assert_eq!(got.unwrap_or(Seen::More), expected, "{text:?}");
        };
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Seen::End);
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\nbody", Seen::End);
        check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Seen::End);
        check("GET / HTTP/1.1\r\nHost: a\r\n", Seen::More);
        check("GET / HTTP/1.1\nHost: a\r\n\r\n", Seen::Broken);
        check("GET / HTTP/1.1\r\nHost: a\n\n", Seen::Broken);
        check("P / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", Seen::End);
        check("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 1\r\n\r\n", Seen::Broken);
        check("P / HTTP/1.1\r\nContent-Length: 1\r\nTRANSFER-encoding: chunked\r\n\r\n", Seen::Broken);
    }

    #[test]
    fn slow_connections_are_judged_by_what_they_wait_for() {
        let tick = Rc::new(Cell::new(1));
        let watch = Watch::new(Rc::clone(&tick));
        tick.set(10);
        assert_eq!(watch.judge(), Wish::None);
        tick.set(11);
        assert_eq!(watch.judge(), Wish::Kill, "no head within its time");
        watch.begin();
        tick.set(500);
        assert_eq!(watch.judge(), Wish::None, "a request may take its time");
        watch.bodies.set(1);
        assert_eq!(watch.judge(), Wish::Kill, "a peer that takes nothing");
        watch.bodies_of_ours.set(1);
        assert_eq!(watch.judge(), Wish::None, "a body that waits for us");
        watch.bodies.set(0);
        watch.end();
        tick.set(679);
        assert_eq!(watch.judge(), Wish::None);
        tick.set(680);
        assert_eq!(watch.judge(), Wish::Finish, "idle for long");
    }
}
