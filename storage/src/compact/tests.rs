//! Compaction on a real folder: one merge, faults, random lives, and many seals under a reader's eyes.

mod faults;
mod life;
mod merging;
mod rig;
