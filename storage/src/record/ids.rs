//! Names that decide where bytes may go: tenants, datasets, writers.
//!
//! They are parsed once, where they enter, and are plain text afterwards; an object path is only
//! ever built from these types, so a path cannot leave its tenant (T1).

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Kind as ErrorKind};

/// The tenant that concerns the system itself; no credential of a user names it.
pub const SYSTEM_TENANT: &str = "system";

/// A tenant id: `[a-z0-9][a-z0-9-]{0,62}`, never `system` when it comes from outside.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// Parses an id that came from outside.
    ///
    /// # Errors
    /// `Kind::Invalid` when the id has another form or is reserved.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text == SYSTEM_TENANT {
            return Err(Error::new(ErrorKind::Invalid, "tenant id system is reserved"));
        }
        let mut bytes = text.bytes();
        let first_is_good = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest_is_good = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !first_is_good || !rest_is_good || text.len() > 63 {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a tenant id is 1 to 63 of a-z, 0-9 and -, and starts with a letter or digit",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The reserved tenant of the system itself.
    #[must_use]
    pub fn system() -> Self {
        Self(SYSTEM_TENANT.into())
    }

    /// Reads an id back from what this crate wrote: `system` is one there.
    ///
    /// # Errors
    /// `Kind::Invalid` when the id has another form.
    pub(crate) fn stored(text: &str) -> Result<Self, Error> {
        if text == SYSTEM_TENANT { Ok(Self::system()) } else { Self::parse(text) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenant({})", self.0)
    }
}

/// A dataset id: `[a-z][a-z0-9_]{0,62}`, or `_system`; never `evidence` or `reports`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dataset(Arc<str>);

impl Dataset {
    /// Parses an id that came from outside.
    ///
    /// # Errors
    /// `Kind::Invalid` when the id has another form or is reserved.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if matches!(text, "evidence" | "reports") {
            return Err(Error::new(ErrorKind::Invalid, "dataset ids evidence and reports are reserved"));
        }
        if text == "_system" {
            return Ok(Self(text.into()));
        }
        let mut bytes = text.bytes();
        let first_is_good = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
        let rest_is_good = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !first_is_good || !rest_is_good || text.len() > 63 {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a dataset id is 1 to 63 of a-z, 0-9 and _, and starts with a letter",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The built-in dataset of a kind, named as the kind.
    #[must_use]
    pub fn built_in(kind: super::Kind) -> Self {
        Self(kind.as_str().into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({})", self.0)
    }
}

/// One table: a dataset of a tenant. The key of every map and the root of every path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TableId {
    /// Whose table it is.
    pub tenant: Tenant,
    /// Which of the tenant's datasets.
    pub dataset: Dataset,
}

impl TableId {
    /// Names a table.
    #[must_use]
    pub fn new(tenant: Tenant, dataset: Dataset) -> Self {
        Self { tenant, dataset }
    }

    /// What stands before every table of a tenant, and names none.
    pub(crate) fn first_of(tenant: &Tenant) -> Self {
        Self { tenant: tenant.clone(), dataset: Dataset("".into()) }
    }

    /// The table's root in the object store: `tenant/{tenant}/{dataset}`.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("tenant/{}/{}", self.tenant, self.dataset)
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.dataset)
    }
}

#[cfg(test)]
mod tests {
    use super::{Dataset, Tenant};

    #[test]
    fn ids_from_outside_keep_their_alphabet() {
        for good in ["a", "0", "acme", "acme-2", &"a".repeat(63)] {
            assert!(Tenant::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a/b", "..", "system", "a.b", "é", &"a".repeat(64)] {
            assert!(Tenant::parse(bad).is_err(), "{bad}");
        }
        for good in ["events", "a1_b", "_system"] {
            assert!(Dataset::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "_x", "1a", "evidence", "reports", "a-b", "a/b", "..", "Events"] {
            assert!(Dataset::parse(bad).is_err(), "{bad}");
        }
    }
}
