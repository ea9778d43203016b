//! SQL: what it answers, refuses, cuts and gives back.

use super::*;

#[tokio::test]
async fn sql_answers_exactly() {
    let fixture = shop().await;
    for (sql, expected) in [
        ("SELECT count(*) AS n FROM events", json!([{"n": 5}])),
        ("SELECT count(*) AS n FROM spans", json!([{"n": 0}])),
        ("SELECT count(*) AS n FROM events WHERE time_ns >= 1767323047000000000", json!([{"n": 3}])),
        ("SELECT count(*) AS n FROM events WHERE time < '2026-01-02T03:04:06Z'", json!([{"n": 1}])),
        ("SELECT id FROM events WHERE price > 1", json!([{"id": "e2"}])),
        (
            "SELECT id, price, \"attr.source\" FROM events WHERE id IN ('e0', 'e3') ORDER BY id",
            json!([{"id": "e0", "price": null, "attr.source": null},
                   {"id": "e3", "price": null, "attr.source": "named like a column"}]),
        ),
        (
            "SELECT id, attr('order') AS v FROM events WHERE attr('order') IS NOT NULL ORDER BY id",
            json!([{"id": "e0", "v": "7"}, {"id": "e2", "v": "seven"}, {"id": "e3", "v": "8"}]),
        ),
        (
            "SELECT attr('a b') AS x, attr('raw') AS y, attr('never') AS z FROM events WHERE id = 'e3'",
            json!([{"x": "true", "y": "AQI=", "z": null}]),
        ),
        (
            "SELECT attr('tags') AS t, attr('price') AS p FROM events e WHERE e.id = 'e2'",
            json!([{"t": "[1,\"x\"]", "p": "1.5"}]),
        ),
        (
            "SELECT v, count(*) AS n FROM (SELECT attr('source') AS v FROM events) GROUP BY v ORDER BY n",
            json!([{"v": "named like a column", "n": 1}, {"v": null, "n": 4}]),
        ),
        (
            "SELECT avg(severity_number) AS d, min(time) AS t FROM events",
            json!([{"d": 15.6, "t": "2026-01-02T03:04:05Z"}]),
        ),
        ("SELECT id FROM events ORDER BY attr('order') DESC NULLS LAST LIMIT 1", json!([{"id": "e2"}])),
    ] {
        let reply = fixture.sql(sql).await.unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
        assert_eq!(reply["rows"], expected, "{sql}");
        assert_eq!(reply["row_count"], expected.as_array().unwrap().len(), "{sql}");
        assert_eq!(reply["truncated"], false, "{sql}");
    }
    let reply = fixture.sql("SELECT id, time_ns, price, time FROM events LIMIT 1").await.unwrap();
    assert_eq!(
        reply["columns"],
        json!([{"name": "id", "type": "text"}, {"name": "time_ns", "type": "int"},
               {"name": "price", "type": "double"}, {"name": "time", "type": "timestamp"}])
    );
}

#[tokio::test]
async fn sql_refuses_what_it_should() {
    let fixture = shop().await;
    for (sql, status) in [
        ("SELECT nope FROM events", 400),
        ("SELECT nope(1)", 400),
        ("SELECT attr(id) FROM events", 400),
        ("SELECT attr('x', 'y') FROM events", 400),
        ("SELECT $1", 400),
        ("SELECT CAST(id AS BIGINT) FROM events", 400),
        ("SELECT 1/0", 400),
        ("SELECT 1; SELECT 2", 400),
        ("SELECT * FROM '/etc/passwd'", 400),
        ("EXPLAIN SELECT 1", 400),
    ] {
        let refusal = fixture.sql(sql).await.unwrap_err();
        assert_eq!(refusal.status, status, "{sql}: {refusal:?}");
    }
    for body in
        ["", "{}", "[]", "[\"SELECT 1\"]", "{\"query\":1}", "{\"query\":\"SELECT 1\",\"more\":1}", "SELECT 1"]
    {
        let mut request = fixture::request(Endpoint::Sql);
        request.body = body.as_bytes().to_vec().into();
        assert_eq!(fixture.ask_as("a", &[Role::Admin], request).await.unwrap_err().status, 400, "{body}");
    }
    let long = format!("SELECT '{}'", "x".repeat(10 << 20));
    assert_eq!(fixture.sql(&long).await.unwrap_err().status, 413);
}

