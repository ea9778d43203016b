//! One object of the log: whose it is, its digest, its frames.
//!
//! ```text
//! offset  0  magic        "FMO1"
//!         4  blake3       of everything behind it
//!        36  epoch        how often this log was opened
//!        44  number       of this object in its log: the last part of its name
//!        52  incarnation  16 random bytes of the process that put it
//!        68  writer       u16 length, then the log's name
//!         …  frames       as on a disk (FMW1), their segment 0; none in an opening
//! ```
//! All integers little-endian. Equal bytes are one process' doing: whoever finds its own bytes under a name has put
//! them. The layout is listed in docs/FORMATS.md; a change of it changes the magic.

use bytes::Bytes;

/// What an object begins with.
const MAGIC: &[u8; 4] = b"FMO1";

/// Where the digested part begins.
const DIGESTED: usize = 36;

/// Where the writer's name begins.
const WRITER: usize = 70;

/// Whose an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// How often its log was opened.
    pub epoch: u64,
    /// Its number in the log.
    pub number: u64,
    /// The process that put it.
    pub incarnation: [u8; 16],
    /// The log's name.
    pub writer: &'a str,
}

/// The object's bytes.
pub fn encode(head: &Head<'_>, frames: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(WRITER + head.writer.len() + frames.len());
    bytes.extend_from_slice(MAGIC);
    bytes.resize(DIGESTED, 0);
    bytes.extend_from_slice(&head.epoch.to_le_bytes());
    bytes.extend_from_slice(&head.number.to_le_bytes());
    bytes.extend_from_slice(&head.incarnation);
    let len = u16::try_from(head.writer.len()).expect("a node's name is short");
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(head.writer.as_bytes());
    bytes.extend_from_slice(frames);
    let digest = blake3::hash(&bytes[DIGESTED..]);
    bytes[MAGIC.len()..DIGESTED].copy_from_slice(digest.as_bytes());
    bytes.into()
}

/// The head and the frames of an object; `None` where the bytes are not what [`encode`] made.
pub fn decode(bytes: &[u8]) -> Option<(Head<'_>, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (digest, rest) = rest.split_first_chunk::<32>()?;
    if blake3::hash(rest) != blake3::Hash::from_bytes(*digest) {
        return None;
    }
    let (epoch, rest) = rest.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (incarnation, rest) = rest.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (writer, frames) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    let head = Head {
        epoch: u64::from_le_bytes(*epoch),
        number: u64::from_le_bytes(*number),
        incarnation: *incarnation,
        writer: std::str::from_utf8(writer).ok()?,
    };
    Some((head, frames))
}

#[cfg(test)]
mod tests {
    use super::{Head, decode, encode};

    #[test]
    fn an_object_reads_back_whole_or_not_at_all() {
        let head = Head { epoch: 3, number: 7, incarnation: [9; 16], writer: "a-0-bucket" };
        let bytes = encode(&head, b"frames");
        assert_eq!(decode(&bytes), Some((head, b"frames".as_slice())));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
    }
}
