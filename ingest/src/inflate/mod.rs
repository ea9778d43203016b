//! From a body as sent to the bytes a decoder walks: one streaming loop for every coding, with one set of
//! bounds.
//!
//! Nothing a sender declares (a frame's content size, a member's length) is trusted for an allocation:
//! memory grows with what really comes out, up to `inflated_bytes_max`, and stops early where the ratio to
//! what was sent is that of a bomb. Room is charged to the budget before it is made, and a long body is inflated in
//! slices between which other requests have their turn.

mod gzip;
mod room;
mod zstd_frame;

use flate2::{Crc, Decompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::cut;
use crate::decode::{Limits, Pace, Refused, at_once};
use room::Room;

/// Output room that is added at first; later it doubles. Chosen: most batches inflate to less than this.
const ROOM_BYTES: usize = 64 << 10;

/// Output room that is added at once at most. Chosen: one step fills it in a few milliseconds.
const ROOM_BYTES_MAX: usize = 2 << 20;

/// Input that one step reads at most. Chosen: a usual text inflates to ten times as much, in about a millisecond.
const INPUT_BYTES: usize = 32 << 10;

/// Capacity that the scratch buffer keeps between requests, and window that a zstd decoder keeps. Chosen: four usual
/// batches.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// log2 of the largest zstd window that is accepted: 8 MiB, what RFC 8878 asks decoders to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body was encoded for the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// RFC 1952, one member or more.
    Gzip,
    /// RFC 8878, one frame or more.
    Zstd,
    /// RFC 1950, and the raw RFC 1951 that some clients send under this name.
    Deflate,
}

impl Encoding {
    /// The one coding that `Content-Encoding` names; `None` for an unknown one or more than one.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut found = Self::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            for token in value.to_str().ok()?.split(',').map(str::trim) {
                let coding = match token.to_ascii_lowercase().as_str() {
                    "" | "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "zstd" => Self::Zstd,
                    "deflate" => Self::Deflate,
                    _ => return None,
                };
                if found != Self::Identity {
                    return None;
                }
                found = coding;
            }
        }
        Some(found)
    }
}

/// The decompressors of one lane and the room they write to.
pub struct Inflater {
    deflate: Decompress,
    zstd: Option<Decoder<'static>>,
    /// The largest window that the zstd decoder may have made room for.
    zstd_window: usize,
    out: Room,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("kept_bytes", &self.out.held()).finish_non_exhaustive()
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self { deflate: Decompress::new(false), zstd: None, zstd_window: 0, out: Room::default() }
    }
}

impl Inflater {
    /// The body without its encoding; an identity body is borrowed as it is.
    ///
    /// # Errors
    /// 413 `inflated_too_large` or `inflation_ratio` when it grows past a limit, 400 `window_too_large` for a
    /// zstd window over 8 MiB, 400 `bad_encoding` when it is not what it says: another format, cut off, a
    /// wrong checksum, bytes behind its end.
    pub fn inflate<'a>(
        &'a mut self,
        encoding: Encoding,
        body: &'a [u8],
        limits: &Limits,
    ) -> Result<&'a [u8], Refused> {
        at_once(self.paced(encoding, body, limits, &mut Pace::default()))
    }

    /// As [`Self::inflate`], in slices.
    ///
    /// # Errors
    /// Also 413 and 503 where the budget does not lend the room.
    pub(crate) async fn paced<'a>(
        &'a mut self,
        encoding: Encoding,
        body: &'a [u8],
        limits: &Limits,
        pace: &mut Pace<'_>,
    ) -> Result<&'a [u8], Refused> {
        if encoding == Encoding::Identity {
            return if body.len() > limits.inflated_bytes_max {
                Err(inflated_too_large(limits))
            } else {
                Ok(body)
            };
        }
        self.out.clear();
        pace.hold_text(self.out.held())?;
        let mut sink = Sink { out: &mut self.out, sent: body.len(), limits, pace, window: self.zstd_window };
        match encoding {
            Encoding::Identity => {}
            Encoding::Gzip => gzip::members(&mut self.deflate, body, &mut sink).await?,
            Encoding::Deflate => deflate(&mut self.deflate, body, &mut sink).await?,
            Encoding::Zstd => {
                let inflated = zstd(&mut self.zstd, body, &mut sink).await;
                self.zstd_window = sink.window;
                inflated?;
            }
        }
        Ok(self.out.bytes())
    }

    /// Gives back what a large body needed: a lane keeps room for usual ones.
    pub(crate) fn rest(&mut self) {
        self.out.keep(KEPT_BYTES_MAX);
        if self.zstd_window > KEPT_BYTES_MAX {
            (self.zstd, self.zstd_window) = (None, 0);
        }
    }
}

/// Where inflated bytes go: it grows with real output only, and holds the bounds.
struct Sink<'a, 'w> {
    out: &'a mut Room,
    sent: usize,
    limits: &'a Limits,
    pace: &'a mut Pace<'w>,
    /// Bytes of the largest zstd window.
    window: usize,
}

