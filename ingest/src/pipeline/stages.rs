//! The stages between a body and a clean chunk, in order, over one lane's scratch.
//!
//! Pure but for the lane's scratch and the shared counters: no clock, no log, no wait.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderName, HeaderValue};
use storage::record::{Clean, Draft, TableId};
use storage::{Idempotency, Known};

use super::{RETRY_AFTER_S, Shared, is_buffered};
use crate::admit::Class;
use crate::correlate;
use crate::counters::Account;
use crate::decode::{Context, Decoded, IdSource, Refused};
use crate::decode::{line_protocol, ndjson, otlp};
use crate::head::{self, Accepted, Head, Media};
use crate::inflate::Inflater;
use crate::measure::measure;
use crate::reply::{self, Outcome, PARTIAL_WRITE, Refusal};
use crate::scrub::{Scrubber, scrub};
use crate::{Dialect, Route};

type Headers = Vec<(HeaderName, HeaderValue)>;

/// What a lane's stages work with; reused from request to request.
#[derive(Debug)]
pub(super) struct Stages {
    pub(super) shared: Arc<Shared>,
    scratch: RefCell<Scratch>,
}

#[derive(Debug, Default)]
struct Scratch {
    inflater: Inflater,
    ids: IdSource,
    scrubber: Scrubber,
    /// One a kind at most, empty, with its keys remembered.
    drafts: Vec<Draft>,
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

impl Step<'_> {
    fn with_fingerprint(mut self, fingerprint: Option<[u8; 16]>) -> Self {
        if let Step::Store(ready) = &mut self {
            ready.fingerprint = fingerprint;
        }
        self
    }
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
        Self { shared, scratch: RefCell::default() }
    }

    /// Takes a body through all stages. `oldest_ns` is the event time before which the dataset keeps nothing;
    /// `reserve` tells what is known of an idempotency key.
    ///
    /// The key is looked at as soon as the body is inflated: an answer that was given already must not cost
    /// rate, nor depend on what decoding would say today (B33).
    pub(super) fn prepare(
        &self,
        head: &Head<'_>,
        accepted: &Accepted,
        body: &[u8],
        oldest_ns: Option<i64>,
        reserve: impl FnOnce(&str, [u8; 16]) -> Known,
    ) -> Result<Step<'_>, Refusal> {
        let Shared { limits, counters, .. } = &*self.shared;
        if body.len() > limits.body_bytes_max {
            return Err(head::body_too_large(body.len() as u64, limits));
        }
        let mut scratch = self.scratch.borrow_mut();
        let Scratch { inflater, ids, scrubber, drafts } = &mut *scratch;
        let inflated = inflater.inflate(accepted.encoding, body, limits)?;
        counters.bytes_received.fetch_add(body.len() as u64, Ordering::Relaxed);
        counters.bytes_inflated.fetch_add(inflated.len() as u64, Ordering::Relaxed);

        let fingerprint = accepted.idempotency_key.is_some().then(|| fingerprint(head, inflated));
        if let (Some(key), Some(fingerprint)) = (accepted.idempotency_key.as_deref(), fingerprint)
            && let Some(first) = known(reserve(key, fingerprint))?
        {
            counters.replayed.fetch_add(1, Ordering::Relaxed);
            return Ok(Step::Replay(first));
        }

        // Only a draft whose rows went on comes back to the lane. One that was refused, or that a panic left
        // half written, is dropped: its columns would keep their room (B1), its open row its values.
        let mut draft = match drafts.iter().position(|draft| draft.kind() == accepted.kind) {
            Some(at) => drafts.swap_remove(at),
            None => Draft::new(accepted.kind),
        };
        let oldest_ns = oldest_ns.unwrap_or(i64::MIN);
        let mut context =
            Context { now_ns: head.now_ns, oldest_ns, limits, precision: accepted.precision, ids };
        let decode = decoder(head.route, accepted.media);
        let decoded = decode(inflated, &mut context, &mut draft)?;
        let step = self.after_decode(head, accepted, inflated.len(), decoded, &mut draft, scrubber)?;
        drafts.push(draft);
        Ok(step.with_fingerprint(fingerprint))
    }

    pub(super) fn after_decode(
        &self,
        head: &Head<'_>,
        accepted: &Accepted,
        bytes: usize,
        decoded: Decoded,
        draft: &mut Draft,
        scrubber: &mut Scrubber,
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
        // P1: the only way from a draft to a chunk that storage takes.
        let (clean, report) = match scrub(scrubber, &shared.scrub.load(), draft) {
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

/// One decoder: bytes to rows of the draft.
type Decoder = fn(&[u8], &mut Context<'_>, &mut Draft) -> Result<Decoded, Refused>;

/// Which decoder reads a route's bodies of that media type.
fn decoder(route: Route, media: Media) -> Decoder {
    match (route, media) {
        (Route::OtlpTraces, Media::Protobuf) => otlp::traces_proto,
        (Route::OtlpTraces, _) => otlp::traces_json,
        (Route::OtlpLogs, Media::Protobuf) => otlp::logs_proto,
        (Route::OtlpLogs, _) => otlp::logs_json,
        (Route::Events, Media::Json) => ndjson::events_json,
        (Route::Events, _) => ndjson::events_lines,
        (Route::Audit, Media::Json) => ndjson::audit_json,
        (Route::Audit, _) => ndjson::audit_lines,
        (Route::WriteV1 | Route::WriteV2 | Route::WriteV3, _) => line_protocol::lines,
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
fn fingerprint(head: &Head<'_>, inflated: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in [head.route.as_str(), head.query.unwrap_or_default()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(inflated);
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
