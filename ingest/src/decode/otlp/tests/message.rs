//! A protobuf writer for tests: it can write what no client would.

/// A message being written.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(pub(super) Vec<u8>);

impl Message {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn raw_varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub(super) fn varint(self, number: u64, value: u64) -> Self {
        self.raw_varint(number << 3).raw_varint(value)
    }

    pub(super) fn fixed64(self, number: u64, value: u64) -> Self {
        self.raw_varint(number << 3 | 1).raw(&value.to_le_bytes())
    }

    pub(super) fn fixed32(self, number: u64, value: u32) -> Self {
        self.raw_varint(number << 3 | 5).raw(&value.to_le_bytes())
    }

    pub(super) fn bytes(self, number: u64, value: &[u8]) -> Self {
        self.raw_varint(number << 3 | 2).raw_varint(value.len() as u64).raw(value)
    }

    pub(super) fn text(self, number: u64, value: &str) -> Self {
        self.bytes(number, value.as_bytes())
    }

    pub(super) fn message(self, number: u64, value: &Self) -> Self {
        self.bytes(number, &value.0)
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `self` with every field of `other` behind it.
    pub(super) fn and(self, other: &Self) -> Self {
        self.raw(&other.0)
    }
}

/// An `AnyValue` of text.
pub(super) fn any_text(value: &str) -> Message {
    Message::new().text(1, value)
}

/// An `AnyValue` that nests `depth` deep, itself counted.
pub(super) fn any_deep(depth: usize) -> Message {
    // Written from the inside out, each level shifting what it holds: linear pieces, quadratic bytes.
    (1..depth)
        .fold(any_text("leaf"), |inner, _| Message::new().message(5, &Message::new().message(1, &inner)))
}

/// A `KeyValue`.
pub(super) fn key_value(key: &str, value: &Message) -> Message {
    Message::new().text(1, key).message(2, value)
}

/// A span that is in order, without attributes.
pub(super) fn good_span() -> Message {
    Message::new()
        .bytes(1, &[0xab; 16])
        .bytes(2, &[0xcd; 8])
        .text(5, "GET /")
        .fixed64(7, 1_700_000_000_000_000_000)
        .fixed64(8, 1_700_000_000_000_000_500)
}

/// A log record that is in order, without attributes.
pub(super) fn good_log() -> Message {
    Message::new().fixed64(1, 1_700_000_000_000_000_000).varint(2, 9).message(5, &any_text("hello"))
}

/// A request of one resource and one scope, with these records.
pub(super) fn request(records: &[Message]) -> Message {
    let scope = records.iter().fold(Message::new(), |scope, record| scope.message(2, record));
    let resource = Message::new().message(1, &key_value("service.name", &any_text("shop")));
    Message::new().message(1, &Message::new().message(1, &resource).message(2, &scope))
}
