//! A histogram of the buckets that hold something, encoded as HdrHistogram's V2 is: at a cost of these alone.
//!
//! The dense form of our one shape takes 311 KB however few durations are in it. What a client names thousands of
//! series with must not cost that each (B1). The bytes are those that the dense form would be written as, which a
//! test holds against the library.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::measurement::DURATION_NS_MAX;

/// Sub-buckets of the lower half of a bucket: three significant digits.
const HALF_MAGNITUDE: u32 = 10;

/// What an encoded histogram begins with, and a compressed one.
const COOKIE: u32 = 0x1c84_9303 | 0x10;
const COMPRESSED_COOKIE: u32 = 0x1c84_9304 | 0x10;

/// Encodes one histogram after the other, with the same buffers.
#[derive(Debug)]
pub struct Encoder {
    compress: Compress,
    counts: Vec<(usize, u64)>,
    plain: Vec<u8>,
    total: u64,
}

impl Encoder {
    /// With nothing recorded.
    pub fn new() -> Self {
        let compress = Compress::new(Compression::default(), true);
        Self { compress, counts: Vec::new(), plain: Vec::new(), total: 0 }
    }

    /// Adds distinct durations in nanoseconds with their counts.
    pub fn add(&mut self, buckets: &[(u64, u32)]) {
        for (duration, count) in buckets {
            self.counts.push((index_of((*duration).clamp(1, DURATION_NS_MAX)), u64::from(*count)));
            self.total += u64::from(*count);
        }
    }

    /// Writes what was added, as V2 with deflate, into `out`; returns how many durations that were. Nothing is
    /// recorded then.
    pub fn take(&mut self, out: &mut Vec<u8>) -> u64 {
        out.clear();
        self.counts.sort_unstable();
        self.plain.clear();
        self.plain.extend(COOKIE.to_be_bytes());
        self.plain.extend([0; 8]);
        self.plain.extend(3_u32.to_be_bytes());
        self.plain.extend(1_u64.to_be_bytes());
        self.plain.extend(DURATION_NS_MAX.to_be_bytes());
        self.plain.extend(1_f64.to_be_bytes());
        let header = self.plain.len();
        let mut next = 0;
        for same in self.counts.chunk_by(|a, b| a.0 == b.0) {
            let (index, count) = (same[0].0, same.iter().map(|(_, count)| count).sum::<u64>());
            match i64::try_from(index - next).expect("some ten thousand buckets") {
                0 => {}
                1 => varint(&mut self.plain, 0),
                zeros => varint(&mut self.plain, -zeros),
            }
            varint(&mut self.plain, i64::try_from(count).expect("fewer than 2^63 durations"));
            next = index + 1;
        }
        if self.counts.is_empty() {
            varint(&mut self.plain, 0);
        }
        let length = u32::try_from(self.plain.len() - header).expect("some ten thousand buckets");
        self.plain[4..8].copy_from_slice(&length.to_be_bytes());
        self.deflate(out);
        self.counts.clear();
        std::mem::take(&mut self.total)
    }

    fn deflate(&mut self, out: &mut Vec<u8>) {
        out.extend(COMPRESSED_COOKIE.to_be_bytes());
        out.extend([0; 4]);
        self.compress.reset();
        loop {
            // Deflate adds five bytes a block at most to what it cannot compress.
            out.reserve(self.plain.len() / 2 + 64);
            let read = usize::try_from(self.compress.total_in()).expect("what was encoded is in memory");
            let status = self
                .compress
                .compress_vec(&self.plain[read..], out, FlushCompress::Finish)
                .expect("deflate has no reason to fail");
            if status == Status::StreamEnd {
                break;
            }
        }
        let length = u32::try_from(out.len() - 8).expect("some ten thousand buckets");
        out[4..8].copy_from_slice(&length.to_be_bytes());
    }
}

/// Where a duration is counted, as HdrHistogram lays buckets out.
fn index_of(duration: u64) -> usize {
    let bucket = (64 - HALF_MAGNITUDE - 1) - (duration | ((2 << HALF_MAGNITUDE) - 1)).leading_zeros();
    let sub_bucket = duration >> bucket;
    let base = u64::from(bucket + 1) << HALF_MAGNITUDE;
    // In the lowest bucket the lower half is used too: the difference may be negative.
    usize::try_from(base + sub_bucket - (1 << HALF_MAGNITUDE)).expect("some ten thousand buckets")
}

/// Zigzag, then seven bits a byte, nine bytes at most.
fn varint(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
    for _ in 0..8 {
        if left < 0x80 {
            out.push(left.to_le_bytes()[0]);
            return;
        }
        out.push(left.to_le_bytes()[0] | 0x80);
        left >>= 7;
    }
    out.push(left.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::ZlibDecoder;
    use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

    use super::Encoder;
    use crate::latency::measurement::{DURATION_NS_MAX, new_histogram};

    fn check(encoder: &mut Encoder, buckets: &[(u64, u32)]) {
        let mut dense = new_histogram();
        for (duration, count) in buckets {
            dense.saturating_record_n((*duration).clamp(1, DURATION_NS_MAX), u64::from(*count));
        }
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        V2Serializer::new().serialize(&dense, &mut expected).unwrap();
        encoder.add(buckets);
        assert_eq!(encoder.take(&mut found), dense.len());
        let mut plain = Vec::new();
        ZlibDecoder::new(&found[8..]).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, expected, "{buckets:?}");
        let read: hdrhistogram::Histogram<u64> = Deserializer::new().deserialize(&mut &found[..]).unwrap();
        assert_eq!(read, dense);
    }

    #[test]
    fn the_bytes_are_those_of_the_library() {
        let mut encoder = Encoder::new();
        check(&mut encoder, &[]);
        check(&mut encoder, &[(0, 3)]);
        check(&mut encoder, &[(1, 1), (2, 1), (4, u32::MAX), (4, u32::MAX)]);
        check(&mut encoder, &[(u64::MAX, 7), (DURATION_NS_MAX, 1), (1, 1)]);
        check(&mut encoder, &[(2_047, 1), (2_048, 1), (2_049, 1), (4_095, 1), (4_096, 1), (4_098, 5)]);
        let mut random = 7_u64;
        for round in 0..60 {
            let buckets: Vec<(u64, u32)> = (0..round * 20)
                .map(|_| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (random >> (random >> 58), (random >> 40) as u32 % 1_000 + 1)
                })
                .collect();
            check(&mut encoder, &buckets);
        }
    }
}
