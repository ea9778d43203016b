//! The end of a row's life, over HTTP: policies, holds, runs, jobs; and rows that come late or from far away.

use serde_json::{Value, json};

use crate::harness::{KEY, Response, Server};

const DAY_NS: i64 = 86_400_000_000_000;
const NDJSON: &str = "application/x-ndjson";

fn call(server: &Server, key: &str, method: &str, target: &str, body: &Value) -> Response {
    let headers = [("Content-Type", "application/json")];
    server.send(key, method, target, &headers, body.to_string().as_bytes())
}

fn code(response: &Response) -> String {
    response.json()["code"].as_str().unwrap_or_default().to_owned()
}

/// The server's own clock, in nanoseconds, as its status says.
fn now_ns(server: &Server) -> i64 {
    let now: jiff::Timestamp =
        server.get("/api/v1/system/status").json()["now"].as_str().unwrap().parse().unwrap();
    i64::try_from(now.as_nanosecond()).unwrap()
}

fn send_events(server: &Server, key: &str, times_ns: &[i64]) {
    let body: String = times_ns.iter().map(|at| format!("{{\"time\":{at}}}\n")).collect();
    let response = server.send(key, "POST", "/api/v1/events", &[("Content-Type", NDJSON)], body.as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["accepted"], times_ns.len(), "{}", response.text());
}

fn events(server: &Server) -> i64 {
    server.count("SELECT count(*) FROM events")
}

/// Files of a dataset below the store, by their date.
fn dates(server: &Server, dataset: &str) -> Vec<String> {
    let root = server.data().join("store/tenant/default").join(dataset);
    let mut dates: Vec<String> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_prefix("date=").map(str::to_owned))
        .collect();
    dates.sort();
    dates
}

/// M2: a policy is what was asked for, or refused with its reason; it survives a restart.
#[test]
fn a_policy_is_set_and_kept() {
    let mut server = Server::start();
    let route = "/api/v1/retention";
    let put = |server: &Server, body: Value| call(server, KEY, "PUT", route, &body);
    for days in [0, -1, i64::MIN] {
        let refused = put(&server, json!({"dataset": "events", "days": days}));
        assert_eq!((refused.status, code(&refused).as_str()), (422, "below_floor"), "{days}");
    }
    for body in [
        json!({"dataset": "events"}),
        json!({"days": 1}),
        json!({"dataset": "events", "days": "7"}),
        json!({"dataset": "events", "days": 1.5}),
        json!({"dataset": "events", "days": 7, "tenant": "acme"}),
    ] {
        assert_eq!(put(&server, body.clone()).status, 400, "{body}");
    }
    for dataset in ["nothing", "reports", "../events", ""] {
        assert_eq!(put(&server, json!({"dataset": dataset, "days": 7})).status, 404, "{dataset}");
    }
    let set = put(&server, json!({"dataset": "events", "days": 30}));
    assert_eq!((set.status, set.json()), (200, json!({"dataset": "events", "days": 30})));
    assert_eq!(put(&server, json!({"dataset": "audit", "days": 3650})).status, 200);
    assert_eq!(put(&server, json!({"dataset": "audit", "days": null})).status, 200);
    server.kill();
    server.restart();
    let listed = server.get(route).json();
    let days = |dataset: &str| {
        let all = listed["retention"].as_array().unwrap();
        all.iter().find(|one| one["dataset"] == dataset).map(|one| one["days"].clone())
    };
    assert_eq!(days("events"), Some(json!(30)));
    assert_eq!((days("audit"), days("spans")), (Some(Value::Null), Some(Value::Null)));
    assert!(listed["next_cursor"].is_null());

    // T1: another tenant has policies of its own, and its operator none.
    let acme = server.tenant("acme");
    let theirs = call(&server, &acme, "GET", route, &Value::Null).json();
    assert!(theirs["retention"].as_array().unwrap().iter().all(|one| one["days"].is_null()), "{theirs}");
    assert_eq!(server.send(&server.key(&acme, "auditor"), "GET", route, &[], b"").status, 403);
}

