//! Reads every request head of an HTTP/1 connection along, for what hyper is lenient in.
//!
//! Request smuggling lives on heads that two readers read differently: lines that end without a carriage return,
//! a body with both a length and a transfer encoding, a length that is no plain number. [`Heads`] follows a
//! connection's bytes from head to body to the next head (RFC 9112, sections 2.2, 6 and 7.1) and says where it
//! finds a rule broken. Whatever it cannot follow counts as broken too: a connection whose messages end where only
//! one reader says so is answered 400 and closed, never read on unchecked.

/// Bytes of a head, or of the lines around chunks, that are followed. Above what hyper takes of either, so that a
/// longer one is refused for its length.
const HEAD_BYTES_MAX: usize = 128 << 10;

/// Bytes of a field's name and value that are kept. Names and values of interest are shorter; digits are not kept.
const KEPT_BYTES: usize = 24;

/// Where a connection's reading stands.
#[derive(Debug, Default)]
pub struct Heads {
    at: At,
    line: Line,
    head_bytes: usize,
    /// Lines of this head so far; the first is the request line.
    lines: usize,
    length: Option<u64>,
    is_chunked: bool,
    is_broken_in_head: bool,
    /// Messages that ended, for whoever compares.
    #[cfg(test)]
    ended: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Lines of a head.
    #[default]
    Head,
    /// Bytes of a body with a length.
    Body(u64),
    /// The line that tells a chunk's size.
    ChunkSize,
    /// A chunk's bytes.
    Chunk(u64),
    /// The line end behind a chunk's bytes.
    ChunkEnd,
    /// Lines behind the last chunk.
    Trailer,
    /// A rule was broken: nothing behind that is read.
    Broken,
}

/// A line as it is read: what it says so far, and whether it may be one at all.
#[derive(Debug, Default)]
struct Line {
    bytes: usize,
    last: u8,
    /// The field's name in lower case, as far as it is kept.
    name: Kept,
    is_in_value: bool,
    /// The field's value in lower case, without white space around it, as far as it is kept.
    value: Kept,
    /// The number that the value or the chunk size is so far.
    number: Number,
    is_wrong: bool,
}

/// The first bytes of something, and whether there were more.
#[derive(Debug, Default)]
struct Kept {
    bytes: [u8; KEPT_BYTES],
    len: usize,
    is_cut: bool,
}

impl Kept {
    fn push(&mut self, byte: u8) {
        match self.bytes.get_mut(self.len) {
            Some(place) => {
                *place = byte.to_ascii_lowercase();
                self.len += 1;
            }
            None => self.is_cut = true,
        }
    }

    fn is(&self, text: &[u8]) -> bool {
        !self.is_cut && self.bytes.get(..self.len) == Some(text)
    }
}

/// Digits as they come: none yet, a number, white space behind it, or no number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Number {
    #[default]
    None,
    Is(u64),
    Ended(u64),
    /// A chunk's size with an extension behind it.
    Extended(u64),
    Not,
}

impl Number {
    /// Takes a byte more of a number in base `radix`; however many digits, only what fits counts.
    fn push(self, byte: u8, radix: u32) -> Self {
        let digit = char::from(byte).to_digit(radix).map(u64::from);
        match (self, digit, byte) {
            (Self::Extended(_), ..) => self,
            (Self::None, None, b' ' | b'\t') if radix == 10 => Self::None,
            (Self::None, Some(digit), _) => Self::Is(digit),
            (Self::Is(so_far), Some(digit), _) => so_far
                .checked_mul(u64::from(radix))
                .and_then(|tens| tens.checked_add(digit))
                .map_or(Self::Not, Self::Is),
            (Self::Is(is) | Self::Ended(is), None, b' ' | b'\t') => Self::Ended(is),
            (Self::Is(is) | Self::Ended(is), None, b';') if radix == 16 => Self::Extended(is),
            _ => Self::Not,
        }
    }

    fn value(self) -> Option<u64> {
        match self {
            Self::Is(value) | Self::Ended(value) | Self::Extended(value) => Some(value),
            Self::None | Self::Not => None,
        }
    }
}

impl Heads {
    /// Reads `bytes` along; gives the offset at which a rule is found broken. After that nothing more is read.
    pub fn broken_at(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut next = 0;
        while next < bytes.len() {
            match self.at {
                At::Broken => return Some(next),
                At::Body(left) | At::Chunk(left) => {
                    let passed = left.min((bytes.len() - next) as u64);
                    next += usize::try_from(passed).expect("no more than the slice holds");
                    self.pass(left - passed);
                }
                At::Head | At::ChunkSize | At::ChunkEnd | At::Trailer => {
                    let is_in_head = self.at == At::Head;
                    if !self.read(bytes[next]) {
                        self.is_broken_in_head = is_in_head;
                        self.at = At::Broken;
                        return Some(next);
                    }
                    next += 1;
                }
            }
        }
        None
    }

