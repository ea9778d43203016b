//! Queries that are short and want much.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Body, Stage, is_told};

const TIME_MAX: (&str, &str) = ("FLOODMARK_QUERY__TIME_MAX_MS", "2000");
/// An answer at the limit, on a machine that does other things too.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

fn furnished(environment: &[(&str, &str)]) -> Stage {
    let stage = Stage::new(environment);
    let text: String = (0..20_000)
        .map(|n| format!("{{\"source\":\"s{}\",\"n\":{n},\"message\":\"message {n}\"}}\n", n % 9))
        .collect();
    assert_eq!(stage.send(&Body::events(text)).status, 200);
    stage
}

/// Each is answered, at its limit at the latest; nothing of it stays.
fn is_answered(stage: &mut Stage, statements: &[String]) {
    stage.within_megabytes(450, |stage| {
        for statement in statements {
            let begun = Instant::now();
            let answer = stage.sql(statement);
            let took = begun.elapsed();
            println!("{} after {took:?}: {statement:.100}", answer.status);
            is_told(&answer, statement);
            assert!(took <= ANSWERED_WITHIN, "{took:?} for {statement:.300}");
            stage.is_served();
        }
    });
}

#[test]
fn statements_that_make_much_of_little_end_nothing() {
    let mut stage = furnished(&[TIME_MAX]);
    let statements = [
        "select repeat(repeat(repeat(repeat('x', 10000), 10000), 10000), 10000)",
        "select length(repeat(repeat(repeat(message, 10000), 10000), 10000)) from events",
        "select lpad(lpad(lpad('x', 10000, repeat('a', 10000)), 10000), 10000)",
        "select lpad('x', n * 100000) from events",
        "select replace(replace(replace(repeat('x', 10000), 'x', repeat('x', 10000)), 'x', repeat('x', 10000)), 'x', 'y')",
        "select array_repeat(array_repeat(array_repeat(array_repeat(1, 10000), 10000), 10000), 10000)",
        "select array_resize(make_array(1), 2000000000)",
        "select arrow_cast(NULL, 'FixedSizeList(2000000000, Int64)')",
        "select arrow_cast(NULL, 'FixedSizeBinary(2000000000)') from events",
        "select array_agg(repeat(message, 10000)) from events a",
        "select string_agg(a.message || b.message, repeat(',', 10000)) from events a, events b",
        "select concat(repeat(message, 10000), repeat(message, 10000)) from events",
        "select translate(repeat('x', 10000), 'x', repeat('ß', 10000)), regexp_replace(repeat('x', 10000), '', repeat('y', 10000), 'g')",
    ];
    is_answered(&mut stage, &statements.map(str::to_owned));
}

#[test]
fn statements_that_run_on_are_ended_at_their_limit() {
    let mut stage = furnished(&[TIME_MAX]);
    let doubling = (1..24).fold("with t0 as (select * from events)".to_owned(), |text, level| {
        format!("{text}, t{level} as (select a.* from t{0} a join t{0} b on a.id = b.id)", level - 1)
    });
    let nested = (0..25).fold("select id from events".to_owned(), |text, _| {
        format!("select id from events where id in ({text}) or id in (select id from events)")
    });
    let cube: Vec<String> = (2..18).map(|at| format!("n % {at}")).collect();
    let statements = [
        "select levenshtein(repeat('a', 10000), repeat('b', 10000)) from events".to_owned(),
        "select sum(levenshtein(repeat(a.message, 900), repeat(b.message, 900))) from events a, events b"
            .to_owned(),
        "select count(*) from events a, events b, events c where a.id < b.id and b.id < c.id".to_owned(),
        "select * from events a full join events b on a.n > b.n full join events c on b.n > c.n".to_owned(),
        "select regexp_like(repeat('a', 10000), '(a{1,100}){1,100}b') from events".to_owned(),
        "select a.* from events a, events b order by a.message || b.message limit 5".to_owned(),
        format!("{doubling} select count(*) from t23"),
        nested,
        format!("select count(*) from events group by cube({})", cube.join(", ")),
        "with recursive r as (select 1 as n union all select n + 1 from r) select count(*) from r".to_owned(),
    ];
    is_answered(&mut stage, &statements);
}

