//! Tenants and keys as they are kept: small JSON objects below `system/`.

use std::collections::BTreeMap;

use ingest::admit::Policy;
use serde::{Deserialize, Serialize};
use storage::record::Tenant;
use storage::{Acknowledgement, Role, Roles};

use crate::identity::{Entry, Hash};

/// One API key, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Public id.
    pub id: String,
    /// What it is for, in its maker's words.
    pub name: String,
    /// Whose it is; `system` for an operator of no tenant.
    pub tenant: String,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// Keyed hash of the whole key, in hex.
    pub hash: String,
    /// Whether the key has a form that is not ours.
    #[serde(default)]
    pub is_opaque: bool,
    /// When its writes are answered.
    #[serde(default)]
    pub acknowledgement: Acknowledgement,
    /// Nanoseconds since 1970 UTC.
    pub created_ns: i64,
    /// Nanoseconds since 1970 UTC; `None` = never.
    pub expires_ns: Option<i64>,
    /// Nanoseconds since 1970 UTC; `None` = not revoked.
    #[serde(default)]
    pub revoked_ns: Option<i64>,
}

impl KeyRecord {
    /// The roles it holds; names that this build does not know grant nothing.
    #[must_use]
    pub fn roles(&self) -> Roles {
        let roles: Vec<Role> = Role::ALL
            .into_iter()
            .filter(|role| self.roles.iter().any(|name| name == role.as_str()))
            .collect();
        Roles::of(&roles)
    }

    /// The strongest role, which lists show as *the* role.
    #[must_use]
    pub fn main_role(&self) -> &'static str {
        let roles = self.roles();
        [Role::Admin, Role::Operator, Role::Auditor, Role::Analyst]
            .into_iter()
            .find(|role| roles.has(*role))
            .unwrap_or(Role::Ingest)
            .as_str()
    }

    /// The key as the directory knows it; `None` once it is revoked or where the record cannot be read.
    #[must_use]
    pub fn entry(&self) -> Option<Entry> {
        let hash: Hash = hex::decode(&self.hash).ok()?.try_into().ok()?;
        let tenant = match self.tenant.as_str() {
            storage::record::SYSTEM_TENANT => Tenant::system(),
            text => Tenant::parse(text).ok()?,
        };
        self.revoked_ns.is_none().then(|| Entry {
            id: self.id.as_str().into(),
            hash,
            is_opaque: self.is_opaque,
            tenant,
            roles: self.roles(),
            acknowledgement: self.acknowledgement,
            expires_ns: self.expires_ns,
        })
    }
}

/// One tenant together with its first key, so that both come into being in one put.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TenantRecord {
    /// Its id.
    pub tenant: String,
    /// Nanoseconds since 1970 UTC.
    pub created_ns: i64,
    /// The key it was made with. A record of the same id below `system/keys` stands above this one.
    pub first_key: KeyRecord,
}

/// A tenant's rates.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LimitsRecord {
    /// What holds.
    pub policy: Policy,
    /// What an operator set: the tenant's own admin may go below it, not above.
    pub ceiling: Policy,
}

/// How long a tenant's datasets are kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RetentionRecord {
    /// Days by dataset; one that is not named is kept for ever.
    pub days: BTreeMap<String, u32>,
}

/// A legal hold. It is kept after its release, as a record of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HoldRecord {
    /// Its id; ids rise with time.
    pub id: String,
    /// Whose dataset it is on.
    pub tenant: String,
    /// The dataset of which nothing may be deleted.
    pub dataset: String,
    /// Why, in the words of who placed it.
    pub reason: String,
    /// Nanoseconds since 1970 UTC.
    pub placed_ns: i64,
    /// Public id of the key that placed it.
    pub placed_by: String,
    /// Nanoseconds since 1970 UTC; `None` = in force.
    pub released_ns: Option<i64>,
    /// Public id of the key that released it.
    pub released_by: Option<String>,
}
