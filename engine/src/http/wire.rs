//! A socket as hyper sees it, and what is noticed of it on the way.
//!
//! [`Wire`] reads the heads of an HTTP/1 connection along (`heads`) and spoils one that two readers could read
//! differently, so that hyper answers 400 and closes.
//!
//! [`Watch`] holds when something last moved, in ticks of the lane, for the sweep that closes slow connections.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::bare;
use super::heads::Heads;
use super::serve::fresh_id;
use super::strangers::Pass;
use crate::clock::Clock;

/// Makes any head, at any point of it, one that cannot be parsed.
pub const SPOILER: &[u8] = b"\0\r\n\r\n";

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
pub struct Watch {
    /// Its place among all connections.
    pub pass: Arc<Pass>,
    /// The lane's clock.
    pub tick: Rc<Cell<u64>>,
    /// Requests of the lane since its last tick.
    asked: Rc<Cell<u64>>,
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
/// Ticks a connection that showed no valid key may be idle: its place is one of few.
const STRANGER_IDLE_TICKS: u64 = 60;

impl Watch {
    /// Watches a connection that just opened.
    #[must_use]
    pub fn new(tick: Rc<Cell<u64>>, asked: Rc<Cell<u64>>, pass: Arc<Pass>) -> Self {
        let now = tick.get();
        Self {
            pass,
            tick,
            asked,
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
        let idle_ticks = if self.pass.is_proven() { IDLE_TICKS } else { STRANGER_IDLE_TICKS };
        if is_idle && past(self.active_at.get(), idle_ticks) { Wish::Finish } else { Wish::None }
    }

    /// Notes that nothing more can be read for now: a connection that shows no key gives way to others meanwhile.
    pub fn waits(&self) {
        if self.requests.get() == 0 && !self.pass.is_proven() {
            self.pass.waits(Clock::monotonic_ns() / 1_000_000);
        }
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
                Wish::None => tokio::select! {
                    () = self.notify.notified() => {}
                    () = self.pass.evicted() => return Wish::Kill,
                },
                wish => return wish,
            }
        }
    }

    /// A request's head is complete.
    pub fn begin(&self) {
        self.head_since.set(0);
        self.asked.set(self.asked.get() + 1);
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
pub struct Wire {
    io: TcpStream,
    watch: Rc<Watch>,
    heads: Option<Heads>,
    /// A rule of framing was broken: nothing behind that is read.
    is_broken: bool,
    /// What is written in place of a refusal of hyper's own, and how much of it is.
    instead: Option<(Vec<u8>, usize)>,
}

impl Wire {
    /// Wraps a socket whose first bytes are those of an HTTP/1 request (`checks_heads`), or of HTTP/2.
    #[must_use]
    pub fn new(io: TcpStream, watch: Rc<Watch>, checks_heads: bool) -> Self {
        Self { io, watch, heads: checks_heads.then(Heads::default), is_broken: false, instead: None }
    }

    /// The socket again.
    #[must_use]
    pub fn into_inner(self) -> TcpStream {
        self.io
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_broken {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if polled.is_pending() {
            this.watch.waits();
        }
        std::task::ready!(polled)?;
        let watch = &this.watch;
        if buf.filled().len() > before && !watch.is_http2.get() {
            if watch.requests.get() == 0 && watch.head_since.get() == 0 {
                watch.head_since.set(watch.tick.get());
            }
            let Some(heads) = this.heads.as_mut() else { return Poll::Ready(Ok(())) };
            if let Some(at) = heads.broken_at(&buf.filled()[before..]) {
                this.is_broken = true;
                buf.set_filled(before + at);
                if heads.is_broken_in_head() {
                    // hyper answers a head that it cannot parse; after an error it would only close.
                    let room = buf.remaining().min(SPOILER.len());
                    buf.put_slice(&SPOILER[..room]);
                } else if at == 0 {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Wire {
    /// Writes something in place of `buf`, all of it before `buf` counts as written; `None` where `buf` stands.
    fn poll_instead(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Option<Poll<io::Result<()>>> {
        // Where nothing is asked and nothing is under way, hyper writes for itself alone.
        let is_idle = self.watch.requests.get() == 0 && self.watch.bodies.get() == 0;
        if self.instead.is_none() && is_idle && !self.watch.is_http2.get() {
            let is_in_target = self.heads.as_ref().is_some_and(Heads::is_in_request_line);
            self.instead = bare::instead_of(buf, is_in_target, fresh_id).map(|bytes| (bytes, 0));
        }
        let (bytes, written) = self.instead.as_mut()?;
        while *written < bytes.len() {
            match Pin::new(&mut self.io).poll_write(cx, &bytes[*written..]) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(count)) => *written += count,
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
        }
        self.instead = None;
        Some(Poll::Ready(Ok(())))
    }

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
        let polled = match this.poll_instead(cx, buf) {
            Some(polled) => polled.map_ok(|()| buf.len()),
            None => Pin::new(&mut this.io).poll_write(cx, buf),
        };
        this.wrote(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let first = bufs.first().map_or(&[][..], |first| first);
        let polled = match this.poll_instead(cx, first) {
            Some(polled) => polled.map_ok(|()| first.len()),
            None => Pin::new(&mut this.io).poll_write_vectored(cx, bufs),
        };
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

    use std::sync::Arc;

    use storage::memory::Memory;
    use storage::record::Tenant;

    use super::{Watch, Wish};
    use crate::http::strangers::{Admission, Strangers};

    #[test]
    fn slow_connections_are_judged_by_what_they_wait_for() {
        let tick = Rc::new(Cell::new(1));
        let memory = Memory::new(1 << 30, 0);
        let Admission::In(pass) = Strangers::new(&memory, 10, 0).admit([127, 0, 0, 1].into(), 1, true) else {
            panic!("there is room")
        };
        let watch = Watch::new(Rc::clone(&tick), Rc::default(), Arc::clone(&pass));
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
        tick.set(559);
        assert_eq!(watch.judge(), Wish::None);
        tick.set(560);
        assert_eq!(watch.judge(), Wish::Finish, "a stranger that is idle");
        pass.prove(&memory, &Tenant::parse("acme").unwrap()).unwrap();
        tick.set(679);
        assert_eq!(watch.judge(), Wish::None);
        tick.set(680);
        assert_eq!(watch.judge(), Wish::Finish, "idle for long");
    }
}