/// Two of them at once, and another tenant's `select 1` meanwhile.
#[test]
fn statements_that_do_not_yield_block_nobody() {
    let mut stage = furnished(&[TIME_MAX]);
    let query = "select levenshtein(repeat('a', 10000), repeat('b', 10000)) from events a, events b";
    for _ in 0..3 {
        let shared = &stage;
        let (slowest, answers) = std::thread::scope(|scope| {
            let heavy: Vec<_> = (0..4).map(|_| scope.spawn(|| shared.sql(query))).collect();
            let mut slowest = Duration::ZERO;
            while heavy.iter().any(|one| !one.is_finished()) {
                let begun = Instant::now();
                let one = shared.ask(
                    &shared.calm,
                    "POST",
                    "/api/v1/sql",
                    &[("Content-Type", "application/json")],
                    b"{\"query\":\"select 1\"}",
                );
                assert_eq!(one.status, 200, "{}", String::from_utf8_lossy(&one.body));
                slowest = slowest.max(begun.elapsed());
                std::thread::sleep(Duration::from_millis(100));
            }
            (slowest, heavy.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>())
        });
        answers.iter().for_each(|answer| is_told(answer, query));
        assert!(slowest <= super::SERVED_WITHIN, "another tenant's select 1 took {slowest:?}");
    }
    stage.is_served();
}

/// Thirty who ask for everything and take nothing of it.
#[test]
fn readers_that_do_not_read_hold_little() {
    let mut stage = furnished(&[]);
    stage.within_megabytes(450, |stage| {
        let mut held: Vec<TcpStream> = Vec::new();
        for _ in 0..30 {
            let body = json!({"query": "select a.*, repeat(b.message, 100) from events a, events b"}).to_string();
            let head = format!(
                "POST /api/v1/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
                 Accept: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{body}",
                stage.evil,
                body.len()
            );
            let mut stream = TcpStream::connect(stage.bounded.server.addr).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            held.push(stream);
        }
        for _ in 0..8 {
            std::thread::sleep(Duration::from_secs(1));
            stage.is_served();
        }
    });
}