    /// Whether the reading stands within a request line.
    #[must_use]
    pub fn is_in_request_line(&self) -> bool {
        self.at == At::Head && self.lines == 0 && self.line.bytes > 0
    }

    /// Whether what was found broken is a head, and not the framing of a body.
    #[must_use]
    pub fn is_broken_in_head(&self) -> bool {
        self.is_broken_in_head
    }

    fn pass(&mut self, left: u64) {
        self.at = match self.at {
            At::Body(_) if left == 0 => {
                self.end_message();
                At::Head
            }
            At::Body(_) => At::Body(left),
            _ if left == 0 => At::ChunkEnd,
            _ => At::Chunk(left),
        };
    }

    /// Reads a byte of a line; `false` where it breaks a rule.
    fn read(&mut self, byte: u8) -> bool {
        self.head_bytes += 1;
        if self.head_bytes > HEAD_BYTES_MAX {
            return false;
        }
        if byte == b'\n' {
            let is_ended_well = self.line.last == b'\r' && self.end_line();
            self.line = Line::default();
            return is_ended_well;
        }
        // A carriage return ends a line or is none.
        if self.line.last == b'\r' {
            return false;
        }
        if byte != b'\r' {
            self.take(byte);
        }
        self.line.bytes += 1;
        self.line.last = byte;
        true
    }

    fn take(&mut self, byte: u8) {
        let line = &mut self.line;
        match self.at {
            At::ChunkSize => line.number = line.number.push(byte, 16),
            At::ChunkEnd => line.is_wrong = true,
            At::Head if self.lines > 0 => {
                let is_space = matches!(byte, b' ' | b'\t');
                if line.is_in_value {
                    line.number = line.number.push(byte, 10);
                    // White space within stays, so that two words are never one.
                    if !is_space || line.value.len > 0 {
                        line.value.push(byte);
                    }
                } else if byte == b':' {
                    line.is_in_value = true;
                } else {
                    // A name with white space in it, or a line that continues the one before (obs-fold).
                    line.is_wrong |= is_space;
                    line.name.push(byte);
                }
            }
            _ => {}
        }
    }

    /// Ends a line; `false` where it breaks a rule.
    fn end_line(&mut self) -> bool {
        let is_empty = self.line.bytes == 1;
        match self.at {
            // An empty line before a request line is allowed and ends nothing.
            At::Head if is_empty && self.lines == 0 => {
                self.head_bytes = 0;
                true
            }
            At::Head if is_empty => self.end_head(),
            At::Head => {
                self.lines += 1;
                self.lines == 1 || self.field()
            }
            At::ChunkSize => self.chunk_size(),
            At::ChunkEnd => {
                self.at = At::ChunkSize;
                is_empty
            }
            At::Trailer if is_empty => {
                self.end_message();
                self.begin_head();
                true
            }
            _ => true,
        }
    }

    /// Notes what a field says of the body's end; `false` where that is not one thing.
    fn field(&mut self) -> bool {
        let line = &self.line;
        if line.is_wrong || !line.is_in_value {
            return false;
        }
        if line.name.is(b"content-length") {
            let length = line.number.value();
            let is_same = self.length.is_none() || self.length == length;
            self.length = length;
            return length.is_some() && is_same;
        }
        if line.name.is(b"transfer-encoding") {
            let is_first = !self.is_chunked;
            self.is_chunked = true;
            let mut value = line.value.bytes.get(..line.value.len).unwrap_or_default();
            value = value.trim_ascii_end();
            return is_first && !line.value.is_cut && value == b"chunked";
        }
        true
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
        if next == At::Head {
            self.end_message();
        }
        true
    }

    /// Notes that a message ended.
    fn end_message(&mut self) {
        #[cfg(test)]
        {
            self.ended += 1;
        }
    }

    fn begin_head(&mut self) {
        self.at = At::Head;
        (self.head_bytes, self.lines, self.length, self.is_chunked) = (0, 0, None, false);
    }

    fn chunk_size(&mut self) -> bool {
        self.head_bytes = 0;
        self.at = match self.line.number.value() {
            Some(0) => At::Trailer,
            Some(size) => At::Chunk(size),
            None => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests;
