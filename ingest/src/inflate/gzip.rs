//! gzip members around deflate streams (RFC 1952): header, checksum, length, next member.
//!
//! By hand, because one deflate state is reused for all members: a body of half a million empty members
//! must not cost half a million allocations.

use flate2::{Crc, Decompress};

use super::{Sink, bad, stream};
use crate::cut;
use crate::decode::Refused;

const HEADER_BYTES: usize = 10;
const TRAILER_BYTES: usize = 8;
const HAS_HEADER_CRC: u8 = 2;
const HAS_EXTRA: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// Inflates every member of the body, one behind the other.
pub(super) async fn members(
    state: &mut Decompress,
    body: &[u8],
    sink: &mut Sink<'_, '_>,
) -> Result<(), Refused> {
    let mut rest = body;
    let mut is_first = true;
    while is_first || !rest.is_empty() {
        let data = after_header(rest, is_first)?;
        let start = sink.out.len();
        state.reset(false);
        let mut crc = Crc::new();
        let behind = stream(state, data, sink, Some(&mut crc)).await?;
        let Some((trailer, next)) = behind.split_first_chunk::<TRAILER_BYTES>() else {
            return Err(bad("gzip member is cut off"));
        };
        let len = (sink.out.len() - start) as u64;
        let len = u32::try_from(len & u64::from(u32::MAX)).expect("masked to 32 bits");
        let (sum, len) = (crc.sum().to_le_bytes(), len.to_le_bytes());
        if !trailer.iter().eq(sum.iter().chain(&len)) {
            return Err(bad("gzip checksum or length does not match"));
        }
        rest = next;
        is_first = false;
    }
    Ok(())
}

/// What stands behind a member's header.
fn after_header(member: &[u8], is_first: bool) -> Result<&[u8], Refused> {
    let cut_off = || bad("gzip header is cut off");
    if !member.starts_with(&[0x1f, 0x8b]) {
        return Err(match member {
            [] | [0x1f] => cut_off(),
            _ if is_first => bad("body says gzip but is not"),
            _ => bad("bytes behind the end of the gzip stream"),
        });
    }
    let (header, mut rest) = member.split_first_chunk::<HEADER_BYTES>().ok_or_else(cut_off)?;
    let [_, _, method, flags, ..] = *header;
    if method != 8 || flags & RESERVED != 0 {
        return Err(bad("gzip header names an unknown method or flag"));
    }
    if flags & HAS_EXTRA != 0 {
        let (len, behind) = rest.split_first_chunk::<2>().ok_or_else(cut_off)?;
        let len = usize::from(u16::from_le_bytes(*len));
        rest = behind.get(len..).ok_or_else(cut_off)?;
    }
    for flag in [HAS_NAME, HAS_COMMENT] {
        if flags & flag != 0 {
            let end = memchr::memchr(0, rest).ok_or_else(cut_off)?;
            rest = cut::tail(rest, end + 1);
        }
    }
    if flags & HAS_HEADER_CRC != 0 {
        let mut crc = Crc::new();
        crc.update(cut::head(member, member.len() - rest.len()));
        let (sum, behind) = rest.split_first_chunk::<2>().ok_or_else(cut_off)?;
        if !crc.sum().to_le_bytes().starts_with(sum) {
            return Err(bad("gzip header checksum does not match"));
        }
        rest = behind;
    }
    Ok(rest)
}
