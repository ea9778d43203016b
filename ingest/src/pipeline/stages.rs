//! The stages between a body and a clean chunk, in order, over one lane's scratch.
//!
//! Pure but for the shared counters: no clock, no log, and no wait but for the turns of others. A request owns what
//! it works with ([`Tools`], a draft) from its beginning to its end, so nothing is borrowed across a turn.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use storage::record::{Clean, Draft, Kind, TableId};
use storage::{Idempotency, Known};

use super::work::Work;
use super::{RETRY_AFTER_S, Shared, is_buffered};
use crate::admit::Class;
use crate::correlate;
use crate::counters::Account;
use crate::decode::{Context, Decoded, IdSource, Pace, Refused, SLICE_BYTES};
use crate::decode::{line_protocol, ndjson, otlp};
use crate::head::{self, Accepted, Head, Media};
use crate::inflate::Inflater;
use crate::measure::measure;
use crate::reply::{self, Outcome, PARTIAL_WRITE, Refusal};
use crate::scrub::{Scrubber, scrub_paced};
use crate::{Dialect, Route};

type Headers = Vec<(HeaderName, HeaderValue)>;

/// Sets of tools that a lane keeps for the next requests. Chosen: as many as one tenant's bodies are begun at once.
const TOOLS_KEPT_MAX: usize = 4;

/// What a lane's stages work with; reused from request to request.
#[derive(Debug)]
pub(super) struct Stages {
    pub(super) shared: Arc<Shared>,
    tools: RefCell<Vec<Tools>>,
    /// One a kind at most, empty, with its keys remembered.
    drafts: RefCell<Vec<Draft>>,
}

/// Buffers and decompressors of one request while it is worked on.
#[derive(Debug, Default)]
struct Tools {
    inflater: Inflater,
    ids: IdSource,
    scrubber: Scrubber,
}

/// How a request goes on after its stages.
pub(super) enum Step<'a> {
    /// It was answered before.
    Replay(Arc<Idempotency>),
    /// There is nothing to store.
    Nothing(Outcome, Headers),
    /// Its good records are a chunk.
    Store(Box<Ready<'a>>),
}

/// A chunk that is ready for the log.
pub(super) struct Ready<'a> {
    pub(super) table: TableId,
    pub(super) clean: Clean,
    pub(super) account: Account<'a>,
    pub(super) decoded: Decoded,
    pub(super) fingerprint: Option<[u8; 16]>,
    pub(super) headers: Headers,
    /// Records and bytes that the tenant's buckets gave for it.
    pub(super) spent: (u64, u64),
}

