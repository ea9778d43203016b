//! What a table's log says of its paths, folder by folder.
//!
//! A commit touches a few folders of thousands: a clone shares every folder with what it was made of until one of the two
//! changes it, so that the next version costs a counter a folder.

use std::sync::Arc;

/// What is said of one path.
pub trait Entry: Clone {
    /// The path, below the table's root. It never changes.
    fn path(&self) -> &str;
}

/// Entries by path. Their order is that of [`place`].
#[derive(Clone, Debug, PartialEq)]
pub struct Folders<T> {
    /// By name, none empty; the entries of each by path.
    folders: Vec<Arc<Vec<T>>>,
    len: usize,
}

impl<T> Default for Folders<T> {
    fn default() -> Self {
        Self { folders: Vec::new(), len: 0 }
    }
}

/// Where a path stands among others: its folder, then its name.
#[must_use]
pub fn place(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl<T> Folders<T> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries in their order.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.folders.iter().flat_map(|folder| folder.iter())
    }

    /// Whether another clone shares any of it.
    pub fn is_shared(&self) -> bool {
        self.folders.iter().any(|folder| Arc::strong_count(folder) > 1)
    }

    /// Bytes of memory that it takes beside the entries, about.
    pub fn held_bytes(&self) -> usize {
        // A folder: its place here, its counters, and what its list grew beyond its entries.
        const FOLDER_BYTES: usize = 96;
        self.folders.len() * FOLDER_BYTES + self.len * size_of::<T>()
    }
}

impl<T: Entry> Folders<T> {
    fn folder(&self, name: &str) -> Result<usize, usize> {
        self.folders.binary_search_by(|folder| place(folder[0].path()).0.cmp(name))
    }

    /// What is said of `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&T> {
        let (name, _) = place(path);
        let folder = &self.folders[self.folder(name).ok()?];
        folder.binary_search_by(|entry| entry.path().cmp(path)).ok().map(|at| &folder[at])
    }

    /// Whether anything is said of `path`.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    /// Says this of its path, in place of what was said.
    pub fn insert(&mut self, entry: T) {
        match self.folder(place(entry.path()).0) {
            Ok(at) => {
                let folder = Arc::make_mut(&mut self.folders[at]);
                match folder.binary_search_by(|known| known.path().cmp(entry.path())) {
                    Ok(at) => folder[at] = entry,
                    Err(at) => {
                        folder.insert(at, entry);
                        self.len += 1;
                    }
                }
            }
            Err(at) => {
                self.folders.insert(at, Arc::new(vec![entry]));
                self.len += 1;
            }
        }
    }

    /// Says nothing of `path` any more; returns what was said.
    pub fn remove(&mut self, path: &str) -> Option<T> {
        let folder_at = self.folder(place(path).0).ok()?;
        let folder = &mut self.folders[folder_at];
        let at = folder.binary_search_by(|entry| entry.path().cmp(path)).ok()?;
        self.len -= 1;
        if folder.len() > 1 {
            return Some(Arc::make_mut(folder).remove(at));
        }
        let folder = self.folders.remove(folder_at);
        Some(Arc::try_unwrap(folder).map_or_else(|shared| shared[0].clone(), |mut entries| entries.remove(0)))
    }

    /// Changes entries, but for their paths.
    pub fn for_each_mut(&mut self, change: impl FnMut(&mut T)) {
        self.folders.iter_mut().flat_map(|folder| Arc::make_mut(folder).iter_mut()).for_each(change);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{Entry, Folders, place};

    #[derive(Clone, Debug, PartialEq)]
    struct Said(String, u8);

    impl Entry for Said {
        fn path(&self) -> &str {
            &self.0
        }
    }

    fn path() -> impl Strategy<Value = String> {
        "(d[a-c-]?/){0,2}[a-c]"
    }

    fn check(folders: &Folders<Said>, expected: &BTreeMap<String, u8>) {
        assert_eq!(folders.len(), expected.len());
        assert_eq!(folders.is_empty(), expected.is_empty());
        let found: Vec<_> = folders.iter().map(|said| (said.0.clone(), said.1)).collect();
        let mut expected: Vec<_> = expected.clone().into_iter().collect();
        expected.sort_by(|a, b| place(&a.0).cmp(&place(&b.0)));
        assert_eq!(found, expected);
    }

    proptest! {
        /// It is a map, and what becomes of a clone is nothing to the other.
        #[test]
        fn it_is_a_map_whose_clones_are_apart(steps in prop::collection::vec((path(), any::<u8>(), 0..4_u8), 0..60)) {
            let (mut folders, mut expected) = (Folders::default(), BTreeMap::new());
            let mut before = (folders.clone(), expected.clone());
            for (path, value, what) in steps {
                match what {
                    0 | 1 => {
                        folders.insert(Said(path.clone(), value));
                        expected.insert(path, value);
                    }
                    2 => {
                        let removed = folders.remove(&path).map(|said| said.1);
                        prop_assert_eq!(removed, expected.remove(&path));
                    }
                    _ => before = (folders.clone(), expected.clone()),
                }
                check(&folders, &expected);
                check(&before.0, &before.1);
                for (path, value) in &expected {
                    prop_assert_eq!(folders.get(path).map(|said| said.1), Some(*value));
                }
            }
            folders.for_each_mut(|said| said.1 = !said.1);
            expected.values_mut().for_each(|value| *value = !*value);
            check(&folders, &expected);
            check(&before.0, &before.1);
        }
    }

    #[test]
    fn what_is_not_changed_is_shared() {
        let mut folders = Folders::default();
        for folder in 0..50 {
            (0..4).for_each(|name| folders.insert(Said(format!("{folder:02}/{name}"), 0)));
        }
        assert!(!folders.is_shared());
        let mut next = folders.clone();
        next.insert(Said("07/9".into(), 1));
        next.remove("09/2");
        let own = folders.folders.iter().zip(&next.folders).filter(|(a, b)| !std::sync::Arc::ptr_eq(a, b));
        assert_eq!(own.count(), 2);
        assert!(folders.is_shared());
        drop(next);
        assert!(!folders.is_shared());
    }
}
