//! Whether the process lives, and whether it can serve: by dependency.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use storage::Check;
use storage::memory::{Memory, Pool};

use crate::app::App;
use crate::clock::Clock;
use crate::http::{Answer, Body, json as answer};

/// How old a look may be: anybody may ask, and each look asks the object store.
const LOOK_AGE_MAX: Duration = Duration::from_secs(1);

/// What a small request takes of a pool, in bytes.
const SMALL_BYTES: u64 = 64 << 10;

/// The last look at what the engine depends on.
#[derive(Debug, Default)]
pub struct Readiness {
    last: tokio::sync::Mutex<Option<(u64, Vec<Check>)>>,
}

impl Readiness {
    /// The state of every dependency, at most a second old.
    pub async fn checks(&self, storage: &storage::Storage) -> Vec<Check> {
        let mut last = self.last.lock().await;
        let now_ns = Clock::monotonic_ns();
        if let Some((looked_ns, checks)) = &*last
            && u128::from(now_ns.saturating_sub(*looked_ns)) < LOOK_AGE_MAX.as_nanos()
        {
            return checks.clone();
        }
        let mut checks = storage.checks().await;
        checks.push(memory_check(storage.memory()));
        *last = Some((now_ns, checks.clone()));
        checks
    }
}

/// Whether every pool has room for a small request; a busy pool is no reason to send clients elsewhere, and only told.
fn memory_check(memory: &Memory) -> Check {
    let full: Vec<&str> = Pool::ALL
        .into_iter()
        .filter(|pool| !memory.has_room(*pool, None, SMALL_BYTES))
        .map(Pool::as_str)
        .collect();
    let detail = if full.is_empty() {
        format!("{} of {} bytes lent", memory.used_in_all(), memory.memory_max())
    } else {
        format!("pools that lend nothing for now: {}", full.join(", "))
    };
    Check { name: "memory", is_ok: true, detail }
}

/// `ready`, `degraded` while only reads or seals suffer, `not_ready` while nothing can be acknowledged.
pub(super) fn verdict(checks: &[Check], is_draining: bool) -> &'static str {
    // Acknowledged rows wait in the log while the object store is away; ingest goes on until a budget is full.
    let stops_ingest = |check: &Check| !check.is_ok && check.name != "object_store";
    match () {
        () if is_draining || checks.iter().any(stops_ingest) => "not_ready",
        () if checks.iter().any(|check| !check.is_ok) => "degraded",
        () => "ready",
    }
}

/// The checks as members of one object.
pub(super) fn shown(checks: &[Check]) -> Value {
    let one = |check: &Check| {
        let status = if check.is_ok { "ok" } else { "failing" };
        (check.name.to_owned(), json!({ "status": status, "detail": check.detail }))
    };
    Value::Object(checks.iter().map(one).collect::<Map<_, _>>())
}

pub(super) async fn ready(app: &App) -> Answer {
    let checks = app.readiness.checks(&app.storage).await;
    let status = verdict(&checks, app.ingest.is_draining.load(Ordering::Relaxed));
    let code = if status == "not_ready" { 503 } else { 200 };
    answer(code, &json!({ "status": status, "checks": shown(&checks) }))
}

pub(super) fn health() -> Answer {
    answer(200, &json!({ "status": "ok" }))
}

pub(super) fn live() -> Answer {
    answer(200, &json!({ "status": "alive", "service": "floodmark" }))
}

/// InfluxDB's clients look for a server of at least this version before they write.
pub(super) fn ping() -> Answer {
    let headers =
        vec![(HeaderName::from_static("x-influxdb-version"), HeaderValue::from_static("2.7.0-floodmark"))];
    Answer { status: 204, headers, body: Body::Full(Bytes::new()) }
}

#[cfg(test)]
mod tests {
    use storage::Check;

    use super::verdict;

    #[test]
    fn what_cannot_acknowledge_is_not_ready() {
        let check = |failing: &[&'static str], is_draining: bool, expected: &str| {
            let checks: Vec<Check> = ["wal", "hot_buffer", "disk", "object_store"]
                .into_iter()
                .map(|name| Check { name, is_ok: !failing.contains(&name), detail: String::new() })
                .collect();
            assert_eq!(verdict(&checks, is_draining), expected, "{failing:?}");
        };
        check(&[], false, "ready");
        check(&["object_store"], false, "degraded");
        check(&["disk"], false, "not_ready");
        check(&["wal", "object_store"], false, "not_ready");
        check(&[], true, "not_ready");
    }
}
