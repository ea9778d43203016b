//! Text behind an encoding: what a detector must see beside the bytes as they stand.
//!
//! A [`View`] undoes percent, backslash and HTML escapes, full-width and Arabic digits and characters
//! without width in one pass and remembers where each byte came from, so that what is found in the view is
//! replaced in the original. Decoding a view again undoes a second layer. Base64 and hex are different: there
//! is no mark, so every long run of their alphabet is tried, and given up at the first byte that is no text.

use std::ops::Range;

/// Decoded text and where it came from.
#[derive(Default)]
pub(super) struct View {
    /// The text.
    pub(super) text: String,
    /// Where in the original each byte of the text begins and ends.
    from: Vec<(u32, u32)>,
}

impl View {
    /// The bytes of the original that `span` of the text was made from.
    pub(super) fn original(&self, span: Range<usize>) -> Range<usize> {
        let start = self.from[span.start].0;
        let end = self.from[span.end - 1].1;
        usize::try_from(start).expect("made from a usize")..usize::try_from(end).expect("made from a usize")
    }

    fn push(&mut self, c: char, from: (u32, u32)) {
        self.text.push(c);
        self.from.extend(std::iter::repeat_n(from, c.len_utf8()));
    }

    /// One more layer undone; `None` where there is none.
    pub(super) fn decoded(&self) -> Option<Self> {
        let mut next = decode(&self.text)?;
        for from in &mut next.from {
            let inner = |at: u32| usize::try_from(at).expect("made from a usize");
            *from = (self.from[inner(from.0)].0, self.from[inner(from.1) - 1].1);
        }
        Some(next)
    }
}

/// Undoes one layer of escapes; `None` where the text has none.
pub(super) fn decode(text: &str) -> Option<View> {
    let bytes = text.as_bytes();
    let is_marked = |b: &u8| matches!(b, b'%' | b'\\' | b'&') || *b >= 0x80;
    let first = bytes.iter().position(is_marked)?;
    let mut view = View::default();
    let mut is_changed = false;
    let short = |at: usize| u32::try_from(at).expect("a value is far below 4 GiB");
    let mut at = 0;
    while at < bytes.len() {
        let escaped = if at < first {
            None
        } else {
            match bytes[at] {
                b'%' => percent(&bytes[at..]),
                b'\\' => backslash(&bytes[at..]),
                b'&' => entity(&text[at..]),
                _ => None,
            }
        };
        let c = text[at..].chars().next().expect("at is a character's start, before the end");
        let (decoded, len) = escaped.unwrap_or((c, c.len_utf8()));
        match plain(decoded) {
            Some(plain) => {
                is_changed |= plain != c || escaped.is_some();
                view.push(plain, (short(at), short(at + len)));
            }
            None => is_changed = true,
        }
        at += len;
    }
    is_changed.then_some(view)
}

/// The ASCII look of a character; `None` for one that has no width.
fn plain(c: char) -> Option<char> {
    let code = u32::from(c);
    let digit = |zero: u32| char::from_digit(code - zero, 10);
    Some(match code {
        0xFF01..=0xFF5E => char::from_u32(code - 0xFEE0)?,
        0x0660..=0x0669 => digit(0x0660)?,
        0x06F0..=0x06F9 => digit(0x06F0)?,
        0x00A0 | 0x202F | 0x3000 => ' ',
        0x2010..=0x2015 => '-',
        0x00AD | 0x200B..=0x200F | 0x2060 | 0xFEFF => return None,
        _ => c,
    })
}

