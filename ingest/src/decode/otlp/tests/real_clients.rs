//! Bodies that real clients sent, where the recordings are at hand.

use std::path::PathBuf;

use storage::record::Kind;

use super::{Decoder, decode};
use crate::decode::otlp::{logs_json, logs_proto, traces_json, traces_proto};

/// The folder of recordings: `FLOODMARK_SHARED_DATA`, or `shared/data` beside the workspace.
fn recordings() -> Option<PathBuf> {
    let folder = std::env::var_os("FLOODMARK_SHARED_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    folder.join("captures/index.jsonl").exists().then_some(folder)
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn every_recorded_body_decodes_whole() {
    let Some(folder) = recordings() else {
        eprintln!("skipped: no recordings of real clients at hand");
        return;
    };
    let index = std::fs::read_to_string(folder.join("captures/index.jsonl")).unwrap();
    let mut body_count = 0;
    for line in index.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let (path, label, file) = (field("path"), field("label"), field("body_file"));
        let (decoder, kind): (Decoder, Kind) = match (&*path, label.contains("json")) {
            ("/v1/traces", true) => (traces_json, Kind::Spans),
            ("/v1/logs", true) => (logs_json, Kind::Logs),
            ("/v1/traces" | "/opentelemetry.proto.collector.trace.v1.TraceService/Export", false) => {
                (traces_proto, Kind::Spans)
            }
            ("/v1/logs" | "/opentelemetry.proto.collector.logs.v1.LogsService/Export", false) => {
                (logs_proto, Kind::Logs)
            }
            _ => continue,
        };
        let mut body = std::fs::read(folder.join("captures").join(&file)).unwrap();
        if label.contains("gzip") && body.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*body), &mut plain).unwrap();
            body = plain;
        }
        let (decoded, batch) = decode(decoder, kind, &body).unwrap_or_else(|e| panic!("{file}: {e:?}"));
        assert_eq!((decoded.rejected_count, &decoded.rejected[..]), (0, &[][..]), "{file}");
        assert!(decoded.accepted > 0 && decoded.warnings.is_empty(), "{file}: {decoded:?}");
        assert!(batch.column_by_name("source").is_some_and(|column| column.null_count() == 0));
        body_count += 1;
    }
    assert!(body_count >= 12, "{body_count} recorded bodies");
    for (file, decoder, kind) in [
        ("proto-example-trace.json", traces_json as Decoder, Kind::Spans),
        ("proto-example-logs.json", logs_json, Kind::Logs),
        ("proto-example-events.json", logs_json, Kind::Logs),
    ] {
        let body = std::fs::read(folder.join("conformance/otlp").join(file)).unwrap();
        let (decoded, _) = decode(decoder, kind, &body).unwrap_or_else(|e| panic!("{file}: {e:?}"));
        assert!(decoded.accepted > 0 && decoded.rejected_count == 0, "{file}: {decoded:?}");
        assert_eq!(decoded.warnings, [""; 0], "{file}");
    }
}
