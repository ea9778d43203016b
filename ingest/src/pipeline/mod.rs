//! One lane's way from a body to an acknowledged reply; all branching on outcomes stands here.
//!
//! Everything before the append is work of the lane's own thread ([`stages`]), in slices between which other
//! requests have their turn ([`turns`]), and charged to the memory budget before it allocates ([`work`]). The
//! append's return is the acknowledgement (A1).

mod stages;
mod turns;
mod work;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use storage::record::TableId;
use storage::{Acknowledgement, ErrorKind, Idempotency, Known, Writer};

use crate::admit::Limiter;
use crate::correlate::Completeness;
use crate::counters::Counters;
use crate::decode::Limits;
use crate::head::{self, Accepted, Head};
use crate::reply::{self, IDEMPOTENCY_REPLAYED, Outcome, Refusal, Reply};
use crate::scrub;
use stages::{Ready, Stages, Step, outcome_of};
use turns::Turns;
pub(crate) use work::Work;
use work::{PACE_MAX, PACE_STEP};

/// Seconds after which a client may try again where nobody knows better.
const RETRY_AFTER_S: u32 = 1;

/// What all lanes share; made once.
#[derive(Debug)]
pub struct Shared {
    /// The bounds of one request.
    pub limits: Limits,
    /// The scrubber's rules; a new version holds from the next request on.
    pub scrub: ArcSwap<scrub::Rules>,
    /// Rates per tenant.
    pub admit: Limiter,
    /// What is counted.
    pub counters: Counters,
    /// How many traces arrive whole.
    pub completeness: Completeness,
    /// Set when the process is about to leave: new requests are refused.
    pub is_draining: AtomicBool,
}

impl Shared {
    /// Nobody limited, nothing counted yet.
    #[must_use]
    pub fn new(limits: Limits, rules: Arc<scrub::Rules>) -> Self {
        Self {
            limits,
            scrub: ArcSwap::new(rules),
            admit: Limiter::default(),
            counters: Counters::default(),
            completeness: Completeness::default(),
            is_draining: AtomicBool::new(false),
        }
    }
}

/// One lane: a log of its own and the scratch of its stages. Stays on its thread.
#[derive(Debug)]
pub struct Lane {
    writer: Writer,
    stages: Stages,
    turns: Rc<Turns>,
}

impl Lane {
    /// A lane that writes to `writer`.
    #[must_use]
    pub fn new(writer: Writer, shared: Arc<Shared>) -> Self {
        Self { writer, stages: Stages::new(shared), turns: Rc::default() }
    }

    /// Lets go of the room that the stages keep for the next requests: a lane with little to do needs none.
    pub fn rest(&self) {
        self.stages.rest();
    }

    /// Checks a request before its body is read, and whether there is room for it at all. Where the memory for rows is
    /// short it waits a while: a sender that is slowed down is better served than one that is refused.
    ///
    /// A refusal is counted; the caller renders it ([`reply::render`]) and leaves the body unread.
    ///
    /// # Errors
    /// In the contract's order: 415, 413, 400, and 503 under pressure or while draining.
    pub async fn check_head(&self, head: &Head<'_>) -> Result<Accepted, Refusal> {
        let shared = &self.stages.shared;
        let accepted = head::check(head, &shared.limits);
        let mut paced = Duration::ZERO;
        while accepted.is_ok() && paced < PACE_MAX && self.writer.waits_for_memory(&head.principal.tenant) {
            tokio::time::sleep(PACE_STEP).await;
            paced += PACE_STEP;
        }
        let checked = accepted.and_then(|accepted| {
            if shared.is_draining.load(Ordering::Relaxed) {
                return Err(Refusal::retry(503, "draining", "this process is stopping", RETRY_AFTER_S));
            }
            match self.writer.pressure(&head.principal.tenant) {
                None => Ok(accepted),
                Some(error) => Err(append_refused(&error)),
            }
        });
        if let Err(refusal) = &checked {
            shared.counters.answered(head.route, refusal.status);
        }
        checked
    }

    /// Takes a whole request through all stages: what a 2xx answers is on disk.
    ///
    /// Drive it to its end even when the client has gone: dropping it does not undo an append (F1).
    pub async fn handle(&self, head: Head<'_>, body: Bytes) -> Reply {
        let reply = match self.answer(&head, body).await {
            Ok(reply) => reply,
            Err(refusal) => reply::render(head.route.dialect(), head.headers, &refusal, &head.correlation.id),
        };
        self.stages.shared.counters.answered(head.route, reply.status);
        reply
    }

