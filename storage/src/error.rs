//! The crate's one error: a kind the caller can act on, a short context, a source.

use std::fmt;
use std::time::Duration;

/// What the caller should do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The input can never succeed: refuse it for good.
    Invalid,
    /// Something else is in the way (an id that is taken, a version that moved on).
    Conflict,
    /// There is no such thing.
    NotFound,
    /// A bound is reached and nothing was kept: try again after this time.
    Busy {
        /// How long the caller should wait.
        retry_after: Duration,
    },
    /// This tenant holds its share of a bound, and others do not: nothing was kept, try again after this time.
    Share {
        /// How long the caller should wait.
        retry_after: Duration,
    },
    /// The input alone is more than a bound allows: refuse it for good, or split it.
    TooLarge,
    /// A dependency does not answer: try again later.
    Unavailable,
    /// A bound of the tenant is reached: what is there already is taken, nothing new of its kind.
    Full,
    /// A newer build wrote what this one does not read: it is left alone, and whoever asks may try again with that build.
    Newer,
    /// Stored bytes are not what was written: stop and name them.
    Corrupt,
    /// A newer owner has taken over: stop.
    Fenced,
    /// The log's descriptor failed to sync: the process must exit and replay (W3).
    Poisoned,
    /// Our mistake.
    Bug,
}

/// An error of the storage crate. It never quotes payload (P2).
pub struct Error {
    kind: Kind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error of `kind`; `context` is lower case, without a full stop.
    pub fn new(kind: Kind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The short context, without the source.
    #[must_use]
    pub fn context(&self) -> &str {
        &self.context
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}
