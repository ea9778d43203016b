//! What can go wrong before there is an answer. A refusal by the server is a [`Reply`](super::Reply), not
//! an error: only the caller knows whether it was expected.

use std::fmt;

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request could never be sent: change what was asked.
    Usage,
    /// Nobody listens, or nobody accepted in time: nothing was sent.
    Unreachable,
    /// No answer in time: the server may have done the work.
    TimedOut,
    /// The connection broke after something was sent: the server may have done the work.
    Broken,
    /// The answer is larger than this client holds.
    TooLarge,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    detail: String,
}

impl Error {
    /// An error of `kind`, told by `detail`.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// The request could never be sent.
    pub fn usage(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, detail)
    }

    /// Returns what the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {}
