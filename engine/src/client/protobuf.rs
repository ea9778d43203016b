//! The protobuf wire format, as much of it as a client needs: a writer that appends fields to one
//! buffer, and a reader that walks the fields of one message without copying.
//!
//! The process must not depend on generated types (they belong to tests), and what we write is four
//! messages. A nested message is written to its own buffer first, for its length stands before it.

/// Wire types of the format.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Appends fields to a message. Fields of value zero are written like any other.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the message.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns the bytes written so far: where the next field will start.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes an integer, enum or bool (`int64`, `uint32`, … but not `sint`).
    pub fn varint(&mut self, field: u32, value: u64) {
        self.put_varint(u64::from(field) << 3 | VARINT);
        self.put_varint(value);
    }

    /// Writes a `fixed64`.
    pub fn fixed64(&mut self, field: u32, value: u64) {
        self.put_varint(u64::from(field) << 3 | FIXED64);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Writes a `double`.
    pub fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    /// Writes a `fixed32`.
    pub fn fixed32(&mut self, field: u32, value: u32) {
        self.put_varint(u64::from(field) << 3 | FIXED32);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Writes `bytes`, or a message that stands written already.
    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        self.put_varint(u64::from(field) << 3 | BYTES);
        self.put_varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// Writes a `string`.
    pub fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// Writes a nested message, filled by `fill`.
    pub fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        let mut nested = Self::new();
        fill(&mut nested);
        self.bytes(field, &nested.bytes);
    }

    /// Appends fields that stand written already.
    pub fn raw(&mut self, fields: &[u8]) {
        self.bytes.extend_from_slice(fields);
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

/// One field's value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    /// Integer, enum or bool.
    Varint(u64),
    /// `fixed64`, `double`.
    Fixed64(u64),
    /// String, bytes or message.
    Bytes(&'a [u8]),
    /// `fixed32`, `float`.
    Fixed32(u32),
}

/// Walks the fields of one message; ends early, with `broken` set, at what is no protobuf.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    broken: bool,
}

impl<'a> Reader<'a> {
    /// Walks `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message, broken: false }
    }

    /// Returns whether the walk met bytes that are no protobuf.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    fn field(&mut self) -> Option<(u32, Wire<'a>)> {
        let tag = self.varint()?;
        let field = u32::try_from(tag >> 3).ok().filter(|field| *field > 0)?;
        let wire = match tag & 7 {
            VARINT => Wire::Varint(self.varint()?),
            FIXED64 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            BYTES => {
                let len = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(len)?)
            }
            FIXED32 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((field, wire))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in 0..10 {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << (shift * 7);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = (u32, Wire<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() || self.broken {
            return None;
        }
        let field = self.field();
        self.broken = field.is_none();
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new();
        writer.varint(1, 0);
        writer.varint(2, 300);
        writer.varint(3, u64::MAX);
        writer.fixed64(4, 1_767_225_600_000_000_000);
        writer.double(5, -0.5);
        writer.fixed32(16, 7);
        writer.text(2047, "späti");
        writer.message(6, |nested| nested.message(1, |inner| inner.varint(1, 5)));
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes);
        let fields: Vec<_> = reader.by_ref().collect();
        let expected = [
            (1, Wire::Varint(0)),
            (2, Wire::Varint(300)),
            (3, Wire::Varint(u64::MAX)),
            (4, Wire::Fixed64(1_767_225_600_000_000_000)),
            (5, Wire::Fixed64((-0.5f64).to_bits())),
            (16, Wire::Fixed32(7)),
            (2047, Wire::Bytes("späti".as_bytes())),
            (6, Wire::Bytes(&[0x0a, 2, 0x08, 5])),
        ];
        assert_eq!(fields, expected);
        assert!(!reader.is_broken());
    }

    /// The specification's own example: field 1 with 150 is `08 96 01`.
    #[test]
    fn bytes_are_those_of_the_specification() {
        let mut writer = Writer::new();
        writer.varint(1, 150);
        writer.text(2, "testing");
        assert_eq!(writer.into_bytes(), b"\x08\x96\x01\x12\x07testing");
    }

    #[test]
    fn broken_bytes_end_the_walk_at_every_cut() {
        let mut writer = Writer::new();
        writer.text(1, "abc");
        writer.fixed64(2, 9);
        let bytes = writer.into_bytes();
        for cut in 0..bytes.len() {
            let mut reader = Reader::new(&bytes[..cut]);
            let count = reader.by_ref().count();
            let whole = cut == 0 || cut == 5;
            assert_eq!(reader.is_broken(), !whole, "cut at {cut}");
            assert_eq!(count, usize::from(cut >= 5), "cut at {cut}");
        }
        for broken in
            [&b"\x00\x01"[..], b"\x0b", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a\x7f"]
        {
            let mut reader = Reader::new(broken);
            assert_eq!(reader.by_ref().count(), 0, "{broken:?}");
            assert!(reader.is_broken(), "{broken:?}");
        }
    }
}
