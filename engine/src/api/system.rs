//! The state of the process: status, metrics, a flush on demand, and the tenant's datasets.

use std::sync::atomic::Ordering;

use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_TYPE};
use ingest::Refusal;
use serde_json::{Map, Value, json};
use storage::ErrorKind;
use storage::memory::Pool;
use storage::record::TableId;

use super::health::{shown, verdict};
use super::{Call, paging};
use crate::clock::{Clock, rfc3339};
use crate::http::{Answer, Body, json as answer};
use crate::metrics::{Format, Process, used_in_all};

pub(super) async fn status(call: &Call) -> Answer {
    let app = &call.app;
    let checks = app.readiness.checks(&app.storage).await;
    let now_ns = Clock::now_ns();
    let mut status = json!({
        "service": "floodmark",
        "version": env!("CARGO_PKG_VERSION"),
        "status": verdict(&checks, app.ingest.is_draining.load(Ordering::Relaxed)),
        "started_at": rfc3339(app.started_ns),
        "now": rfc3339(now_ns),
        "uptime_s": now_ns.saturating_sub(app.started_ns) / 1_000_000_000,
        "lanes": app.config.lane_count(),
        "connections": app.connections.load(Ordering::Relaxed),
        "checks": shown(&checks),
    });
    // Totals over all tenants are the operator's alone.
    if call.is_operator() {
        let levels = app.storage.levels();
        let memory = app.storage.memory();
        let process = Process::this();
        let pools: Map<String, Value> = Pool::ALL
            .into_iter()
            .map(|pool| {
                (pool.as_str().to_owned(), json!({ "used": memory.used(pool), "max": memory.max(pool) }))
            })
            .collect();
        status["memory"] = json!({
            "max_bytes": memory.memory_max(),
            "used_bytes": used_in_all(memory, &app.metrics.idle, &process),
            "resident_bytes": process.resident_bytes,
            "pools": pools,
        });
        status["tenants"] = json!(app.state.tenants().await.len());
        status["storage"] = json!({
            "wal_bytes": levels.wal_bytes,
            "hot_bytes": levels.hot_bytes,
            "hot_rows": levels.hot_rows,
            "tables": levels.tables,
            "files": levels.files,
        });
    }
    answer(200, &status)
}

/// Seals and commits everything acknowledged so far; answers when it is in the tables.
pub(super) async fn flush(call: &Call) -> Result<Answer, Refusal> {
    match call.app.storage.flush().await {
        Ok(rows) => Ok(answer(200, &json!({ "status": "flushed", "rows": rows }))),
        Err(error) => {
            tracing::warn!(correlation_id = %call.correlation.id, kind = ?error.kind(), "a flush failed");
            let detail = "the object store does not take it; nothing is lost";
            match error.kind() {
                ErrorKind::Corrupt | ErrorKind::Bug => Err(Refusal::new(500, "internal", "the flush failed")),
                _ => Err(Refusal::retry(503, "storage_unavailable", detail, 1)),
            }
        }
    }
}

/// The tenant's datasets that the caller reads, and how much each holds.
pub(super) async fn datasets(call: &Call) -> Result<Answer, Refusal> {
    let tenant = call.own_tenant();
    let retention = call.app.state.retention(tenant).await;
    let mut datasets: Vec<_> = call
        .app
        .storage
        .datasets(tenant)
        .into_iter()
        .filter(|(_, kind)| call.roles().reads(*kind))
        .map(|(dataset, kind)| {
            let snapshot = call.app.storage.snapshot(&TableId::new(tenant.clone(), dataset.clone()));
            let (mut rows, mut hot_rows, mut bytes, mut files, mut version) = (0, 0, 0, 0, None);
            if let Some(snapshot) = &snapshot {
                rows = snapshot.sealed_rows();
                bytes = snapshot.files.iter().map(|file| file.bytes).sum::<u64>();
                hot_rows = snapshot.hot_rows();
                files = snapshot.files.len();
                version = snapshot.version;
            }
            let shown = json!({
                "dataset": dataset.as_str(),
                "kind": kind.as_str(),
                "rows": rows + hot_rows,
                "unsealed_rows": hot_rows,
                "files": files,
                "bytes": bytes,
                "version": version,
                "retention_days": retention.days.get(dataset.as_str()),
            });
            (dataset.as_str().to_owned(), shown)
        })
        .collect();
    datasets.sort_by(|a, b| a.0.cmp(&b.0));
    paging::page(call, "datasets", &datasets)
}

pub(super) async fn metrics(call: &Call) -> Answer {
    let app = &call.app;
    let accept = call.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::of(accept);
    let tenants = app.state.tenants().await;
    let text = app.metrics.render(format, app, tenants.iter().map(|one| one.tenant.as_str()));
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(format.content_type()))];
    Answer { status: 200, headers, body: Body::Full(text.into()) }
}