#[tokio::test]
async fn long_results_are_cut_or_streamed() {
    let mut fixture = Fixture::new();
    let many = |draft: &mut Draft| {
        for at in 0..12_000 {
            row(draft, T0 + at, "s", |_| {});
        }
    };
    fixture.table("a", "events", Kind::Events, &[(Sealed::Yes, &many), (Sealed::No, &many)]).await;
    let reply = fixture.sql("SELECT seq FROM events").await.unwrap();
    assert_eq!((reply["row_count"].as_u64(), reply["truncated"].as_bool()), (Some(10_000), Some(true)));
    let ask = |accept: &'static str| {
        let request = sql_request("SELECT seq FROM events ORDER BY seq", Some(accept));
        fixture.ask_as("a", &[Role::Analyst], request)
    };
    let lines = streamed(ask("application/x-ndjson").await.unwrap()).await;
    assert_eq!(lines.split(|byte| *byte == b'\n').count(), 24_001);
    assert!(lines.starts_with(b"{\"seq\":0}\n{\"seq\":1}\n"));
    let lines = streamed(ask("text/csv").await.unwrap()).await;
    assert_eq!(lines.split(|byte| *byte == b'\n').count(), 24_002);
    let stream = streamed(ask("application/vnd.apache.arrow.stream").await.unwrap()).await;
    let rows: usize = arrow::ipc::reader::StreamReader::try_new(&stream[..], None)
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 24_000);
}

// Q7: memory and products are bounded, and the pool is empty afterwards.
#[tokio::test]
async fn queries_past_their_bounds_say_so() {
    let mut fixture = Fixture::new();
    let many = |draft: &mut Draft| {
        for at in 0..20_000 {
            row(draft, T0 + at, "s", |d| d.set_text(Field::Message, &format!("{at:0>200}")));
        }
    };
    fixture.table("a", "events", Kind::Events, &[(Sealed::Yes, &many), (Sealed::No, &many)]).await;
    fixture.options.memory_bytes = 1 << 20;
    for sql in [
        "SELECT message, row_number() OVER (ORDER BY message) AS n FROM events",
        "SELECT message, count(*) FROM events GROUP BY message ORDER BY 2",
        "SELECT count(*) FROM events a, events b, events c, events d",
        "SELECT count(*) FROM events a CROSS JOIN events b CROSS JOIN events c WHERE a.seq + b.seq > c.seq",
    ] {
        let refusal = fixture.sql(sql).await.unwrap_err();
        assert_eq!((refusal.status, refusal.code), (422, "query_limit"), "{sql}: {}", refusal.detail);
    }
}

