//! Bytes as a log frame, with and without a checksum that holds.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = storage::inspect::decode_frame(bytes);
    // A checksum that holds lets the fuzzer reach the payload.
    let mut frame = vec![0; 48];
    frame[..4].copy_from_slice(b"FMW1");
    frame[40..44].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    frame[44..48].copy_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    let crc = crc32c::crc32c(&frame[8..48]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame.extend_from_slice(bytes);
    let _ = storage::inspect::decode_frame(&frame);
});
