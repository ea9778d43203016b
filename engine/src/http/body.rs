//! Reading a body within its bounds: bytes and rate.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::CONNECTION;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use ingest::Refusal;

/// After this time a body must have come at [`RATE_MIN`] on average.
const GRACE: Duration = Duration::from_secs(5);

/// Bytes a second that a body must come at (slow clients, B29).
const RATE_MIN: u64 = 1 << 10;

/// The longest pause within a body, however fast it came before.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Reads a whole body of at most `max` bytes.
///
/// # Errors
/// 413 past `max`, by its announced length before reading; 408 for one that is too slow; 400 for one that breaks
/// off.
pub async fn read(mut body: Incoming, max: usize) -> Result<Bytes, Refusal> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let announced = body.size_hint().lower();
    if announced > max as u64 {
        return Err(too_large(max));
    }
    let mut first: Option<Bytes> = None;
    let mut whole: Option<BytesMut> = None;
    let mut length = 0_usize;
    // The deadline moves on with every byte, which makes a least average rate of it.
    let deadline = tokio::time::sleep(GRACE);
    tokio::pin!(deadline);
    let begun = deadline.deadline() - GRACE;
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = &mut deadline => return Err(too_slow()),
            () = tokio::time::sleep(PAUSE_MAX) => return Err(too_slow()),
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| closing(Refusal::new(400, "body_broken", "the body broke off")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > max {
            return Err(too_large(max));
        }
        deadline.as_mut().reset(begun + GRACE + Duration::from_millis(length as u64 * 1_000 / RATE_MIN));
        // A body that came in one piece is not copied.
        match (&mut whole, first.take()) {
            (Some(whole), _) => whole.extend_from_slice(&data),
            (None, None) => first = Some(data),
            (None, Some(before)) => {
                let room = usize::try_from(announced).unwrap_or(0).max(before.len() + data.len());
                let mut all = BytesMut::with_capacity(room);
                all.extend_from_slice(&before);
                all.extend_from_slice(&data);
                whole = Some(all);
            }
        }
    }
    Ok(whole.map(BytesMut::freeze).or(first).unwrap_or_default())
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