/// R1: a dry run tells what the run removes, a hold wins, and what was removed stays removed.
#[test]
fn a_run_removes_what_the_dry_run_told() {
    let mut server = Server::start();
    let now = now_ns(&server);
    let run = |server: &Server, is_dry: bool| {
        call(server, KEY, "POST", "/api/v1/retention/run", &json!({"dataset": "events", "dry_run": is_dry}))
    };
    send_events(&server, KEY, &[now - 40 * DAY_NS, now - 40 * DAY_NS + 1, now - 3 * DAY_NS]);
    server.flush();
    send_events(&server, KEY, &[now - 20 * DAY_NS, now]);
    let forever = run(&server, false);
    assert_eq!((forever.status, forever.json()["rows"].as_i64()), (200, Some(0)), "no policy, nothing goes");
    let policy = json!({"dataset": "events", "days": 7});
    assert_eq!(call(&server, KEY, "PUT", "/api/v1/retention", &policy).status, 200);

    let hold = json!({"dataset": "events", "reason": "case 4711"});
    let placed = call(&server, KEY, "POST", "/api/v1/holds", &hold);
    assert_eq!(placed.status, 201, "{}", placed.text());
    let id = placed.json()["id"].as_str().unwrap().to_owned();
    server.kill();
    server.restart();
    for is_dry in [true, false] {
        let held = run(&server, is_dry);
        assert_eq!((held.status, code(&held).as_str()), (409, "on_hold"));
    }
    assert_eq!(events(&server), 5, "the hold wins, also after kill -9");
    let listed = server.get("/api/v1/holds").json();
    assert_eq!(listed["holds"][0]["reason"], "case 4711");
    let acme = server.tenant("acme");
    let release = |key: &str| server.send(key, "DELETE", &format!("/api/v1/holds/{id}"), &[], b"").status;
    assert_eq!(release(&acme), 404, "T1: another tenant's hold is not there");
    assert_eq!((release(KEY), release(KEY)), (204, 404));

    let dry = run(&server, true);
    assert_eq!(dry.status, 200, "{}", dry.text());
    let dry = dry.json();
    assert_eq!(dry["rows"], 3);
    assert_eq!(dry["leaving"].as_array().unwrap().len() as i64, dry["files"].as_i64().unwrap());
    assert_eq!(events(&server), 5);
    let real = run(&server, false).json();
    for field in ["rows", "files", "bytes", "leaving"] {
        assert_eq!(real[field], dry[field], "{field}");
    }
    assert_eq!(events(&server), 2);
    let report = std::fs::read_to_string(server.data().join("store").join(real["report"].as_str().unwrap()));
    let report: Value = serde_json::from_str(&report.unwrap()).unwrap();
    assert_eq!((&report["rows"], &report["days"]), (&json!(3), &json!(7)));
    server.kill();
    server.restart();
    assert_eq!(events(&server), 2);
    let jobs = server.get("/api/v1/jobs").json();
    assert!(
        jobs["jobs"].as_array().unwrap().iter().any(|job| job["result"]["report"] == real["report"]),
        "{jobs}"
    );
}

