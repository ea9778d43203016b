//! A job's history outlives the process, within its bound.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use storage::record::Tenant;
use zeroize::Zeroizing;

use super::{JobRecord, Jobs, Kind, Status, Wish, past_bounds};
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
        let jobs = Jobs::load(store(&objects)).await.expect("loaded");
        let mut first = None;
        for _ in 0..55 {
            jobs.ask(wish("acme")).await.expect("queued");
            let mut record = jobs.queue.next().await.record;
            record.status = Status::Succeeded;
            jobs.keep(&record).await.expect("kept");
            first = first.or(Some(record.id));
        }
        assert_eq!(jobs.list(None).len(), 50);
        let (open, _) = jobs.ask(wish("globex")).await.expect("queued");
        drop(jobs);

        let jobs = Jobs::load(store(&objects)).await.expect("loaded");
        let all = jobs.list(None);
        assert_eq!(all.len(), 51);
        assert_eq!((&all[0].id, all[0].status), (&open.id, Status::Failed), "nobody lived to end it");
        assert!(all.iter().all(|job| Some(&job.id) != first.as_ref()));
        let globex = Tenant::parse("globex").expect("a tenant id");
        assert_eq!(jobs.list(Some(&globex)).len(), 1, "T1: a tenant sees its own");
    });
}

// B1: many tenants with a few jobs each.
#[test]
fn the_history_of_all_tenants_is_bounded() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let jobs = Jobs::load(store(&objects)).await.expect("loaded");
        for at in 0..1_050 {
            jobs.ask(wish(&format!("t{}", at % 100))).await.expect("queued");
            let mut record = jobs.queue.next().await.record;
            record.status = Status::Succeeded;
            jobs.keep(&record).await.expect("kept");
        }
        assert_eq!(jobs.list(None).len(), 1_000);
    });
}

#[test]
fn a_full_queue_is_told_and_is_nobody_elses() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let jobs = Jobs::load(store(&objects)).await.expect("loaded");
        for _ in 0..4 {
            jobs.ask(wish("acme")).await.expect("there is room");
        }
        let refused = jobs.ask(wish("acme")).await;
        assert!(matches!(refused, Err(state::Error::Full(_, 4))));
        assert!(jobs.ask(wish("globex")).await.is_ok());
    });
}

/// X2: however many jobs one tenant makes, another's are remembered.
#[test]
fn one_tenants_jobs_never_push_anothers_out() {
    let mut records = std::collections::BTreeMap::new();
    let mut add = |tenant: &str, count: usize, status: Status| {
        for _ in 0..count {
            let mut record = JobRecord::new(&wish(tenant), 0);
            record.status = status;
            records.insert(record.id.clone(), record);
        }
    };
    add("globex", 2, Status::Succeeded);
    add("acme", 30, Status::Succeeded);
    add("acme", 3, Status::Queued);
    add("other", 9, Status::Failed);
    let left = |each_max, all_max| {
        let mut left = records.clone();
        past_bounds(&records, each_max, all_max).iter().for_each(|id| drop(left.remove(id)));
        ["globex", "acme", "other"]
            .map(|tenant| left.values().filter(|one| one.tenant.as_deref() == Some(tenant)).count())
    };
    assert_eq!(left(100, 100), [2, 33, 9]);
    assert_eq!(left(10, 100), [2, 10, 9]);
    assert_eq!(left(100, 20), [2, 9, 9]);
    assert_eq!(left(100, 6), [2, 3, 1], "what has not ended stays");
    assert_eq!(left(1, 100), [1, 3, 1]);
}

#[test]
fn a_job_that_this_deployment_did_not_write_is_no_reason_not_to_start() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let jobs = Jobs::load(store(&objects)).await.expect("loaded");
        let (job, _) = jobs.ask(wish("acme")).await.expect("queued");
        for (name, text) in [("forged", r#"{"id":"forged"}"#), ("torn", "{\"id\":"), ("empty", "")] {
            objects.put(&Path::from(format!("system/jobs/{name}.json")), text.into()).await.expect("put");
        }
        let jobs = Jobs::load(store(&objects)).await.expect("loaded");
        let known: Vec<String> = jobs.list(None).into_iter().map(|job| job.id).collect();
        assert_eq!(known, [job.id]);
    });
}
