//! Scrubbing: nothing that is secret or personal gets past here (P1).
//!
//! ```text
//!   Draft ── field rules ── prefilter, one pass a column ── detectors on the rows it hits ── rewrite ──► Clean
//! ```
//! It runs after decoding, over whole columns, before anything is durable, and is the only caller of
//! [`Clean::attest`]. A column without a hit is neither copied nor written. It fails closed: a value that cannot
//! be scrubbed (a panic in a detector, text that is no UTF-8) is masked whole and counted, and the others go on.
//!
//! Looked at: every text, JSON and bytes column, `_overflow`, attribute keys, and numbers that could be
//! cards. Not looked at: times, counts, and the hex ids of traces and spans, which cannot hold anything else.
//! Not undone: encryption, compression, and encodings beyond those of `decoded.rs` and `wrapped.rs`; a secret
//! split over two values is not seen as one. `docs/SCRUBBING.md` lists the forms that are found and those that are not.

mod columns;
mod decoded;
mod detectors;
mod fields;
mod fold;
mod id;
mod json_walk;
mod pattern;
mod prefilter;
mod rules;
#[cfg(test)]
mod tests;
mod value;
mod wrapped;

use std::borrow::Cow;
use std::future::poll_fn;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use storage::record::{Clean, Draft};

use crate::decode::{Pace, at_once};

pub use columns::Scrubber;
pub use fields::Action;
pub(crate) use id::{Id, check as check_id, is_key_like};
pub use rules::{FIELD, FIELD_RULES_MAX, FieldRule, Rules, RulesConfig};

/// Counters in a report: one a detector, and `field`.
pub const DETECTORS: usize = detectors::ALL.len() + 1;

const FIELD_AT: usize = DETECTORS - 1;

/// What stands in the place of a value that could not be scrubbed.
pub const UNSCRUBBED: &str = "[unscrubbed]";

/// The names of the counters, in the order of [`Report::hits`].
#[must_use]
pub fn detector_names() -> [&'static str; DETECTORS] {
    std::array::from_fn(|at| detectors::ALL.get(at).map_or(FIELD, |detector| detector.name))
}

/// What scrubbing did to one chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Replacements by each detector, in the order of [`detector_names`].
    pub hits: [u32; DETECTORS],
    /// Values and names that could not be scrubbed, and were masked whole.
    pub unscrubbed: u32,
    /// Columns that were written anew; the others were only read.
    pub columns_rewritten: u32,
}

impl Report {
    fn count(&mut self, detector: usize, hits: u32) {
        if let Some(count) = self.hits.get_mut(detector) {
            *count = count.saturating_add(hits);
        }
    }
}

/// The chunk could not be scrubbed: nothing of it may be kept. Carries no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What went wrong.
    pub reason: &'static str,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "scrubbing failed: {}", self.reason)
    }
}

impl std::error::Error for Failed {}

/// Takes secrets and personal data out of the draft and closes it.
///
/// The draft is empty afterwards, whatever comes out.
///
/// # Errors
/// [`Failed`] when the draft's own structure gives way: our bug, no value does it. Reject the whole request.
pub fn scrub(scrubber: &mut Scrubber, rules: &Rules, draft: &mut Draft) -> Result<(Clean, Report), Failed> {
    at_once(scrub_paced(scrubber, rules, draft, &mut Pace::default()))
}

/// As [`scrub`], in slices: between two of them the lane is another tenant's (X2).
///
/// # Errors
/// As [`scrub`].
pub(crate) async fn scrub_paced(
    scrubber: &mut Scrubber,
    rules: &Rules,
    draft: &mut Draft,
    pace: &mut Pace<'_>,
) -> Result<(Clean, Report), Failed> {
    let mut report = Report::default();
    let is_whole = {
        let mut run = pin!(scrubber.run(rules, draft, &mut report, pace));
        poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(true),
            Err(_) => Poll::Ready(false),
        })
        .await
    };
    // P1: only a chunk that was scrubbed to its end is attested.
    if is_whole {
        Ok((Clean::attest(draft, rules.version), report))
    } else {
        draft.reset();
        *scrubber = Scrubber::default();
        Err(Failed { reason: "the chunk's structure gave way" })
    }
}

/// The text without secrets and personal data, for our own logs and error texts.
///
/// Never fails open: where scrubbing fails, none of the text is left.
#[must_use]
pub fn scrub_text<'a>(rules: &Rules, text: &'a str) -> Cow<'a, str> {
    let scrubbed = catch_unwind(AssertUnwindSafe(|| {
        if !rules.prefilter.is_hit(text.as_bytes()) {
            return None;
        }
        let (mut report, mut out) = (Report::default(), Vec::new());
        let mut scan = value::Scan { rules, report: &mut report };
        scan.text(text, &mut out, 0).then(|| String::from_utf8_lossy(&out).into_owned())
    }));
    match scrubbed {
        Ok(None) => Cow::Borrowed(text),
        Ok(Some(scrubbed)) => Cow::Owned(scrubbed),
        Err(_) => Cow::Borrowed(UNSCRUBBED),
    }
}

/// One place that scrubbing would replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The bytes of the text.
    pub range: Range<usize>,
    /// Which detector found it.
    pub detector: &'static str,
    /// What would stand in its place.
    pub label: &'static str,
}

/// What the detectors find in a text, without changing it: for dry runs and for measuring them.
#[must_use]
pub fn find(rules: &Rules, text: &str) -> Vec<Found> {
    let spans = value::find(rules, text);
    let found = |span: &detectors::Span| Found {
        range: span.start..span.end,
        detector: detectors::ALL.get(span.detector).map_or(FIELD, |detector| detector.name),
        label: span.label,
    };
    spans.iter().map(found).collect()
}