/// C18: what is older than the dataset's retention is refused by its reason, and the reason is in the metrics.
#[test]
fn what_is_too_old_is_refused_and_counted() {
    let server = Server::start();
    let now = now_ns(&server);
    send_events(&server, KEY, &[now - 40 * DAY_NS]);
    let policy = json!({"dataset": "events", "days": 7});
    assert_eq!(call(&server, KEY, "PUT", "/api/v1/retention", &policy).status, 200);
    let body = format!(
        "{{\"time\":{}}}\n{{\"time\":{}}}\n{{\"time\":{}}}\n",
        now - 8 * DAY_NS,
        now - 6 * DAY_NS,
        now + DAY_NS
    );
    let response = server.post("/api/v1/events", NDJSON, body.as_bytes());
    assert_eq!(
        (response.status, response.json()["accepted"].as_i64()),
        (200, Some(1)),
        "{}",
        response.text()
    );
    let codes: Vec<Value> =
        response.json()["rejected"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
    assert_eq!(codes, ["too_old", "too_new"]);
    let metrics = server.get("/metrics").text();
    for code in ["too_old", "too_new"] {
        let line = metrics.lines().find(|line| {
            line.starts_with("floodmark_ingest_records_rejected")
                && line.contains(&format!("code=\"{code}\""))
        });
        assert!(line.is_some_and(|line| line.ends_with(" 1") || line.ends_with(" 1.0")), "{code}: {line:?}");
    }
}

/// Issue 3, late data: every event time inside policy lands in its own date, and is found there.
#[test]
fn every_time_lands_in_its_own_date() {
    let server = Server::start();
    let now = now_ns(&server);
    let day = |at: i64| {
        let at = jiff::Timestamp::from_nanosecond(i128::from(at)).unwrap();
        at.strftime("%Y-%m-%d").to_string()
    };
    let ahead = now + 3_500_000_000_000;
    // Integers are read by magnitude, so far times are sent as text.
    let times = [
        ("1970-01-01T00:00:00Z".to_owned(), "1970-01-01".to_owned()),
        ("1969-12-31T23:59:59.999999999Z".into(), "1969-12-31".into()),
        ("1930-01-01T00:00:00Z".into(), "1930-01-01".into()),
        ("2024-02-29T00:00:00Z".into(), "2024-02-29".into()),
        ("2024-02-28T23:59:59.999999999Z".into(), "2024-02-28".into()),
        ("2024-02-29T01:00:00+02:00".into(), "2024-02-28".into()),
        (jiff::Timestamp::from_nanosecond(i128::from(ahead)).unwrap().to_string(), day(ahead)),
    ];
    let body: String = times.iter().map(|(time, _)| format!("{{\"time\":\"{time}\"}}\n")).collect();
    let response = server.post("/api/v1/events", NDJSON, body.as_bytes());
    assert_eq!(response.json()["accepted"], times.len(), "{}", response.text());
    // `past_days_max`: a clock that is centuries behind is not believed.
    let good = &times[0].0;
    let body = format!("{{\"time\":\"1700-01-01T00:00:00Z\"}}\n{{\"time\":\"{good}\",\"n\":2}}\n");
    let before = server.post("/api/v1/events", NDJSON, body.as_bytes()).json();
    assert_eq!(before["rejected"][0]["code"], "too_old", "{before}");
    server.flush();
    let mut expected: Vec<String> = times.iter().map(|(_, date)| date.clone()).collect();
    expected.sort();
    expected.dedup();
    assert_eq!(dates(&server, "events"), expected);
    for (time, _) in &times {
        let at: jiff::Timestamp = time.parse().unwrap();
        let next = at + jiff::SignedDuration::from_nanos(1);
        let found = server.get(&format!("/api/v1/events?from={at}&to={next}")).json();
        let beside = usize::from(time == good);
        assert_eq!(found["events"].as_array().map(Vec::len), Some(1 + beside), "{time}: {found}");
    }
}

/// Issue 3, late data: a trace whose spans arrive days late, over several seals, is read whole.
#[test]
fn a_trace_that_arrives_late_is_whole() {
    let server = Server::start();
    let now = now_ns(&server);
    let trace = "0c".repeat(16);
    for (n, days) in [0, 9, 3, 40, 1].into_iter().enumerate() {
        let at = now - days * DAY_NS;
        let span = json!({
            "traceId": trace, "spanId": format!("{:016x}", n + 1), "name": "late",
            "startTimeUnixNano": at.to_string(), "endTimeUnixNano": (at + 5).to_string(),
        });
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).to_string();
        assert_eq!(server.post("/v1/traces", "application/json", body.as_bytes()).status, 200);
        if n != 4 {
            server.flush();
        }
    }
    let found = server.get(&format!("/api/v1/traces/{trace}")).json();
    assert_eq!(found["span_count"], 5, "{found}");
    let ids: Vec<&str> =
        found["spans"].as_array().unwrap().iter().map(|span| span["span_id"].as_str().unwrap()).collect();
    let order: Vec<String> = [4, 2, 3, 5, 1].iter().map(|n| format!("{n:016x}")).collect();
    assert_eq!(ids, order, "in the order in which they began");
}

