//! Reading a body within its bounds: bytes, rate, and its part of the edge's memory.
//!
//! A body is charged to its tenant before it is buffered: as announced, or in steps as it grows. Where the memory is
//! short the socket is left unread for a while, which slows its sender down; only then is the request refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::CONNECTION;
use ingest::Refusal;
use storage::memory::{Charge, Memory, Pool, Short};
use storage::record::Tenant;

use super::unread::Arriving;

/// After this time a body must have come at [`RATE_MIN`] on average.
const GRACE: Duration = Duration::from_secs(5);

/// Bytes a second that a body must come at (slow clients, B29).
const RATE_MIN: u64 = 1 << 10;

/// The longest pause within a body, however fast it came before.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long a body waits for memory before it is refused, unread. Chosen: longer than the edge holds most bodies,
/// shorter than a client's patience.
const PACE_MAX: Duration = Duration::from_secs(2);

/// How often a body that waits looks whether there is memory.
const PACE_STEP: Duration = Duration::from_millis(10);

/// The first step of a body that does not say how long it is, in bytes; each further one doubles it.
const STEP_BYTES: u64 = 64 << 10;

/// The memory that a body may take, and who pays.
#[derive(Clone, Copy)]
pub struct Budget<'a> {
    /// All memory.
    pub memory: &'a Arc<Memory>,
    /// Whose body it is.
    pub tenant: &'a Tenant,
}

/// A body and what it is charged.
pub struct Whole {
    /// All bytes of it.
    pub bytes: Bytes,
    /// To be held as long as the bytes are; what has no body is never refused for memory.
    pub charge: Option<Charge>,
}

impl Budget<'_> {
    /// Takes so many bytes more, waiting a while where they are short.
    async fn grow(&self, charge: &mut Option<Charge>, bytes: u64) -> Result<(), Refusal> {
        let mut try_now = || match charge {
            Some(charge) => charge.grow(bytes),
            None => self.memory.take(Pool::Edge, Some(self.tenant), bytes).map(|taken| *charge = Some(taken)),
        };
        let Err(mut short) = try_now() else { return Ok(()) };
        let pace = async {
            while !matches!(short, Short::Never { .. }) {
                tokio::time::sleep(PACE_STEP).await;
                // Asked first: a wait is one refusal, however often it looks.
                if self.memory.has_room(Pool::Edge, Some(self.tenant), bytes) {
                    match try_now() {
                        Ok(()) => return true,
                        Err(again) => short = again,
                    }
                }
            }
            false
        };
        match tokio::time::timeout(PACE_MAX, pace).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(ingest::admit::short_of_memory(short, bytes)),
        }
    }
}

/// Reads a whole body of at most `max` bytes.
///
/// # Errors
/// 413 past `max`, by its announced length before reading, or past what one tenant may ever hold; 503 where memory
/// stays short; 408 for one that is too slow; 400 for one that breaks off.
pub async fn read(body: &mut Arriving, max: usize, budget: Budget<'_>) -> Result<Whole, Refusal> {
    let mut charge = None;
    if body.is_ended() {
        return Ok(Whole { bytes: Bytes::new(), charge });
    }
    let announced = body.announced();
    if announced > max as u64 {
        return Err(too_large(max));
    }
    let mut room = if announced > 0 { announced } else { STEP_BYTES };
    budget.grow(&mut charge, room).await?;
    let mut first: Option<Bytes> = None;
    let mut whole: Option<BytesMut> = None;
    let mut length = 0_usize;
    // The deadline moves on with every byte, which makes a least average rate of it.
    let deadline = tokio::time::sleep(GRACE);
    tokio::pin!(deadline);
    let mut begun = deadline.deadline() - GRACE;
    loop {
        let piece = tokio::select! {
            biased;
            piece = body.piece() => piece,
            () = &mut deadline => return Err(too_slow()),
            () = tokio::time::sleep(PAUSE_MAX) => return Err(too_slow()),
        };
        let Some(piece) = piece else { break };
        let data = piece.map_err(|_| closing(Refusal::new(400, "body_broken", "the body broke off")))?;
        length += data.len();
        if length > max {
            return Err(too_large(max));
        }
        if length as u64 > room {
            // Old and new buffer are both there while the one is copied into the other.
            let more = room.saturating_mul(2).max(length as u64).min(max as u64);
            let paced = tokio::time::Instant::now();
            budget.grow(&mut charge, more).await?;
            // We made its sender wait.
            begun += paced.elapsed();
            let mut all = BytesMut::with_capacity(usize::try_from(more).unwrap_or(max));
            all.extend_from_slice(whole.as_deref().unwrap_or_default());
            all.extend_from_slice(first.take().as_deref().unwrap_or_default());
            whole = Some(all);
            if let Some(charge) = &mut charge {
                charge.shrink_to(more);
            }
            room = more;
        }
        deadline.as_mut().reset(begun + GRACE + Duration::from_millis(length as u64 * 1_000 / RATE_MIN));
        // A body that came in one piece is not copied.
        match (&mut whole, first.take()) {
            (Some(whole), _) => whole.extend_from_slice(&data),
            (None, None) => first = Some(data),
            (None, Some(before)) => {
                let mut all = BytesMut::with_capacity(usize::try_from(room).unwrap_or(max));
                all.extend_from_slice(&before);
                all.extend_from_slice(&data);
                whole = Some(all);
            }
        }
        if body.is_ended() {
            break;
        }
    }
    Ok(Whole { bytes: whole.map(BytesMut::freeze).or(first).unwrap_or_default(), charge })
}

fn too_large(max: usize) -> Refusal {
    Refusal::new(
        413,
        "body_too_large",
        format!("the body exceeds body_bytes_max {max}: send smaller requests"),
    )
}

fn too_slow() -> Refusal {
    let detail = format!("the body came slower than {RATE_MIN} bytes a second");
    closing(Refusal { retryable: true, ..Refusal::new(408, "body_too_slow", detail) })
}

fn closing(mut refusal: Refusal) -> Refusal {
    refusal.headers.push((CONNECTION, HeaderValue::from_static("close")));
    refusal
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use storage::memory::{Memory, Pool};
    use storage::record::Tenant;
    use tokio::time::{Instant, sleep, timeout};

    use super::{Budget, STEP_BYTES};

    /// B1: a body that waits for memory keeps its connection and its sender: not for long.
    #[tokio::test(start_paused = true)]
    async fn a_body_waits_a_while_for_memory() {
        let memory = Memory::new(1 << 30, 0);
        let tenant = Tenant::parse("acme").expect("a good id");
        let budget = Budget { memory: &memory, tenant: &tenant };
        let all = memory.count(Pool::Edge, None, memory.max(Pool::Edge));
        let (begun, mut charge) = (Instant::now(), None);
        let grown = timeout(Duration::from_secs(60), budget.grow(&mut charge, STEP_BYTES)).await;
        let refusal = grown.expect("it ends").expect_err("there is no memory");
        assert_eq!((refusal.status, refusal.retryable, begun.elapsed().as_secs()), (503, true, 2));
        assert!(charge.is_none());
        // Memory that comes in time is taken.
        let others = async {
            sleep(Duration::from_secs(1)).await;
            drop(all);
        };
        let (grown, ()) = tokio::join!(budget.grow(&mut charge, STEP_BYTES), others);
        assert!(grown.is_ok() && charge.is_some_and(|charge| charge.bytes() == STEP_BYTES));
    }
}
