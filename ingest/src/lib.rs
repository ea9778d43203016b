//! From a socket's bytes to a clean, measured chunk of columns.
//!
//! The engine hands over a [`Head`] (who asks, on which [`Route`], with which headers) and a body; a [`Lane`]
//! takes them through the stages in this order and answers with a [`Reply`]:
//!
//! ```text
//!   head ─ inflate ─ decode ─ admit ─ correlate ─ scrub ─ measure ─► storage::Writer::append ─ reply
//! ```
//! Nothing is kept before all stages have passed, and nothing is acknowledged before `append` returned (A1).
//! Only `decode` knows wire formats; only `reply` knows how clients of each protocol read an answer.

// Input decides positions: text is never cut by one, and no index is taken on trust. Pieces come from `cut`.
#![cfg_attr(not(test), deny(clippy::string_slice, clippy::indexing_slicing))]

pub mod admit;
pub mod correlate;
mod counters;
mod cut;
#[expect(
    clippy::string_slice,
    clippy::indexing_slicing,
    reason = "its scanners index by what they have just searched; to be mended file by file"
)]
pub mod decode;
mod head;
pub mod inflate;
pub mod measure;
mod pipeline;
pub mod reply;
mod route;
pub mod scrub;

pub use correlate::Correlation;
pub use counters::{Account, Counters, KindCounters};
pub use decode::Limits;
pub use head::{Accepted, Head, Media, check_tenant};
pub use pipeline::{Lane, Shared};
pub use reply::{Dialect, Refusal, Reply, render};
pub use route::Route;
