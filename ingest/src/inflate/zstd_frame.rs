//! A zstd frame's header (RFC 8878, 3.1.1), read before the frame: the library skips its window check
//! where a frame fits the output at hand, and a declared window must not depend on that.

use super::bad;
use crate::decode::Refused;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The window of a frame in bytes; refuses one that is over `window_max`, and what is no frame at all.
pub(super) fn check(frame: &[u8], window_max: u64) -> Result<u64, Refused> {
    let cut_off = || bad("zstd stream is cut off");
    let (magic, rest) = frame.split_first_chunk::<4>().ok_or_else(cut_off)?;
    if matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18]) {
        return Ok(0); // A skippable frame has no window.
    }
    if *magic != MAGIC {
        return Err(bad("body says zstd but is not"));
    }
    let (descriptor, behind) = rest.split_first().ok_or_else(cut_off)?;
    let descriptor = *descriptor;
    let is_single_segment = descriptor & 0x20 != 0;
    let window = if is_single_segment {
        content_size(descriptor, behind).ok_or_else(cut_off)?
    } else {
        let byte = *rest.get(1).ok_or_else(cut_off)?;
        let base = 1_u64 << (10 + u32::from(byte >> 3));
        base + base / 8 * u64::from(byte & 7)
    };
    if window > window_max {
        let detail = format!("zstd window of {window} bytes exceeds {window_max}");
        return Err(Refused::invalid("window_too_large", detail));
    }
    Ok(window)
}

/// The content size of a single-segment frame, which is its window.
fn content_size(descriptor: u8, rest: &[u8]) -> Option<u64> {
    // 0, 1, 2, 4 and 1, 2, 4, 8 by two bits each.
    let dictionary_bytes = (1_usize << (descriptor & 3)) >> 1;
    let len = 1_usize << (descriptor >> 6);
    let field = rest.get(dictionary_bytes..)?.get(..len)?;
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(field).for_each(|(to, from)| *to = *from);
    let size = u64::from_le_bytes(bytes);
    Some(if len == 2 { size + 256 } else { size })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn windows_are_read_as_the_format_says() {
        let head = |tail: &[u8]| [&[0x28, 0xb5, 0x2f, 0xfd], tail].concat();
        let code = |frame: &[u8]| check(frame, 8 << 20).err().map(|refused| refused.code);
        assert_eq!(code(&head(&[0x00, 13 << 3])), None, "8 MiB exactly");
        assert_eq!(code(&head(&[0x00, (13 << 3) | 1])), Some("window_too_large"));
        assert_eq!(code(&head(&[0x00, 21 << 3])), Some("window_too_large"), "2 GiB");
        assert_eq!(code(&head(&[0xa0, 0, 0, 0x80, 0])), None, "one segment of 8 MiB");
        assert_eq!(code(&head(&[0xa0, 1, 0, 0x80, 0])), Some("window_too_large"));
        assert_eq!(code(&head(&[0xa0, 1])), Some("bad_encoding"));
        assert_eq!(code(b"plain text"), Some("bad_encoding"));
        assert_eq!(code(&[0x50, 0x2a, 0x4d, 0x18]), None, "skippable");
    }
}
