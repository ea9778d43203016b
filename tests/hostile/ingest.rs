//! Bodies that are small and want much.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::{Body, JSON, NDJSON, Stage, is_told};

/// A thousand pairs of source and operation in one request.
fn pairs(request: u64) -> Body {
    let mut text = String::new();
    for pair in 0..1_000 {
        let _ = writeln!(
            text,
            "{{\"source\":\"s{request}-{pair}\",\"event_type\":\"o{pair}\",\"duration_ms\":{}}}",
            pair % 50
        );
    }
    Body::events(text).gzip()
}

fn spans_with_ids_in_their_names(request: u64) -> Body {
    let spans: Vec<String> = (0..1_000)
        .map(|span| {
            format!(
                "{{\"traceId\":\"{:032x}\",\"spanId\":\"{:016x}\",\"name\":\"GET /orders/{request}-{span}\",\
                 \"startTimeUnixNano\":\"1767225600000000000\",\"endTimeUnixNano\":\"1767225600{:09}\"}}",
                request + 1,
                span + 1,
                span * 1_000_003 % 1_000_000_000
            )
        })
        .collect();
    let text = format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{}]}}]}}]}}", spans.join(","));
    Body { content_type: JSON, target: "/v1/traces".into(), ..Body::events(text) }.gzip()
}

/// Twenty thousand series: neither the seal nor the start after a crash needs memory for each.
#[test]
fn many_series_end_neither_the_process_nor_a_start() {
    let mut stage = Stage::new(&[("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000")]);
    stage.within_megabytes(400, |stage| {
        for request in 0..20 {
            assert_eq!(stage.send(&pairs(request)).status, 200);
            assert_eq!(stage.send(&spans_with_ids_in_their_names(request)).status, 200);
        }
        // Before anything is sealed: the log brings every row back.
        stage.bounded.server.kill();
        stage.bounded.server.restart();
        stage.is_served();
        stage.flush();
        stage.is_served();
    });
    assert_eq!(stage.count("SELECT count(*) FROM events"), 20_000);
    assert_eq!(stage.count("SELECT count(*) FROM spans"), 20_000);
}

/// Three hundred attributes once, then rows that have none of them.
fn sparse() -> Body {
    let fields: Vec<String> = (0..300).map(|at| format!("\"k{at}\":\"v\"")).collect();
    Body::events(format!("{{{}}}\n{}", fields.join(","), "{}\n".repeat(99_999))).gzip()
}

#[test]
fn columns_that_one_row_has_cost_the_others_nothing() {
    let mut stage = Stage::new(&[]);
    stage.within_megabytes(350, |stage| {
        let before = stage.bounded.server.wal_bytes();
        let answer = stage.send(&sparse());
        is_told(&answer, "a sparse body");
        let logged = stage.bounded.server.wal_bytes() - before;
        assert!(logged <= 192 << 20, "{logged} bytes of log");
    });
    stage.within_megabytes(600, |stage| {
        let stage_ref = &*stage;
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..16).map(|_| scope.spawn(|| stage_ref.send(&sparse()))).collect();
            for one in all {
                is_told(&one.join().unwrap(), "one of sixteen");
            }
        });
        stage.is_served();
    });
}

