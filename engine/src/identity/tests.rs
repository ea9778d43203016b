//! Who gets in, and that all who do not look alike.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use storage::record::Tenant;
use storage::{Acknowledgement, Role, Roles};
use zeroize::Zeroizing;

use super::{Denied, Entry, Identity, key};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn bearer(key: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {key}")).expect("ASCII"));
    headers
}

fn entry(identity: &Identity, id: &str, text: &str, is_opaque: bool, expires_ns: Option<i64>) -> Entry {
    Entry {
        id: id.into(),
        hash: identity.hash(text),
        is_opaque,
        tenant: Tenant::parse("acme").expect("a tenant id"),
        roles: Roles::of(&[Role::Ingest]),
        acknowledgement: Acknowledgement::Durable,
        expires_ns,
    }
}

#[test]
fn a_key_is_known_until_it_is_revoked_or_ends() {
    let identity = Identity::new(Zeroizing::new([7; 32]));
    let made = key::generate(Roles::of(&[Role::Ingest])).expect("random bytes");
    let opaque = "a-configured-key-of-any-form-0123456789";
    let stranger = key::generate(Roles::of(&[Role::Ingest])).expect("random bytes");
    let who = |text: &str, now_ns: i64| {
        identity
            .authenticate(&bearer(text), None, HERE, now_ns, 0)
            .map(|principal| format!("{}/{}", principal.tenant, principal.subject))
    };
    identity.replace([
        entry(&identity, &made.id, &made.text, false, Some(100)),
        entry(&identity, "boot", opaque, true, None),
    ]);
    assert_eq!(who(&made.text, 99), Ok(format!("acme/{}", made.id)));
    assert_eq!(who(opaque, 99), Ok("acme/boot".to_owned()));
    // A4: unknown, ended and revoked are one answer.
    assert_eq!(who(&made.text, 100), Err(Denied::Unknown));
    assert_eq!(who(&stranger.text, 0), Err(Denied::Unknown));
    identity.replace([]);
    assert_eq!(who(&made.text, 0), Err(Denied::Unknown));
    assert_eq!(who(opaque, 0), Err(Denied::Unknown));
    // A10: nothing that looks like a JWT gets in while no issuer is configured.
    assert_eq!(who("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.", 0), Err(Denied::Unknown));
}

/// A known id with another secret: the checksum is right, the hash is not.
#[test]
fn an_id_alone_opens_nothing() {
    let identity = Identity::new(Zeroizing::new([7; 32]));
    let made = key::generate(Roles::of(&[Role::Ingest])).expect("random bytes");
    let other = key::generate(Roles::of(&[Role::Ingest])).expect("random bytes");
    identity.replace([entry(&identity, &other.id, &made.text, false, None)]);
    assert!(identity.authenticate(&bearer(&other.text), None, HERE, 0, 0).is_err());
}

/// A18: wrong keys are slowed, a good key from the same address is not.
#[test]
fn good_keys_pass_while_wrong_ones_are_slowed() {
    let identity = Identity::new(Zeroizing::new([7; 32]));
    let made = key::generate(Roles::of(&[Role::Ingest])).expect("random bytes");
    identity.replace([entry(&identity, &made.id, &made.text, false, None)]);
    let wrong = bearer("fm_ing_wrong");
    let throttled = (0..100)
        .filter(|_| matches!(identity.authenticate(&wrong, None, HERE, 0, 0), Err(Denied::Throttled { .. })))
        .count();
    assert_eq!(throttled, 50);
    assert!(identity.authenticate(&bearer(&made.text), None, HERE, 0, 0).is_ok());
}
