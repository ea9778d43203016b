//! From a body as sent to the bytes a decoder walks: one streaming loop for every coding, with one set of
//! bounds.
//!
//! Nothing a sender declares (a frame's content size, a member's length) is trusted for an allocation:
//! memory grows with what really comes out, up to `inflated_bytes_max`, and stops early where the ratio to
//! what was sent is that of a bomb.

mod gzip;
mod zstd_frame;

use flate2::{Decompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::cut;
use crate::decode::{Limits, Refused};

/// Output room that is added at first; later it doubles. Chosen: most batches inflate to less than this.
const ROOM_BYTES: usize = 64 << 10;

/// Capacity that the scratch buffer keeps between requests. Chosen: sixteen usual batches.
const KEPT_BYTES_MAX: usize = 4 << 20;

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
    out: Vec<u8>,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("kept_bytes", &self.out.capacity()).finish_non_exhaustive()
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self { deflate: Decompress::new(false), zstd: None, out: Vec::new() }
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
        if encoding == Encoding::Identity {
            return if body.len() > limits.inflated_bytes_max {
                Err(inflated_too_large(limits))
            } else {
                Ok(body)
            };
        }
        self.out.clear();
        if self.out.capacity() > KEPT_BYTES_MAX {
            self.out = Vec::new();
        }
        let mut sink = Sink { out: &mut self.out, sent: body.len(), limits };
        match encoding {
            Encoding::Identity => {}
            Encoding::Gzip => gzip::members(&mut self.deflate, body, &mut sink)?,
            Encoding::Deflate => deflate(&mut self.deflate, body, &mut sink)?,
            Encoding::Zstd => zstd(&mut self.zstd, body, &mut sink)?,
        }
        Ok(&self.out)
    }
}

/// Where inflated bytes go: it grows with real output only, and holds the bounds.
struct Sink<'a> {
    out: &'a mut Vec<u8>,
    sent: usize,
    limits: &'a Limits,
}

impl Sink<'_> {
    /// Makes sure there is room to write to, at most one byte past the limit.
    fn make_room(&mut self) {
        if self.out.len() == self.out.capacity() {
            let left = (self.limits.inflated_bytes_max + 1).saturating_sub(self.out.len()).max(1);
            self.out.reserve_exact(self.out.len().max(ROOM_BYTES).min(left));
        }
    }

    /// Looks at the bounds after each step.
    fn check(&self) -> Result<(), Refused> {
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

fn deflate(state: &mut Decompress, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Refused> {
    // RFC 1950's header names the method, 8, and is a multiple of 31. Raw deflate that begins so would be a
    // stored block with bits set in its padding, which no encoder writes.
    let has_zlib_header = matches!(body, [cmf, flg, ..]
        if cmf & 0x0f == 8 && cmf >> 4 <= 7 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0);
    state.reset(has_zlib_header);
    let rest = stream(state, body, sink)?;
    if rest.is_empty() { Ok(()) } else { Err(bad("bytes behind the end of the deflate stream")) }
}

/// Runs one deflate stream to its end; returns the input behind it.
fn stream<'a>(state: &mut Decompress, body: &'a [u8], sink: &mut Sink<'_>) -> Result<&'a [u8], Refused> {
    let mut input = body;
    loop {
        sink.make_room();
        let (in_before, out_before) = (state.total_in(), sink.out.len());
        let status = state
            .decompress_vec(input, sink.out, FlushDecompress::None)
            .map_err(|_| bad("body is not a valid deflate stream"))?;
        let read = usize::try_from(state.total_in() - in_before).expect("no more than the input");
        input = cut::tail(input, read);
        sink.check()?;
        if status == Status::StreamEnd {
            return Ok(input);
        }
        if read == 0 && sink.out.len() == out_before {
            return Err(bad("deflate stream is cut off"));
        }
    }
}

fn zstd(slot: &mut Option<Decoder<'static>>, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Refused> {
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
    let mut input = InBuffer::around(body);
    let mut at_frame_start = true;
    while input.pos() < body.len() || !at_frame_start {
        if at_frame_start {
            zstd_frame::check(cut::tail(body, input.pos()), 1 << ZSTD_WINDOW_LOG_MAX)?;
        }
        sink.make_room();
        let (in_before, out_before) = (input.pos(), sink.out.len());
        let hint =
            decoder.run(&mut input, &mut OutBuffer::around_pos(sink.out, out_before)).map_err(broken)?;
        sink.check()?;
        at_frame_start = hint == 0;
        if hint != 0 && input.pos() == in_before && sink.out.len() == out_before {
            return Err(bad("zstd stream is cut off"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
