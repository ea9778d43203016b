//! What a file holds: the protocol said with `--as`, or guessed from its name and its first bytes.

use crate::cli::remote::Failure;

/// What the records are, which decides the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// OTLP export requests of traces: JSON (one a line, or one document) or protobuf
    OtlpTraces,
    /// OTLP export requests of logs: JSON (one a line, or one document) or protobuf
    OtlpLogs,
    /// Events: one JSON object a line, one document, or an array
    Ndjson,
    /// Audit records: one JSON object a line, one document, or an array
    Audit,
    /// InfluxDB line protocol
    Lines,
    /// Plain text: each line becomes an event's message
    Text,
}

/// How the records stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One a line.
    Rows,
    /// One JSON document over many lines.
    Document,
    /// One protobuf message.
    Protobuf,
}

impl Protocol {
    /// Returns the path that takes this protocol.
    pub fn path(self) -> &'static str {
        match self {
            Self::OtlpTraces => "/v1/traces",
            Self::OtlpLogs => "/v1/logs",
            Self::Ndjson | Self::Text => "/api/v1/events",
            Self::Audit => "/api/v1/audit",
            Self::Lines => "/api/v3/write_lp",
        }
    }

    /// Returns whether the records are export requests of OTLP.
    pub fn is_otlp(self) -> bool {
        matches!(self, Self::OtlpTraces | Self::OtlpLogs)
    }

    /// Returns the content type of a request cut from `form`.
    pub fn content_type(self, form: Form) -> &'static str {
        match (self, form) {
            (Self::OtlpTraces | Self::OtlpLogs, Form::Protobuf) => "application/x-protobuf",
            (Self::OtlpTraces | Self::OtlpLogs, _) | (Self::Ndjson | Self::Audit, Form::Document) => {
                "application/json"
            }
            (Self::Ndjson | Self::Audit | Self::Text, _) => "application/x-ndjson",
            (Self::Lines, _) => "text/plain; charset=utf-8",
        }
    }
}

/// Tells protocol and form from the file's name (without a compression suffix) and its first bytes.
///
/// # Errors
/// When neither tells the protocol: it must be said.
pub fn guess(said: Option<Protocol>, name: &str, head: &[u8]) -> Result<(Protocol, Form), Failure> {
    let name = name.to_ascii_lowercase();
    let protocol = match said.or_else(|| by_name(&name)).or_else(|| by_content(&name, head)) {
        Some(protocol) => protocol,
        None => {
            return Err(Failure::usage(format!(
                "cannot tell what {} holds; say it with --as otlp-traces|otlp-logs|ndjson|audit|lines|text",
                if name.is_empty() { "standard input" } else { &name }
            )));
        }
    };
    Ok((protocol, form(protocol, &name, head)))
}

fn by_name(name: &str) -> Option<Protocol> {
    if name.ends_with(".lp") {
        Some(Protocol::Lines)
    } else if name.contains("otlp-traces") {
        Some(Protocol::OtlpTraces)
    } else if name.contains("otlp-logs") {
        Some(Protocol::OtlpLogs)
    } else if name.ends_with(".log") || name.ends_with(".txt") {
        Some(Protocol::Text)
    } else {
        None
    }
}

fn by_content(name: &str, head: &[u8]) -> Option<Protocol> {
    let contains = |needle: &str| memchr::memmem::find(head, needle.as_bytes()).is_some();
    if matches!(first_byte(head), Some(b'{' | b'[')) {
        return Some(if contains("\"resourceSpans\"") {
            Protocol::OtlpTraces
        } else if contains("\"resourceLogs\"") {
            Protocol::OtlpLogs
        } else if contains("\"actor_type\"") && contains("\"action\"") {
            Protocol::Audit
        } else {
            Protocol::Ndjson
        });
    }
    if [".ndjson", ".jsonl", ".json"].iter().any(|suffix| name.ends_with(suffix)) {
        return Some(Protocol::Ndjson);
    }
    looks_like_line_protocol(head).then_some(Protocol::Lines)
}

