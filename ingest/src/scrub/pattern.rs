//! A compiled pattern, and what searching by it has learnt.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use regex::Regex;

/// A pattern whose automaton is made as texts need it.
///
/// The states that texts led it through are kept for the next text, for each thread that searches: up to 8 MiB, and for
/// ever. They come back with the next texts, so a process at rest forgets them ([`Self::forget`]).
pub(super) struct Pattern<R> {
    /// As compiled: nothing was ever searched by it.
    compiled: R,
    /// A copy of it, which learns. Copies share what was compiled.
    in_use: ArcSwap<R>,
}

impl<R: Clone> Pattern<R> {
    pub(super) fn new(compiled: R) -> Self {
        let in_use = ArcSwap::from_pointee(compiled.clone());
        Self { compiled, in_use }
    }

    /// What to search by.
    pub(super) fn get(&self) -> Guard<Arc<R>> {
        self.in_use.load()
    }

    /// Gives back what was learnt; a search that goes on ends with it.
    pub(super) fn forget(&self) {
        self.in_use.store(Arc::new(self.compiled.clone()));
    }
}

impl Pattern<Regex> {
    /// The pattern of a detector, which compiles.
    pub(super) fn constant(pattern: &str) -> Self {
        Self::new(Regex::new(pattern).expect("a constant pattern"))
    }
}

impl<R: Clone> Clone for Pattern<R> {
    fn clone(&self) -> Self {
        Self::new(self.compiled.clone())
    }
}

impl<R: std::fmt::Debug> std::fmt::Debug for Pattern<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pattern").field(&self.compiled).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Pattern;

    /// Learns as an automaton does: a copy knows nothing yet.
    #[derive(Debug, Default)]
    struct Learns(AtomicUsize);

    impl Clone for Learns {
        fn clone(&self) -> Self {
            Self::default()
        }
    }

    #[test]
    fn what_was_learnt_is_forgotten() {
        let pattern = Pattern::new(Learns::default());
        let learnt = || pattern.get().0.load(Ordering::Relaxed);
        pattern.get().0.fetch_add(7, Ordering::Relaxed);
        assert_eq!(learnt(), 7);
        let searching = pattern.get();
        pattern.forget();
        assert_eq!((learnt(), searching.0.load(Ordering::Relaxed)), (0, 7));
    }
}
