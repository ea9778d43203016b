//! What the commit protocol asks of an object store, and what it gives on top: one suite for every store.
//!
//! Memory and a local folder always run; S3 runs where `FLOODMARK_BUCKET_URL` names a bucket, Azure where
//! `FLOODMARK_AZURE_URL` does (`.ci/bucket` starts both). `faulty` runs the protocol on a store that fails.

mod faulty;
mod requests;
pub mod tables;

use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;

use crate::options::Options;

/// Runs everything on one store, each part below a prefix that nothing else ever used.
async fn conforms(store: Arc<dyn ObjectStore>) {
    let run = Path::from(format!("conformance-{}", uuid::Uuid::new_v4().simple()));
    let part = |name: &str| -> Arc<dyn ObjectStore> {
        Arc::new(PrefixStore::new(Arc::clone(&store), run.clone().join(name)))
    };
    requests::creation_is_atomic(part("create")).await;
    requests::requests_do_what_we_use_them_for(part("requests")).await;
    requests::listings_are_whole_and_offset(part("lists")).await;
    requests::parts_become_one_object_or_none(part("parts")).await;
    tables::every_append_comes_in_once(part("appends")).await;
    tables::an_ambiguous_put_is_told_by_what_stands_there(part("ambiguous")).await;
    tables::a_refused_put_of_nobody_changes_nothing(part("storm")).await;
    tables::of_two_that_remove_a_file_one_comes_in(part("removes")).await;
    tables::a_change_that_landed_late_is_not_taken_for_refused(part("late")).await;
    tables::checkpoints_keep_up_with_appends(part("checkpoints")).await;
    tables::an_open_leaves_what_is_dead(part("dead")).await;
    let all = store.list(Some(&run)).map_ok(|object| object.location).boxed();
    store.delete_stream(all).try_collect::<Vec<_>>().await.unwrap();
}

#[tokio::test]
async fn memory_conforms() {
    conforms(Arc::new(InMemory::new())).await;
}

#[tokio::test]
async fn a_local_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { data: folder.path().to_owned(), ..Options::default() };
    conforms(crate::store::open(&options).unwrap()).await;
}

async fn bucket_conforms(variable: &str) {
    let Ok(url) = std::env::var(variable) else {
        skipped(&format!("{variable} names no bucket: run .ci/bucket"));
        return;
    };
    let store_ca = std::env::var_os("FLOODMARK_BUCKET_CA").map(PathBuf::from);
    let options = Options { store_url: Some(url), store_ca, ..Options::default() };
    conforms(crate::store::open(&options).unwrap()).await;
}

#[tokio::test]
async fn an_s3_bucket_conforms() {
    bucket_conforms("FLOODMARK_BUCKET_URL").await;
}

#[tokio::test]
async fn an_azure_container_conforms() {
    bucket_conforms("FLOODMARK_AZURE_URL").await;
}

#[expect(clippy::print_stderr, reason = "a test says what it skipped")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
