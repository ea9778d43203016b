//! HTTP reads: from table snapshots and hot chunks to answers.
//!
//! ```text
//!   Request ── view (which tables) ── plan (guard, session, tables) ── prune ── scan ── render ──► Answer
//! ```
//! [`Query`] owns threads, memory and time of all queries, so that ingest keeps its latency whatever runs
//! here (X1). A request sees its tenant's tables and can name no others (T1), each at one version (Q1).
//! `turns` says which typed read runs next and `budget` what it may hold (X2, B1).
//! `endpoints` holds one file a route and is, with the engine's API, the only place that knows response JSON.
//! `plan/guard.rs` says which SQL is open; `prune` which files are read; `scan` what happens when a stored
//! object cannot be decoded (F40). SQL takes another way: [`worker`] runs it in processes that can be killed (X3).

// Input decides positions: text is never cut by one, and no index is taken on trust.
#![cfg_attr(not(test), deny(clippy::string_slice, clippy::indexing_slicing))]

mod budget;
mod cursor;
mod endpoints;
mod filters;
#[cfg(test)]
mod fixture;
mod params;
mod plan;
mod prune;
mod query;
mod refusal;
mod render;
mod scan;
mod time;
mod turns;
mod view;
pub mod worker;

pub use endpoints::Endpoint;
pub use query::{Answer, Body, Options, Query, Request};
pub use refusal::Refusal;