/// Wide rows and long lists: a page ends, and says where the next begins.
#[test]
fn lists_end_at_so_many_bytes_and_go_on_by_their_cursor() {
    let mut stage = Stage::new(&[]);
    let mut random = crate::kill::random::Random(1);
    for request in 0..6 {
        let mut text = String::new();
        for n in request * 500..(request + 1) * 500 {
            // Noise, so that it is not refused for how far it inflates where it lies compressed.
            let noise: String = (0..1_000).map(|_| format!("{:016x}", random.next())).collect();
            text += &format!("{{\"id\":\"e{n}\",\"message\":\"{noise}\"}}\n");
        }
        let answer = stage.send(&Body::events(text));
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }
    let (mut ids, mut cursor, mut pages) = (std::collections::HashSet::new(), String::new(), 0);
    stage.within_megabytes(400, |stage| {
        loop {
            let target = format!("/api/v1/events?limit=10000{cursor}");
            let page = stage.bounded.server.send(&stage.evil, "GET", &target, &[], b"");
            assert_eq!(page.status, 200, "{}", page.text());
            let page = page.json();
            for event in page["events"].as_array().unwrap() {
                assert!(ids.insert(event["id"].as_str().unwrap().to_owned()), "twice");
            }
            pages += 1;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
    });
    println!("{pages} pages");
    assert_eq!(ids.len(), 3_000);
    assert!(pages > 1, "a page of 48 MB");
}

/// Listing datasets looks at no row.
#[test]
fn listing_datasets_takes_no_memory_for_rows() {
    let mut stage = Stage::new(&[("FLOODMARK_STORAGE__SEAL_AGE_MS", "3600000")]);
    let fields: Vec<String> = (0..300).map(|at| format!("\"k{at}\":\"v\"")).collect();
    is_told(&stage.send(&Body::events(format!("{{{}}}\n", fields.join(",")))), "wide");
    for _ in 0..9 {
        is_told(&stage.send(&Body::events("{}\n".repeat(10_000)).gzip()), "narrow");
    }
    stage.idle = stage.bounded.used();
    let evil = stage.evil.clone();
    stage.within_megabytes(64, |stage| {
        for _ in 0..5 {
            assert_eq!(stage.bounded.server.send(&evil, "GET", "/api/v1/datasets", &[], b"").status, 200);
        }
    });
}

#[test]
fn audit_is_read_by_those_who_may_alone() {
    let stage = Stage::new(&[]);
    let record =
        br#"{"actor_type":"user","actor_id":"a","action":"b","resource_type":"c","correlation_id":"shared"}"#;
    let sent = stage.ask(&stage.evil, "POST", "/api/v1/audit", &[("Content-Type", super::NDJSON)], record);
    assert_eq!(sent.status, 200);
    let (analyst, auditor) =
        (stage.bounded.server.key(&stage.evil, "analyst"), stage.bounded.server.key(&stage.evil, "auditor"));
    let query = json!({"query": "SELECT * FROM audit"});
    let status = |key: &str| stage.call(key, "POST", "/api/v1/sql", &query).status;
    assert!(matches!(status(&analyst), 403 | 404), "{}", status(&analyst));
    assert_eq!((status(&auditor), status(&stage.evil)), (200, 200));
    let correlated = |key: &str| {
        let found = stage.bounded.server.send(key, "GET", "/api/v1/correlations/shared", &[], b"");
        if found.status == 404 { 0 } else { found.json()["audit"].as_array().map_or(0, Vec::len) }
    };
    assert_eq!((correlated(&analyst), correlated(&auditor)), (0, 1));
    assert_eq!(stage.bounded.server.send(&analyst, "GET", "/api/v1/audit/traces", &[], b"").status, 403);
}

/// A sum of sums of sums: the same however deep it is written.
#[test]
fn a_column_of_a_nested_query_is_what_it_says() {
    let stage = Stage::new(&[]);
    assert_eq!(stage.send(&Body::events("{\"n\":10}\n")).status, 200);
    let nested = (0..4).fold("select n as x from events".to_owned(), |text, level| {
        if level == 0 { text } else { format!("select x + x as x from ({text})") }
    });
    assert_eq!(stage.count(&nested), 80);
    let same_name =
        "select x from (select x + x x from (select x + x x from (select x + x x from (select 10 x))))";
    let answer = stage.sql(same_name);
    let right = answer.status != 200 || stage.count(same_name) == 80;
    assert!(right, "{}", String::from_utf8_lossy(&answer.body));
}

/// A cell that a spreadsheet takes for a formula is written as text.
#[test]
fn cells_of_csv_are_no_formulas() {
    let stage = Stage::new(&[]);
    for text in ["=1+1", "+1", "-1+cmd", "@x", "\\n=1+1", "\\t=1", "\\r=1", " =1"] {
        assert_eq!(stage.send(&Body::events(format!("{{\"message\":\"{text}\"}}\n"))).status, 200);
    }
    let body = json!({"query": "SELECT message FROM events"}).to_string();
    let headers = [("Content-Type", "application/json"), ("Accept", "text/csv")];
    let csv = stage.bounded.server.send(&stage.evil, "POST", "/api/v1/sql", &headers, body.as_bytes()).text();
    // A cell may hold a line's end of its own; a row ends with both signs.
    for cell in csv.split("\r\n").skip(1) {
        let cell = cell.trim_start_matches('"');
        // A number stays a number, with its sign.
        let is_formula = cell.starts_with(['=', '+', '@', '\t']) && cell.parse::<f64>().is_err();
        assert!(!is_formula, "{csv:?}");
    }
    assert!(!csv.contains("\"\n=") && !csv.contains("\"\r="), "{csv:?}");
}