// B1: what a function would make is known before it is made, constants folded while planning included.
#[tokio::test]
async fn functions_say_how_much_they_would_make() {
    let mut fixture = Fixture::new();
    let many = |draft: &mut Draft| {
        for at in 0..5_000 {
            row(draft, T0 + at, "s", |d| d.set_text(Field::Message, &"ab ".repeat(70)));
        }
    };
    fixture.table("a", "events", Kind::Events, &[(Sealed::No, &many)]).await;
    let long = "repeat('ab', 10000)";
    for (function, sql) in [
        ("repeat", format!("SELECT length(repeat({long}, 10000))")),
        ("repeat", format!("SELECT max(length(repeat(message || {long}, 1000))) FROM events")),
        ("array_repeat", format!("SELECT cardinality(array_repeat({long}, 10000))")),
        ("replace", format!("SELECT length(replace({long}, 'a', {long}))")),
        ("concat", format!("SELECT max(length(concat(message, {long}))) FROM events")),
        ("lpad", "SELECT max(length(lpad(message, 10000))) FROM events".to_owned()),
        ("array_to_string", format!("SELECT length(array_to_string(string_to_array({long}, 'b'), {long}))")),
    ] {
        let refusal = fixture.sql(&sql).await.unwrap_err();
        assert_eq!((refusal.status, refusal.code), (422, "query_limit"), "{sql}: {}", refusal.detail);
        assert!(
            refusal.detail.contains(&format!("function {function} would make")),
            "{sql}: {}",
            refusal.detail
        );
    }
    // A condition that the reader of files could work out is refused in the same words.
    let mut sealed = Fixture::new();
    sealed.table("a", "events", Kind::Events, &[(Sealed::Yes, &many)]).await;
    for of in [&fixture, &sealed] {
        let sql = "SELECT count(*) FROM events WHERE repeat(message, 10000) LIKE '%a%'";
        let refusal = of.sql(sql).await.unwrap_err();
        assert_eq!((refusal.status, refusal.code), (422, "query_limit"), "{}", refusal.detail);
        assert!(refusal.detail.contains("function repeat would make"), "{}", refusal.detail);
        let sql = "SELECT count(*) FROM events WHERE CAST(message AS BIGINT) > 5";
        let refusal = of.sql(sql).await.unwrap_err();
        assert_eq!((refusal.status, refusal.code), (400, "invalid_query"), "{}", refusal.detail);
        let reply = of.sql("SELECT count(*) AS v FROM events WHERE repeat(message, 2) LIKE 'ab %'").await;
        assert_eq!(reply.unwrap()["rows"], json!([{"v": 5_000}]));
    }
    for (sql, expected) in [
        ("SELECT repeat('ab', 3) AS v", json!([{"v": "ababab"}])),
        ("SELECT lpad('a', 3, 'x') AS v", json!([{"v": "xxa"}])),
        ("SELECT concat('a', 1, NULL) AS v", json!([{"v": "a1"}])),
        ("SELECT replace('aXa', 'X', 'yy') AS v", json!([{"v": "ayya"}])),
        // The estimate of all rows together is far above the bound, and what comes out is not.
        (
            "SELECT count(*) AS v FROM events WHERE regexp_replace(message, 'a', '[\\0]', 'g') LIKE '[a]b %'",
            json!([{"v": 5_000}]),
        ),
        ("SELECT max(length(repeat(message, 10))) AS v FROM events", json!([{"v": 2_100}])),
    ] {
        let reply = fixture.sql(sql).await.unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
        assert_eq!(reply["rows"], expected, "{sql}");
    }
}

// F40: bytes that are not what was written end one query, by name.
#[tokio::test]
async fn corrupt_objects_are_named() {
    use object_store::{ObjectStoreExt, PutPayload, path::Path};
    let fixture = shop().await;
    let path = Path::parse("tenant/a/events/date=2026-01-02/0001.parquet").unwrap();
    let good = fixture.store.get(&path).await.unwrap().bytes().await.unwrap();
    let mut failed = 0;
    for at in (0..good.len()).step_by(good.len() / 60) {
        let mut bad = good.to_vec();
        for byte in bad.iter_mut().skip(at).take(8) {
            *byte ^= 0xa5;
        }
        fixture.store.put(&path, PutPayload::from(bad)).await.unwrap();
        if let Err(refusal) = fixture.get(Endpoint::Events, "", "").await {
            assert!(matches!(refusal.status, 500 | 422), "{at}: {refusal:?}");
            if refusal.code == "corrupt_object" {
                assert!(refusal.detail.contains("events/date=2026-01-02/0001.parquet"), "{refusal:?}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0);
    fixture.store.delete(&path).await.unwrap();
    let refusal = fixture.get(Endpoint::Events, "", "").await.unwrap_err();
    assert_eq!((refusal.status, refusal.code), (500, "corrupt_object"));
    // What does not need the file still answers.
    let reply = fixture.get(Endpoint::Events, "", "source=shop").await.unwrap();
    assert_eq!(ids(&reply, "events", "id"), ["e4", "e1", "e0"]);
}

// Q6: the longest chain that the guard lets through is planned and run on a query thread's stack.
#[test]
fn the_longest_chains_do_not_overflow_the_stack() {
    let run = std::thread::Builder::new().stack_size(64 << 20).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new();
            for sql in [
                format!("SELECT 1{} AS n", "+1".repeat(999)),
                format!("SELECT id FROM events WHERE id = 'a'{}", " OR id || 'b' = 'a'".repeat(300)),
                format!("SELECT id FROM events WHERE id IN ('a'{})", ",'b'".repeat(9_999)),
                format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(60)),
                format!("SELECT {}1{}", "(".repeat(30), ")".repeat(30)),
            ] {
                let reply = fixture.sql(&sql).await;
                assert!(reply.is_ok(), "{}: {reply:?}", &sql[..60]);
            }
        });
    });
    run.unwrap().join().unwrap();
}

