//! What the process counts of itself, and how it tells Prometheus.
//!
//! Counting is a relaxed atomic each; nothing is allocated per request. Families carry no tenant: a tenant's own
//! numbers are in its tables.

mod exposition;
mod memory;
mod process;
mod workers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use http::Method;
use storage::record::{Kind, Tenant};

use crate::app::App;
use crate::clock::Clock;
use crate::routes::{Handler, Route, routes};
use exposition::Exposition;
pub use exposition::Format;
pub use memory::used_in_all;
pub use process::{Idle, Process};

/// Bounds of durations, in seconds: around the goals of 1, 5, 10 and 50 ms, then coarse.
const BOUNDS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Statuses that we answer with; any other is counted as `other`.
const STATUSES: [u16; 23] = [
    200, 201, 202, 204, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 421, 422, 429, 431, 500, 501, 502,
    503, 504,
];

#[derive(Debug, Default)]
struct PerRoute {
    statuses: [AtomicU64; STATUSES.len() + 1],
    durations: [AtomicU64; BOUNDS.len() + 1],
    duration_ns: AtomicU64,
}

/// The counters of the process.
#[derive(Debug)]
pub struct Metrics {
    /// One a route, in the table's order; the last for requests without a route.
    routes: Vec<PerRoute>,
    in_progress: AtomicI64,
    authn_failures: Mutex<BTreeMap<&'static str, u64>>,
    authz_denials: AtomicU64,
    connections_refused: AtomicU64,
    /// The process's memory at rest.
    pub idle: Idle,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            routes: (0..=routes().len()).map(|_| PerRoute::default()).collect(),
            in_progress: AtomicI64::new(0),
            authn_failures: Mutex::default(),
            authz_denials: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            idle: Idle::default(),
        }
    }
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub struct InProgress<'a>(&'a AtomicI64);

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request as in progress.
    pub fn begin(&self) -> InProgress<'_> {
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        InProgress(&self.in_progress)
    }

    /// Counts an answer.
    pub fn observe(&self, route: Option<&'static Route>, status: u16, elapsed_ns: u64) {
        let at = route.and_then(|route| routes().iter().position(|one| std::ptr::eq(one, route)));
        let of = &self.routes[at.unwrap_or(routes().len())];
        let status = STATUSES.iter().position(|one| *one == status).unwrap_or(STATUSES.len());
        of.statuses[status].fetch_add(1, Ordering::Relaxed);
        let seconds = elapsed_ns as f64 / 1e9;
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        of.durations[bucket].fetch_add(1, Ordering::Relaxed);
        of.duration_ns.fetch_add(elapsed_ns, Ordering::Relaxed);
    }

    /// Counts a request that is nobody's.
    pub fn authn_failure(&self, reason: &'static str) {
        *self.authn_failures.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// Counts a request that somebody may not make.
    pub fn authz_denial(&self) {
        self.authz_denials.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that found no room.
    pub fn connection_refused(&self) {
        self.connections_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes everything down.
    pub fn render<'t>(&self, format: Format, app: &App, tenants: impl Iterator<Item = &'t str>) -> String {
        let mut out = Exposition::new(format);
        out.gauge("floodmark_build_info", "The version that runs; always 1.");
        out.value("floodmark_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        // The names that dashboards know stand beside ours.
        for prefix in ["floodmark_", ""] {
            self.http(&mut out, prefix);
        }
        out.gauge("floodmark_connections", "Open connections.");
        out.value("floodmark_connections", &[], app.connections.load(Ordering::Relaxed) as f64);
        out.counter("floodmark_connections_refused", "Connections that found no room.");
        out.count("floodmark_connections_refused", &[], load(&self.connections_refused));
        self.ingest_latency(&mut out);
        records(&mut out, &app.ingest.counters);
        completeness(&mut out, app, tenants);
        storage(&mut out, &app.storage);
        skipped(&mut out, app);
        memory::write(&mut out, app.storage.memory(), &self.idle);
        process::write(&mut out, app.started_ns);
        workers::write(&mut out, app.query.workers());
        out.finish()
    }

    fn labelled(&self) -> impl Iterator<Item = (&'static str, &'static str, &PerRoute)> {
        self.routes.iter().enumerate().map(|(at, of)| {
            let route = routes().get(at);
            // A method that no route knows is the client's word, and no label.
            (route.map_or("other", |route| method(route.method())), route.map_or("none", Route::pattern), of)
        })
    }

    fn http(&self, out: &mut Exposition, prefix: &str) {
        let name = format!("{prefix}http_requests");
        out.counter(&name, "Requests answered.");
        for (method, route, of) in self.labelled() {
            for (at, count) in of.statuses.iter().enumerate() {
                let count = load(count);
                if count > 0 {
                    let status = STATUSES.get(at).map_or_else(|| "other".to_owned(), u16::to_string);
                    out.count(&name, &[("method", method), ("route", route), ("status", &status)], count);
                }
            }
        }
        let name = format!("{prefix}http_request_duration_seconds");
        out.histogram(&name, "From a request's head to its answer.");
        for (method, route, of) in self.labelled() {
            let counts: Vec<u64> = of.durations.iter().map(load).collect();
            if counts.iter().any(|count| *count > 0) {
                let sum = load(&of.duration_ns) as f64 / 1e9;
                out.buckets(&name, &[("method", method), ("route", route)], &BOUNDS, &counts, sum);
            }
        }
        let name = format!("{prefix}http_requests_inprogress");
        out.gauge(&name, "Requests being answered.");
        out.value(&name, &[], self.in_progress.load(Ordering::Relaxed) as f64);

        let name = format!("{prefix}authn_failures");
        out.counter(&name, "Requests without a good credential.");
        let failures = self.authn_failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for reason in ["missing", "unknown"] {
            out.count(&name, &[("reason", reason)], failures.get(reason).copied().unwrap_or(0));
        }
        for (reason, count) in
            failures.iter().filter(|(reason, _)| !matches!(**reason, "missing" | "unknown"))
        {
            out.count(&name, &[("reason", reason)], *count);
        }
        let name = format!("{prefix}authz_denials");
        out.counter(&name, "Requests that their sender may not make.");
        out.count(&name, &[], load(&self.authz_denials));

        let name = format!("{prefix}policy_violations");
        out.counter(&name, "Requests refused by a policy.");
        let answered = |status: u16| {
            let at = STATUSES.iter().position(|one| *one == status).expect("a status of the list");
            self.routes.iter().map(|of| load(&of.statuses[at])).sum()
        };
        out.count(&name, &[("policy", "access")], answered(403));
        out.count(&name, &[("policy", "rate_limit")], answered(429));
        out.count(&name, &[("policy", "host")], answered(421));
    }

    fn ingest_latency(&self, out: &mut Exposition) {
        let name = "floodmark_ingest_latency_seconds";
        out.histogram(name, "From an ingest request's head to its acknowledgement or refusal.");
        let mut counts = vec![0; BOUNDS.len() + 1];
        let mut sum_ns = 0;
        for (of, route) in self.routes.iter().zip(routes()) {
            if matches!(route.handler(), Handler::Ingest(_)) {
                of.durations.iter().zip(&mut counts).for_each(|(one, all)| *all += load(one));
                sum_ns += load(&of.duration_ns);
            }
        }
        out.buckets(name, &[], &BOUNDS, &counts, sum_ns as f64 / 1e9);
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// A2: what was received, and what became of it.
fn records(out: &mut Exposition, counters: &ingest::Counters) {
    let kinds = [Kind::Events, Kind::Spans, Kind::Logs, Kind::Audit];
    let mut received_sum = 0;
    let mut settled_sum = 0;
    // Settled before received: a request between the two must not look as if rows came from nowhere.
    let settled: Vec<_> = kinds
        .iter()
        .map(|kind| {
            let of = counters.kind(*kind);
            (load(&of.accepted), load(&of.throttled), of.rejected())
        })
        .collect();
    out.counter("floodmark_ingest_records_accepted", "Records stored.");
    for (kind, (accepted, _, _)) in kinds.iter().zip(&settled) {
        settled_sum += accepted;
        out.count("floodmark_ingest_records_accepted", &[("kind", kind.as_str())], *accepted);
    }
    out.counter("floodmark_ingest_records_throttled", "Records refused for now.");
    for (kind, (_, throttled, _)) in kinds.iter().zip(&settled) {
        settled_sum += throttled;
        out.count("floodmark_ingest_records_throttled", &[("kind", kind.as_str())], *throttled);
    }
    out.counter("floodmark_ingest_records_rejected", "Records refused for good, by reason.");
    for (kind, (_, _, rejected)) in kinds.iter().zip(&settled) {
        for (code, count) in rejected {
            settled_sum += count;
            out.count(
                "floodmark_ingest_records_rejected",
                &[("kind", kind.as_str()), ("code", code)],
                *count,
            );
        }
    }
    out.counter("floodmark_ingest_records_received", "Records that a decoder saw.");
    for kind in kinds {
        let received = load(&counters.kind(kind).received);
        received_sum += received;
        out.count("floodmark_ingest_records_received", &[("kind", kind.as_str())], received);
    }
    for name in ["floodmark_ingest_correctness_ratio", "ingest_correctness_ratio"] {
        out.gauge(name, "Records accounted for among those received; below 1 only while some are under way.");
        let ratio = if received_sum == 0 { 1.0 } else { settled_sum as f64 / received_sum as f64 };
        out.value(name, &[], ratio);
    }
    out.counter("floodmark_ingest_requests", "Ingest requests answered.");
    for route in ingest::Route::ALL {
        for (class, text) in [(2, "2xx"), (4, "4xx"), (5, "5xx")] {
            let labels = [("route", route.as_str()), ("status", text)];
            out.count("floodmark_ingest_requests", &labels, counters.requests(route, class));
        }
    }
    for (name, help, counter) in [
        ("floodmark_ingest_received_bytes", "Body bytes as sent.", &counters.bytes_received),
        ("floodmark_ingest_inflated_bytes", "Body bytes inflated.", &counters.bytes_inflated),
        ("floodmark_ingest_replays", "Answers given again for an idempotency key.", &counters.replayed),
        (
            "floodmark_scrub_unscrubbed",
            "Values that could not be scrubbed, and were masked whole.",
            &counters.unscrubbed,
        ),
    ] {
        out.counter(name, help);
        out.count(name, &[], load(counter));
    }
    out.counter("floodmark_scrub_hits", "Values replaced before they were stored, by detector.");
    for (detector, hits) in counters.scrub_hits() {
        out.count("floodmark_scrub_hits", &[("detector", detector)], hits);
    }
}

fn completeness<'t>(out: &mut Exposition, app: &App, tenants: impl Iterator<Item = &'t str>) {
    let now_ns = Clock::now_ns();
    let mut all = ingest::correlate::Tally::default();
    for tenant in tenants.filter_map(|text| Tenant::parse(text).ok()) {
        let tally = app.ingest.completeness.tally(&tenant, now_ns);
        all.complete += tally.complete;
        all.incomplete += tally.incomplete;
        all.too_long += tally.too_long;
    }
    out.counter("floodmark_traces_judged", "Traces that settled, by whether root and parents were seen.");
    for (outcome, count) in
        [("complete", all.complete), ("incomplete", all.incomplete), ("too_long", all.too_long)]
    {
        out.count("floodmark_traces_judged", &[("outcome", outcome)], count);
    }
    for name in ["floodmark_trace_completeness_ratio", "trace_completeness_ratio"] {
        out.gauge(name, "Whole traces among those judged; NaN before the first.");
        out.value(name, &[], all.ratio().unwrap_or(f64::NAN));
    }
}

/// What a start went on without.
fn skipped(out: &mut Exposition, app: &App) {
    const NAME: &str = "floodmark_recovery_skipped";
    out.counter(NAME, "What the start passed over: see the log for its names.");
    for (step, count) in app.storage.passed_over() {
        out.count(NAME, &[("step", step)], count);
    }
    out.count(NAME, &[("step", "records")], app.state.newer_records() as u64);
}

fn storage(out: &mut Exposition, storage: &storage::Storage) {
    let stats = storage.stats();
    for (name, help, counter) in [
        ("floodmark_wal_syncs", "Syncs of all logs.", &stats.syncs),
        ("floodmark_wal_synced_frames", "Frames that syncs made durable.", &stats.synced_frames),
        ("floodmark_wal_trimmed_segments", "Log segments trimmed.", &stats.trimmed_segments),
        ("floodmark_log_objects", "Objects put into the log in the bucket.", &stats.log_objects),
        ("floodmark_log_object_bytes", "Bytes of frames in those objects.", &stats.log_object_bytes),
        ("floodmark_seals", "Seals that committed.", &stats.seals),
        ("floodmark_sealed_rows", "Rows that seals committed.", &stats.sealed_rows),
        ("floodmark_seal_failures", "Seals that failed and are tried again.", &stats.seal_failures),
        ("floodmark_sealed_bytes", "Bytes of files that seals put.", &stats.sealed_bytes),
        (
            "floodmark_segment_mismatches",
            "Files that did not read back as they went in; none was committed.",
            &stats.segment_mismatches,
        ),
        ("floodmark_compactions", "Merges that committed.", &stats.compactions),
        ("floodmark_compacted_files", "Files that merges replaced.", &stats.compacted_files),
        ("floodmark_compaction_read_bytes", "Bytes of files that merges read.", &stats.compaction_read_bytes),
        (
            "floodmark_compaction_written_bytes",
            "Bytes of files that merges put.",
            &stats.compaction_written_bytes,
        ),
        ("floodmark_compaction_failures", "Merges that failed.", &stats.compaction_failures),
        ("floodmark_damaged_files", "Files found damaged, or not to be merged.", &stats.damaged_files),
    ] {
        out.counter(name, help);
        out.count(name, &[], load(counter));
    }
    out.counter("floodmark_caretaker_cpu_seconds", "CPU time of merging and other care of stored files.");
    out.seconds("floodmark_caretaker_cpu_seconds", load(&stats.caretaker_cpu_ns));
    out.gauge(
        "floodmark_write_amplification_ratio",
        "Bytes put by seals and merges over bytes put by seals.",
    );
    out.value("floodmark_write_amplification_ratio", &[], stats.write_amplification());
    let levels = storage.levels();
    for (name, help, level) in [
        ("floodmark_wal_bytes", "Bytes that log segments take on the disk.", levels.wal_bytes),
        (
            "floodmark_log_bucket_bytes",
            "Bytes of frames in this node's log in the bucket that are in no table yet.",
            levels.bucket_bytes,
        ),
        ("floodmark_hot_bytes", "Bytes of chunks that wait to be sealed.", levels.hot_bytes),
        ("floodmark_hot_rows", "Rows that wait to be sealed.", levels.hot_rows),
        ("floodmark_tables", "Tables of all tenants.", levels.tables),
        ("floodmark_table_files", "Live files of all tables.", levels.files),
        ("floodmark_compaction_waiting_files", "Live files that wait to be merged.", levels.files_waiting),
        (
            "floodmark_partition_files_max",
            "Live files of the date of a table that has the most.",
            levels.partition_files_max,
        ),
        (
            "floodmark_damaged_objects",
            "Stored objects that reads found damaged since the start.",
            storage.proofs().damaged_count(),
        ),
    ] {
        out.gauge(name, help);
        out.value(name, &[], level as f64);
    }
}
