//! The requests themselves, as we use them.

use std::sync::Arc;

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

const WRITERS: usize = 16;

type Store = Arc<dyn ObjectStore>;

async fn read(store: &Store, path: &Path) -> Vec<u8> {
    store.get(path).await.unwrap().bytes().await.unwrap().to_vec()
}

async fn names(store: &Store, prefix: &str) -> Vec<String> {
    let listed: Vec<_> = store.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
    let mut names: Vec<String> = listed.into_iter().map(|object| object.location.to_string()).collect();
    names.sort();
    names
}

/// C2: of those who create one name at once, one does, and its bytes stand.
pub async fn creation_is_atomic(store: Store) {
    for round in 0..4 {
        let path = Path::from(format!("round-{round}"));
        let race = (0..WRITERS).map(|writer| {
            let (store, path) = (Arc::clone(&store), path.clone());
            tokio::spawn(async move {
                let body = PutPayload::from(vec![u8::try_from(writer).unwrap(); 1_000 + writer]);
                store.put_opts(&path, body, PutMode::Create.into()).await
            })
        });
        let ends = join_all(race).await;
        let mut winners = Vec::new();
        for (writer, end) in ends.into_iter().enumerate() {
            match end.unwrap() {
                Ok(_) => winners.push(writer),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
                Err(error) => panic!("a race ended in something else than a conflict: {error}"),
            }
        }
        assert_eq!(winners.len(), 1, "of {WRITERS} creators of one name these won: {winners:?}");
        let winner = winners[0];
        assert_eq!(read(&store, &path).await, vec![u8::try_from(winner).unwrap(); 1_000 + winner]);
    }
}

pub async fn requests_do_what_we_use_them_for(store: Store) {
    let path = Path::from("a/date=2026-01-01/object.parquet");
    let missing = store.get(&path).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    let missing = store.head(&path).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");

    store.put(&path, vec![1_u8; 100].into()).await.unwrap();
    store.put(&path, vec![2_u8; 50].into()).await.unwrap();
    assert_eq!(read(&store, &path).await, vec![2_u8; 50], "a put replaces");
    assert_eq!(store.head(&path).await.unwrap().size, 50);
    let range = store.get_range(&path, 10..20).await.unwrap();
    assert_eq!(range, vec![2_u8; 10]);
    let ranges = store.get_ranges(&path, &[0..3, 40..50]).await.unwrap();
    assert_eq!(ranges.iter().map(|range| range.len()).collect::<Vec<_>>(), [3, 10]);
    // A part says how long the whole is: an open that reads a checkpoint's end needs to know.
    let options = GetOptions { range: Some((30..50).into()), ..GetOptions::default() };
    let part = store.get_opts(&path, options).await.unwrap();
    assert_eq!((part.meta.size, part.range.clone()), (50, 30..50));
    assert_eq!(part.bytes().await.unwrap(), vec![2_u8; 20]);
    let options = GetOptions { range: Some((60..70).into()), ..GetOptions::default() };
    assert!(store.get_opts(&path, options).await.is_err(), "a part behind the end is none");
    store.put(&path, PutPayload::default()).await.unwrap();
    assert_eq!(store.head(&path).await.unwrap().size, 0, "an empty object is an object");

    let refused = store.put_opts(&path, vec![3_u8].into(), PutMode::Create.into()).await.unwrap_err();
    assert!(matches!(refused, Error::AlreadyExists { .. } | Error::Precondition { .. }), "{refused}");
    assert_eq!(store.head(&path).await.unwrap().size, 0, "a refused create changes nothing");

    store.delete(&path).await.unwrap();
    assert!(matches!(store.head(&path).await.unwrap_err(), Error::NotFound { .. }));
    assert_eq!(names(&store, "a").await, [] as [&str; 0]);
}

pub async fn listings_are_whole_and_offset(store: Store) {
    let paths: Vec<Path> = (0..30).map(|number| Path::from(format!("log/{number:020}.json"))).collect();
    for path in &paths {
        store.put(path, vec![0_u8; 3].into()).await.unwrap();
    }
    store.put(&Path::from("log-not/x"), vec![0_u8].into()).await.unwrap();
    let expected: Vec<String> = paths.iter().map(ToString::to_string).collect();
    assert_eq!(names(&store, "log").await, expected, "a prefix is a folder, and read after written");

    let prefix = Path::from("log");
    let behind: Vec<_> = store.list_with_offset(Some(&prefix), &paths[19]).try_collect().await.unwrap();
    let mut behind: Vec<String> = behind.into_iter().map(|object| object.location.to_string()).collect();
    behind.sort();
    assert_eq!(behind, expected[20..], "strictly behind the offset");

    let delimited = store.list_with_delimiter(None).await.unwrap();
    let folders: Vec<_> = delimited.common_prefixes.iter().map(ToString::to_string).collect();
    assert_eq!((folders, delimited.objects.len()), (vec!["log".to_owned(), "log-not".to_owned()], 0));

    let some: Vec<_> = paths[..10].iter().cloned().map(Ok).collect();
    let deleted = store.delete_stream(stream::iter(some).boxed()).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(deleted.len(), 10);
    assert_eq!(names(&store, "log").await, expected[10..]);
}

/// F23: in parts or whole, an object stands complete or not at all.
pub async fn parts_become_one_object_or_none(store: Store) {
    // S3 asks for 5 MiB in every part but the last.
    let part = |number: u8| vec![number; 5 << 20];
    let path = Path::from("object");
    let mut upload = store.put_multipart(&path).await.unwrap();
    let (first, second) = (upload.put_part(part(1).into()), upload.put_part(part(2).into()));
    let last = upload.put_part(vec![3_u8; 7].into());
    let (last, second, first) = futures::join!(last, second, first);
    last.and(second).and(first).unwrap();
    assert!(matches!(store.head(&path).await.unwrap_err(), Error::NotFound { .. }), "visible too early");
    upload.complete().await.unwrap();
    assert_eq!(store.head(&path).await.unwrap().size, (10 << 20) + 7);
    let edge = store.get_range(&path, (5 << 20) - 1..(5 << 20) + 1).await.unwrap();
    assert_eq!(*edge, [1, 2], "the order of the calls is the order of the parts");

    let path = Path::from("aborted");
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(part(1).into()).await.unwrap();
    upload.abort().await.unwrap();
    assert!(matches!(store.head(&path).await.unwrap_err(), Error::NotFound { .. }), "stands though aborted");

    let whole = bytes::Bytes::from(vec![9_u8; (33 << 20) + 1]);
    let path = Path::from("large");
    crate::store::put_object(&*store, &path, whole.clone()).await.unwrap();
    assert!(read(&store, &path).await == whole, "a large object reads as it was put");
}
