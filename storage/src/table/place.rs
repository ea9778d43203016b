//! Where a table's version is: awake, as snapshots read it, or at rest, packed.
//!
//! Awake, a live file takes a few hundred bytes in a few small pieces, and what was freed between them cannot be given
//! back. A table that nobody asks for takes a fraction of that at rest, in one piece. Whoever asks for its files wakes it;
//! how far its logs are in it, and how many files it has, is told at rest too (`docs/decisions/0013-tables-at-rest.md`).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::Published;
use crate::commit::State;
use crate::commit::packed::Packed;
use crate::memory::Charge;

/// Looks in a row at which nobody has used a table before it is put at rest. Chosen: some seconds; a table that is sealed
/// or read now and then stays awake.
pub const UNUSED_LOOKS: u32 = 5;

/// Files, removed ones as well, that a table must have to be put at rest: fewer take no room.
const FILES_MIN: usize = 4;

/// What is told of a version without its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its number; `None` before the first.
    pub version: Option<i64>,
    /// Live files.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Summary {
    fn of(published: &Published) -> Self {
        let empty = Self { version: published.state.version, ..Self::default() };
        published.files().fold(empty, |sum, file| Self {
            files: sum.files + 1,
            rows: sum.rows + file.rows,
            bytes: sum.bytes + file.bytes,
            ..sum
        })
    }
}

/// A version, awake or at rest.
#[derive(Debug)]
enum Held {
    Awake(Arc<Published>),
    Resting(Box<Resting>),
}

#[derive(Debug)]
struct Resting {
    packed: Packed,
    summary: Summary,
}

/// The place of a table's version.
#[derive(Debug)]
pub struct Place {
    held: ArcSwap<Held>,
    /// What the version takes, counted. Held while the version changes places, and while one takes the place of another.
    turning: Mutex<Charge>,
    is_used: AtomicBool,
    unused_looks: AtomicU32,
}

impl Held {
    /// Bytes of memory that it takes, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Awake(published) => published.held_bytes(),
            Self::Resting(resting) => resting.packed.held_bytes(),
        }
    }
}

impl Place {
    /// A place with a version that is awake; what it takes is counted in `charge`.
    pub fn new(published: Published, charge: Charge) -> Self {
        let (held, mut charge) = (Held::Awake(Arc::new(published)), charge);
        count(&mut charge, &held);
        Self {
            turning: Mutex::new(charge),
            held: ArcSwap::from_pointee(held),
            is_used: AtomicBool::new(true),
            unused_looks: AtomicU32::new(0),
        }
    }

    fn turning(&self) -> MutexGuard<'_, Charge> {
        // Whoever panicked under it has changed nothing: each stores its version last.
        self.turning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, held: Held, counted: &mut Charge) {
        count(counted, &held);
        self.held.store(Arc::new(held));
    }

    /// The version, woken where it rests: with thousands of files that takes some milliseconds, once.
    pub fn published(&self) -> Arc<Published> {
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
        if let Held::Awake(published) = &**self.held.load() {
            return Arc::clone(published);
        }
        let mut turning = self.turning();
        match &**self.held.load() {
            Held::Awake(published) => Arc::clone(published),
            Held::Resting(resting) => {
                // Put there by `rest`, which has read it back.
                let state = resting.packed.unpack().expect("what rests reads back as it was");
                let published = Arc::new(Published::new(state));
                self.store(Held::Awake(Arc::clone(&published)), &mut turning);
                published
            }
        }
    }

    /// Puts another version in its place.
    pub fn publish(&self, published: Published) {
        let mut turning = self.turning();
        self.is_used.store(true, Ordering::Relaxed);
        self.store(Held::Awake(Arc::new(published)), &mut turning);
    }

    /// What the version is but for its files, without waking it.
    pub fn told<T>(&self, tell: impl FnOnce(&State) -> T) -> T {
        match &**self.held.load() {
            Held::Awake(published) => tell(&published.state),
            Held::Resting(resting) => tell(resting.packed.without_files()),
        }
    }

    /// What is told of the version, without waking it.
    pub fn summary(&self) -> Summary {
        match &**self.held.load() {
            Held::Awake(published) => Summary::of(published),
            Held::Resting(resting) => resting.summary,
        }
    }

    /// Whether the version rests.
    #[cfg(test)]
    pub fn rests(&self) -> bool {
        matches!(&**self.held.load(), Held::Resting(_))
    }

    /// Looks whether the table was used since the last look, and puts it at rest where it was not for
    /// [`UNUSED_LOOKS`] of them, or for one where `is_short`; returns whether it went to rest now.
    pub fn look(&self, is_short: bool) -> bool {
        if self.is_used.swap(false, Ordering::Relaxed) {
            self.unused_looks.store(0, Ordering::Relaxed);
            return false;
        }
        let looks = self.unused_looks.fetch_add(1, Ordering::Relaxed) + 1;
        (is_short || looks >= UNUSED_LOOKS) && self.rest()
    }

    /// Whether nobody used the table for as long as lets it rest.
    pub fn is_unused(&self) -> bool {
        self.unused_looks.load(Ordering::Relaxed) >= UNUSED_LOOKS
    }

    /// Puts the version at rest, unless somebody holds something of it; returns whether it went to rest now.
    pub fn rest(&self) -> bool {
        let held = self.held.load_full();
        let Held::Awake(published) = &*held else { return false };
        if published.state.files.len() + published.state.tombstones.len() < FILES_MIN {
            return false;
        }
        let Some(packed) = Packed::of(&published.state) else { return false };
        let resting = Held::Resting(Box::new(Resting { packed, summary: Summary::of(published) }));
        let mut turning = self.turning();
        if !Arc::ptr_eq(&self.held.load(), &held) {
            return false;
        }
        let resting = Arc::new(resting);
        self.held.store(Arc::clone(&resting));
        // R1: nobody can have taken it since, so that what is counted now is all there is. A snapshot pins its files by
        // holding them, and files that are woken are others.
        if is_held_elsewhere(&held) {
            self.held.store(held);
            return false;
        }
        count(&mut turning, &resting);
        true
    }
}

/// Counts what is held now in place of what was.
fn count(charge: &mut Charge, held: &Held) {
    let bytes = held.bytes() as u64;
    charge.shrink_to(bytes);
    charge.count(bytes - charge.bytes());
}

/// Whether anybody but the caller holds the version, one of its files, or one that it removed.
fn is_held_elsewhere(held: &Arc<Held>) -> bool {
    let Held::Awake(published) = &**held else { return false };
    if Arc::strong_count(held) > 1 || Arc::strong_count(published) > 1 {
        return true;
    }
    // Whoever has let go of the version took what they hold of it before.
    fence(Ordering::Acquire);
    // An older version that somebody holds shares folders with it.
    published.state.files.is_shared()
        || published.files().any(|file| Arc::strong_count(file) > 1)
        || published.state.tombstones.iter().any(|tombstone| tombstone.pin.strong_count() > 0)
}

#[cfg(test)]
mod tests;