    async fn answer(&self, head: &Head<'_>, body: Bytes) -> Result<Reply, Refusal> {
        let tenant = &head.principal.tenant;
        let accepted = head::check(head, &self.stages.shared.limits)?;
        let reservation = Reservation { lane: self, head, key: Cell::new(None) };
        let table = TableId::new(tenant.clone(), accepted.dataset.clone());
        let oldest_ns = self.writer.oldest_ns(&table, head.now_ns);
        let reserve = |key: &str, fingerprint| {
            let known = self.writer.reserve(tenant, key, fingerprint);
            if known == Known::New {
                reservation.key.set(Some(key.into()));
            }
            known
        };
        let mut work = Work::begin(&self.turns, self.writer.memory(), tenant).await;
        let step = self.stages.prepare(head, &accepted, body, oldest_ns, &mut work, reserve).await?;
        match step {
            Step::Replay(first) => Ok(replay(head, &first)),
            Step::Nothing(outcome, headers) => Ok(finish(head, &outcome, headers)),
            Step::Store(ready) => self.store(head, &accepted, *ready, work, &reservation).await,
        }
    }

    async fn store(
        &self,
        head: &Head<'_>,
        accepted: &Accepted,
        ready: Ready<'_>,
        work: Work,
        reservation: &Reservation<'_>,
    ) -> Result<Reply, Refusal> {
        let Ready { table, clean, account, decoded, fingerprint, headers, spent } = ready;
        let mut outcome = outcome_of(head, &decoded);
        let idempotency = accepted.idempotency_key.clone().zip(fingerprint).map(|(key, fingerprint)| {
            Idempotency { key, fingerprint, status: outcome.status, reply: outcome.body.as_ref().into() }
        });
        // From here on the key is the append's: it lasts although this future may be dropped (F1, F19).
        let key = reservation.key.take();
        let level = head.principal.acknowledgement;
        // Rows and frame are charged by the append, which follows at once.
        drop(work);
        match self.writer.append_at(level, &table, clean, idempotency).await {
            Ok(receipt) => {
                account.accept();
                if accepted.wants_receipt {
                    outcome.body = reply::accepted_with_receipt(&decoded, &receipt);
                }
                Ok(finish(head, &outcome, headers))
            }
            Err(error) => {
                reservation.key.set(key);
                self.stages.shared.admit.refund_stored(&table.tenant, spent.0, spent.1);
                let refusal = append_refused(&error);
                if refusal.retryable {
                    account.throttle();
                } else {
                    account.reject(refusal.code);
                }
                Err(refusal)
            }
        }
    }
}

/// A reserved idempotency key: given back unless its request was handed to the log.
struct Reservation<'a> {
    lane: &'a Lane,
    head: &'a Head<'a>,
    key: Cell<Option<Box<str>>>,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.lane.writer.release(&self.head.principal.tenant, &key);
        }
    }
}

/// Seconds until a client asks again for a table that only a newer build may write.
const NEWER_RETRY_AFTER_S: u32 = 60;

/// What an append that stored nothing means to the sender.
fn append_refused(error: &storage::Error) -> Refusal {
    match error.kind() {
        ErrorKind::Busy { retry_after } | ErrorKind::Share { retry_after } => {
            let seconds = u32::try_from(retry_after.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
            let is_share = matches!(error.kind(), ErrorKind::Share { .. });
            Refusal::retry(
                503,
                if is_share { "share_exceeded" } else { "pressure" },
                error.context(),
                seconds,
            )
        }
        ErrorKind::TooLarge => Refusal::new(413, "too_large", error.context()),
        ErrorKind::Conflict => Refusal::new(400, "dataset_kind", "the dataset holds another kind of records"),
        ErrorKind::Invalid => Refusal::new(400, "invalid", error.context()),
        ErrorKind::Full => Refusal::new(422, "too_many_datasets", error.context()),
        // Whoever rolled back rolls forward again: what waits until then is not lost.
        ErrorKind::Newer => Refusal::retry(503, "newer_table", error.context(), NEWER_RETRY_AFTER_S),
        ErrorKind::Unavailable | ErrorKind::Poisoned | ErrorKind::Fenced => {
            Refusal::retry(503, "unavailable", "the log does not take writes", RETRY_AFTER_S)
        }
        // Not the input's doing, so it may be sent again; the log names what is wrong.
        ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Bug => {
            tracing::error!(kind = ?error.kind(), context = error.context(), "append failed");
            Refusal::retry(503, "internal", "the log failed", RETRY_AFTER_S)
        }
    }
}

fn finish(head: &Head<'_>, outcome: &Outcome, headers: Vec<(http::HeaderName, HeaderValue)>) -> Reply {
    let dialect = head.route.dialect();
    let has_body = outcome.status != 204 && !(head.route.is_line_protocol() && outcome.body.is_empty());
    let content_type = has_body.then(|| reply::content_type(dialect, head.headers, outcome.status));
    let mut reply = Reply::new(outcome.status, content_type, outcome.body.clone(), &head.correlation.id);
    reply.headers.extend(headers);
    reply
}

fn replay(head: &Head<'_>, first: &Idempotency) -> Reply {
    let outcome = Outcome { status: first.status, body: Bytes::copy_from_slice(&first.reply) };
    let headers = vec![(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"))];
    finish(head, &outcome, headers)
}

fn is_buffered(head: &Head<'_>) -> bool {
    head.principal.acknowledgement == Acknowledgement::Buffered
}

#[cfg(test)]
mod budget_tests;
#[cfg(test)]
mod lane_tests;
#[cfg(test)]
mod tests;
