//! Latency quantiles are within 0.1 % of the exact ones, hot, sealed, restarted and merged.

use serde_json::Value;

use crate::harness::Server;

/// Durations as services have them: a log-normal-like spread over five decades.
fn durations() -> Vec<i64> {
    let mut state = 42_u64;
    (0..20_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (state >> 11) as f64 / (1_u64 << 53) as f64;
            (10_f64.powf(4.0 + 5.0 * unit)) as i64
        })
        .collect()
}

/// The smallest value that at least a share `q` of all values does not exceed.
fn exact(sorted: &[i64], q: f64) -> i64 {
    let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
    sorted[rank - 1]
}

fn check(server: &Server, sorted: &[i64], state: &str) {
    let reply = server.get("/api/v1/latency?source=api&q=0.5,0.9,0.95,0.99,0.999").json();
    let series = &reply["series"][0];
    assert_eq!(series["count"].as_u64(), Some(sorted.len() as u64), "{state}: {reply}");
    for (q, value) in series["quantiles"].as_object().unwrap() {
        let exact = exact(sorted, q.parse().unwrap()) as f64;
        let error = (value.as_f64().unwrap() - exact).abs() / exact;
        assert!(error <= 0.001, "{state}: q {q} is {value}, exact {exact}, off by {error}");
    }
}

#[test]
fn quantiles_are_exact_to_a_thousandth_over_restarts_and_windows() {
    let mut server = Server::start();
    let durations = durations();
    // Twelve windows, so that answers merge them.
    for (chunk, part) in durations.chunks(1_000).enumerate() {
        let body: String = part
            .iter()
            .enumerate()
            .map(|(n, duration)| {
                let time = 1_700_000_000 + (chunk as i64 * 37) + n as i64 % 60;
                format!("{{\"time\":{time},\"source\":\"api\",\"event_type\":\"call\",\"duration_ns\":{duration}}}\n")
            })
            .collect();
        assert_eq!(server.post("/api/v1/events", "application/x-ndjson", body.as_bytes()).status, 200);
        if chunk == 8 {
            server.flush();
        }
    }
    let mut sorted = durations;
    sorted.sort_unstable();
    check(&server, &sorted, "half sealed");
    server.kill();
    server.restart();
    check(&server, &sorted, "after kill -9");
    server.flush();
    check(&server, &sorted, "flushed");
    let reply = server.get("/api/v1/latency?source=api&step=60s").json();
    let points = reply["series"][0]["points"].as_array().unwrap().clone();
    let total: u64 = points.iter().filter_map(|point: &Value| point["count"].as_u64()).sum();
    assert_eq!(total, sorted.len() as u64);
    assert!(points.len() > 10, "{} points", points.len());
}