impl Stages {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tools: RefCell::default(), drafts: RefCell::default() }
    }

    /// Lets go of what is kept from request to request.
    pub(super) fn rest(&self) {
        self.tools.borrow_mut().clear();
        self.drafts.borrow_mut().clear();
    }

    /// Takes a body through all stages. `oldest_ns` is the event time before which the dataset keeps nothing;
    /// `reserve` tells what is known of an idempotency key. The body is gone when it is not needed any more.
    ///
    /// The key is looked at as soon as the body is inflated: an answer that was given already must not cost
    /// rate, nor depend on what decoding would say today (B33).
    pub(super) async fn prepare(
        &self,
        head: &Head<'_>,
        accepted: &Accepted,
        body: Bytes,
        oldest_ns: Option<i64>,
        work: &mut Work,
        reserve: impl FnOnce(&str, [u8; 16]) -> Known,
    ) -> Result<Step<'_>, Refusal> {
        let mut tools = self.take_tools();
        let step = self.work_on(head, accepted, body, oldest_ns, work, &mut tools, reserve).await;
        self.keep_tools(tools);
        step
    }

    fn take_tools(&self) -> Tools {
        self.tools.borrow_mut().pop().unwrap_or_default()
    }

    fn keep_tools(&self, mut tools: Tools) {
        tools.inflater.rest();
        let mut kept = self.tools.borrow_mut();
        if kept.len() < TOOLS_KEPT_MAX {
            kept.push(tools);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one caller, and each is what one stage needs")]
    async fn work_on(
        &self,
        head: &Head<'_>,
        accepted: &Accepted,
        body: Bytes,
        oldest_ns: Option<i64>,
        work: &mut Work,
        tools: &mut Tools,
        reserve: impl FnOnce(&str, [u8; 16]) -> Known,
    ) -> Result<Step<'_>, Refusal> {
        let Shared { limits, counters, .. } = &*self.shared;
        if body.len() > limits.body_bytes_max {
            return Err(head::body_too_large(body.len() as u64, limits));
        }
        let Tools { inflater, ids, scrubber } = tools;
        let mut pace = Pace::of(work);
        let inflated = inflater.paced(accepted.encoding, &body, limits, &mut pace).await?;
        let inflated_bytes = inflated.len();
        counters.bytes_received.fetch_add(body.len() as u64, Ordering::Relaxed);
        counters.bytes_inflated.fetch_add(inflated_bytes as u64, Ordering::Relaxed);

        let mut print = None;
        if let Some(key) = accepted.idempotency_key.as_deref() {
            let found = fingerprint(head, inflated, &mut pace).await;
            if let Some(first) = known(reserve(key, found))? {
                counters.replayed.fetch_add(1, Ordering::Relaxed);
                return Ok(Step::Replay(first));
            }
            print = Some(found);
        }

        // Only a draft whose rows went on comes back to the lane. One that was refused, or that a panic left
        // half written, is dropped: its columns would keep their room (B1), its open row its values.
        let mut draft = self.draft(accepted.kind);
        let oldest_ns = oldest_ns.unwrap_or(i64::MIN);
        let mut context =
            Context { now_ns: head.now_ns, oldest_ns, limits, precision: accepted.precision, ids };
        let decoded =
            match decode((head.route, accepted.media), inflated, &mut context, &mut draft, &mut pace).await {
                Ok(decoded) => decoded,
                Err(refused) => {
                    self.refused_midway(accepted.kind, &refused, pace.records_seen());
                    return Err(refused.into());
                }
            };
        // What was decoded is in the columns: the body and its text make room for the frame.
        drop(body);
        inflater.rest();
        work.free_text();
        work.hold_rows(draft.held_bytes()).await.inspect_err(|refused| {
            self.refused_midway(accepted.kind, refused, decoded.accepted as usize);
        })?;
        let mut pace = Pace::of(work);
        if pace.work(inflated_bytes) {
            pace.pass().await;
        }
        let step =
            self.after_decode(head, accepted, inflated_bytes, decoded, (&mut draft, scrubber), &mut pace);
        let mut step = step.await?;
        let mut drafts = self.drafts.borrow_mut();
        if drafts.iter().all(|kept| kept.kind() != draft.kind()) {
            drafts.push(draft);
        }
        if let Step::Store(ready) = &mut step {
            ready.fingerprint = print;
        }
        Ok(step)
    }

    fn draft(&self, kind: Kind) -> Draft {
        let mut drafts = self.drafts.borrow_mut();
        match drafts.iter().position(|draft| draft.kind() == kind) {
            Some(at) => drafts.swap_remove(at),
            None => Draft::new(kind),
        }
    }

    /// Counts the records of a body that was refused while it was decoded for want of memory (A2): those seen.
    fn refused_midway(&self, kind: Kind, refused: &Refused, records: usize) {
        let is_for_now = refused.status == 503;
        if is_for_now || refused.code == "body_too_large" {
            let accepted = u32::try_from(records).unwrap_or(u32::MAX);
            let seen = Decoded { accepted, ..Decoded::default() };
            let account = Account::open(self.shared.counters.kind(kind), &seen);
            if is_for_now { account.throttle() } else { account.reject(refused.code) }
        }
    }

    pub(super) async fn after_decode(
        &self,
        head: &Head<'_>,
        accepted: &Accepted,
        bytes: usize,
        decoded: Decoded,
        (draft, scrubber): (&mut Draft, &mut Scrubber),
        pace: &mut Pace<'_>,
    ) -> Result<Step<'_>, Refusal> {
        debug_assert_eq!(draft.row_count(), decoded.accepted as usize, "A2: a row for every accepted record");
        let shared = &*self.shared;
        let tenant = &head.principal.tenant;
        let account = Account::open(shared.counters.kind(accepted.kind), &decoded);
        if let Some(refusal) = refused_records(accepted, &decoded) {
            account.reject("atomic");
            return Err(refusal(decoded));
        }
        // What is stored is what is spent: a body of which nothing is kept costs its request alone.
        let spent = if decoded.accepted == 0 { (0, 0) } else { (u64::from(decoded.accepted), bytes as u64) };
        let headers = match shared.admit.spend_stored(tenant, spent.0, spent.1, head.monotonic_ns) {
            Ok(remaining) => remaining.headers(),
            Err(denied) => {
                account.throttle();
                return Err(shared.admit.refusal(tenant, Class::Ingest, &denied));
            }
        };
        if decoded.accepted == 0 {
            account.accept();
            return Ok(Step::Nothing(outcome_of(head, &decoded), headers));
        }
        correlate::fill(draft, head.correlation);
        shared.completeness.observe(tenant, draft, head.now_ns);
        if pace.work(bytes) {
            pace.pass().await;
        }
        let rules = shared.scrub.load_full();
        // P1: the only way from a draft to a chunk that storage takes.
        let (clean, report) = match scrub_paced(scrubber, &rules, draft, pace).await {
            Ok(scrubbed) => scrubbed,
            Err(failed) => {
                shared.admit.refund_stored(tenant, spent.0, spent.1);
                tracing::error!(reason = failed.reason, "scrubbing failed");
                account.reject("scrub_failed");
                let detail = "a record could not be scrubbed, so none was kept";
                return Err(Refusal::new(400, "scrub_failed", detail));
            }
        };
        shared.counters.scrubbed(&report);
        if pace.work(bytes) {
            pace.pass().await;
        }
        let measurement = measure(clean.kind(), clean.batch());
        Ok(Step::Store(Box::new(Ready {
            table: TableId::new(tenant.clone(), accepted.dataset.clone()),
            clean: clean.with_measurement(measurement),
            account,
            decoded,
            fingerprint: None,
            headers,
            spent,
        })))
    }
}

