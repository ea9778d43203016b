//! A job's history outlives the process, within its bound.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use storage::record::Tenant;
use zeroize::Zeroizing;

use super::{Jobs, KEPT_MAX, Kind, QUEUED_MAX, Status, Wish};
use crate::state;
use crate::state::proof::Prover;
use crate::state::store::Store;

fn store(objects: &Arc<dyn ObjectStore>) -> Arc<Store> {
    Arc::new(Store::new(Arc::clone(objects), Prover::new(Zeroizing::new([2; 32]))))
}

fn wish(tenant: &str) -> Wish {
    Wish {
        kind: Kind::Sweep,
        scope: Some(Tenant::parse(tenant).expect("a tenant id")),
        dataset: None,
        is_dry: false,
        asked_by: "key".into(),
    }
}

#[test]
fn the_history_is_bounded_and_survives_a_restart() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (jobs, mut queued) = Jobs::load(store(&objects)).await.expect("loaded");
        let mut first = None;
        for _ in 0..KEPT_MAX + 5 {
            jobs.ask(wish("acme")).await.expect("queued");
            let mut record = queued.recv().await.expect("a job").record;
            record.status = Status::Succeeded;
            jobs.keep(&record).await.expect("kept");
            first = first.or(Some(record.id));
        }
        assert_eq!(jobs.list(None).len(), KEPT_MAX);
        let (open, _) = jobs.ask(wish("globex")).await.expect("queued");
        drop(jobs);

        let (jobs, _queued) = Jobs::load(store(&objects)).await.expect("loaded");
        let all = jobs.list(None);
        assert_eq!(all.len(), KEPT_MAX);
        assert_eq!((&all[0].id, all[0].status), (&open.id, Status::Failed), "nobody lived to end it");
        assert!(all.iter().all(|job| Some(&job.id) != first.as_ref()));
        let globex = Tenant::parse("globex").expect("a tenant id");
        assert_eq!(jobs.list(Some(&globex)).len(), 1, "T1: a tenant sees its own");
    });
}

#[test]
fn a_full_queue_is_told() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (jobs, _queued) = Jobs::load(store(&objects)).await.expect("loaded");
        for _ in 0..QUEUED_MAX {
            jobs.ask(wish("acme")).await.expect("there is room");
        }
        assert!(matches!(jobs.ask(wish("acme")).await, Err(state::Error::Full("queued jobs", QUEUED_MAX))));
    });
}

#[test]
fn a_job_that_this_deployment_did_not_write_is_no_reason_not_to_start() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (jobs, _queued) = Jobs::load(store(&objects)).await.expect("loaded");
        let (job, _) = jobs.ask(wish("acme")).await.expect("queued");
        for (name, text) in [("forged", r#"{"id":"forged"}"#), ("torn", "{\"id\":"), ("empty", "")] {
            objects.put(&Path::from(format!("system/jobs/{name}.json")), text.into()).await.expect("put");
        }
        let (jobs, _queued) = Jobs::load(store(&objects)).await.expect("loaded");
        let known: Vec<String> = jobs.list(None).into_iter().map(|job| job.id).collect();
        assert_eq!(known, [job.id]);
    });
}
