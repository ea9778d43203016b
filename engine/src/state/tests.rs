//! What is made is there after a restart, and nothing more.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use ingest::admit::{Policy, Rate};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use storage::record::{Dataset, TableId, Tenant};
use storage::{Acknowledgement, Role, Roles};
use zeroize::Zeroizing;

use super::proof::Prover;
use super::store::Store;
use super::{Error, KeyWish, State, is_within};
use crate::identity::Identity;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

fn prover() -> Prover {
    Prover::new(Zeroizing::new([2; 32]))
}

async fn try_open(objects: &Arc<dyn ObjectStore>) -> Result<(Arc<Identity>, State), Error> {
    let identity = Arc::new(Identity::new(Zeroizing::new([1; 32])));
    let store = Arc::new(Store::new(Arc::clone(objects), prover()));
    let state = State::load(store, Arc::clone(&identity), Vec::new()).await?;
    Ok((identity, state))
}

async fn open(objects: &Arc<dyn ObjectStore>) -> (Arc<Identity>, State) {
    try_open(objects).await.expect("loaded")
}

/// Puts a record as a newer build would: proven, of a form that this one does not read.
async fn put_newer(objects: &Arc<dyn ObjectStore>, name: &str, body: &str) {
    let path = format!("system/{name}.json");
    let bytes = prover().prove(&path, body.as_bytes(), 1);
    objects.put(&Path::from(path), bytes.into()).await.expect("put");
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
        let set = state.set_limits(&nobody, Policy::default(), true, |_| ()).await;
        assert!(matches!(set, Err(Error::NotFound)));
    });
}

#[test]
fn an_edited_record_ends_the_start_by_name() {
    run(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let acme = Tenant::parse("acme").expect("a tenant id");
        let (_, state) = open(&objects).await;
        state.create_tenant(&acme, Roles::of(&[Role::Admin]), None, 1).await.expect("made");
        let key = state.create_key(&wish(&acme, Role::Ingest), 1).await.expect("made");
        let path = Path::from(format!("system/keys/{}.json", key.record.id));
        let bytes = objects.get(&path).await.expect("kept").bytes().await.expect("read");
        let text = String::from_utf8(bytes.to_vec()).expect("JSON");
        let edited = text.replace("\"ingest\"", "\"operator\"");
        assert_ne!(edited, text);
        objects.put(&path, edited.into()).await.expect("put");
        let error = try_open(&objects).await.err().expect("refused");
        assert!(matches!(&error, Error::Forged(named) if *named == path.to_string()), "{error}");
        // Whoever forges one from nothing fares no better.
        objects.put(&path, text.into()).await.expect("put");
        assert!(try_open(&objects).await.is_ok());
        let planted = Path::from("system/tenants/evil.json");
        objects.put(&planted, "{}".into()).await.expect("put");
        assert!(
            matches!(try_open(&objects).await, Err(Error::Forged(named)) if named == planted.to_string())
        );
    });
}

