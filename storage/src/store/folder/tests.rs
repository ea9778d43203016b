//! C1 on a local folder: an object stands whole or not at all, and is synced before it stands.

use futures::TryStreamExt;

use super::*;

async fn names(store: &SyncedFolder) -> Vec<String> {
    let listed: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    listed.into_iter().map(|object| object.location.to_string()).collect()
}

fn files(folder: &FsPath) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[tokio::test]
async fn parts_become_one_object_when_they_are_complete() {
    let folder = tempfile::tempdir().unwrap();
    let store = SyncedFolder::open(folder.path()).unwrap();
    let path = Path::from("a/b/object");
    let mut upload = store.put_multipart(&path).await.unwrap();
    let parts: Vec<_> =
        [vec![1_u8; 700], vec![2; 300], vec![3; 5]].map(|part| upload.put_part(part.into())).into();
    // The order of the calls counts, not the order in which the parts arrive.
    for part in parts.into_iter().rev() {
        part.await.unwrap();
    }
    assert_eq!(names(&store).await, [] as [&str; 0], "visible before it was complete");
    upload.complete().await.unwrap();
    drop(upload);
    assert_eq!(names(&store).await, ["a/b/object"]);
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes, [vec![1_u8; 700], vec![2; 300], vec![3; 5]].concat());
}

#[tokio::test]
async fn a_half_written_file_is_no_object() {
    let folder = tempfile::tempdir().unwrap();
    let store = SyncedFolder::open(folder.path()).unwrap();
    store.put(&Path::from("a/whole"), vec![1_u8; 10].into()).await.unwrap();
    // As a power cut leaves it.
    fs::write(aside(&folder.path().join("a/half")), [1; 5]).unwrap();
    assert_eq!(files(&folder.path().join("a")), 2);
    assert_eq!(names(&store).await, ["a/whole"]);
    let delimited = store.list_with_delimiter(Some(&Path::from("a"))).await.unwrap();
    assert_eq!(delimited.objects.len(), 1);
}

#[tokio::test]
async fn a_copy_is_a_put() {
    let folder = tempfile::tempdir().unwrap();
    let store = SyncedFolder::open(folder.path()).unwrap();
    let (from, to) = (Path::from("a/from"), Path::from("b/to"));
    store.put(&from, vec![1_u8; 10].into()).await.unwrap();
    store.copy_if_not_exists(&from, &to).await.unwrap();
    store.put(&from, vec![2_u8; 20].into()).await.unwrap();
    let refused = store.copy_if_not_exists(&from, &to).await.unwrap_err();
    assert!(matches!(refused, object_store::Error::AlreadyExists { .. }), "{refused}");
    assert_eq!(store.head(&to).await.unwrap().size, 10);
    store.copy(&from, &to).await.unwrap();
    assert_eq!(store.head(&to).await.unwrap().size, 20);
}

#[tokio::test]
async fn an_upload_that_does_not_end_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = SyncedFolder::open(folder.path()).unwrap();
    for is_aborted in [true, false] {
        let mut upload = store.put_multipart(&Path::from("a/object")).await.unwrap();
        upload.put_part(vec![1_u8; 10].into()).await.unwrap();
        assert_eq!(files(&folder.path().join("a")), 1);
        if is_aborted {
            upload.abort().await.unwrap();
        }
        drop(upload);
        assert_eq!(files(&folder.path().join("a")), 0, "aborted: {is_aborted}");
    }
}

#[tokio::test]
async fn an_upload_whose_sync_fails_is_not_put_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("object");
    let mut upload =
        SyncedUpload::begin(Arc::new(Folders::below(folder.path().to_owned())), target.clone()).unwrap();
    // A device that takes every write and refuses to be synced.
    upload.file = Arc::new(File::options().write(true).open("/dev/null").unwrap());
    upload.put_part(vec![1_u8; 10].into()).await.unwrap();
    upload.complete().await.unwrap_err();
    assert!(!target.exists(), "put in place without a sync");
}

fn pipe(path: &FsPath) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

/// Whatever else stands in the folder neither hangs nor fails anything, and is no object.
#[tokio::test]
async fn what_is_no_file_is_no_object() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("moved"), b"moved").unwrap();
    let store = SyncedFolder::open(folder.path()).unwrap();
    store.put(&Path::from("a/b/object"), vec![1_u8; 10].into()).await.unwrap();
    let at = |name: &str| folder.path().join("a/b").join(name);
    pipe(&at("pipe"));
    fs::create_dir(at("folder.json")).unwrap();
    symlink(at("loop"), at("loop")).unwrap();
    symlink(folder.path(), at("back")).unwrap();
    symlink(at("nothing"), at("dangling")).unwrap();
    symlink(at("pipe"), at("to_pipe")).unwrap();
    symlink(elsewhere.path(), at("disk")).unwrap();
    fs::write(folder.path().join("a/b").join(std::ffi::OsStr::from_bytes(b"\xff.json")), b"").unwrap();
    let look = async {
        let mut names = names(&store).await;
        names.sort();
        assert_eq!(names, ["a/b/disk/moved", "a/b/object"], "an operator may have moved a folder");
        for name in ["pipe", "folder.json", "loop", "back", "dangling", "to_pipe", "nothing"] {
            let path = Path::from(format!("a/b/{name}"));
            let is_failed = store.get(&path).await.is_err();
            assert!(
                is_failed && store.get_ranges(&path, std::slice::from_ref(&(0..1))).await.is_err(),
                "{name}"
            );
            assert!(store.head(&path).await.is_err(), "{name}");
        }
        let level = store.list_with_delimiter(Some(&Path::from("a/b"))).await.unwrap();
        let folders: Vec<_> = level.common_prefixes.iter().map(Path::to_string).collect();
        assert_eq!(folders, ["a/b/disk", "a/b/folder.json"]);
        assert_eq!(level.objects.len(), 1);
        let after = Path::from("a/b/aaa");
        let behind: Vec<ObjectMeta> =
            store.list_with_offset(Some(&Path::from("a/b")), &after).try_collect().await.unwrap();
        assert_eq!(behind.len(), 2);
        assert_eq!(store.get(&Path::from("a/b/disk/moved")).await.unwrap().bytes().await.unwrap(), "moved");
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), look).await.expect("nothing waits for a pipe");
}

/// B1: what lies deeper than anything of ours is not looked for.
#[tokio::test]
async fn folders_within_folders_are_looked_into_so_deep() {
    let folder = tempfile::tempdir().unwrap();
    let store = SyncedFolder::open(folder.path()).unwrap();
    let within = |depth: usize| ["f"].repeat(depth).join("/");
    fs::create_dir_all(folder.path().join(within(40))).unwrap();
    for depth in [16, 17, 40] {
        fs::write(folder.path().join(within(depth)).join("object"), b"x").unwrap();
    }
    assert_eq!(names(&store).await, [format!("{}/object", within(16))]);
}
