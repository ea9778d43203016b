//! What every request can reach: made once at start, shared by all lanes.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::config::Config;
use crate::identity::Identity;
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::state::State;
use crate::turns::Turns;

/// The running engine.
pub struct App {
    /// What the operator set.
    pub config: Config,
    /// Who a request comes from.
    pub identity: Arc<Identity>,
    /// Tenants, keys, limits, retention, holds.
    pub state: State,
    /// What is kept.
    pub storage: Arc<storage::Storage>,
    /// Work beside requests.
    pub jobs: Arc<Jobs>,
    /// Reads.
    pub query: query::Query,
    /// What ingest lanes share.
    pub ingest: Arc<ingest::Shared>,
    /// What is counted.
    pub metrics: Metrics,
    /// The last look at what the engine depends on.
    pub readiness: crate::api::Readiness,
    /// Where the engine's own answers are made: never on a lane.
    pub control: tokio::runtime::Handle,
    /// Changes of state under way, by tenant.
    pub admin_turns: Arc<Turns>,
    /// Open connections of all lanes.
    pub connections: AtomicUsize,
    /// Requests whose answer is not wholly handed over.
    pub underway: Arc<AtomicUsize>,
    /// When the process began, nanoseconds since 1970 UTC.
    pub started_ns: i64,
}
