//! The first start: who the first key is, and where there is none (DESIGN 11, "First start").

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use storage::record::Tenant;
use storage::{Acknowledgement, Role, Roles};
use zeroize::Zeroizing;

use super::{Error, State};
use crate::config::{self, Config};
use crate::identity::{Entry, Identity, key};

/// The tenant of a first start.
const DEFAULT_TENANT: &str = "default";

/// Keys that stand in the configuration.
///
/// # Errors
/// Where none is configured although others than this machine can reach the listener.
pub fn configured(config: &Config, identity: &Identity) -> Result<Vec<Entry>, config::Error> {
    match &config.secrets.operator_key {
        None if config.is_loopback() => Ok(Vec::new()),
        None => Err(config::Error::new(
            "FLOODMARK_OPERATOR_KEY is not set: a listener that others can reach needs a configured operator \
             key, because no key is made by itself there",
        )),
        Some(secret) => Ok(vec![Entry {
            id: Arc::from("configured"),
            hash: identity.hash(secret.expose_secret()),
            is_opaque: !matches!(key::parse(secret.expose_secret()), Some(key::Form::Ours { .. })),
            tenant: Tenant::system(),
            roles: Roles::of(&[Role::Operator]),
            acknowledgement: Acknowledgement::Durable,
            expires_ns: None,
        }]),
    }
}

/// Makes tenant `default` and a key that is its admin and operator of the system, if this is the first start
/// and only this machine can reach the listener. Returns the key where it is to be shown, this once.
///
/// # Errors
/// As for making a tenant; nothing remains of a failed first start.
pub async fn first_start(
    state: &State,
    config: &Config,
    now_ns: i64,
) -> Result<Option<Zeroizing<String>>, Error> {
    let given = config.secrets.bootstrap_key.as_ref().map(|secret| secret.expose_secret());
    let is_first = state.is_empty().await;
    if let Some(given) = given.filter(|_| !is_first)
        && !state.knows(given).await
    {
        crate::run::say(
            "floodmark: FLOODMARK_BOOTSTRAP_KEY is none of this deployment's keys and is not used: it counts at the \
             first start alone. Use the key that was made then, or set FLOODMARK_OPERATOR_KEY to get in and make another",
        );
    }
    if !config.is_loopback() || !is_first {
        return Ok(None);
    }
    let tenant = Tenant::parse(DEFAULT_TENANT).expect("a literal in the alphabet of tenant ids");
    let roles = Roles::of(&[Role::Admin, Role::Operator]);
    let made = state.create_tenant(&tenant, roles, given, now_ns).await?;
    Ok(given.is_none().then_some(made.text))
}