/// Text that looks like JSON with an escape cut off before a character of several bytes, beside a card and a password.
#[test]
fn an_escape_before_a_character_is_kept_or_masked_and_never_told() {
    let mut stage = Stage::new(&[]);
    let odd = [
        "{\"\\u00z€abcd\":0}",
        "{\"\\u€\":\"\\ud83d\\u€\"}",
        "%u00€ \\x4€ {\"a\":\"\\U0001f60€\"}",
        "[\"\\u00z€\",{\"p€\\u00€\":1}]",
    ];
    let mut text = String::new();
    for (n, odd) in odd.iter().enumerate() {
        let record = serde_json::json!({"n": n, "message": odd, "nested": {"k": odd}, "password": "hunter2secret", "card": "4111111111111111"});
        let _ = writeln!(text, "{record}\n{{\"n\":{}}}", n + 100);
    }
    let answer = stage.send(&Body::events(text));
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(stage.count("SELECT count(*) FROM events"), 2 * odd.len() as i64, "the batch goes on");
    stage.is_served();
    let log = stage.bounded.server.log.lock().unwrap().clone();
    for secret in ["hunter2secret", "4111111111111111", "abcd"] {
        assert!(!log.contains(secret), "the log tells {secret}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn thousands_of_dates_do_not_keep_others_from_sealing() {
    let mut stage = Stage::new(&[("FLOODMARK_STORAGE__SEAL_AGE_MS", "300")]);
    let text: String = (0..5_000).map(|day| format!("{{\"time\":{}}}\n", day * 86_400)).collect();
    is_told(&stage.send(&Body::events(text).gzip()), "five thousand dates");
    let table = stage.bounded.server.data().join("store/tenant/calm/events");
    let files = || {
        let dates = std::fs::read_dir(&table).into_iter().flatten().flatten();
        dates.filter_map(|date| std::fs::read_dir(date.path()).ok()).flatten().count()
    };
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..3 {
        let before = files();
        stage.is_served();
        let begun = Instant::now();
        while files() == before {
            assert!(begun.elapsed() < Duration::from_secs(8), "another tenant's row is not sealed");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A small budget, and a tenant that sends more than can be sealed.
#[test]
fn who_fills_the_hot_budget_is_refused_first() {
    let environment = [("FLOODMARK_MEMORY_MAX", "192MiB"), ("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000")];
    let mut stage = Stage::new(&environment);
    let line = format!("{{\"message\":\"{}\"}}\n", "some text of a record ".repeat(20));
    let body = Body::events(line.repeat(2_000));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    let (refused, evil_refused) = std::thread::scope(|scope| {
        let stage = &stage;
        let heavy: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let mut refused = 0;
                    while !is_over.load(order) {
                        let answer = stage.send(&body);
                        is_told(&answer, "a heavy body");
                        refused += u32::from(answer.status == 503);
                    }
                    refused
                })
            })
            .collect();
        let _ends = super::Ends(&is_over);
        std::thread::sleep(Duration::from_secs(3));
        let mut refused = 0;
        for _ in 0..100 {
            let one =
                stage.ask(&stage.calm, "POST", "/api/v1/events", &[("Content-Type", NDJSON)], b"{\"n\":1}\n");
            refused += u32::from(one.status != 200);
            std::thread::sleep(Duration::from_millis(30));
        }
        is_over.store(true, order);
        (refused, heavy.into_iter().map(|one| one.join().unwrap()).sum::<u32>())
    });
    println!("the heavy tenant was refused {evil_refused} times, the other {refused} of 100");
    assert!(refused <= 3, "{refused} of 100 small requests of another tenant are refused");
    stage.is_served();
}

/// One lane for everybody, and bodies that take it long.
#[test]
fn a_heavy_body_leaves_its_lane_to_others_now_and_then() {
    let mut stage = Stage::new(&[("FLOODMARK_LANES", "1")]);
    let mut text = String::new();
    for row in 0..20_000 {
        let _ = writeln!(text, "{{\"a{row}\":1,\"b{row}\":2,\"c{row}\":3,\"d{row}\":4,\"e{row}\":5}}");
    }
    let body = Body::events(text);
    let slowest = std::thread::scope(|scope| {
        let stage = &stage;
        let heavy: Vec<_> =
            (0..4).map(|_| scope.spawn(|| is_told(&stage.send(&body), "distinct keys"))).collect();
        let mut slowest = Duration::ZERO;
        while heavy.iter().any(|one| !one.is_finished()) {
            let begun = Instant::now();
            let one =
                stage.ask(&stage.calm, "POST", "/api/v1/events", &[("Content-Type", NDJSON)], b"{\"n\":1}\n");
            assert_eq!(one.status, 200, "{}", String::from_utf8_lossy(&one.body));
            slowest = slowest.max(begun.elapsed());
            std::thread::sleep(Duration::from_millis(50));
        }
        slowest
    });
    println!("slowest small request beside: {slowest:?}");
    assert!(slowest <= super::SERVED_WITHIN, "a small request beside a heavy body took {slowest:?}");
    stage.is_served();
}

#[test]
fn one_tenants_datasets_are_bounded_and_anothers_are_not_touched() {
    let mut stage = Stage::new(&[("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000")]);
    let ingest = stage.bounded.server.key(&stage.evil, "ingest");
    let mut refused = None;
    let mut wire = None;
    for number in 0..3_000 {
        let target = format!("/api/v1/events?dataset=d{number}");
        let authorization = format!("Bearer {ingest}");
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", NDJSON)];
        let open = wire
            .get_or_insert_with(|| crate::adversary::wire::Wire::connect(stage.bounded.server.addr).unwrap());
        let answer = open.ask("POST", &target, &headers, b"{\"a\":1}\n").unwrap();
        if answer.status != 200 {
            is_told(&answer, &target);
            refused = Some((number, answer.status));
            break;
        }
    }
    println!("refused at: {refused:?}");
    assert!(refused.is_some(), "an ingest key makes datasets without end");
    stage.is_served();
    let theirs =
        stage.ask(&stage.calm, "POST", "/api/v1/events?dataset=mine", &[("Content-Type", NDJSON)], b"{}\n");
    assert_eq!(theirs.status, 200, "{}", String::from_utf8_lossy(&theirs.body));
}

/// Memory of a burst is given back once there is nothing to do.
#[test]
fn memory_comes_back_after_a_burst() {
    let mut stage = Stage::new(&[("FLOODMARK_STORAGE__SEAL_AGE_MS", "500")]);
    let line = format!("{{\"message\":\"{}\",\"n\":1}}\n", "some text of a record ".repeat(40));
    let body = Body::events(line.repeat(8_000));
    {
        let stage = &stage;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..3 {
                        is_told(&stage.send(&body), "a burst");
                    }
                });
            }
        });
    }
    stage.is_served();
    let begun = Instant::now();
    let at_most = stage.idle + (48 << 20);
    while stage.bounded.used() > at_most {
        let used = stage.bounded.used() >> 20;
        assert!(
            begun.elapsed() < Duration::from_secs(40),
            "{used} MiB are held, idle was {} MiB",
            stage.idle >> 20
        );
        std::thread::sleep(Duration::from_millis(250));
    }
}