// A trace is looked up by bloom filters: the condition stands in the Parquet scan, and files outside of the time
// asked for are not opened.
#[tokio::test]
async fn conditions_reach_the_files() {
    use datafusion::logical_expr::{col, lit};
    let fixture = traced().await;
    let sessions = Sessions::new(64 << 20, 1);
    let view = fixture.view("a", &[Role::Analyst]);
    let budget = crate::budget::Budget::new(view.memory(), view.tenant());
    let session = sessions.open(&view, &budget).unwrap();
    let snapshot = std::sync::Arc::new(fixture.snapshots[0].clone());
    let condition = col("trace_id").eq(lit("x")).and(col("time_ns").gt_eq(lit(T0 + 60)));
    let plan =
        session.read(&snapshot).unwrap().filter(condition).unwrap().create_physical_plan().await.unwrap();
    let text = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
    assert!(text.contains("predicate=trace_id@"), "{text}");
    assert!(text.contains("0001.parquet") && !text.contains("0000.parquet"), "{text}");
}

/// A name that each level gives anew is each level's own.
#[tokio::test]
async fn nested_names_are_each_their_own() {
    let mut fixture = Fixture::new();
    let one = |draft: &mut Draft| row(draft, T0, "s", |d| d.set_int(Field::DurationNs, 10));
    fixture.table("a", "events", Kind::Events, &[(Sealed::No, &one)]).await;
    for inner in ["select 10 x", "select duration_ns x from events", "select cast(10 as bigint) as x"] {
        for depth in [0, 1, 2, 3, 7] {
            let mut sql = inner.to_owned();
            for _ in 0..depth {
                sql = format!("select x+x x from ({sql})");
            }
            let reply = fixture.sql(&format!("select x from ({sql})")).await.unwrap();
            assert_eq!(reply["rows"], json!([{"x": 10 << depth}]), "{sql}");
        }
    }
}

// B1: a long reply is on its way before it is whole; a short one comes with its length.
#[tokio::test]
async fn a_long_reply_is_not_held_until_its_end() {
    let mut fixture = Fixture::new();
    let rows = |draft: &mut Draft| {
        for at in 0..20 {
            row(draft, T0 + at, "s", |d| d.set_text(Field::Message, &"x".repeat(100_000)));
        }
    };
    fixture.table("a", "events", Kind::Events, &[(Sealed::No, &rows)]).await;
    for accept in [None, Some("text/csv"), Some("application/x-ndjson")] {
        for (limit, is_streamed) in [(5, false), (20, true)] {
            let request = sql_request(&format!("SELECT message FROM events LIMIT {limit}"), accept);
            let answer = fixture.ask_as("a", &[Role::Analyst], request).await.unwrap();
            let is_stream = matches!(answer.body, crate::query::Body::Stream(_));
            assert_eq!(is_stream, is_streamed, "{limit} {accept:?}");
        }
    }
}
