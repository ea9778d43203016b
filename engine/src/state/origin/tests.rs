//! A deployment from before is taken over once; nobody gets that a second time.

use std::path::Path as FsPath;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use zeroize::Zeroizing;

use super::{Error, Origin, Prover, check, mark};

const TENANT: &str = r#"{"tenant":"acme","created_ns":1}"#;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

fn prover() -> Prover {
    Prover::new(Zeroizing::new([3; 32]))
}

async fn start(objects: &Arc<dyn ObjectStore>, data: &FsPath, adopts: bool) -> Result<Origin, Error> {
    check(&**objects, &prover(), "0123", &mark(data), adopts).await
}

async fn put(objects: &Arc<dyn ObjectStore>, name: &str, text: &str) {
    objects.put(&Path::from(format!("system/{name}.json")), text.to_owned().into()).await.expect("put");
}

async fn text(objects: &Arc<dyn ObjectStore>, name: &str) -> String {
    let got = objects.get(&Path::from(format!("system/{name}.json"))).await.expect("there");
    String::from_utf8(got.bytes().await.expect("read").to_vec()).expect("text")
}

fn is_forged(found: &Result<Origin, Error>, name: &str) -> bool {
    matches!(found, Err(Error::Forged(path)) if *path == format!("system/{name}.json"))
}

/// As the build before wrote it: no record has a proof.
async fn from_before() -> Arc<dyn ObjectStore> {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    put(&objects, "master", r#"{"check":"0123"}"#).await;
    put(&objects, "tenants/acme", TENANT).await;
    put(&objects, "jobs/j1", r#"{"id":"j1"}"#).await;
    objects
}

#[test]
fn a_deployment_from_before_is_taken_over_once() {
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let objects = from_before().await;
        assert_eq!(start(&objects, folder.path(), false).await.expect("taken over"), Origin::TakenOver(3));
        assert!(text(&objects, "tenants/acme").await.starts_with(r#"{"tenant":"acme","created_ns":1,"#));
        assert_eq!(start(&objects, folder.path(), false).await.expect("proven"), Origin::Proven);
        // Whoever undoes it in the bucket does not get a second one: not here, and not from a new data folder.
        objects.delete(&Path::from("system/proven.json")).await.expect("deleted");
        put(&objects, "keys/evil", r#"{"id":"evil","roles":["operator"]}"#).await;
        assert!(is_forged(&start(&objects, folder.path(), false).await, "proven"));
        let other = tempfile::tempdir().expect("a temporary folder");
        assert!(is_forged(&start(&objects, other.path(), false).await, "proven"));
    });
}

#[test]
fn a_taking_over_that_was_cut_off_is_gone_on_with() {
    run(async {
        for cut in 0..3 {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let objects = from_before().await;
            let begun = prover().prove("system/proven.json", br#"{"is_done":false,"since_ns":1}"#, 1);
            objects.put(&Path::from("system/proven.json"), begun.into()).await.expect("put");
            for name in ["tenants/acme", "master"].iter().take(cut) {
                let path = format!("system/{name}.json");
                let proven = prover().prove(&path, text(&objects, name).await.as_bytes(), 1);
                objects.put(&Path::from(path), proven.into()).await.expect("put");
            }
            let found = start(&objects, folder.path(), false).await.expect("gone on with");
            assert_eq!(found, Origin::TakenOver(3 - cut));
            assert_eq!(start(&objects, folder.path(), false).await.expect("proven"), Origin::Proven);
        }
    });
}

#[test]
fn a_new_deployment_is_proven_from_the_start() {
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        assert_eq!(start(&objects, folder.path(), false).await.expect("made"), Origin::New);
        assert_eq!(start(&objects, folder.path(), false).await.expect("proven"), Origin::Proven);
        put(&objects, "master", r#"{"check":"0123"}"#).await;
        assert!(is_forged(&start(&objects, folder.path(), false).await, "master"));
    });
}

#[test]
fn an_operator_may_take_over_what_a_build_from_before_wrote_since() {
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let objects = from_before().await;
        start(&objects, folder.path(), false).await.expect("taken over");
        put(&objects, "tenants/later", TENANT).await;
        assert_eq!(start(&objects, folder.path(), true).await.expect("taken over"), Origin::TakenOver(1));
        put(&objects, "tenants/later", &text(&objects, "tenants/acme").await).await;
        assert!(
            is_forged(&start(&objects, folder.path(), true).await, "tenants/later"),
            "a proof of another's"
        );
    });
}

#[test]
fn another_master_key_is_told_before_anything_is_written() {
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let objects = from_before().await;
        let refused = check(&*objects, &prover(), "other", &mark(folder.path()), false).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))));
        assert_eq!(text(&objects, "tenants/acme").await, TENANT);
        assert!(!mark(folder.path()).exists());
    });
}

#[test]
fn a_torn_record_is_named() {
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let objects = from_before().await;
        put(&objects, "limits/acme", "{\"policy\":").await;
        let found = start(&objects, folder.path(), false).await;
        assert!(matches!(found, Err(Error::Corrupt(path)) if path == "system/limits/acme.json"));
    });
}