#[test]
fn the_first_of_all_times_is_bounded() {
    let mut stage = Stage::new(&[]);
    for time in
        [i64::MIN.to_string(), i64::MAX.to_string(), "\"-262144-01-01T00:00:00Z\"".into(), "-1e300".into()]
    {
        is_told(&stage.send(&Body::events(format!("{{\"time\":{time},\"n\":1}}\n{{\"n\":2}}\n"))), &time);
    }
    stage.flush();
    stage.is_served();
    assert!(stage.count("SELECT count(*) FROM events") >= 4, "what is good beside it is stored");
}

/// How far what the gauges count and what the process holds may be apart, and by how much whatever they are.
const APART_MAX: f64 = 0.25;
const APART_BYTES: f64 = (24 << 20) as f64;

/// The budgets count what is there: growth by the gauges is growth of the process, whatever was sent.
#[test]
fn the_gauges_say_what_the_process_holds() {
    let environment = [
        ("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000"),
        ("FLOODMARK_STORAGE__SEAL_ROWS", "100000000"),
        ("FLOODMARK_LANES", "1"),
    ];
    let mut apart = Vec::new();
    for kind in [
        "tiny records",
        "sparse rows",
        "distinct keys",
        "distinct sources and operations",
        "tiny logs",
        "audit records",
    ] {
        let stage = Stage::new(&environment);
        let scene = crate::adversary::scene::Scene::default();
        *scene.addr.lock().unwrap() = Some(stage.bounded.server.addr);
        let pid = stage.bounded.server.pid();
        let look = || {
            let gauge = crate::adversary::gauge(&scene).expect("the server has gauges of memory");
            (gauge as f64, crate::harness::place::anonymous(pid) as f64)
        };
        let before = look();
        let kind = crate::adversary::bodies::KINDS.into_iter().find(|(name, _)| *name == kind).unwrap();
        for seed in 0..4 {
            let body = crate::adversary::bodies::greedy(kind, &mut crate::kill::random::Random(seed));
            is_told(&stage.send(&body), kind.0);
        }
        // What was freed waits a second for its next use before it is given back.
        let is_apart =
            |counted: f64, real: f64| (counted - real).abs() > APART_MAX * real.max(counted) + APART_BYTES;
        let begun = Instant::now();
        let (counted, real) = loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = look();
            let (counted, real) = (now.0 - before.0, now.1 - before.1);
            if !is_apart(counted, real) || begun.elapsed() > Duration::from_secs(20) {
                break (counted, real);
            }
        };
        println!(
            "{}: the gauges grew by {:.1} MB, the process by {:.1} MB",
            kind.0,
            counted / 1e6,
            real / 1e6
        );
        if is_apart(counted, real) {
            apart.push(format!("{}: {counted} and {real}", kind.0));
        }
    }
    assert!(apart.is_empty(), "{apart:#?}");
}
