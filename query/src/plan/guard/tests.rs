//! F29, Q3–Q6: what is no single query over plain tables never reaches the planner.

use super::{Refused, SQL_BYTES_MAX, check};

fn tables(sql: &str) -> Vec<String> {
    check(sql).unwrap_or_else(|refused| panic!("{sql}: {refused}")).tables.into_iter().collect()
}

#[test]
fn queries_pass_and_name_their_tables() {
    for (sql, expected) in [
        ("SELECT 1", vec![]),
        ("SELECT * FROM events", vec!["events"]),
        ("SELECT * FROM EVENTS;", vec!["events"]),
        ("SELECT * FROM \"Events\"", vec!["Events"]),
        ("SELECT * FROM events e JOIN spans s ON e.trace_id = s.trace_id", vec!["events", "spans"]),
        ("WITH x AS (SELECT * FROM logs) SELECT * FROM x", vec!["logs"]),
        ("SELECT * FROM (SELECT * FROM logs) WHERE id IN (SELECT id FROM audit)", vec!["audit", "logs"]),
        ("SELECT 1 UNION ALL SELECT 2", vec![]),
        ("VALUES (1), (2)", vec![]),
        ("SELECT repeat('a', 10), \"http.status\" FROM events ORDER BY 1 LIMIT 5", vec!["events"]),
        ("SELECT count(*) FILTER (WHERE severity_number >= 17) FROM events GROUP BY source", vec!["events"]),
        ("SELECT '; DROP TABLE events' FROM events -- ; DELETE", vec!["events"]),
    ] {
        assert_eq!(tables(sql), expected, "{sql}");
    }
}

#[test]
fn anything_else_is_refused() {
    for sql in [
        "",
        ";",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "INSERT INTO events VALUES (1)",
        "INSERT INTO events SELECT * FROM events",
        "UPDATE events SET id = 1",
        "DELETE FROM events",
        "DROP TABLE events",
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW x AS SELECT 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "COPY events TO '/tmp/x'",
        "COPY (SELECT 1) TO 'x.csv'",
        "SET datafusion.catalog.information_schema = true",
        "SHOW TABLES",
        "SHOW ALL",
        "DESCRIBE events",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "BEGIN",
        "USE other",
        "SELECT * INTO x FROM events",
        "TABLE events",
        "SELECT * FROM events FOR UPDATE",
        "WITH x AS (DELETE FROM events RETURNING *) SELECT * FROM x",
        "WITH x AS (INSERT INTO events VALUES (1) RETURNING *) SELECT * FROM x",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 's3://bucket/x.parquet'",
        "SELECT * FROM \"file:///etc/passwd\"",
        "SELECT * FROM \"../b/events\"",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM generate_series(1, 1000000000)",
        "SELECT * FROM TABLE(range(1, 10))",
        "SELECT * FROM LATERAL FLATTEN(x)",
        "SELECT * FROM UNNEST([1,2])",
        "SELECT generate_series(1, 1000000000000)",
        "SELECT repeat('a', 1000000000000)",
        "SELECT repeat('a', seq) FROM events",
        "SELECT lpad('a', 10 * 1000000)",
        "SELECT public.abs(1)",
        "SELEC 1",
        "SELECT 'open",
        "SELECT ((1)",
    ] {
        assert!(check(sql).is_err(), "{sql}");
    }
}

#[test]
fn names_with_a_schema_are_of_no_table() {
    for sql in [
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM datafusion.public.events",
        "SELECT * FROM public.events",
        "SELECT * FROM b.events",
        "SELECT id FROM events WHERE id IN (SELECT table_name FROM information_schema.tables)",
    ] {
        assert_eq!(check(sql).unwrap_err(), Refused::Qualified, "{sql}");
    }
}

// Q6: long, deep and wide statements cost no stack and little time.
#[test]
fn bounds_hold_without_recursion() {
    // On the stack that threads of queries have (query.rs): a build without optimisation needs most of it.
    let held = std::thread::Builder::new().stack_size(64 << 20).spawn(bounds_hold).unwrap().join();
    assert!(held.is_ok());
}

fn bounds_hold() {
    let too_complex = |sql: String| {
        let refused = check(&sql).unwrap_err();
        assert!(matches!(refused, Refused::TooComplex { .. }), "{}: {refused}", &sql[..60]);
    };
    too_complex(format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)));
    too_complex(format!("SELECT {}1{}", "[".repeat(10_000), "]".repeat(10_000)));
    too_complex(format!("SELECT {}true", "NOT ".repeat(10_000)));
    too_complex(format!("SELECT {}1", "- ".repeat(10_000)));
    too_complex(format!("SELECT 1{}", "+1".repeat(100_000)));
    too_complex(format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(10_000)));
    too_complex(format!("SELECT 1 WHERE true{}", " AND true".repeat(100_000)));
    let list = check(&format!("SELECT 1 WHERE 1 IN (1{})", ",1".repeat(10_000))).unwrap_err();
    assert_eq!(list, Refused::TooComplex { what: "items in a list", limit: 10_000 });
    too_complex(format!("SELECT {} 1 {}", "CASE WHEN true THEN ".repeat(5_000), "END ".repeat(5_000)));
    too_complex(format!("SELECT * FROM events{}", ", events".repeat(100)));
    too_complex(format!("SELECT 1{}", "::int".repeat(10_000)));
    assert!(check(&format!("SELECT 1 WHERE 1 IN (1{})", ",1".repeat(9_999))).is_ok());
    assert!(check(&format!("SELECT 1 WHERE true{}", " AND true".repeat(500))).is_ok());
    let long = format!("SELECT '{}'", "x".repeat(10 << 20));
    assert_eq!(check(&long).unwrap_err(), Refused::TooLong { bytes: long.len() });
    assert!(long.len() > SQL_BYTES_MAX);
}