/// Returns whether the first line that is no comment reads `name[,tag=…] field=…`.
fn looks_like_line_protocol(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let Some((series, fields)) = lines.next().and_then(|line| line.split_once(' ')) else { return false };
    let field = fields.split([',', ' ']).next().unwrap_or("");
    let value = field.split_once('=').map_or("", |(_, value)| value);
    let is_value = value.starts_with(|first: char| first.is_ascii_digit() || "-+.\"tTfF".contains(first));
    is_value && series.split(',').skip(1).all(|tag| tag.contains('='))
}

fn form(protocol: Protocol, name: &str, head: &[u8]) -> Form {
    match protocol {
        Protocol::Lines | Protocol::Text => Form::Rows,
        Protocol::OtlpTraces | Protocol::OtlpLogs => {
            // A protobuf request starts with a tag of 0x0a, which is a newline: names decide first.
            let named = name.ends_with(".bin") || name.ends_with(".pb");
            if named || first_byte(head) != Some(b'{') {
                Form::Protobuf
            } else if first_line_is_whole(head) {
                Form::Rows
            } else {
                Form::Document
            }
        }
        Protocol::Ndjson | Protocol::Audit => {
            let rows = name.ends_with(".ndjson") || name.ends_with(".jsonl");
            match first_byte(head) {
                Some(b'[') => Form::Document,
                _ if rows || first_line_is_whole(head) => Form::Rows,
                _ => Form::Document,
            }
        }
    }
}

fn first_byte(head: &[u8]) -> Option<u8> {
    head.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// Returns whether the first line that is not blank is JSON by itself, or at least longer than `head`.
fn first_line_is_whole(head: &[u8]) -> bool {
    let head = head.trim_ascii_start();
    match memchr::memchr(b'\n', head) {
        Some(end) => serde_json::from_slice::<serde::de::IgnoredAny>(&head[..end]).is_ok(),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, head: &str, expected: Option<(Protocol, Form)>) {
        let found = guess(None, name, head.as_bytes()).ok();
        assert_eq!(found, expected, "{name} {head}");
    }

    #[test]
    fn names_and_first_bytes_tell() {
        use Form::{Document, Protobuf, Rows};
        use Protocol::{Audit, Lines, Ndjson, OtlpLogs, OtlpTraces, Text};
        check("cpu.lp", "", Some((Lines, Rows)));
        check("metrics", "# comment\ncpu,host=a usage=0.5 17\n", Some((Lines, Rows)));
        check("", "weather temperature=82\n", Some((Lines, Rows)));
        check("", "note text=\"a b\"\n", Some((Lines, Rows)));
        check("x.otlp-traces.ndjson", "{\"resourceSpans\":[]}\n", Some((OtlpTraces, Rows)));
        check("x.json", "{\n  \"resourceSpans\": [\n", Some((OtlpTraces, Document)));
        check("x.json", "{\"resourceLogs\":[]}", Some((OtlpLogs, Rows)));
        check("otlp-logs.bin", "\n\u{1}x", Some((OtlpLogs, Protobuf)));
        check("otlp-traces", "\n\u{1}x", Some((OtlpTraces, Protobuf)));
        check("a.ndjson", "{\"source\":\"cart\"}\n{", Some((Ndjson, Rows)));
        check("a.ndjson", "{\"broken\n{}\n", Some((Ndjson, Rows)));
        check("a.json", "[{\"source\":1}]", Some((Ndjson, Document)));
        check("a.json", "{\n \"source\": 1\n}", Some((Ndjson, Document)));
        check("", "\n {\"actor_type\":\"ai\",\"action\":\"x\"}\n", Some((Audit, Rows)));
        check("access.log", "1.2.3.4 - - [01/Jan] \"GET /?a=1\"", Some((Text, Rows)));
        check("", "1.2.3.4 - - \"GET /?a=1\"", None);
        check("x.bin", "\n\u{1}x", None);
        check("", "", None);
    }

    #[test]
    fn what_is_said_wins() {
        let (protocol, form) = guess(Some(Protocol::Text), "a.ndjson", b"{}\n").expect("said");
        assert_eq!((protocol, form), (Protocol::Text, Form::Rows));
        let (_, form) = guess(Some(Protocol::Audit), "a.json", b"[").expect("said");
        assert_eq!(Protocol::Audit.content_type(form), "application/json");
    }
}
