//! A response's body on its way out, counted until it is wholly handed over.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::answer::{Body, Broken};
use super::wire::Watch;

/// One more request that is under way, until it is dropped: the drain waits for these.
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

/// A body, and who is told of its progress.
pub struct Outgoing {
    body: Body,
    watch: Rc<Watch>,
    waits_for_us: bool,
    _underway: Underway,
}

impl Outgoing {
    /// Counts `body` as not handed over.
    #[must_use]
    pub fn new(body: Body, watch: Rc<Watch>, underway: Underway) -> Self {
        watch.bodies.set(watch.bodies.get() + 1);
        watch.body_moved_at.set(watch.tick.get());
        Self { body, watch, waits_for_us: false, _underway: underway }
    }

    /// Notes whether the next piece is ours to make; else it is the peer's to take.
    fn note(&mut self, waits_for_us: bool) {
        self.watch.body_moved_at.set(self.watch.tick.get());
        if waits_for_us != self.waits_for_us {
            let ours = self.watch.bodies_of_ours.get();
            self.watch.bodies_of_ours.set(if waits_for_us { ours + 1 } else { ours.saturating_sub(1) });
            self.waits_for_us = waits_for_us;
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.note(false);
        self.watch.bodies.set(self.watch.bodies.get().saturating_sub(1));
        self.watch.active_at.set(self.watch.tick.get());
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        this.note(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
