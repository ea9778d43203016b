//! Why a JSON text is refused, and where.

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text is not JSON.
    Invalid,
    /// It nests deeper than allowed.
    TooDeep,
    /// It is not UTF-8.
    NotUtf8,
    /// It is JSON, but another type of value than the caller asked for.
    WrongType,
}

/// A refusal: what, where, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// What the caller can tell its sender.
    pub kind: ErrorKind,
    /// Byte of the text at which it shows, from 0.
    pub offset: usize,
    /// Why, without any of the text.
    pub why: &'static str,
}

impl Error {
    /// The stable code of the kind.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.kind {
            ErrorKind::Invalid => "invalid_json",
            ErrorKind::TooDeep => "too_deep",
            ErrorKind::NotUtf8 => "invalid_utf8",
            ErrorKind::WrongType => "wrong_type",
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}", self.why, self.offset)
    }
}

impl std::error::Error for Error {}
