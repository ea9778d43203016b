//! Declared keys as they are kept: keyed hashes. What a client chose as a key may be a person's address or a key of
//! ours; neither memory nor the log nor a backup tells it.
//!
//! Keys that an older build kept as they came still count: they are hashed as they are read.

use crate::record::Tenant;
use crate::writer::Idempotency;

/// Begins every hashed key. No client sends a tab in a key.
const MARK: &str = "hash\t";

/// What a key is known by: its keyed hash, or the hash of one that is kept as it came.
pub type Name = [u8; 16];

/// Keys the hashes of declared keys. Without one they are kept as they come: for tools that only copy them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DeclaredKeySecret(Option<[u8; 32]>);

impl std::fmt::Debug for DeclaredKeySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "DeclaredKeySecret(set)" } else { "DeclaredKeySecret(unset)" })
    }
}

impl DeclaredKeySecret {
    /// A secret of this deployment alone, the same at every start: with another, known keys are unknown.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Some(secret))
    }

    /// What a tenant's key is known by, as it came or as it is kept.
    pub(crate) fn name(&self, tenant: &Tenant, key: &str) -> Name {
        match (kept(key), &self.0) {
            (Some(name), _) => name,
            (None, Some(secret)) => hash(secret, b"key", tenant, key.as_bytes()),
            (None, None) => hash(&[0; 32], b"key", tenant, key.as_bytes()),
        }
    }

    /// The form under which a key is kept.
    pub(crate) fn text(name: Name) -> Box<str> {
        format!("{MARK}{}", hex::encode(name)).into()
    }

    /// Whether a key is kept as it came.
    pub(crate) fn is_clear(key: &str) -> bool {
        kept(key).is_none()
    }

    /// A payload's fingerprint as it is kept: a short payload could be guessed from an open one.
    pub(crate) fn fingerprint(&self, tenant: &Tenant, fingerprint: [u8; 16]) -> [u8; 16] {
        match &self.0 {
            Some(secret) => hash(secret, b"fingerprint", tenant, &fingerprint),
            None => fingerprint,
        }
    }

    /// A record as it is kept; one that is in that form already stays.
    pub(crate) fn seal(&self, tenant: &Tenant, mut record: Idempotency) -> Idempotency {
        if self.seals(&record) {
            record.key = Self::text(self.name(tenant, &record.key));
            record.fingerprint = self.fingerprint(tenant, record.fingerprint);
        }
        record
    }

    /// Whether a record that was read back is as it came, and to be hashed.
    pub(crate) fn seals(&self, record: &Idempotency) -> bool {
        self.0.is_some() && Self::is_clear(&record.key)
    }
}

/// The name in a key that is kept as its hash.
fn kept(key: &str) -> Option<Name> {
    let mut name = Name::default();
    hex::decode_to_slice(key.strip_prefix(MARK)?, &mut name).ok()?;
    Some(name)
}

/// 128 bits: keys of one tenant do not meet by chance.
fn hash(secret: &[u8; 32], what: &[u8], tenant: &Tenant, value: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    for part in [what, tenant.as_str().as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(value);
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::DeclaredKeySecret;
    use crate::record::Tenant;
    use crate::writer::Idempotency;

    #[test]
    fn a_kept_key_tells_nothing_and_is_hashed_once() {
        let secret = DeclaredKeySecret::new([7; 32]);
        let (acme, other) = (Tenant::parse("acme").unwrap(), Tenant::parse("other").unwrap());
        let record = Idempotency {
            key: "jane@example.com".into(),
            fingerprint: [1; 16],
            status: 200,
            reply: (*b"{}").into(),
        };
        let kept = secret.seal(&acme, record.clone());
        assert!(!kept.key.contains("jane") && kept.fingerprint != [1; 16], "{kept:?}");
        assert_eq!(kept.key, DeclaredKeySecret::text(secret.name(&acme, "jane@example.com")));
        assert_eq!(secret.name(&acme, &kept.key), secret.name(&acme, "jane@example.com"));
        assert_eq!(secret.seal(&acme, kept.clone()), kept);
        assert_ne!(secret.seal(&other, record.clone()).key, kept.key, "tenants share no hash");
        let another = DeclaredKeySecret::new([8; 32]);
        assert_ne!(another.seal(&acme, record.clone()).key, kept.key);
        assert_eq!(DeclaredKeySecret::default().seal(&acme, record.clone()), record);
        assert!(!format!("{secret:?}").contains('7'));
    }
}
