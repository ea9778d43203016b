//! Checksums of a segment's bytes, block by block: what a reader of a range proves it by.
//!
//! The digest of a whole file proves every byte, but only to who reads every byte. A look-up that wants one page of a
//! file in a bucket reads that page's blocks and proves those. The sums stand in the commit beside the digest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Bytes of a block at least. Chosen: a footer or a page is about as large, and a small file has one sum.
const BLOCK_BYTES_MIN: u32 = 64 << 10;

/// Blocks of a file at most. Chosen: 1.4 KB in the commit, and a page of a 128 MiB file costs half a MiB.
const BLOCKS_MAX: u64 = 256;

/// CRC-32C of every block of a file, in their order; the last one may be short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    bytes: u32,
    sums: Box<[u32]>,
}

impl Blocks {
    /// Bytes of memory that they take, about.
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.sums)
    }

    /// The sums of a file's bytes.
    #[must_use]
    pub fn of(file: &[u8]) -> Self {
        let bytes = block_bytes(file.len() as u64);
        let sums = file.chunks(bytes as usize).map(crc32c::crc32c).collect();
        Self { bytes, sums }
    }

    /// The sums as a commit keeps them: the size of a block, and the sums in base64, each little-endian.
    #[must_use]
    pub fn encode(&self) -> String {
        let sums: Vec<u8> = self.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        format!("{}:{}", self.bytes, STANDARD_NO_PAD.encode(sums))
    }

    /// Reads what [`Self::encode`] made for a file of `file_bytes`; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str, file_bytes: u64) -> Option<Self> {
        let (bytes, sums) = text.split_once(':')?;
        let bytes: u32 = bytes.parse().ok().filter(|bytes| *bytes > 0)?;
        let sums = STANDARD_NO_PAD.decode(sums).ok()?;
        let (sums, rest) = sums.as_chunks::<4>();
        let is_whole = rest.is_empty() && sums.len() as u64 == file_bytes.div_ceil(u64::from(bytes));
        is_whole.then(|| Self { bytes, sums: sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect() })
    }

    /// The whole blocks that hold a range of a file of `file_bytes`.
    #[must_use]
    pub fn around(&self, range: &std::ops::Range<u64>, file_bytes: u64) -> std::ops::Range<u64> {
        let block = u64::from(self.bytes);
        let end = range.end.div_ceil(block).saturating_mul(block).min(file_bytes);
        range.start / block * block..end
    }

    /// Whether these bytes, which begin with a block at `start`, are what was written.
    #[must_use]
    pub fn prove(&self, start: u64, bytes: &[u8]) -> bool {
        let Ok(first) = usize::try_from(start / u64::from(self.bytes)) else { return false };
        let blocks = bytes.chunks(self.bytes as usize);
        let mut sums = self.sums.get(first..).unwrap_or_default().iter();
        blocks.into_iter().all(|block| sums.next().is_some_and(|sum| *sum == crc32c::crc32c(block)))
    }
}

fn block_bytes(file_bytes: u64) -> u32 {
    let wanted = file_bytes.div_ceil(BLOCKS_MAX).next_power_of_two();
    u32::try_from(wanted).unwrap_or(1 << 31).max(BLOCK_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::{Blocks, block_bytes};

    /// F40: sums come back as they went in, a range is proved by its own blocks, and one flipped bit is seen.
    #[test]
    fn a_range_is_proved_by_its_blocks() {
        let file: Vec<u8> = (0..200_000_u32).map(|at| (at / 7 % 251) as u8).collect();
        let len = file.len() as u64;
        let blocks = Blocks::decode(&Blocks::of(&file).encode(), len).unwrap();
        assert_eq!(blocks, Blocks::of(&file));
        for range in [0..1, 65_535..65_537, 199_999..200_000, 0..len, 70_000..80_000] {
            let around = blocks.around(&range, len);
            assert!(around.start <= range.start && around.end >= range.end && around.end <= len);
            let mut read = file[around.start as usize..around.end as usize].to_vec();
            assert!(blocks.prove(around.start, &read), "{range:?}");
            let middle = read.len() / 2;
            read[middle] ^= 4;
            assert!(!blocks.prove(around.start, &read), "{range:?}");
        }
        assert!(!blocks.prove(65_536 * 4, &file[..10]), "past the last block");
        for bad in ["", ":", "0:", "65536:AAAA", "x:AAAAAA", "65536:%%"] {
            assert_eq!(Blocks::decode(bad, len), None, "{bad}");
        }
    }

    /// B1: what a commit keeps of a file does not grow with the file.
    #[test]
    fn a_file_of_any_size_has_few_sums() {
        for bytes in [0_u64, 1, 65_536, 65_537, 16 << 20, (16 << 20) + 1, 5 << 30, 400 << 30] {
            assert!(bytes.div_ceil(u64::from(block_bytes(bytes))) <= 256, "{bytes}");
        }
    }
}
