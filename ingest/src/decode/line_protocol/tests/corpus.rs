//! Lines that others wrote: the peers' own corpus, what real clients sent, and whole data sets.
//!
//! The files stand outside the repository; where they are absent each test says so and ends.

use std::path::PathBuf;

use base64::Engine as _;
use serde_json::Value;

use super::{Given, Row};
use crate::decode::{Limits, Precision};

/// A file of the shared data, unpacked; `None` where the data is absent.
fn shared(path: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("FLOODMARK_SHARED_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    let file = root.join(path);
    let Ok(bytes) = std::fs::read(&file) else {
        #[expect(clippy::print_stderr, reason = "a test that finds nothing to test says so")]
        {
            eprintln!("skipped: {} is absent", file.display());
        }
        return None;
    };
    let packed = path.ends_with(".zst");
    Some(if packed { zstd::decode_all(bytes.as_slice()).expect("the file is whole") } else { bytes })
}

fn everything() -> Limits {
    Limits { records_max: usize::MAX, future_ns_max: i64::MAX, ..Limits::default() }
}

#[test]
fn real_data_sets_decode_whole() {
    for (path, precision, accepted) in [
        ("metrics-lp/influxdb-air_and_water.seconds.lp", Precision::Second, 12),
        ("metrics-lp/influxdb-read_filter.lp.zst", Precision::Nanosecond, 10_000),
        ("metrics-lp/influxdb-telegraf-metrics.lp.zst", Precision::Nanosecond, 1_000),
        ("metrics-lp/nab-traffic-tweets.lp.zst", Precision::Nanosecond, 174_295),
        ("metrics-lp/nezha-onlineboutique-2022-08-22.lp.zst", Precision::Nanosecond, 12_090),
    ] {
        let Some(body) = shared(path) else { return };
        let given = Given { precision, limits: everything() };
        let decoded = given.decode(&body).0.expect("within limits");
        assert_eq!((decoded.accepted, &decoded.rejected[..]), (accepted, &[][..]), "{path}");
    }
}

/// How our decoder answers the corpus otherwise than the Go decoder it was made with, and why. Counted, so that a
/// change of behaviour shows.
const DIFFERENCES: &[(Difference, usize, &str)] = &[
    (Difference::WeAccept, 2, "we skip lines of tabs, and control characters in comments; they refuse both"),
    (
        Difference::Values,
        3,
        "they unescape n, r and t in strings; documented are the quote and the backslash only",
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    WeReject(&'static str),
    WeAccept,
    Values,
}

fn bytes(text: &Value) -> Vec<u8> {
    match text {
        Value::String(text) => text.clone().into_bytes(),
        binary => base64::engine::general_purpose::STANDARD
            .decode(binary["binary"].as_str().expect("base64 where it is no string"))
            .expect("base64"),
    }
}

/// The corpus' points as our rows would be.
fn expected(points: &Value) -> Vec<Row> {
    points.as_array().expect("points").iter().map(expected_row).collect()
}

fn expected_row(point: &Value) -> Row {
    let mut row = Row::new();
    row.insert("@event_type".to_owned(), point["name"].as_str().expect("a name").to_owned());
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    for field in point["fields"].as_array().expect("fields") {
        let (r#type, value) = field["value"].as_object().expect("a value").iter().next().expect("one value");
        let value = match r#type.as_str() {
            "int" | "uint" => format!("{value}i"),
            "float" => approximate(value.as_f64().expect("a number")),
            "bool" => value.to_string(),
            "string" => match text(value) {
                text if text.parse::<f64>().is_ok_and(|double| format!("{double:?}") == text) => {
                    approximate(text.parse().expect("checked"))
                }
                text => text,
            },
            other => panic!("unknown type {other}"),
        };
        row.insert(text(&field["key"]), value);
    }
    for tag in point["tags"].as_array().expect("tags") {
        let key = text(&tag["key"]);
        let key = if row.contains_key(&key) { format!("tag.{key}") } else { key };
        row.insert(key, text(&tag["value"]));
    }
    row
}

/// Our row without columns of its own, its overflow spread out.
fn comparable(mut row: Row) -> Row {
    row.remove("@time_ns");
    row.remove("@source");
    if let Some(json) = row.remove("_overflow") {
        let overflow: serde_json::Map<String, Value> = serde_json::from_str(&json).expect("an object");
        for (key, value) in overflow {
            let value = match value {
                Value::String(text) => text,
                Value::Number(number) if number.is_f64() => {
                    format!("{:?}", number.as_f64().expect("a double"))
                }
                Value::Number(number) => format!("{number}i"),
                other => other.to_string(),
            };
            row.insert(key, value);
        }
    }
    for value in row.values_mut() {
        // Integers and text end otherwise; a string field that looks like a double is the same on both sides.
        if let Some(double) = value.parse::<f64>().ok().filter(|double| format!("{double:?}") == *value) {
            *value = approximate(double);
        }
    }
    row
}

/// The JSON reader of these tests is one unit in the last place off at times, and has no -0.
fn approximate(double: f64) -> String {
    format!("{:.14e}", double + 0.0)
}

#[test]
fn the_peers_corpus_is_answered_as_they_do_but_for_listed_differences() {
    let Some(corpus) = shared("conformance/influx-line-protocol-corpus.jsonl.zst") else { return };
    let mut differences = std::collections::BTreeMap::new();
    let (mut both_accept, mut both_reject) = (0, 0);
    for line in std::str::from_utf8(&corpus).expect("JSON").lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        if case["kind"] != "decode" {
            continue;
        }
        let body = bytes(&case["input"]["text"]);
        let precision = match case["input"]["precision"].as_str().expect("a precision") {
            "1ns" => Precision::Nanosecond,
            "1ms" => Precision::Millisecond,
            "1s" => Precision::Second,
            _ => Precision::Microsecond,
        };
        let (decoded, rows) = Given { precision, limits: everything() }.rows(&body);
        let theirs = &case["output"]["result"];
        let difference = match (theirs.is_array(), decoded.rejected.first()) {
            (true, None) => {
                both_accept += 1;
                let times: Vec<_> = rows.iter().map(|row| row["@time_ns"].clone()).collect();
                let ours: Vec<_> = rows.into_iter().map(comparable).collect();
                let has_time = |point: &Value, time: &String| format!("{}i", point["time"]) == *time;
                let points = theirs.as_array().expect("checked");
                let now = Given { precision, limits: everything() }.rows(b"m v=1").1[0]["@time_ns"].clone();
                let same_times = points.len() == times.len()
                    && points.iter().zip(&times).all(|(point, time)| has_time(point, time) || *time == now);
                if ours == expected(theirs) && same_times {
                    continue;
                }
                Difference::Values
            }
            (false, Some(_)) => {
                both_reject += 1;
                continue;
            }
            (true, Some(bad)) => Difference::WeReject(bad.code),
            (false, None) => Difference::WeAccept,
        };
        *differences.entry(difference).or_insert(0) += 1;
    }
    let listed = DIFFERENCES.iter().map(|(difference, count, _)| (*difference, *count)).collect();
    assert_eq!((both_accept, both_reject, differences), (261, 4_085, listed));
}

#[test]
fn what_real_clients_sent_decodes_without_harm_to_neighbours() {
    for (path, accepted, rejected) in [
        ("captures/0069-node-influx2-plain.bin", 0, 50),
        ("captures/0074-py-influx2.bin", 30, 0),
        ("captures/0076-py-influx2-batch.bin", 10, 0),
    ] {
        let Some(body) = shared(path) else { return };
        let (decoded, rows) = Given { limits: everything(), ..Given::default() }.rows(&body);
        // The Node client does not escape a tag key's trailing backslash, so its key has no value; the newline
        // in the string behind it does not begin a record.
        assert_eq!((decoded.accepted, decoded.rejected_count), (accepted, rejected), "{path}");
        assert!(rows.iter().all(|row| row["@event_type"] == "cpu load"), "{path}");
    }
}