// B1: a function that makes much of little is given a length, and no large one.
#[test]
fn functions_that_grow_are_given_a_small_length() {
    for function in ["repeat", "lpad", "rpad", "array_repeat", "list_repeat", "array_resize", "list_resize"] {
        let of = |length: u64| check(&format!("SELECT {function}(a, {length}) FROM events"));
        assert!(of(10_000).is_ok(), "{function}");
        assert_eq!(of(10_001).unwrap_err(), Refused::Function(function));
    }
}

#[test]
fn refusals_quote_no_values() {
    let refused = check("SELECT 'a secret' 'b' + FROM 'another secret' 'c'").unwrap_err();
    assert!(!refused.to_string().contains("secret"), "{refused}");
}

fn too_complex(sql: &str) -> bool {
    matches!(check(sql), Err(Refused::TooComplex { .. }))
}

/// `c0` has one table, each further expression two uses of the one before it.
fn doubling(depth: usize, of: &str) -> String {
    let mut sql = format!("WITH c0 AS (SELECT {of} FROM events)");
    for at in 1..=depth {
        sql.push_str(&format!(", c{at} AS (SELECT x.* FROM c{} x, c{} y)", at - 1, at - 1));
    }
    format!("{sql} SELECT * FROM c{depth}")
}

// B1: what a few hundred bytes come to once every use is written out.
#[test]
fn common_table_expressions_count_at_each_use() {
    let run = std::thread::Builder::new().stack_size(64 << 20).spawn(count_at_each_use);
    run.unwrap().join().unwrap();
}

fn count_at_each_use() {
    assert!(check(&doubling(5, "1")).is_ok());
    assert!(too_complex(&doubling(8, "1")), "more than 256 relations");
    let sum = format!("1{}", "+1".repeat(900));
    assert!(check(&doubling(3, &sum)).is_ok());
    assert!(too_complex(&doubling(6, &sum)), "more than 100,000 expressions");
    let nested = "WITH a AS (WITH a AS (SELECT 1) SELECT * FROM a, a b, a c) SELECT * FROM a, a b";
    assert!(check(nested).is_ok());
    let within = doubling(8, "1").replace("SELECT * FROM c8", "SELECT 1 WHERE EXISTS (SELECT * FROM c8)");
    assert!(too_complex(&within));
}

// B1
#[test]
fn grouping_sets_are_bounded() {
    let columns = |count: usize| (0..count).map(|at| format!("c{at}")).collect::<Vec<_>>().join(",");
    let grouped = |by: String| format!("SELECT count(*) FROM events GROUP BY {by}");
    assert!(check(&grouped(format!("CUBE({})", columns(6)))).is_ok());
    assert!(too_complex(&grouped(format!("CUBE({})", columns(7)))));
    assert!(too_complex(&grouped(format!("CUBE({})", columns(100)))));
    assert!(check(&grouped(format!("ROLLUP({})", columns(60)))).is_ok());
    assert!(too_complex(&grouped(format!("ROLLUP({})", columns(64)))));
    assert!(too_complex(&grouped("CUBE(a,b,c,d), CUBE(e,f,g)".into())));
    assert!(too_complex(&grouped("ROLLUP(a,b,c,d,e,f,g), CUBE(h,i,j,k)".into())));
    let sets = vec!["(a)"; 65].join(",");
    assert!(too_complex(&grouped(format!("GROUPING SETS ({sets})"))));
}

#[test]
fn casts_go_to_open_types_only() {
    for open in [
        "SELECT CAST(a AS BIGINT), a::text, CAST(a AS DOUBLE), a::timestamp, TIMESTAMP '2026-01-02'",
        "SELECT TRY_CAST(a AS DECIMAL(10, 2)), CAST(a AS INT[]), DATE '2026-01-02', CAST(a AS VARCHAR(10))",
        "SELECT arrow_cast(a, 'Int64'), arrow_cast(a, 'Timestamp(Nanosecond, Some(\"UTC\"))')",
        "SELECT INTERVAL '1 hour', CAST(a AS BOOLEAN), CAST(a AS BYTEA)",
    ] {
        assert!(check(open).is_ok(), "{open}: {:?}", check(open).err());
    }
    for closed in [
        "SELECT arrow_cast(NULL, 'FixedSizeList(2000000000, Int64)')",
        "SELECT arrow_cast(NULL, 'FixedSizeBinary(2000000000)')",
        "SELECT arrow_cast('a', 'Dictionary(Int32, Utf8)')",
        "SELECT arrow_cast('a', 'List(Int64)')",
        "SELECT arrow_try_cast(NULL, ' FixedSizeList (2000000000, Int64)')",
        "SELECT arrow_cast(a, b) FROM events",
        "SELECT arrow_cast(a, 'Utf' || '8') FROM events",
        "SELECT CAST(NULL AS INT[2000000000])",
        "SELECT NULL::INT[2000000000]",
        "SELECT CAST(NULL AS INT[][2000000000])",
        "SELECT CAST(NULL AS FIXEDSTRING(2000000000))",
        "SELECT CAST(NULL AS STRUCT<a INT>)",
        "SELECT CAST(NULL AS MAP(INT, INT))",
        "SELECT CAST(a AS anything)",
    ] {
        assert!(check(closed).is_err(), "{closed}");
    }
}
