//! Tenants, keys, limits, retention and holds: kept in the object store, answered from memory.
//!
//! A change is written before it is answered and before anyone sees it. One change at a time: they are rare, and
//! each reads what the one before it wrote.

pub mod bootstrap;
pub mod origin;
mod policies;
pub mod proof;
mod record;
pub(crate) mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use ingest::admit::{Policy, Rate};
use serde_json::Value;
use storage::record::Tenant;
use storage::{Acknowledgement, Role, Roles};
use zeroize::Zeroizing;

use crate::identity::{Entry, Identity, key};
pub use record::{HoldRecord, KeyRecord, LimitsRecord, RetentionRecord, TenantRecord};
use store::Store;

/// Tenants of one deployment.
pub const TENANTS_MAX: usize = 10_000;

/// Keys of one tenant that are not revoked.
pub const KEYS_MAX: usize = 1_000;

/// Revoked keys of one tenant that are kept with their end; the one that was revoked first is forgotten for the next.
pub const REVOKED_KEYS_MAX: usize = 1_000;

/// How long a key lives unless its maker says otherwise: a year.
const KEY_LIFE_NS: i64 = 365 * 86_400 * 1_000_000_000;

/// Why a change was not made.
#[derive(Debug)]
pub enum Error {
    /// The id is taken.
    Exists,
    /// There is no such thing, or it is not the caller's to see.
    NotFound,
    /// A bound is reached.
    Full(&'static str, usize),
    /// An operator's limit stands above.
    AboveCeiling(&'static str),
    /// The caller may not do this.
    Forbidden(&'static str),
    /// The object store or the system's randomness failed; nothing changed.
    Unavailable(String),
    /// A stored record cannot be read.
    Corrupt(String),
    /// A stored record is not what this deployment wrote there.
    Forged(String),
    /// A stored record is of a newer build, and left alone.
    Newer(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exists => f.write_str("the id is taken"),
            Self::NotFound => f.write_str("there is no such thing"),
            Self::Full(what, max) => write!(f, "there are {max} {what} already, which is the most"),
            Self::AboveCeiling(what) => write!(f, "{what} is above what an operator allows"),
            Self::Forbidden(why) => f.write_str(why),
            Self::Unavailable(text) => write!(f, "the object store failed: {text}"),
            Self::Corrupt(path) => write!(f, "object {path} cannot be read"),
            Self::Forged(path) => write!(
                f,
                "object {path} has no proof that this deployment wrote it there: restore it from a version or copy of \
                 the store; after a build from before has written, start once with --adopt-state"
            ),
            Self::Newer(path) => write!(f, "object {path} is of a newer build, which alone can change it"),
        }
    }
}

/// A key that was just made, with the text that is shown once.
pub struct MadeKey {
    /// What is kept of it.
    pub record: KeyRecord,
    /// The key.
    pub text: Zeroizing<String>,
}

/// What a new key is to be.
#[derive(Clone, Debug)]
pub struct KeyWish {
    /// What it is for.
    pub name: String,
    /// Whose it is.
    pub tenant: Tenant,
    /// What it may do.
    pub roles: Roles,
    /// How its writes are acknowledged.
    pub acknowledgement: Acknowledgement,
    /// When it ends; `None` = in a year.
    pub expires_ns: Option<i64>,
}

#[derive(Debug, Default)]
struct Held {
    tenants: BTreeMap<String, TenantRecord>,
    keys: BTreeMap<String, KeyRecord>,
    limits: BTreeMap<String, LimitsRecord>,
    retention: BTreeMap<String, RetentionRecord>,
    /// Those that are in force.
    holds: BTreeMap<String, HoldRecord>,
    /// Holds of a newer form.
    newer_holds: Vec<Value>,
}

/// Tenants, keys and limits of the deployment.
pub struct State {
    store: Arc<Store>,
    identity: Arc<Identity>,
    /// Keys that come from the configuration and are kept nowhere.
    configured: Vec<Entry>,
    held: tokio::sync::Mutex<Held>,
}

impl State {
    /// Reads everything that is kept and tells `identity` of it.
    ///
    /// A record of a newer build is left alone: a tenant is not known then, a key opens nothing, a hold holds all that
    /// it may be about, and limits and retention are as if there were none.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::Forged`] or [`Error::Corrupt`] naming the object.
    pub async fn load(
        store: Arc<Store>,
        identity: Arc<Identity>,
        configured: Vec<Entry>,
    ) -> Result<Self, Error> {
        let mut held = Held::default();
        for (_, tenant) in store.all::<TenantRecord>("tenants").await?.known {
            held.keys.insert(tenant.first_key.id.clone(), tenant.first_key.clone());
            held.tenants.insert(tenant.tenant.clone(), tenant);
        }
        let keys = store.all::<KeyRecord>("keys").await?;
        for (_, key) in keys.known {
            held.keys.insert(key.id.clone(), key);
        }
        for (id, _) in keys.newer {
            // It may say that a tenant's first key is revoked.
            held.keys.remove(&id);
        }
        held.limits.extend(store.all::<LimitsRecord>("limits").await?.known);
        held.retention.extend(store.all::<RetentionRecord>("retention").await?.known);
        let holds = store.all::<HoldRecord>("holds").await?;
        let in_force = holds.known.into_iter().filter(|(_, hold)| hold.released_ns.is_none());
        held.holds = in_force.map(|(_, hold)| (hold.id.clone(), hold)).collect();
        held.newer_holds = holds.newer.into_iter().map(|(_, hold)| hold).collect();
        let state = Self { store, identity, configured, held: tokio::sync::Mutex::new(held) };
        state.publish(&*state.held.lock().await);
        Ok(state)
    }

    fn publish(&self, held: &Held) {
        let kept = held.keys.values().filter_map(KeyRecord::entry);
        self.identity.replace(kept.chain(self.configured.iter().cloned()));
    }

    /// Whether nothing was ever made here.
    pub async fn is_empty(&self) -> bool {
        self.held.lock().await.tenants.is_empty() && self.store.newer_count() == 0
    }

    /// How many records were left alone because a newer build wrote them.
    pub fn newer_records(&self) -> usize {
        self.store.newer_count()
    }

    /// Whether `text` is a key that was ever made here and is not revoked.
    pub async fn knows(&self, text: &str) -> bool {
        let hash = hex::encode(self.identity.hash(text));
        self.held.lock().await.keys.values().any(|key| key.hash == hash && key.revoked_ns.is_none())
    }

    /// Makes a tenant and its first key, both or neither.
    ///
    /// `given` is the key's text where it comes from the configuration.
    ///
    /// # Errors
    /// [`Error::Exists`] when the id is taken.
    pub async fn create_tenant(
        &self,
        tenant: &Tenant,
        roles: Roles,
        given: Option<&str>,
        now_ns: i64,
    ) -> Result<MadeKey, Error> {
        let mut held = self.held.lock().await;
        if held.tenants.contains_key(tenant.as_str()) {
            return Err(Error::Exists);
        }
        if held.tenants.len() >= TENANTS_MAX {
            return Err(Error::Full("tenants", TENANTS_MAX));
        }
        let wish = KeyWish {
            name: "first admin".into(),
            tenant: tenant.clone(),
            roles,
            acknowledgement: Acknowledgement::Durable,
            expires_ns: Some(i64::MAX),
        };
        let made = self.make(&wish, given, now_ns)?;
        let record = TenantRecord {
            tenant: tenant.as_str().to_owned(),
            created_ns: now_ns,
            first_key: made.record.clone(),
        };
        self.store.create(&format!("tenants/{tenant}"), &record).await?;
        held.keys.insert(made.record.id.clone(), made.record.clone());
        held.tenants.insert(record.tenant.clone(), record);
        self.publish(&held);
        Ok(made)
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a tenant that is not there, [`Error::Full`] past [`KEYS_MAX`].
    pub async fn create_key(&self, wish: &KeyWish, now_ns: i64) -> Result<MadeKey, Error> {
        let mut held = self.held.lock().await;
        let tenant = wish.tenant.as_str();
        if tenant != storage::record::SYSTEM_TENANT && !held.tenants.contains_key(tenant) {
            return Err(Error::NotFound);
        }
        let count = held.keys.values().filter(|key| key.tenant == tenant && key.revoked_ns.is_none()).count();
        if count >= KEYS_MAX {
            return Err(Error::Full("keys", KEYS_MAX));
        }
        let made = self.make(wish, None, now_ns)?;
        self.store.create(&format!("keys/{}", made.record.id), &made.record).await?;
        held.keys.insert(made.record.id.clone(), made.record.clone());
        self.publish(&held);
        Ok(made)
    }

    fn make(&self, wish: &KeyWish, given: Option<&str>, now_ns: i64) -> Result<MadeKey, Error> {
        let random = |error: getrandom::Error| Error::Unavailable(error.to_string());
        let (id, text) = match given {
            Some(text) => {
                let id = match key::parse(text) {
                    Some(key::Form::Ours { id }) => id.to_owned(),
                    _ => key::generate_id().map_err(random)?,
                };
                (id, Zeroizing::new(text.to_owned()))
            }
            None => {
                let made = key::generate(wish.roles).map_err(random)?;
                (made.id, made.text)
            }
        };
        let expires_ns = match wish.expires_ns {
            None => Some(now_ns.saturating_add(KEY_LIFE_NS)),
            Some(i64::MAX) => None,
            some => some,
        };
        let record = KeyRecord {
            id,
            name: wish.name.clone(),
            tenant: wish.tenant.as_str().to_owned(),
            roles: wish.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            hash: hex::encode(self.identity.hash(&text)),
            is_opaque: !matches!(key::parse(&text), Some(key::Form::Ours { .. })),
            acknowledgement: wish.acknowledgement,
            created_ns: now_ns,
            expires_ns,
            revoked_ns: None,
        };
        Ok(MadeKey { record, text })
    }

    /// Keys that are not revoked: of one tenant, or all.
    pub async fn keys(&self, tenant: Option<&Tenant>) -> Vec<KeyRecord> {
        let held = self.held.lock().await;
        let is_asked = |key: &&KeyRecord| {
            key.revoked_ns.is_none() && tenant.is_none_or(|tenant| tenant.as_str() == key.tenant)
        };
        held.keys.values().filter(is_asked).cloned().collect()
    }

    /// Every tenant.
    pub async fn tenants(&self) -> Vec<TenantRecord> {
        self.held.lock().await.tenants.values().cloned().collect()
    }

    /// Whether there is such a tenant.
    pub async fn has_tenant(&self, tenant: &Tenant) -> bool {
        self.held.lock().await.tenants.contains_key(tenant.as_str())
    }

    /// Revokes a key at once. `tenant` is `None` for an operator, who may revoke any.
    ///
    /// # Errors
    /// [`Error::NotFound`] for another tenant's key too; [`Error::Forbidden`] for a role the caller lacks.
    pub async fn revoke(
        &self,
        id: &str,
        tenant: Option<&Tenant>,
        holds: Roles,
        now_ns: i64,
    ) -> Result<(), Error> {
        let mut held = self.held.lock().await;
        let key = held.keys.get(id).filter(|key| {
            key.revoked_ns.is_none() && tenant.is_none_or(|tenant| tenant.as_str() == key.tenant)
        });
        let Some(mut key) = key.cloned() else { return Err(Error::NotFound) };
        if key.roles().has(Role::Operator) && !holds.has(Role::Operator) {
            return Err(Error::Forbidden("an operator's key is revoked by an operator"));
        }
        key.revoked_ns = Some(now_ns);
        self.store.replace(&format!("keys/{id}"), &key).await?;
        let tenant = key.tenant.clone();
        held.keys.insert(id.to_owned(), key);
        self.publish(&held);
        self.forget_revoked(&mut held, &tenant).await;
        Ok(())
    }

    /// Forgets a tenant's keys that were revoked first, above the bound.
    async fn forget_revoked(&self, held: &mut Held, tenant: &str) {
        // The record that revokes a tenant's first key stays: the tenant's own record would give the key back.
        let is_first = |id: &str| held.tenants.values().any(|tenant| tenant.first_key.id == id);
        let of_tenant = held.keys.values().filter(|key| key.tenant == tenant && !is_first(&key.id));
        let mut revoked: Vec<(i64, String)> =
            of_tenant.filter_map(|key| Some((key.revoked_ns?, key.id.clone()))).collect();
        revoked.sort_unstable();
        let excess = revoked.len().saturating_sub(REVOKED_KEYS_MAX);
        for (_, id) in revoked.into_iter().take(excess) {
            if let Err(error) = self.store.delete(&format!("keys/{id}")).await {
                tracing::warn!(key_id = id, %error, "a revoked key stays in the store until the next is revoked");
                return;
            }
            held.keys.remove(&id);
        }
    }

    /// A tenant's limits.
    pub async fn limits(&self, tenant: &Tenant) -> LimitsRecord {
        self.held.lock().await.limits.get(tenant.as_str()).cloned().unwrap_or_default()
    }

    /// The limits of every tenant that has any.
    pub async fn all_limits(&self) -> Vec<(Tenant, Policy)> {
        let held = self.held.lock().await;
        let named = held.limits.iter().filter_map(|(name, limits)| Some((Tenant::parse(name).ok()?, limits)));
        named.map(|(tenant, limits)| (tenant, limits.policy)).collect()
    }

    /// Sets a tenant's limits. An operator's are a ceiling for the tenant's own admin. `apply` puts them into
    /// force, in the order in which they were kept.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a tenant that is not there; [`Error::AboveCeiling`] naming the measure.
    pub async fn set_limits(
        &self,
        tenant: &Tenant,
        policy: Policy,
        by_operator: bool,
        apply: impl FnOnce(Policy),
    ) -> Result<(), Error> {
        let mut held = self.held.lock().await;
        if !held.tenants.contains_key(tenant.as_str()) {
            return Err(Error::NotFound);
        }
        let mut record = held.limits.get(tenant.as_str()).cloned().unwrap_or_default();
        if by_operator {
            record.ceiling = policy;
        } else {
            for (name, wish, ceiling) in [
                ("requests", policy.requests, record.ceiling.requests),
                ("records", policy.records, record.ceiling.records),
                ("bytes", policy.bytes, record.ceiling.bytes),
            ] {
                if !is_within(wish, ceiling) {
                    return Err(Error::AboveCeiling(name));
                }
            }
        }
        record.policy = policy;
        self.store.replace(&format!("limits/{tenant}"), &record).await?;
        held.limits.insert(tenant.as_str().to_owned(), record);
        apply(policy);
        Ok(())
    }
}

/// Whether a rate is no faster and bursts no higher than the ceiling.
fn is_within(wish: Option<Rate>, ceiling: Option<Rate>) -> bool {
    let Some(ceiling) = ceiling else { return true };
    wish.is_some_and(|wish| {
        let per_second = |rate: Rate, other: Rate| u128::from(rate.quota) * u128::from(other.window_s.max(1));
        wish.quota <= ceiling.quota && per_second(wish, ceiling) <= per_second(ceiling, wish)
    })
}

#[cfg(test)]
mod tests;
