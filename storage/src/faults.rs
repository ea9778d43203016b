//! Named steps at which a simulation breaks things, and bugs it plants to see that it would notice.
//!
//! Outside of this crate's own tests every function here is empty and disappears.

use std::io;

use crate::error::Result;

/// A mistake that a test makes on purpose; each is caught by a test named in `simulation/bugs.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Waiters are told before the sync.
    AcknowledgeBeforeSync,
    /// A failed sync is ignored.
    IgnoreFailedSync,
    /// Frames are replayed although the table's transaction says that they are in.
    SkipTransactionCheck,
    /// A commit is made although the table's transaction says that it is in.
    SkipCommitGuard,
    /// Segments are deleted before their frames are committed.
    TrimEarly,
    /// Declared keys go with their segment.
    ForgetKeys,
    /// A taken commit number counts as our own commit.
    TrustTakenNumber,
    /// Compaction leaves the last row out.
    CompactionDropsRow,
    /// What was replayed is not synced before the log goes on.
    ReplayWithoutSync,
    /// A new segment's folder entry is not synced.
    SegmentWithoutFolderSync,
    /// A damaged synced frame is taken for a torn tail.
    IgnoreDurableMark,
    /// Waiters are told before their object is put into the log in the bucket.
    AcknowledgeBeforePut,
    /// Objects of the log in the bucket are deleted before their frames are committed.
    TrimObjectEarly,
    /// A taken name in the log in the bucket counts as our own object.
    TrustTakenObject,
    /// A log in the bucket is taken over without an opening.
    OpenWithoutFence,
    /// Chunks leave the hot buffer before the version that holds them is published.
    ForgetBeforePublish,
}

#[cfg(test)]
impl Bug {
    /// Every bug.
    pub const ALL: [Self; 16] = [
        Self::AcknowledgeBeforeSync,
        Self::IgnoreFailedSync,
        Self::SkipTransactionCheck,
        Self::SkipCommitGuard,
        Self::TrimEarly,
        Self::ForgetKeys,
        Self::TrustTakenNumber,
        Self::CompactionDropsRow,
        Self::ReplayWithoutSync,
        Self::SegmentWithoutFolderSync,
        Self::ForgetBeforePublish,
        Self::IgnoreDurableMark,
        Self::AcknowledgeBeforePut,
        Self::TrimObjectEarly,
        Self::TrustTakenObject,
        Self::OpenWithoutFence,
    ];
}

/// A step where the file system is about to be used.
///
/// # Errors
/// What a test asked for; never outside of tests.
#[inline]
pub fn io(step: &'static str) -> io::Result<()> {
    #[cfg(test)]
    return crate::simulation::failpoints::at(step)
        .map_err(|error| io::Error::other(format!("injected: {error}")));
    #[cfg(not(test))]
    {
        let _ = step;
        Ok(())
    }
}

/// A step that nothing can fail at, but a panic or the end of the process.
#[inline]
pub fn step(step: &'static str) {
    let _ = io(step);
}

/// A step between two effects.
///
/// # Errors
/// What a test asked for; never outside of tests.
#[inline]
#[cfg_attr(not(test), expect(clippy::unused_async, reason = "tests wait here"))]
pub async fn reach(step: &'static str) -> Result<()> {
    #[cfg(test)]
    return crate::simulation::failpoints::reach(step).await;
    #[cfg(not(test))]
    {
        let _ = step;
        Ok(())
    }
}

/// Whether a test planted this bug; never outside of tests.
#[inline]
#[must_use]
pub fn has(bug: Bug) -> bool {
    #[cfg(test)]
    return crate::simulation::failpoints::has(bug);
    #[cfg(not(test))]
    {
        let _ = bug;
        false
    }
}