/// Decodes a body by its route and media type.
async fn decode(
    (route, media): (Route, Media),
    body: &[u8],
    context: &mut Context<'_>,
    draft: &mut Draft,
    pace: &mut Pace<'_>,
) -> Result<Decoded, Refused> {
    let is_document = media == Media::Json;
    match (route, media) {
        (Route::OtlpTraces, Media::Protobuf) => otlp::proto_traces(body, context, draft, pace).await,
        (Route::OtlpLogs, Media::Protobuf) => otlp::proto_logs(body, context, draft, pace).await,
        (Route::OtlpTraces, _) => otlp::json_paced(body, context, draft, pace, true).await,
        (Route::OtlpLogs, _) => otlp::json_paced(body, context, draft, pace, false).await,
        (Route::Events | Route::Audit, _) => ndjson::paced(body, context, draft, pace, is_document).await,
        (Route::WriteV1 | Route::WriteV2 | Route::WriteV3, _) => {
            line_protocol::paced(body, context, draft, pace).await
        }
        (Route::OtlpMetrics, _) => unreachable!("a head without a kind is refused"),
    }
}

/// What a key that is already known means; `None` when it is ours to write.
fn known(known: Known) -> Result<Option<Arc<Idempotency>>, Refusal> {
    match known {
        Known::New => Ok(None),
        Known::Replayed(first) => Ok(Some(first)),
        Known::Mismatch => {
            Err(Refusal::new(422, "idempotency_mismatch", "the idempotency key was used for another request"))
        }
        Known::InFlight => Err(Refusal::retry(
            409,
            "idempotency_in_flight",
            "a request with this idempotency key is on its way",
            RETRY_AFTER_S,
        )),
    }
}

/// Covers what makes two requests the same: route, query and inflated body (F8: before scrubbing).
async fn fingerprint(head: &Head<'_>, inflated: &[u8], pace: &mut Pace<'_>) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in [head.route.as_str(), head.query.unwrap_or_default()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    for piece in inflated.chunks(SLICE_BYTES) {
        hasher.update(piece);
        if pace.work(piece.len() / 2) {
            pace.pass().await;
        }
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

/// Why none of a request's records is kept, where its bad ones decide that.
fn refused_records(accepted: &Accepted, decoded: &Decoded) -> Option<fn(Decoded) -> Refusal> {
    if decoded.rejected_count == 0 {
        None
    } else if decoded.accepted == 0 {
        Some(|decoded| {
            let detail = format!("all {} records are bad", decoded.rejected_count);
            Refusal::of_records("records_rejected", detail, decoded)
        })
    } else if accepted.is_atomic {
        Some(|decoded| {
            let total = u64::from(decoded.accepted) + u64::from(decoded.rejected_count);
            let detail = format!("{} of {total} records are bad, so none was kept", decoded.rejected_count);
            Refusal::of_records("records_rejected", detail, decoded)
        })
    } else {
        None
    }
}

/// What a request is answered with whose good records are kept.
pub(super) fn outcome_of(head: &Head<'_>, decoded: &Decoded) -> Outcome {
    let dialect = head.route.dialect();
    if decoded.rejected_count > 0 && !matches!(dialect, Dialect::Otlp(_) | Dialect::Problem) {
        let listed = Decoded { rejected: decoded.rejected.clone(), ..counts(decoded) };
        let detail = format!("{} lines are bad, the others are kept", decoded.rejected_count);
        let refusal = Refusal::of_records(PARTIAL_WRITE, detail, listed);
        let body = reply::refusal_body(dialect, head.headers, &refusal, &head.correlation.id);
        return Outcome { status: 400, body };
    }
    reply::success(dialect, head.headers, decoded, is_buffered(head))
}

fn counts(decoded: &Decoded) -> Decoded {
    Decoded { accepted: decoded.accepted, rejected_count: decoded.rejected_count, ..Decoded::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Shared, Stages, Tools};
    use crate::decode::Limits;
    use crate::scrub::Rules;

    /// B1: what many requests worked with at once does not stay with the lane.
    #[test]
    fn tools_of_a_crowd_are_not_kept() {
        let shared = Shared::new(Limits::default(), Arc::new(Rules::default_on()));
        let stages = Stages::new(Arc::new(shared));
        // As many bodies as a lane begins at once.
        let crowd: Vec<Tools> = (0..32).map(|_| stages.take_tools()).collect();
        crowd.into_iter().for_each(|tools| stages.keep_tools(tools));
        assert_eq!(stages.tools.borrow().len(), 4);
        stages.rest();
        assert_eq!(stages.tools.borrow().len(), 0, "a lane at rest keeps none");
    }
}
