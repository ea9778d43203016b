//! The one atomic that buckets use; `model.rs` compiles them on loom's instead.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};
