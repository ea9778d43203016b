//! What is made is there after a restart, and nothing more.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use ingest::admit::{Policy, Rate};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use storage::record::Tenant;
use storage::{Acknowledgement, Role, Roles};
use zeroize::Zeroizing;

use super::{Error, KeyWish, State, is_within};
use crate::identity::Identity;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

async fn open(objects: &Arc<dyn ObjectStore>) -> (Arc<Identity>, State) {
    let identity = Arc::new(Identity::new(Zeroizing::new([1; 32])));
    let state = State::load(Arc::clone(objects), Arc::clone(&identity), Vec::new()).await.expect("loaded");
    (identity, state)
}

fn is_known(identity: &Identity, key: &str) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_str(key).expect("ASCII"));
    identity.authenticate(&headers, None, [127, 0, 0, 1].into(), 0, 0).is_ok()
}

fn wish(tenant: &Tenant, role: Role) -> KeyWish {
    KeyWish {
        name: "n".into(),
        tenant: tenant.clone(),
        roles: Roles::of(&[role]),
        acknowledgement: Acknowledgement::Durable,
        expires_ns: None,
    }
}

#[test]
fn tenants_and_keys_outlive_a_restart() {
    run(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let acme = Tenant::parse("acme").expect("a tenant id");
        let (identity, state) = open(&objects).await;
        let admin = state.create_tenant(&acme, Roles::of(&[Role::Admin]), None, 1).await.expect("made");
        assert!(matches!(
            state.create_tenant(&acme, Roles::of(&[Role::Admin]), None, 1).await,
            Err(Error::Exists)
        ));
        let key = state.create_key(&wish(&acme, Role::Ingest), 1).await.expect("made");
        assert!(is_known(&identity, &admin.text) && is_known(&identity, &key.text));
        let holds = Roles::of(&[Role::Admin]);
        // Another tenant's key is not there for the caller.
        let other = Tenant::parse("other").expect("a tenant id");
        assert!(matches!(state.revoke(&key.record.id, Some(&other), holds, 2).await, Err(Error::NotFound)));
        state.revoke(&key.record.id, Some(&acme), holds, 2).await.expect("revoked");
        assert!(!is_known(&identity, &key.text));

        let (identity, state) = open(&objects).await;
        assert!(is_known(&identity, &admin.text) && !is_known(&identity, &key.text));
        // A tenant's first key is revoked like any other.
        state.revoke(&admin.record.id, Some(&acme), holds, 2).await.expect("revoked");
        let (identity, state) = open(&objects).await;
        assert!(!is_known(&identity, &admin.text));
        assert!(state.keys(None).await.is_empty() && !state.is_empty().await);
    });
}

#[test]
fn an_unknown_tenant_gets_no_key_and_no_limits() {
    run(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (_, state) = open(&objects).await;
        let nobody = Tenant::parse("nobody").expect("a tenant id");
        assert!(matches!(state.create_key(&wish(&nobody, Role::Ingest), 0).await, Err(Error::NotFound)));
        let set = state.set_limits(&nobody, Policy::default(), true).await;
        assert!(matches!(set, Err(Error::NotFound)));
    });
}

#[test]
fn another_master_key_is_refused() {
    run(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (_, state) = open(&objects).await;
        state.check_master("a").await.expect("the first");
        state.check_master("a").await.expect("the same");
        assert!(matches!(state.check_master("b").await, Err(Error::Forbidden(_))));
    });
}

#[test]
fn an_admin_stays_below_the_operators_ceiling() {
    let rate = |quota, window_s| Some(Rate { quota, window_s });
    for (wish, ceiling, expected) in [
        (None, None, true),
        (rate(5, 1), None, true),
        (None, rate(5, 1), false),
        (rate(5, 1), rate(5, 1), true),
        (rate(6, 1), rate(5, 1), false),
        (rate(5, 1), rate(5, 10), false),
        (rate(5, 60), rate(5, 10), true),
    ] {
        assert_eq!(is_within(wish, ceiling), expected, "{wish:?} under {ceiling:?}");
    }
}