fn hex(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn percent(bytes: &[u8]) -> Option<(char, usize)> {
    let byte_at = |at: usize| {
        let code = bytes.get(at * 3..at * 3 + 3)?;
        (code[0] == b'%').then(|| hex(&code[1..]))?.and_then(|byte| u8::try_from(byte).ok())
    };
    let lead = byte_at(0)?;
    let len = match lead {
        0..=0x7F => 1,
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => return None,
    };
    let mut character = [0u8; 4];
    for (at, byte) in character[..len].iter_mut().enumerate() {
        *byte = byte_at(at)?;
    }
    let c = std::str::from_utf8(&character[..len]).ok()?.chars().next()?;
    Some((c, len * 3))
}

fn backslash(bytes: &[u8]) -> Option<(char, usize)> {
    Some(match bytes.get(1)? {
        c @ (b'"' | b'\'' | b'/' | b'\\' | b'@' | b'=' | b'&') => (char::from(*c), 2),
        b'n' | b'r' => ('\n', 2),
        b't' => ('\t', 2),
        b'u' => (char::from_u32(hex(bytes.get(2..6)?)?)?, 6),
        b'x' => (char::from_u32(hex(bytes.get(2..4)?)?)?, 4),
        b'0'..=b'1' => {
            let digits = bytes.get(1..4)?;
            if !digits.iter().all(|b| matches!(b, b'0'..=b'7')) {
                return None;
            }
            let code = digits.iter().fold(0, |sum, digit| sum * 8 + u32::from(digit - b'0'));
            (char::from_u32(code)?, 4)
        }
        _ => return None,
    })
}

fn entity(text: &str) -> Option<(char, usize)> {
    const NAMES: [(&str, char); 11] = [
        ("&amp;", '&'),
        ("&quot;", '"'),
        ("&apos;", '\''),
        ("&lt;", '<'),
        ("&gt;", '>'),
        ("&commat;", '@'),
        ("&equals;", '='),
        ("&colon;", ':'),
        ("&period;", '.'),
        ("&plus;", '+'),
        ("&nbsp;", ' '),
    ];
    if let Some(rest) = text.strip_prefix("&#") {
        // The largest code point has seven digits.
        let end = rest.bytes().take(9).position(|b| b == b';')?;
        let code = match rest[..end].strip_prefix(['x', 'X']) {
            Some(digits) => hex(digits.as_bytes())?,
            None => rest[..end].parse().ok()?,
        };
        return Some((char::from_u32(code)?, 3 + end));
    }
    NAMES.iter().find(|(name, _)| text.starts_with(name)).map(|(name, c)| (*c, name.len()))
}

/// The shortest run of the alphabet that is tried: twelve bytes of text, `a.b@c.example` in base64.
const RUN_BYTES_MIN: usize = 16;
/// Decoded bytes that must be plain before the run is decoded whole.
const HEAD_BYTES: usize = 6;

const NO_SEXTET: u8 = 0xFF;
const SEXTETS: [u8; 256] = sextets();

const fn sextets() -> [u8; 256] {
    let mut table = [NO_SEXTET; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut at = 0u8;
    while at < 64 {
        table[alphabet[at as usize] as usize] = at;
        at += 1;
    }
    table[b'-' as usize] = 62;
    table[b'_' as usize] = 63;
    table
}

/// Whether some run of base64 or hex decodes to text, as far as its head tells.
pub(super) fn has_wrapped_text(bytes: &[u8]) -> bool {
    let mut is_found = false;
    for_each_run(bytes, |run| {
        is_found |= is_hex_head(&bytes[run.clone()]) || is_base64_head(&bytes[run.clone()]);
        if is_found { run.end } else { run.start }
    });
    is_found
}

/// Shows `each` the text in every run of base64 or hex that holds text, and where the run stands.
pub(super) fn wrapped(text: &str, mut each: impl FnMut(Range<usize>, &str)) {
    let bytes = text.as_bytes();
    let mut decoded = Vec::new();
    for_each_run(bytes, |run| {
        decoded.clear();
        let value = &bytes[run.clone()];
        let len = if is_hex_head(value) {
            decode_hex(value, &mut decoded)
        } else if is_base64_head(value) {
            decode_base64(value, &mut decoded)
        } else {
            return run.start;
        };
        let mut end = run.start + len;
        if let Some(chunk) = decoded.utf8_chunks().next() {
            while end == run.end && bytes.get(end) == Some(&b'=') {
                end += 1;
            }
            each(run.start..end, chunk.valid());
        }
        run.start + len
    });
}

/// Calls `each` with every run of the alphabet, and with its rest from each place where a run may begin:
/// behind a separator (`/files/<base64>`). `each` says up to where it took the run.
fn for_each_run(bytes: &[u8], mut each: impl FnMut(Range<usize>) -> usize) {
    let is_outside = |b: &u8| SEXTETS[usize::from(*b)] == NO_SEXTET;
    let mut at = 0;
    while at + RUN_BYTES_MIN <= bytes.len() {
        // From the window's end: in text of short words one look passes over many bytes.
        if let Some(outside) = bytes[at..at + RUN_BYTES_MIN].iter().rposition(is_outside) {
            at += outside + 1;
            continue;
        }
        let end = bytes[at..].iter().position(is_outside).map_or(bytes.len(), |len| at + len);
        let mut start = at;
        while end - start >= RUN_BYTES_MIN {
            // What was taken is not tried again: all tries together stay linear.
            let taken = each(start..end).max(start);
            let rest = &bytes[taken..end];
            match rest.iter().position(|b| !b.is_ascii_alphanumeric()) {
                Some(separator) => start = taken + separator + 1,
                None => break,
            }
        }
        at = end;
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7E | b'\t' | b'\n' | b'\r')
}

fn is_base64_head(run: &[u8]) -> bool {
    run[..HEAD_BYTES / 3 * 4].chunks_exact(4).all(|group| three(group).into_iter().all(is_plain))
}

fn three(group: &[u8]) -> [u8; 3] {
    let sextet = |at: usize| SEXTETS[usize::from(group[at])];
    [sextet(0) << 2 | sextet(1) >> 4, sextet(1) << 4 | sextet(2) >> 2, sextet(2) << 6 | sextet(3)]
}

fn is_hex_head(run: &[u8]) -> bool {
    run[..HEAD_BYTES * 2]
        .chunks_exact(2)
        .all(|pair| hex(pair).and_then(|b| u8::try_from(b).ok()).is_some_and(is_plain))
}

/// Decodes as long as text comes out; returns how much of the run that took.
fn decode_base64(run: &[u8], out: &mut Vec<u8>) -> usize {
    let is_text = |byte: u8| is_plain(byte) || byte >= 0x80;
    let mut taken = 0;
    for group in run.chunks(4) {
        let mut padded = [b'A'; 4];
        padded[..group.len()].copy_from_slice(group);
        let bytes = three(&padded);
        let count = group.len().saturating_sub(1);
        if !bytes[..count].iter().all(|b| is_text(*b)) {
            break;
        }
        out.extend_from_slice(&bytes[..count]);
        taken += group.len();
    }
    taken
}

fn decode_hex(run: &[u8], out: &mut Vec<u8>) -> usize {
    let mut taken = 0;
    for pair in run.chunks_exact(2) {
        match hex(pair).and_then(|byte| u8::try_from(byte).ok()) {
            Some(byte) if is_plain(byte) || byte >= 0x80 => out.push(byte),
            _ => break,
        }
        taken += 2;
    }
    taken
}