/// Jobs: asked for by name, listed newest first, found by id, and not by another tenant.
#[test]
fn jobs_are_asked_for_and_remembered() {
    let mut server = Server::start();
    send_events(&server, KEY, &[now_ns(&server)]);
    server.flush();
    let mut ids = Vec::new();
    for kind in ["checkpoint", "sweep", "retention"] {
        let asked = call(&server, KEY, "POST", "/api/v1/jobs", &json!({"kind": kind}));
        assert_eq!(asked.status, 202, "{}", asked.text());
        let asked = asked.json();
        assert_eq!((&asked["kind"], asked["status"].is_string()), (&json!(kind), true));
        ids.push(asked["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(call(&server, KEY, "POST", "/api/v1/jobs", &json!({"kind": "defragment"})).status, 400);
    for id in &ids {
        let begun = std::time::Instant::now();
        loop {
            let job = server.get(&format!("/api/v1/jobs/{id}")).json();
            if job["status"] == "succeeded" {
                assert!(job["started_at"].is_string() && job["ended_at"].is_string(), "{job}");
                break;
            }
            assert!(job["status"] != "failed" && begun.elapsed().as_secs() < 30, "{job}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    let checkpoint = server.get(&format!("/api/v1/jobs/{}", ids[0])).json();
    assert!(checkpoint["result"]["checkpoints"].as_i64().unwrap() >= 1, "{checkpoint}");
    server.terminate();
    server.restart();
    let listed = server.get("/api/v1/jobs").json();
    let found: Vec<&str> =
        listed["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    let newest_first: Vec<&str> = ids.iter().rev().map(String::as_str).collect();
    assert_eq!(found, newest_first, "they survive a restart");

    // T1: a tenant's admin sees none of them, and its own concern its own tables.
    let acme = server.tenant("acme");
    assert_eq!(server.send(&acme, "GET", &format!("/api/v1/jobs/{}", ids[0]), &[], b"").status, 404);
    let own = call(&server, &acme, "POST", "/api/v1/jobs", &json!({"kind": "sweep"})).json();
    let job =
        server.send(&acme, "GET", &format!("/api/v1/jobs/{}", own["id"].as_str().unwrap()), &[], b"").json();
    assert_eq!(job["tenant"], "acme");
    let foreign =
        call(&server, &acme, "POST", "/api/v1/jobs", &json!({"kind": "sweep", "tenant": "default"}));
    assert_eq!(foreign.status, 403);
}

/// The commands say and do what the routes do.
#[test]
fn the_command_line_manages_retention_holds_and_jobs() {
    let server = Server::start();
    let now = now_ns(&server);
    send_events(&server, KEY, &[now - 9 * DAY_NS, now]);
    let (exit, set) = server.command(&["retention", "set", "events", "7"]);
    assert_eq!((exit, set), (Some(0), json!({"dataset": "events", "days": 7})));
    let (_, placed) = server.command(&["hold", "place", "events", "case 12"]);
    let (_, held) = server.command(&["hold", "list"]);
    assert_eq!(held["holds"][0]["id"], placed["id"]);
    let (exit, _) = server.command(&["hold", "release", placed["id"].as_str().unwrap()]);
    assert_eq!(exit, Some(0));
    let (_, dry) = server.command(&["retention", "run", "events", "--dry-run"]);
    assert_eq!((&dry["rows"], events(&server)), (&json!(1), 2));
    let (_, real) = server.command(&["retention", "run", "events"]);
    assert_eq!((&real["rows"], events(&server)), (&json!(1), 1));
    let (_, forever) = server.command(&["retention", "set", "events", "forever"]);
    assert_eq!(forever["days"], Value::Null);
    let (_, asked) = server.command(&["job", "run", "checkpoint"]);
    let (_, jobs) = server.command(&["job", "list"]);
    assert_eq!(jobs["jobs"][0]["id"], asked["id"]);
}
