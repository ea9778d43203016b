//! Bodies: reading a request's within its bounds of size and time, and handing over a response's.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use ingest::Refusal;
use tokio::sync::mpsc;

use super::wire::Watch;

/// How long a body may take before its rate counts.
const GRACE: Duration = Duration::from_secs(5);

/// Slowest rate of a body, in bytes a second.
const RATE_MIN: u64 = 1 << 10;

/// The longest pause within a body, however fast it came before.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Reads a whole body of at most `bytes_max`.
///
/// # Errors
/// 413 past the bound, 408 below the slowest rate, 400 where the body ends early or is badly framed.
pub async fn read(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Refusal> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let expected = body.size_hint().lower();
    if expected > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let mut first: Option<Bytes> = None;
    let mut whole: Option<BytesMut> = None;
    let mut received = 0_usize;
    // A deadline that moves on with every byte, and so a least average rate.
    let rate = tokio::time::sleep(GRACE);
    tokio::pin!(rate);
    let start = rate.deadline() - GRACE;
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = &mut rate => return Err(too_slow()),
            () = tokio::time::sleep(PAUSE_MAX) => return Err(too_slow()),
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Refusal::new(400, "incomplete_body", "the body ended early"))?;
        let Ok(data) = frame.into_data() else { continue };
        received += data.len();
        if received > bytes_max {
            return Err(too_large(bytes_max));
        }
        let earned = Duration::from_millis(received as u64 * 1_000 / RATE_MIN);
        rate.as_mut().reset(start + GRACE + earned);
        // One frame is the common case, and costs no copy.
        match (&mut whole, first.take()) {
            (Some(whole), _) => whole.extend_from_slice(&data),
            (None, None) => first = Some(data),
            (None, Some(before)) => {
                let size = usize::try_from(expected).unwrap_or(0).clamp(before.len() + data.len(), bytes_max);
                let mut all = BytesMut::with_capacity(size);
                all.extend_from_slice(&before);
                all.extend_from_slice(&data);
                whole = Some(all);
            }
        }
    }
    Ok(whole.map(BytesMut::freeze).or(first).unwrap_or_default())
}

fn too_large(bytes_max: usize) -> Refusal {
    Refusal::new(413, "body_too_large", format!("the body exceeds body_bytes_max {bytes_max}"))
}

fn too_slow() -> Refusal {
    Refusal {
        retryable: true,
        ..Refusal::new(408, "body_too_slow", format!("the body came slower than {RATE_MIN} bytes a second"))
    }
}

/// One more that is under way, until it is dropped.
#[derive(Debug)]
pub struct Underway(Arc<AtomicUsize>);

impl Underway {
    /// Counts one more.
    #[must_use]
    pub fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response's body, and what counts it as long as it is not wholly handed over.
#[derive(Debug)]
pub struct Body {
    content: Content,
    watch: Option<Rc<Watch>>,
    is_ours_to_wait: bool,
    _underway: Option<Underway>,
}

#[derive(Debug)]
enum Content {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Result<Bytes, ()>>),
}

/// A stream that broke off: the connection is cut, so that nobody takes a part for the whole.
#[derive(Debug)]
pub struct BrokenOff;

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer broke off")
    }
}

impl std::error::Error for BrokenOff {}

impl Body {
    /// A body that is there.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        let content = Content::Whole((!bytes.is_empty()).then_some(bytes));
        Self { content, watch: None, is_ours_to_wait: false, _underway: None }
    }

    /// A body that comes piece by piece.
    #[must_use]
    pub fn stream(pieces: mpsc::Receiver<Result<Bytes, ()>>) -> Self {
        Self { content: Content::Stream(pieces), watch: None, is_ours_to_wait: false, _underway: None }
    }

    /// Counts the body until it is handed over.
    #[must_use]
    pub fn counted(mut self, watch: Rc<Watch>, underway: Underway) -> Self {
        watch.bodies.set(watch.bodies.get() + 1);
        watch.body_moved_at.set(watch.tick.get());
        self.watch = Some(watch);
        self._underway = Some(underway);
        self
    }

    fn waits_for_us(&mut self, waits: bool) {
        let Some(watch) = &self.watch else { return };
        watch.body_moved_at.set(watch.tick.get());
        if waits != self.is_ours_to_wait {
            let ours = watch.bodies_of_ours.get();
            watch.bodies_of_ours.set(if waits { ours + 1 } else { ours.saturating_sub(1) });
            self.is_ours_to_wait = waits;
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.waits_for_us(false);
        if let Some(watch) = &self.watch {
            watch.bodies.set(watch.bodies.get().saturating_sub(1));
            watch.active_at.set(watch.tick.get());
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        let polled = match &mut this.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream(pieces) => pieces
                .poll_recv(cx)
                .map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(|()| BrokenOff))),
        };
        this.waits_for_us(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}
