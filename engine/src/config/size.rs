//! A number of bytes as people write it: `367001600` or `"350MiB"`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What may stand behind a number, and the bytes of one.
const UNITS: [(&str, u64); 8] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("b", 1),
    ("", 1),
];

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// Reads a whole number with an optional unit; `None` where it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
        let size = number.parse::<u64>().ok()?.checked_mul(*bytes)?;
        // The file's numbers are signed: what is printed must be read again.
        i64::try_from(size).is_ok().then_some(Self(size))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, alone or with a unit as in \"350MiB\"")
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Size, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Signed(value), &self);
                u64::try_from(value).map(Size).map_err(|_| wrong())
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Size, E> {
                Ok(Size(value))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Size, E> {
                Size::parse(value).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(value), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(Size::parse(text), expected.map(Size), "{text}");
        };
        check("350000000", Some(350_000_000));
        check("350MiB", Some(350 << 20));
        check(" 350 mb ", Some(350_000_000));
        check("1GiB", Some(1 << 30));
        check("64B", Some(64));
        for bad in ["", "MiB", "-1", "1.5GiB", "1TiB", "99999999999999999999", "9999999999999GiB", "1 Mi B"] {
            check(bad, None);
        }
    }
}
