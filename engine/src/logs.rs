//! Logs: one JSON object a line on standard error, never with payload (P2).
//!
//! The fields that every line has stand first, `N/A` where a line has none. Characters that steer a terminal are
//! escaped. Dependencies are heard from `warn` on only.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::clock::{Clock, rfc3339};
use crate::config::LogFormat;

/// Fields of every line.
const COMMON: [&str; 3] = ["correlation_id", "tenant_id", "request_id"];

/// Longest value of a field, in bytes.
const VALUE_BYTES_MAX: usize = 4 << 10;

/// Starts logging; a second call changes nothing.
pub fn start(level: Level, format: LogFormat) {
    let ours = ["engine", "ingest", "query", "storage", "floodmark"];
    let targets =
        Targets::new().with_default(level.min(Level::WARN)).with_targets(ours.map(|name| (name, level)));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(Lines { format });
    let _ = tracing_subscriber::registry().with(targets).with(layer).try_init();
}

struct Lines {
    format: LogFormat,
}

#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }
}

impl Fields {
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(have, _)| *have == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.take("message").unwrap_or_default();
        let level = event.metadata().level().as_str();
        let time = rfc3339(Clock::now_ns());
        let mut line = String::with_capacity(256);
        match self.format {
            LogFormat::Json => {
                line.push_str("{\"timestamp\":\"");
                line.push_str(&time);
                line.push('"');
                member(&mut line, "level", level);
                for name in COMMON {
                    let value = fields.take(name).filter(|value| !value.is_empty());
                    member(&mut line, name, value.as_deref().unwrap_or("N/A"));
                }
                member(&mut line, "message", &message);
                member(&mut line, "target", event.metadata().target());
                fields.0.sort_unstable();
                for (name, value) in &fields.0 {
                    member(&mut line, name, value);
                }
                line.push('}');
            }
            LogFormat::Text => {
                line.push_str(&time);
                let _ = write!(line, " {level:5} ");
                escape(&mut line, &message);
                for (name, value) in &fields.0 {
                    let _ = write!(line, " {name}=");
                    escape(&mut line, value);
                }
            }
        }
        writeln!(out, "{line}")
    }
}

fn member(line: &mut String, name: &str, value: &str) {
    line.push_str(",\"");
    escape(line, name);
    line.push_str("\":\"");
    escape(line, value);
    line.push('"');
}

/// Escapes as JSON does, and beyond it whatever could move a cursor or start a new line in some viewer.
fn escape(line: &mut String, text: &str) {
    for c in text[..text.floor_char_boundary(VALUE_BYTES_MAX)].chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}') => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::{Lines, LogFormat, escape};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic under this lock").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// P2: a panic's message may quote what a client sent. Its place is told, on every thread, and nothing else.
    #[test]
    fn a_panic_tells_its_place_and_nothing_of_its_message() {
        let captured = Captured::default();
        let before = std::panic::take_hook();
        crate::panics::hide_messages();
        let panicking = |captured: Captured| {
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(move || captured.clone())
                .event_format(Lines { format: LogFormat::Json });
            let subscriber = tracing_subscriber::registry().with(layer);
            tracing::subscriber::with_default(subscriber, || {
                let secret = String::from("{\"password\":\"hunter2\u{20ac}\"}");
                let ended = std::panic::catch_unwind(|| {
                    if secret.len() == 1 {
                        0
                    } else {
                        panic!("cannot slice {secret} of {:?}", "4111111111111111")
                    }
                });
                assert!(ended.is_err());
                let ended = std::panic::catch_unwind(|| {
                    let at = secret.find('\u{20ac}').map_or(0, |at| at + 1);
                    secret[at..].len()
                });
                assert!(ended.is_err());
            });
        };
        panicking(captured.clone());
        let other = captured.clone();
        let named = std::thread::Builder::new().name("lane-7".into());
        named.spawn(move || panicking(other)).expect("a thread").join().expect("it caught its panics");
        std::panic::set_hook(before);
        let bytes = captured.0.lock().expect("no panic under this lock").clone();
        let log = String::from_utf8(bytes).expect("UTF-8");
        assert_eq!(log.lines().count(), 4, "{log}");
        for line in log.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
            assert_eq!(line["level"], "ERROR");
            assert!(line["file"].as_str().is_some_and(|file| file.ends_with("logs.rs")), "{line}");
            assert!(
                line["line"].as_str().is_some_and(|at| at.parse::<u32>().is_ok_and(|at| at > 1)),
                "{line}"
            );
        }
        assert!(log.contains("lane-7"), "{log}");
        for part in ["hunter2", "4111", "password", "cannot", "slice", "\u{20ac}", "boundary"] {
            assert!(!log.contains(part), "{part} is in {log}");
        }
    }

    #[test]
    fn nothing_in_a_line_can_forge_another() {
        let check = |text: &str, expected: &str| {
            let mut line = String::new();
            escape(&mut line, text);
            assert_eq!(line, expected);
        };
        check("plain é", "plain é");
        check("a\nb\r\"\\", "a\\u000ab\\u000d\\\"\\\\");
        check("\u{1b}[31m\u{9b}\u{2028}\u{202e}", "\\u001b[31m\\u009b\\u2028\\u202e");
    }

    /// B1: a value is cut between characters.
    #[test]
    fn a_value_in_a_line_has_a_length() {
        let mut line = String::new();
        escape(&mut line, &format!("x{}", "\u{e9}".repeat(64 << 10)));
        assert_eq!(line, format!("x{}", "\u{e9}".repeat(2_047)));
    }
}
