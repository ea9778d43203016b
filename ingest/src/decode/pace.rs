//! Slices of a body's decoding: after each, what it holds is charged to a budget and others get their turn.
//!
//! Work is told by bytes and records, not by a clock: a slice is about a millisecond of either.

use super::Refused;
use crate::pipeline::Work;

/// Bytes of a body after which a decoder rests. Chosen: about a millisecond of decoding, so that a small request beside
/// a heavy tenant waits for some of them and not for its whole body.
pub(crate) const SLICE_BYTES: usize = 64 << 10;

/// Records after which a decoder rests, however short they are: each has columns of its own to fill. Chosen: as
/// [`SLICE_BYTES`], for the shortest records.
pub(crate) const SLICE_RECORDS: usize = 512;

/// How one body's decoding is paced. Without [`Work`], as in benches and tests, it runs to its end at once.
#[derive(Debug, Default)]
pub struct Pace<'w> {
    work: Option<&'w mut Work>,
    bytes: usize,
    records: usize,
    records_seen: usize,
}

impl<'w> Pace<'w> {
    /// Slices that are charged and take turns.
    pub(crate) fn of(work: &'w mut Work) -> Self {
        Self { work: Some(work), ..Self::default() }
    }

    /// Counts a record of so many bytes; true where the slice is full and [`Self::rest`] is due.
    #[inline]
    pub(crate) fn record(&mut self, bytes: usize) -> bool {
        self.records_seen += 1;
        self.records += 1;
        self.bytes += bytes;
        self.bytes >= SLICE_BYTES || self.records >= SLICE_RECORDS
    }

    /// Counts work on so many bytes that is no record; true where the slice is full and [`Self::pass`] is due.
    pub(crate) fn work(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.bytes >= SLICE_BYTES
    }

    /// Ends a slice that added nothing to the rows.
    pub(crate) async fn pass(&mut self) {
        (self.bytes, self.records) = (0, 0);
        if let Some(work) = &mut self.work {
            work.pass().await;
        }
    }

    /// Charges room for inflated text, `bytes` in all, before it is made.
    ///
    /// # Errors
    /// As [`Self::rest`].
    pub(crate) fn hold_text(&mut self, bytes: usize) -> Result<(), Refused> {
        self.work.as_mut().map_or(Ok(()), |work| work.hold_text(bytes))
    }

    /// Records counted so far.
    pub(crate) fn records_seen(&self) -> usize {
        self.records_seen
    }

    /// Ends a slice of a decoder that holds `held` bytes for what it has decoded.
    ///
    /// # Errors
    /// 413 `body_too_large`, 503 `share_exceeded` or `pressure`: the budget does not lend what the next slice may
    /// take. Nothing is to be stored.
    pub(crate) async fn rest(&mut self, held: usize) -> Result<(), Refused> {
        (self.bytes, self.records) = (0, 0);
        match &mut self.work {
            Some(work) => {
                work.hold_rows(held).await?;
                work.pass().await;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Runs a decoder to its end at once, for callers that have no lane.
pub(crate) fn at_once<T>(decoding: impl Future<Output = T>) -> T {
    let mut decoding = std::pin::pin!(decoding);
    match decoding.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => unreachable!("without a lane there is nobody to wait for"),
    }
}