#[test]
fn records_of_a_newer_build_are_left_alone() {
    run(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let acme = Tenant::parse("acme").expect("a tenant id");
        let (_, state) = open(&objects).await;
        let admin = state.create_tenant(&acme, Roles::of(&[Role::Admin]), None, 1).await.expect("made");
        put_newer(&objects, "holds/h1", r#"{"form":2,"tenant":"acme"}"#).await;
        put_newer(&objects, "limits/acme", r#"{"policy":7}"#).await;
        put_newer(&objects, "tenants/later", r#"{"form":2}"#).await;
        // What is not readable may be the revocation of a tenant's first key.
        put_newer(&objects, &format!("keys/{}", admin.record.id), r#"{"form":2}"#).await;
        let (identity, state) = open(&objects).await;
        assert_eq!(state.newer_records(), 4);
        assert!(!is_known(&identity, &admin.text));
        let rules = state.rules().await;
        assert!(rules.held_tenants.contains(&acme) && !rules.is_all_held);
        let set = state.set_limits(&acme, Policy::default(), true, |_| ()).await;
        assert!(matches!(set, Err(Error::Newer(_))), "it is not written over");
        let later = Tenant::parse("later").expect("a tenant id");
        let made = state.create_tenant(&later, Roles::of(&[Role::Admin]), None, 1).await;
        assert!(matches!(made, Err(Error::Newer(_))));
        put_newer(&objects, "holds/h2", r#"{"form":2,"of":"who knows"}"#).await;
        assert!(open(&objects).await.1.rules().await.is_all_held, "R1");
    });
}

#[test]
fn a_hold_on_a_dataset_that_cannot_be_holds_the_tenant() {
    run(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let acme = Tenant::parse("acme").expect("a tenant id");
        for (id, dataset) in [("h1", "events"), ("h2", "No Dataset")] {
            let hold = format!(
                r#"{{"id":"{id}","tenant":"acme","dataset":"{dataset}","reason":"r","placed_ns":1,"placed_by":"k","released_ns":null,"released_by":null}}"#
            );
            put_newer(&objects, &format!("holds/{id}"), &hold).await;
        }
        let rules = open(&objects).await.1.rules().await;
        let events = TableId::new(acme.clone(), Dataset::parse("events").expect("a dataset"));
        assert!(rules.held.contains(&events) && rules.held_tenants.contains(&acme));
    });
}

#[test]
fn revoked_keys_are_kept_up_to_a_bound_and_the_first_one_for_ever() {
    run(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let acme = Tenant::parse("acme").expect("a tenant id");
        let (_, state) = open(&objects).await;
        let admin = state.create_tenant(&acme, Roles::of(&[Role::Admin]), None, 1).await.expect("made");
        let holds = Roles::of(&[Role::Operator]);
        state.revoke(&admin.record.id, Some(&acme), holds, 2).await.expect("revoked");
        // As many as may be were revoked long before; two more follow.
        let key = state.create_key(&wish(&acme, Role::Ingest), 3).await.expect("made").record;
        for at in 0..1_000 {
            let (id, revoked_ns) = (format!("k{at:09}"), Some(4 + i64::from(at)));
            let body = serde_json::to_string(&super::KeyRecord { id: id.clone(), revoked_ns, ..key.clone() });
            put_newer(&objects, &format!("keys/{id}"), &body.expect("plain data")).await;
        }
        let (_, state) = open(&objects).await;
        let mut texts = Vec::new();
        for at in [100_000, 100_001] {
            let key = state.create_key(&wish(&acme, Role::Ingest), at).await.expect("made");
            state.revoke(&key.record.id, Some(&acme), holds, at).await.expect("revoked");
            texts.push(key.text);
        }
        let (identity, state) = open(&objects).await;
        let held = state.held.lock().await;
        // The first admin's and the one that is not revoked stand beside the bound.
        assert_eq!(held.keys.len(), 1_002);
        assert!(held.keys.contains_key(&admin.record.id) && held.keys.contains_key(&key.id));
        assert!(!held.keys.contains_key("k000000000") && !held.keys.contains_key("k000000001"));
        assert!(!is_known(&identity, &admin.text) && texts.iter().all(|text| !is_known(&identity, text)));
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

/// B1: all tenants are held in memory, and read again at each start.
#[test]
fn a_deployment_has_so_many_tenants() {
    run(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (_, state) = open(&objects).await;
        let create = async |id: &str| {
            let tenant = Tenant::parse(id).expect("a tenant id");
            state.create_tenant(&tenant, Roles::of(&[Role::Admin]), None, 1).await
        };
        create("first").await.expect("made");
        {
            let held = &mut *state.held.lock().await;
            let record = held.tenants["first"].clone();
            held.tenants.extend((2..10_000).map(|at| (format!("t{at}"), record.clone())));
        }
        create("last").await.expect("the last that there is room for");
        assert!(matches!(create("more").await, Err(Error::Full("tenants", _))));
        assert_eq!(state.held.lock().await.tenants.len(), 10_000);
    });
}

/// B1: whoever may write to the bucket does not make a start read what is larger than any record.
#[test]
fn a_record_has_a_length() {
    run(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let padded = |bytes: usize| format!(r#"{{"form":2,"pad":"{}"}}"#, "x".repeat(bytes));
        put_newer(&objects, "holds/h1", &padded(1_000_000)).await;
        assert_eq!(open(&objects).await.1.newer_records(), 1, "it is read, and of a newer build");
        put_newer(&objects, "holds/h2", &padded(1 << 20)).await;
        let error = try_open(&objects).await.err().expect("refused");
        assert!(matches!(&error, Error::Forged(named) if named == "system/holds/h2.json"), "{error}");
    });
}
