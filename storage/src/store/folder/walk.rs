//! What a store's folder holds, whatever else stands in it.
//!
//! An object is a regular file. A pipe, a socket, a device, a link that leads nowhere or in a circle, and a name that is no
//! text are none: they are left out and named once, and no listing fails for them. An operator may have moved a folder or a
//! file to another disk and left a link: those are followed, where they lead out of the store.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Mutex;

use object_store::path::Path;
use object_store::{ListResult, ObjectMeta};

/// Folders within folders that are looked into. Ours are six deep; a link that leads in a circle ends here at the latest.
const DEPTH_MAX: usize = 16;

/// Odd names that are remembered, so that each is named once.
const NAMED_MAX: usize = 1_000;

/// What an entry of a folder is.
enum Found {
    Folder,
    Object(Metadata),
}

fn name_once(path: &FsPath) {
    static NAMED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let Ok(mut named) = NAMED.lock() else { return };
    if is_new(&mut named, path) {
        tracing::warn!(path = %path.display(), "this is no object and is left alone");
    }
}

/// Whether a path is to be named now: it was not yet, and there is room to remember it.
fn is_new(named: &mut BTreeSet<PathBuf>, path: &FsPath) -> bool {
    named.len() < NAMED_MAX && named.insert(path.to_owned())
}

/// The objects below `folder`, which is `prefix` in the store of `root`; those behind `after` alone, where one is given.
///
/// # Errors
/// As reading a folder; one that is not there holds nothing.
pub fn objects(
    root: &FsPath,
    folder: &FsPath,
    prefix: &Path,
    after: Option<&Path>,
) -> io::Result<Vec<ObjectMeta>> {
    let mut found = Vec::new();
    below(root, folder, prefix, after, 0, &mut found)?;
    Ok(found)
}

fn below(
    root: &FsPath,
    folder: &FsPath,
    prefix: &Path,
    after: Option<&Path>,
    depth: usize,
    found: &mut Vec<ObjectMeta>,
) -> io::Result<()> {
    for (name, kind) in entries(root, folder)? {
        let location = prefix.clone().join(name.as_str());
        match kind {
            Found::Folder if depth < DEPTH_MAX => {
                below(root, &folder.join(&name), &location, after, depth + 1, found)?;
            }
            Found::Folder => name_once(&folder.join(&name)),
            Found::Object(_) if after.is_some_and(|after| location <= *after) => {}
            Found::Object(metadata) => found.push(meta(location, &metadata)?),
        }
    }
    Ok(())
}

/// What stands in `folder` itself.
///
/// # Errors
/// As [`objects`].
pub fn level(root: &FsPath, folder: &FsPath, prefix: &Path) -> io::Result<ListResult> {
    let mut listed = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
    for (name, kind) in entries(root, folder)? {
        let location = prefix.clone().join(name.as_str());
        match kind {
            Found::Folder => listed.common_prefixes.push(location),
            Found::Object(metadata) => listed.objects.push(meta(location, &metadata)?),
        }
    }
    listed.common_prefixes.sort_unstable();
    Ok(listed)
}

fn entries(root: &FsPath, folder: &FsPath) -> io::Result<Vec<(String, Found)>> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry?;
        let path = entry.path();
        // Ours are plain; `#` marks what is half-written.
        let name = entry.file_name().into_string().ok().filter(|name| Path::parse(name).is_ok());
        let Some(name) = name else {
            name_once(&path);
            continue;
        };
        if name.contains('#') {
            continue;
        }
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let metadata = match if is_link { fs::metadata(&path) } else { entry.metadata() } {
            Ok(metadata) => metadata,
            // Deleted since it was named.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_link => continue,
            Err(_) if is_link => {
                name_once(&path);
                continue;
            }
            Err(error) => return Err(error),
        };
        let leads_back = || path.canonicalize().is_ok_and(|target| target.starts_with(root));
        if metadata.is_dir() && !(is_link && leads_back()) {
            found.push((name, Found::Folder));
        } else if metadata.is_file() {
            found.push((name, Found::Object(metadata)));
        } else {
            name_once(&path);
        }
    }
    Ok(found)
}

fn meta(location: Path, metadata: &Metadata) -> io::Result<ObjectMeta> {
    Ok(ObjectMeta {
        location,
        last_modified: metadata.modified()?.into(),
        size: metadata.len(),
        e_tag: None,
        version: None,
    })
}

/// Makes sure that what has an object's name is one.
///
/// # Errors
/// `NotFound` where nothing has, or something that is no regular file: nothing waits for the other end of a pipe.
pub fn is_object(path: &FsPath) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() {
        return Ok(());
    }
    name_once(path);
    Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is no regular file", path.display())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::is_new;

    // B1
    #[test]
    fn few_odd_names_are_remembered() {
        let mut named = BTreeSet::new();
        let paths: Vec<_> = (0..1_500).map(|at| PathBuf::from(at.to_string())).collect();
        assert_eq!(paths.iter().filter(|path| is_new(&mut named, path)).count(), 1_000);
        assert_eq!(named.len(), 1_000);
        assert!(!is_new(&mut named, &paths[0]), "once");
    }
}
