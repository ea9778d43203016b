//! Every real payload goes in with `floodmark send`, and is counted: sent = accepted + rejected, each rejected with
//! a reason; accepted = what SQL counts, hot, after kill -9, and flushed.

use std::collections::BTreeMap;
use std::path::Path;

use opentelemetry_proto::tonic::collector::{logs::v1 as logs, trace::v1 as trace};
use prost::Message as _;
use serde_json::Value;

use crate::harness::{Server, shared_data, shared_folder};

/// How one file is sent, and where its records land.
struct Payload {
    path: String,
    arguments: &'static [&'static str],
    table: &'static str,
}

/// What the folder's files are; `None` for those of other protocols.
fn how_sent(path: &str) -> Option<(&'static [&'static str], &'static str)> {
    let (folder, name) = path.split_once('/')?;
    Some(match folder {
        "audit" | "pii" => (&["--as", "ndjson"], "events"),
        "logs" if name.contains(".log.") => (&["--as", "text"], "events"),
        "logs" => (&["--as", "ndjson"], "events"),
        "metrics-lp" if name.contains(".seconds.") => (&["--as", "lines", "--precision", "s"], "events"),
        "metrics-lp" => (&["--as", "lines"], "events"),
        "traces" if name.contains(".otlp-traces.") => (&["--as", "otlp-traces"], "spans"),
        "traces" if name.contains(".spans.") => (&["--as", "ndjson"], "events"),
        "conformance" => match name {
            "otlp/proto-example-trace.json" => (&["--as", "otlp-traces"], "spans"),
            "otlp/proto-example-logs.json" | "otlp/proto-example-events.json" => {
                (&["--as", "otlp-logs"], "logs")
            }
            _ => return None,
        },
        _ => return None,
    })
}

/// What was recorded from real clients, by the path they posted to.
fn captures() -> Vec<Payload> {
    let Some(index) = shared_data("captures/index.jsonl") else { return Vec::new() };
    let index = String::from_utf8(index).unwrap();
    let lines = index.lines().filter(|line| !line.is_empty());
    lines
        .filter_map(|line| {
            let capture: Value = serde_json::from_str(line).unwrap();
            let target = capture["path"].as_str()?;
            let (arguments, table): (&'static [&'static str], _) = match target.split('?').next()? {
                "/v1/traces" => (&["--as", "otlp-traces"], "spans"),
                "/v1/logs" => (&["--as", "otlp-logs"], "logs"),
                "/api/v2/write" => (&["--as", "lines", "--precision", "ns"], "events"),
                "/v1/events" => (&["--as", "ndjson"], "events"),
                _ => return None,
            };
            let path = format!("captures/{}", capture["body_file"].as_str()?);
            Some(Payload { path, arguments, table })
        })
        .collect()
}

fn files(root: &Path, folder: &Path, found: &mut Vec<Payload>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            files(root, &entry, found);
        } else {
            let path = entry.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if let Some((arguments, table)) = how_sent(&path) {
                found.push(Payload { path, arguments, table });
            }
        }
    }
}

/// Counts the records of a file without any of Floodmark's own code.
fn records(payload: &Payload) -> u64 {
    let mut body = shared_data(&payload.path).unwrap();
    if body.starts_with(&[0x1f, 0x8b]) {
        let mut inflated = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut inflated).unwrap();
        body = inflated;
    }
    let is_json = body.first() == Some(&b'{');
    let count = match payload.arguments[1] {
        "otlp-traces" if is_json => of_json(&body, ["resourceSpans", "scopeSpans", "spans"]),
        "otlp-logs" if is_json => of_json(&body, ["resourceLogs", "scopeLogs", "logRecords"]),
        "otlp-traces" => {
            let request = trace::ExportTraceServiceRequest::decode(&body[..]).unwrap();
            let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            scopes.map(|scope| scope.spans.len()).sum()
        }
        "otlp-logs" => {
            let request = logs::ExportLogsServiceRequest::decode(&body[..]).unwrap();
            let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
            scopes.map(|scope| scope.log_records.len()).sum()
        }
        // A line that begins with a space goes on within a quoted text, in the one capture that has such.
        "lines" => lines(&body).filter(|line| line[0] != b'#' && line[0] != b' ').count(),
        // One document over many lines, as curl sends it, is one event or an array of them.
        _ if payload.path.ends_with(".json") => match serde_json::from_slice::<Value>(&body) {
            Ok(Value::Array(events)) => events.len(),
            Ok(_) => 1,
            Err(_) => lines(&body).count(),
        },
        _ => lines(&body).count(),
    };
    count as u64
}

fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty())
}

fn of_json(body: &[u8], [resources, scopes, records]: [&str; 3]) -> usize {
    let requests = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let mut count = 0;
    for request in requests {
        for resource in request.unwrap()[resources].as_array().unwrap() {
            for scope in resource[scopes].as_array().unwrap() {
                count += scope[records].as_array().unwrap().len();
            }
        }
    }
    count
}

#[test]
fn every_real_payload_is_accounted_for() {
    let Some(root) = shared_folder() else { return };
    let mut payloads = captures();
    files(&root, &root, &mut payloads);
    assert!(payloads.len() > 30, "{} payloads: the folder has more", payloads.len());

    check(&root, &payloads, |payload| Some(records(payload)));
}

/// The decoders' own fixtures are the seeds that their fuzz targets start from.
#[test]
fn every_decoders_fixtures_are_accounted_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let decoders: [(&str, &'static [&'static str], &'static str); 7] = [
        ("decode_otlp_traces_proto", &["--as", "otlp-traces"], "spans"),
        ("decode_otlp_traces_json", &["--as", "otlp-traces"], "spans"),
        ("decode_otlp_logs_proto", &["--as", "otlp-logs"], "logs"),
        ("decode_otlp_logs_json", &["--as", "otlp-logs"], "logs"),
        ("decode_ndjson", &["--as", "ndjson"], "events"),
        ("decode_audit", &["--as", "audit"], "audit"),
        ("decode_line_protocol", &["--as", "lines"], "events"),
    ];
    for (decoder, arguments, table) in decoders {
        let mut payloads = Vec::new();
        for entry in std::fs::read_dir(root.join(decoder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with("seed-") {
                payloads.push(Payload { path: format!("{decoder}/{name}"), arguments, table });
            }
        }
        let accepted = check(&root, &payloads, |_| None);
        assert!(accepted > 0, "{decoder} has no fixture that is good");
    }
}

/// Sends each payload to a server of its own life, and counts what is there; gives how much was accepted.
fn check(root: &Path, payloads: &[Payload], records: impl Fn(&Payload) -> Option<u64>) -> u64 {
    let mut server = Server::start();
    let mut stored = BTreeMap::new();
    for payload in payloads {
        let file = root.join(&payload.path);
        let mut arguments = vec!["send", file.to_str().unwrap()];
        arguments.extend(payload.arguments);
        let (code, printed) = server.command(&arguments);
        let number = |name: &str| printed[name].as_u64().unwrap();
        let (sent, accepted, rejected) = (number("sent"), number("accepted"), number("rejected"));
        println!("{}: {sent} sent, {accepted} accepted, {rejected} rejected", payload.path);
        if let Some(records) = records(payload) {
            assert_eq!(sent, records, "{}: {printed}", payload.path);
        }
        assert_eq!(sent, accepted + rejected, "{}: {printed}", payload.path);
        let reasons: u64 =
            printed["codes"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(reasons, rejected, "{}: {printed}", payload.path);
        assert_eq!(code, Some(i32::from(rejected > 0)), "{}", payload.path);
        if accepted > 0 {
            *stored.entry(payload.table).or_insert(0) += accepted;
        }
    }
    let count = |server: &Server, when: &str| {
        for (table, accepted) in &stored {
            let counted = server.count(&format!("SELECT count(*) FROM {table}"));
            assert_eq!(counted as u64, *accepted, "{table} {when}");
            println!("{table} {when}: {counted} counted by SQL");
        }
    };
    count(&server, "at once");
    server.kill();
    server.restart();
    count(&server, "after kill -9");
    server.flush();
    count(&server, "flushed");
    stored.values().sum()
}
