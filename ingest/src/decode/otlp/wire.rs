//! The protobuf wire format, read in place: no message types, no allocation, nothing trusted.
//!
//! A length is compared with the bytes that are there before anything is done with it, so a body cannot
//! ask for memory (C10). Groups are refused: no OTLP message has ever had one.

use super::Refusing;
use crate::decode::Refused;

/// One field's payload, borrowed from the body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// A message's fields, in the order they were sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's number and payload; `None` at the end of the message.
    #[inline]
    pub(super) fn next(&mut self) -> Refusing<Option<(u32, Payload<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let Ok(key) = u32::try_from(key) else {
            return Err(malformed("a field number exceeds 536870911"));
        };
        let number = key >> 3;
        if number == 0 {
            return Err(malformed("field number 0"));
        }
        let payload = match key & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = self.varint()?;
                Payload::Bytes(self.take(len)?)
            }
            5 => Payload::Fixed32(u32::from_le_bytes(self.array()?)),
            3 | 4 => return Err(malformed("groups are not part of OTLP")),
            _ => return Err(malformed("a wire type that does not exist")),
        };
        Ok(Some((number, payload)))
    }

    #[inline]
    fn varint(&mut self) -> Refusing<u64> {
        // Tags and most lengths are one byte.
        if let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(first));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Refusing<u64> {
        let mut value = 0;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            if at == 9 && *byte > 1 {
                return Err(malformed("a varint exceeds 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(malformed("a varint ends with the message"))
    }

    #[inline]
    fn take(&mut self, len: u64) -> Refusing<&'a [u8]> {
        match usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len)) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(malformed("a length exceeds what is left of its message")),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Refusing<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(*bytes)
            }
            None => Err(malformed("a fixed-width field is cut off")),
        }
    }
}

impl<'a> Payload<'a> {
    /// The payload of a `bytes` or message field.
    #[inline]
    pub(super) fn bytes(self) -> Refusing<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(wrong_wire_type()),
        }
    }

    /// The payload of a `string` field.
    #[inline]
    pub(super) fn text(self) -> Refusing<&'a str> {
        match simdutf8::basic::from_utf8(self.bytes()?) {
            Ok(text) => Ok(text),
            Err(_) => Err(Box::new(Refused::invalid("invalid_utf8", "a string field is not UTF-8"))),
        }
    }

    /// The payload of a `fixed64` field.
    #[inline]
    pub(super) fn fixed64(self) -> Refusing<u64> {
        match self {
            Self::Fixed64(value) => Ok(value),
            _ => Err(wrong_wire_type()),
        }
    }

    /// The payload of a `fixed32` field.
    #[inline]
    pub(super) fn fixed32(self) -> Refusing<u32> {
        match self {
            Self::Fixed32(value) => Ok(value),
            _ => Err(wrong_wire_type()),
        }
    }

    /// The payload of a `bool` or `int64` field.
    #[inline]
    pub(super) fn varint(self) -> Refusing<u64> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(wrong_wire_type()),
        }
    }

    /// The payload of a `uint32` field; higher bits are cut off, as protobuf says.
    #[inline]
    pub(super) fn uint32(self) -> Refusing<u32> {
        Ok(self.varint()? as u32)
    }

    /// The payload of an enum field; higher bits are cut off, as protobuf says.
    #[inline]
    pub(super) fn int32(self) -> Refusing<i32> {
        Ok(self.varint()? as i32)
    }
}

#[cold]
fn malformed(what: &'static str) -> Box<Refused> {
    Box::new(Refused::invalid("invalid_protobuf", format!("the body is not an OTLP message: {what}")))
}

#[cold]
fn wrong_wire_type() -> Box<Refused> {
    malformed("a known field has another wire type")
}

#[cfg(test)]
mod tests {
    use super::{Payload, Reader};

    fn walk(bytes: &[u8]) -> Option<Vec<(u32, String)>> {
        let mut reader = Reader::new(bytes);
        let mut fields = Vec::new();
        while let Some((number, payload)) = reader.next().ok()? {
            fields.push((
                number,
                match payload {
                    Payload::Varint(value) => format!("v{value}"),
                    Payload::Fixed64(value) => format!("q{value}"),
                    Payload::Fixed32(value) => format!("d{value}"),
                    Payload::Bytes(bytes) => format!("b{}", bytes.len()),
                },
            ));
        }
        Some(fields)
    }

    fn check(bytes: &[u8], expected: Option<&[(u32, &str)]>) {
        let expected =
            expected.map(|fields| fields.iter().map(|(n, text)| (*n, (*text).to_owned())).collect());
        assert_eq!(walk(bytes), expected, "{bytes:02x?}");
    }

    #[test]
    fn fields_are_read_or_the_message_is_refused() {
        check(&[], Some(&[]));
        check(&[0x08, 0x00], Some(&[(1, "v0")]));
        check(
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            Some(&[(1, "v18446744073709551615")]),
        );
        // Two to the power of 64, then eleven bytes.
        check(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], None);
        check(&[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], None);
        // A varint may be longer than it needs to be.
        check(&[0x08, 0x81, 0x00], Some(&[(1, "v1")]));
        check(&[0x00, 0x00], None);
        check(&[0x0b], None);
        check(&[0x0c], None);
        check(&[0x0e], None);
        check(&[0x0f], None);
        check(&[0x0a, 0x02, 1], None);
        check(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x07, 1, 2, 3], None);
        check(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], None);
        check(&[0x0a, 0x02, 1, 2], Some(&[(1, "b2")]));
        check(&[0x09, 1, 0, 0, 0, 0, 0, 0, 0], Some(&[(1, "q1")]));
        check(&[0x09, 1, 0, 0, 0, 0, 0, 0], None);
        check(&[0x0d, 1, 0, 0, 0], Some(&[(1, "d1")]));
        check(&[0x0d, 1, 0, 0], None);
        check(&[0xfa, 0xff, 0xff, 0xff, 0x0f, 0], Some(&[(536_870_911, "b0")]));
        check(&[0xfa, 0xff, 0xff, 0xff, 0x1f, 0], None);
        check(&[0x80], None);
    }
}
