//! What is told of the processes that answer SQL.

use std::sync::atomic::{AtomicU64, Ordering};

use query::worker::Pool;

use super::exposition::Exposition;

/// Writes down how many workers there are and what became of those that were.
pub fn write(out: &mut Exposition, workers: &Pool) {
    let counts = workers.counts();
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    out.counter("floodmark_sql_workers_started", "Worker processes started.");
    out.count("floodmark_sql_workers_started", &[], load(&counts.started));
    out.counter("floodmark_sql_workers_ended", "Worker processes ended, by reason.");
    for (reason, count) in [
        ("timeout", &counts.killed_timeout),
        ("client_left", &counts.killed_left),
        ("memory", &counts.killed_memory),
        ("crashed", &counts.crashed),
        ("retired", &counts.retired),
        ("not_started", &counts.failed),
    ] {
        out.count("floodmark_sql_workers_ended", &[("reason", reason)], load(count));
    }
    let (ready, running, waiting) = workers.levels();
    for (name, help, level) in [
        ("floodmark_sql_workers_ready", "Worker processes that wait for a query.", ready),
        ("floodmark_sql_queries_running", "SQL queries that run.", running),
        ("floodmark_sql_queries_waiting", "SQL queries that wait for their turn.", waiting),
    ] {
        out.gauge(name, help);
        out.value(name, &[], level as f64);
    }
}
