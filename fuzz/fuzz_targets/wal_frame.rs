//! Bytes as a log frame, with and without a checksum that holds.

#![no_main]

use libfuzzer_sys::fuzz_target;

static QUIET: std::sync::Once = std::sync::Once::new();

fuzz_target!(|bytes: &[u8]| {
    // The library's reader panics on some offsets, and the decoder catches that. The fuzzer's hook would end the
    // process before; a panic that nobody catches still ends it.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
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
