//! From a credential to a [`Principal`], and the only place that makes one (T1).
//!
//! The directory of keys is an immutable map behind an atomic pointer: a look-up takes no lock, and a revoked
//! key stops at the next request. An unknown key costs the same hash and compare as a known one.

mod credential;
mod failures;
pub mod key;
pub mod master;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use storage::record::Tenant;
use storage::{Acknowledgement, Principal, Roles};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub use credential::Unusable;
use failures::Failures;
pub use failures::network;

/// The keyed hash under which a key is stored.
pub type Hash = [u8; 32];

/// A key as the directory knows it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its public id.
    pub id: Arc<str>,
    /// Its keyed hash.
    pub hash: Hash,
    /// Whether it is found by its hash, having no id of ours in its text.
    pub is_opaque: bool,
    /// Whose it is; [`Tenant::system`] for an operator of no tenant.
    pub tenant: Tenant,
    /// What it may do.
    pub roles: Roles,
    /// How its writes are acknowledged.
    pub acknowledgement: Acknowledgement,
    /// When it ends, nanoseconds since 1970 UTC.
    pub expires_ns: Option<i64>,
}

/// Every key that is good now.
#[derive(Debug, Default)]
struct Directory {
    by_id: HashMap<Arc<str>, Entry>,
    by_hash: HashMap<Hash, Entry>,
}

/// Why a request is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The credential cannot be used.
    Unusable(Unusable),
    /// There is no such key, or it was revoked, or it has ended.
    Unknown,
    /// Too many failures of this address.
    Throttled {
        /// After how many seconds to try again.
        retry_after_s: u32,
    },
}

impl Denied {
    /// The reason, as a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unusable(Unusable::Missing) => "missing",
            Self::Unusable(Unusable::Malformed) => "malformed",
            Self::Unusable(Unusable::Two) => "two_credentials",
            Self::Unusable(Unusable::InQuery) => "in_query",
            Self::Unknown => "unknown",
            Self::Throttled { .. } => "throttled",
        }
    }
}

/// Knows who a request comes from.
pub struct Identity {
    pepper: Zeroizing<[u8; 32]>,
    directory: ArcSwap<Directory>,
    failures: Failures,
}

impl Identity {
    /// Knows nobody yet.
    #[must_use]
    pub fn new(pepper: Zeroizing<[u8; 32]>) -> Self {
        Self { pepper, directory: ArcSwap::default(), failures: Failures::default() }
    }

    /// The hash under which a key is stored.
    #[must_use]
    pub fn hash(&self, key: &str) -> Hash {
        blake3::keyed_hash(&self.pepper, key.as_bytes()).into()
    }

    /// Replaces the directory: what is not in `entries` is unknown from the next request on.
    pub fn replace(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut directory = Directory::default();
        for entry in entries {
            if entry.is_opaque {
                directory.by_hash.insert(entry.hash, entry);
            } else {
                directory.by_id.insert(Arc::clone(&entry.id), entry);
            }
        }
        self.directory.store(Arc::new(directory));
    }

    /// Checks a request's credential.
    ///
    /// # Errors
    /// [`Denied`], with no trace of the credential.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        address: IpAddr,
        now_ns: i64,
        monotonic_ns: u64,
    ) -> Result<Principal, Denied> {
        let credential = credential::extract(headers, query).map_err(Denied::Unusable);
        let found = credential.and_then(|text| self.look_up(&text, now_ns).ok_or(Denied::Unknown));
        match found {
            Ok(principal) => Ok(principal),
            // A request without any credential tries nothing.
            Err(denied @ Denied::Unusable(Unusable::Missing | Unusable::Two)) => Err(denied),
            Err(denied) => match self.failures.count(address, monotonic_ns) {
                Some(retry_after_s) => Err(Denied::Throttled { retry_after_s }),
                None => Err(denied),
            },
        }
    }

    /// Whether a text is the whole of a key that is known, expired or not: what may not be logged or stored.
    #[must_use]
    pub fn is_key(&self, text: &str) -> bool {
        if text.len() < key::OPAQUE_BYTES_MIN {
            return false;
        }
        match key::parse(text) {
            Some(key::Form::Ours { .. }) => true,
            Some(key::Form::Opaque) => self.directory.load().by_hash.contains_key(&self.hash(text)),
            None => false,
        }
    }

    fn look_up(&self, text: &str, now_ns: i64) -> Option<Principal> {
        let form = key::parse(text)?;
        let hash = self.hash(text);
        let directory = self.directory.load();
        let entry = match form {
            key::Form::Ours { id } => directory.by_id.get(id),
            key::Form::Opaque => directory.by_hash.get(&hash),
        };
        // An unknown id is compared too, so that both ways cost the same.
        let expected = entry.map_or([0; 32], |entry| entry.hash);
        let is_equal: bool = expected.ct_eq(&hash).into();
        let entry = entry.filter(|_| is_equal)?;
        if entry.expires_ns.is_some_and(|expires_ns| expires_ns <= now_ns) {
            return None;
        }
        Some(Principal {
            tenant: entry.tenant.clone(),
            roles: entry.roles,
            subject: Arc::clone(&entry.id),
            acknowledgement: entry.acknowledgement,
        })
    }
}

#[cfg(test)]
mod tests;
