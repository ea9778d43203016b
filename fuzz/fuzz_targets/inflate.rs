//! Any bytes as each content coding: no panic, and never more than the bounds allow. The first byte is the coding.

#![no_main]

use ingest::decode::Limits;
use ingest::inflate::{Encoding, Inflater};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let encoding =
        [Encoding::Identity, Encoding::Gzip, Encoding::Zstd, Encoding::Deflate][usize::from(*first) % 4];
    let limits = Limits {
        inflated_bytes_max: 1 << 20,
        inflate_ratio_max: 100,
        inflate_ratio_after: 4 << 10,
        ..Limits::default()
    };
    let mut inflater = Inflater::default();
    let once = inflater.inflate(encoding, body, &limits).map(<[u8]>::to_vec);
    if let Ok(inflated) = &once {
        assert!(inflated.len() <= limits.inflated_bytes_max);
        let ratio_bytes = body.len().saturating_mul(limits.inflate_ratio_max);
        assert!(inflated.len() <= ratio_bytes.max(limits.inflate_ratio_after));
    }
    // A lane's decompressors are used again: what one body leaves behind must not change the next answer.
    let again = inflater.inflate(encoding, body, &limits).map(<[u8]>::to_vec);
    assert_eq!(once, again);
});
