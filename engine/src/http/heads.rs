//! Reads every request head of an HTTP/1 connection along, for what hyper is lenient in.
//!
//! Request smuggling lives on heads that two readers read differently: lines that end without a carriage return,
//! and a body with both a length and a transfer encoding. [`Heads`] follows a connection's bytes from head to body
//! to the next head (RFC 9112, sections 2.2, 6 and 7.1) and says where a head breaks one of these rules. It
//! refuses nothing else: where it cannot follow, hyper refuses the connection by itself.

/// Bytes of a head that are checked; a longer one is refused for its length.
const HEAD_BYTES_MAX: usize = 128 << 10;

/// Bytes of a line that are kept: a name, and a length or an encoding.
const LINE_KEPT_BYTES: usize = 64;

/// Where a connection's reading stands.
#[derive(Debug)]
pub struct Heads {
    at: At,
    /// The start of the line, in lower case.
    line: Vec<u8>,
    line_bytes: usize,
    last: u8,
    head_bytes: usize,
    length: Option<u64>,
    is_chunked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    /// Bytes of a body with a length.
    Body(u64),
    /// The line that tells a chunk's size.
    ChunkSize,
    /// A chunk's bytes and the line end behind them.
    Chunk(u64),
    /// Lines behind the last chunk.
    Trailer,
    /// No longer followed.
    Lost,
}

impl Default for Heads {
    fn default() -> Self {
        Self {
            at: At::Head,
            line: Vec::with_capacity(LINE_KEPT_BYTES),
            line_bytes: 0,
            last: 0,
            head_bytes: 0,
            length: None,
            is_chunked: false,
        }
    }
}

impl Heads {
    /// Reads `bytes` along; gives the offset at which a head is found broken.
    pub fn broken_at(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut next = 0;
        while next < bytes.len() {
            match self.at {
                At::Lost => return None,
                At::Body(left) | At::Chunk(left) => {
                    let passed = left.min((bytes.len() - next) as u64);
                    next += usize::try_from(passed).expect("no more than the slice holds");
                    self.pass(left - passed);
                }
                At::Head | At::ChunkSize | At::Trailer => {
                    let byte = bytes[next];
                    if byte != b'\n' {
                        self.take(byte);
                    } else if self.last != b'\r' || !self.end_line() {
                        self.at = At::Lost;
                        return Some(next);
                    }
                    next += 1;
                }
            }
        }
        None
    }

    fn pass(&mut self, left: u64) {
        self.at = match self.at {
            At::Body(_) if left == 0 => At::Head,
            At::Body(_) => At::Body(left),
            _ if left == 0 => At::ChunkSize,
            _ => At::Chunk(left),
        };
    }

    fn take(&mut self, byte: u8) {
        self.head_bytes += 1;
        if self.head_bytes > HEAD_BYTES_MAX {
            self.at = At::Lost;
        }
        self.line_bytes += 1;
        if self.line.len() < LINE_KEPT_BYTES {
            self.line.push(byte.to_ascii_lowercase());
        }
        self.last = byte;
    }

    /// Ends a line; `false` where it ends a head that is broken.
    fn end_line(&mut self) -> bool {
        let is_empty = self.line_bytes == 1;
        let holds = match self.at {
            // An empty line before a request line is allowed and ends nothing.
            At::Head if is_empty && self.head_bytes == 1 => {
                self.head_bytes = 0;
                true
            }
            At::Head if is_empty => self.end_head(),
            At::Head => {
                self.header();
                true
            }
            At::ChunkSize => {
                self.chunk_size();
                true
            }
            At::Trailer if is_empty => {
                self.begin_head();
                true
            }
            _ => true,
        };
        self.line.clear();
        self.line_bytes = 0;
        self.last = 0;
        holds
    }

    fn header(&mut self) {
        let line = self.line.trim_ascii_end();
        if let Some(value) = line.strip_prefix(b"content-length:") {
            match decimal(value.trim_ascii()) {
                Some(length) => self.length = Some(length),
                None => self.at = At::Lost,
            }
        }
        self.is_chunked |= line.starts_with(b"transfer-encoding:");
    }

    fn end_head(&mut self) -> bool {
        let next = match (self.length, self.is_chunked) {
            (Some(_), true) => return false,
            (None, true) => At::ChunkSize,
            (None | Some(0), false) => At::Head,
            (Some(length), false) => At::Body(length),
        };
        self.begin_head();
        self.at = next;
        true
    }

    fn begin_head(&mut self) {
        self.at = At::Head;
        (self.head_bytes, self.length, self.is_chunked) = (0, None, false);
    }

    fn chunk_size(&mut self) {
        let digits = self.line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        self.head_bytes = 0;
        self.at = match size {
            Some(0) => At::Trailer,
            // The line end behind it is two bytes more.
            Some(size) if size < u64::MAX - 2 => At::Chunk(size + 2),
            _ => At::Lost,
        };
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{At, Heads};

    /// The offset at which `text` breaks, the same at once and byte by byte, and where the reading ends.
    fn read(text: &str) -> (Option<usize>, At) {
        let mut whole = Heads::default();
        let at_once = whole.broken_at(text.as_bytes());
        let mut split = Heads::default();
        let by_byte = text.bytes().enumerate().find_map(|(at, byte)| split.broken_at(&[byte]).map(|_| at));
        assert_eq!(at_once, by_byte, "{text:?}");
        assert_eq!(whole.at, split.at, "{text:?}");
        (at_once, whole.at)
    }

    /// RELIABILITY B15, B20.
    #[test]
    fn a_head_that_two_readers_could_read_differently_is_broken() {
        let before = [
            "",
            "\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\n\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\nA\r\n0123\n56\n89\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n",
        ];
        for before in before {
            for good in [
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "P / HTTP/1.1\r\nContent-Length: 2\r\nHost: a\r\n\r\n\n\n",
            ] {
                assert_eq!(read(&format!("{before}{good}")), (None, At::Head), "{before:?} {good:?}");
            }
            for (bad, at) in [
                ("GET / HTTP/1.1\nHost: a\r\n\r\n", 14),
                ("GET / HTTP/1.1\r\nHost: a\n\n", 23),
                ("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 1\r\n\r\n", 62),
                ("P / HTTP/1.1\r\nContent-Length: 1\r\nTRANSFER-encoding: chunked\r\n\r\n", 62),
            ] {
                assert_eq!(
                    read(&format!("{before}{bad}")),
                    (Some(before.len() + at), At::Lost),
                    "{before:?} {bad:?}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_followed_is_left_to_the_parser() {
        for text in [
            "P / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "P / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\n",
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\n",
        ] {
            assert_eq!(read(text), (None, At::Lost), "{text:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nX: {}\n", "y".repeat(super::HEAD_BYTES_MAX));
        assert_eq!(read(&long), (None, At::Lost));
    }
}