impl Sink<'_, '_> {
    /// Makes sure there is room to write to, at most one byte past the limit.
    fn make_room(&mut self) -> Result<(), Refused> {
        if self.out.len() == self.out.held() {
            let most = self.limits.inflated_bytes_max.saturating_add(1);
            let left = most.saturating_sub(self.out.len()).max(1);
            let room = self.out.len().clamp(ROOM_BYTES, ROOM_BYTES_MAX).min(left);
            self.pace.hold_text(self.out.len() + room + self.window)?;
            self.out.grow(room, most);
        }
        Ok(())
    }

    /// Looks at the bounds after each step, which read and wrote so many bytes; ends a slice that is full.
    async fn check(&mut self, read: usize, written: usize) -> Result<(), Refused> {
        // Reading costs more than writing: literals are decoded bit by bit, repeats are copied.
        if self.pace.work(read * 4 + written) {
            self.pace.pass().await;
        }
        self.bounds()
    }

    fn bounds(&self) -> Result<(), Refused> {
        let len = self.out.len();
        if len > self.limits.inflated_bytes_max {
            return Err(inflated_too_large(self.limits));
        }
        let ratio_bytes = self.sent.saturating_mul(self.limits.inflate_ratio_max);
        if len > self.limits.inflate_ratio_after && len > ratio_bytes {
            return Err(Refused::too_large(
                "inflation_ratio",
                format!(
                    "body of {} bytes inflates past inflate_ratio_max {}",
                    self.sent, self.limits.inflate_ratio_max
                ),
            ));
        }
        Ok(())
    }
}

fn inflated_too_large(limits: &Limits) -> Refused {
    let max = limits.inflated_bytes_max;
    Refused::too_large("inflated_too_large", format!("inflated body exceeds inflated_bytes_max {max}"))
}

fn bad(detail: &str) -> Refused {
    Refused::invalid("bad_encoding", detail)
}

async fn deflate(state: &mut Decompress, body: &[u8], sink: &mut Sink<'_, '_>) -> Result<(), Refused> {
    // RFC 1950's header names the method, 8, and is a multiple of 31. Raw deflate that begins so would be a
    // stored block with bits set in its padding, which no encoder writes.
    let has_zlib_header = matches!(body, [cmf, flg, ..]
        if cmf & 0x0f == 8 && cmf >> 4 <= 7 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0);
    state.reset(has_zlib_header);
    let rest = stream(state, body, sink, None).await?;
    if rest.is_empty() { Ok(()) } else { Err(bad("bytes behind the end of the deflate stream")) }
}

/// Runs one deflate stream to its end; returns the input behind it. `crc` is updated with what comes out.
async fn stream<'a>(
    state: &mut Decompress,
    body: &'a [u8],
    sink: &mut Sink<'_, '_>,
    mut crc: Option<&mut Crc>,
) -> Result<&'a [u8], Refused> {
    let mut input = body;
    loop {
        sink.make_room()?;
        let (in_before, out_before) = (state.total_in(), state.total_out());
        let step = cut::head(input, INPUT_BYTES);
        let status = state
            .decompress(step, sink.out.spare(), FlushDecompress::None)
            .map_err(|_| bad("body is not a valid deflate stream"))?;
        let read = usize::try_from(state.total_in() - in_before).expect("no more than the input");
        let made = usize::try_from(state.total_out() - out_before).expect("no more than the room");
        input = cut::tail(input, read);
        let made = sink.out.fill(made);
        if let Some(crc) = &mut crc {
            crc.update(made);
        }
        let made = made.len();
        sink.check(read, made).await?;
        if status == Status::StreamEnd {
            return Ok(input);
        }
        if read == 0 && made == 0 {
            return Err(bad("deflate stream is cut off"));
        }
    }
}

async fn zstd(
    slot: &mut Option<Decoder<'static>>,
    body: &[u8],
    sink: &mut Sink<'_, '_>,
) -> Result<(), Refused> {
    let broken = |_| bad("body is not a valid zstd stream");
    if slot.is_none() {
        let mut decoder = Decoder::new().map_err(broken)?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(broken)?;
        *slot = Some(decoder);
    }
    let decoder = slot.as_mut().expect("made above");
    decoder.reinit().map_err(broken)?;
    if body.is_empty() {
        return Err(bad("zstd stream is cut off"));
    }
    let mut rest = body;
    let mut at_frame_start = true;
    while !rest.is_empty() || !at_frame_start {
        if at_frame_start {
            let window = zstd_frame::check(rest, 1 << ZSTD_WINDOW_LOG_MAX)?;
            sink.window = sink.window.max(usize::try_from(window).expect("checked against 8 MiB"));
            sink.pace.hold_text(sink.out.held() + sink.window)?;
        }
        sink.make_room()?;
        let mut input = InBuffer::around(cut::head(rest, INPUT_BYTES));
        let mut output = OutBuffer::around(sink.out.spare());
        let hint = decoder.run(&mut input, &mut output).map_err(broken)?;
        let (read, made) = (input.pos(), output.pos());
        rest = cut::tail(rest, read);
        sink.out.fill(made);
        sink.check(read, made).await?;
        at_frame_start = hint == 0;
        if hint != 0 && read == 0 && made == 0 {
            return Err(bad("zstd stream is cut off"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
