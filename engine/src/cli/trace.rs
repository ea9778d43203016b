//! `floodmark trace ID`: one trace as a waterfall, children under their parents, bars on one time axis.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use super::remote::{self, Failure, Remote, printable};
use crate::client::Call;

/// Draws one trace as a waterfall
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    /// The trace id, 32 hex digits
    trace_id: String,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    remote::run(async move {
        let mut session = args.remote.client()?.session();
        let call =
            Call::get(format!("/api/v1/traces/{}", remote::segment(&args.trace_id.to_ascii_lowercase())));
        let reply = session.send(&call).await?;
        if reply.status.as_u16() == 404 {
            return Err(Failure::failed(
                "no such trace for this key's tenant; `floodmark query \"SELECT trace_id, name FROM spans \
                 ORDER BY time DESC LIMIT 5\"` shows recent ones",
            ));
        }
        if !reply.status.is_success() {
            return Err(remote::refusal(&reply));
        }
        let trace: Value =
            serde_json::from_slice(&reply.body).map_err(|_| Failure::failed("the answer is not JSON"))?;
        if args.remote.json {
            remote::print_json(&trace)?;
        } else {
            let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(120);
            remote::print(&waterfall(&trace, columns))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What a line of the waterfall shows.
struct Span {
    span_id: String,
    parent: Option<String>,
    label: String,
    failed: bool,
    start_ns: i128,
    duration_ns: i128,
}

fn waterfall(trace: &Value, columns: usize) -> String {
    let spans: Vec<Span> =
        trace.get("spans").and_then(Value::as_array).into_iter().flatten().map(read_span).collect();
    let order = depth_first(&spans);
    let begin = spans.iter().map(|span| span.start_ns).min().unwrap_or(0);
    let end = spans.iter().map(|span| span.start_ns + span.duration_ns).max().unwrap_or(0);
    let whole_ns = (end - begin).max(1);
    let failed = spans.iter().filter(|span| span.failed).count();
    let complete = trace.get("complete").and_then(Value::as_bool).unwrap_or(false);

    let mut out = String::new();
    let _ = writeln!(
        out,
        "trace {}  {} spans  {} failed  {}{}\n",
        printable(trace.get("trace_id").and_then(Value::as_str).unwrap_or("")),
        spans.len(),
        failed,
        duration(end - begin),
        if complete { "" } else { "  (incomplete: a root or parents are missing)" },
    );
    let widest = order.iter().map(|(index, depth)| depth * 2 + spans[*index].label.chars().count()).max();
    let label_width = widest.unwrap_or(0).min(columns / 2).max(8);
    let bar_width = columns.saturating_sub(label_width + 14).max(10);
    for (index, depth) in order {
        let span = &spans[index];
        let label: String =
            format!("{:1$}{2}", "", depth * 2, span.label).chars().take(label_width).collect();
        let at = |ns: i128| (ns * bar_width as i128 / whole_ns) as usize;
        let left = at(span.start_ns - begin).min(bar_width - 1);
        let right = at(span.start_ns - begin + span.duration_ns).clamp(left + 1, bar_width);
        let mark = if span.failed { "▒" } else { "█" };
        let bar = format!("{:left$}{}", "", mark.repeat(right - left));
        let _ = writeln!(
            out,
            "{label:label_width$} {:>10} {} {bar}",
            duration(span.duration_ns),
            if span.failed { '!' } else { ' ' },
        );
    }
    out
}

fn read_span(value: &Value) -> Span {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("");
    let start_ns = text("start_time").parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_nanosecond);
    let status = value.get("status").and_then(|status| status.get("code")).and_then(Value::as_str);
    Span {
        span_id: text("span_id").to_owned(),
        parent: value.get("parent_span_id").and_then(Value::as_str).map(str::to_owned),
        label: format!("{}  {}", printable(text("source")), printable(text("name"))),
        failed: status == Some("error"),
        start_ns,
        duration_ns: i128::from(value.get("duration_ns").and_then(Value::as_i64).unwrap_or(0)).max(0),
    }
}

/// Orders spans so that children follow their parent by start; each with its depth.
///
/// A span whose parent is missing stands like a root. Spans that name each other as parents, and second
/// spans of one id, still come up, once each.
fn depth_first(spans: &[Span]) -> Vec<(usize, usize)> {
    let known: HashSet<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
    let mut children: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for (index, span) in spans.iter().enumerate() {
        match span.parent.as_deref() {
            Some(parent) if known.contains(parent) && parent != span.span_id => {
                children.entry(parent).or_default().push(index);
            }
            _ => roots.push(index),
        }
    }
    let by_start = |list: &mut Vec<usize>| list.sort_by_key(|index| spans[*index].start_ns);
    by_start(&mut roots);
    children.values_mut().for_each(by_start);

    let mut order = Vec::with_capacity(spans.len());
    let mut seen = vec![false; spans.len()];
    // What is in no tree (a circle of parents) is walked last, from its first span.
    for first in roots.into_iter().chain(0..spans.len()) {
        let mut stack = vec![(first, 0)];
        while let Some((index, depth)) = stack.pop() {
            if std::mem::replace(&mut seen[index], true) {
                continue;
            }
            order.push((index, depth));
            let below = children.get(spans[index].span_id.as_str()).map_or(&[][..], Vec::as_slice);
            stack.extend(below.iter().rev().map(|child| (*child, depth + 1)));
        }
    }
    order
}

/// Writes a duration in the unit that keeps it short.
fn duration(ns: i128) -> String {
    let ns = ns as f64;
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn span(id: &str, parent: Option<&str>, start_ms: u32, duration_ms: u64) -> Value {
        json!({"span_id": id, "parent_span_id": parent, "source": "shop", "name": id,
            "start_time": format!("2026-01-01T00:00:00.{start_ms:03}Z"),
            "duration_ns": duration_ms * 1_000_000,
            "status": {"code": if id == "bad" { "error" } else { "ok" }}})
    }

    fn check(spans: &[Value], expected: &[(&str, usize)]) {
        let spans: Vec<Span> = spans.iter().map(read_span).collect();
        let order = depth_first(&spans);
        let found: Vec<(&str, usize)> =
            order.iter().map(|(index, depth)| (spans[*index].span_id.as_str(), *depth)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn children_follow_their_parents_by_start() {
        check(
            &[
                span("c", Some("a"), 5, 1),
                span("a", None, 0, 9),
                span("b", Some("a"), 1, 2),
                span("d", Some("b"), 1, 1),
            ],
            &[("a", 0), ("b", 1), ("d", 2), ("c", 1)],
        );
    }

    #[test]
    fn orphans_circles_and_twins_come_up_once() {
        check(
            &[
                span("x", Some("y"), 0, 1),
                span("y", Some("x"), 1, 1),
                span("o", Some("gone"), 2, 1),
                span("s", Some("s"), 3, 1),
            ],
            &[("o", 0), ("s", 0), ("x", 0), ("y", 1)],
        );
        check(&[span("t", None, 0, 1), span("t", None, 1, 1)], &[("t", 0), ("t", 0)]);
        check(&[], &[]);
    }

    #[test]
    fn bars_stand_on_one_axis() {
        let trace = json!({"trace_id": "ab", "complete": true,
            "spans": [span("a", None, 0, 100), span("bad", Some("a"), 50, 50)]});
        let text = waterfall(&trace, 60);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "trace ab  2 spans  1 failed  100.0 ms");
        assert!(lines[2].starts_with("shop  a "), "{text}");
        assert!(
            lines[3].starts_with("  shop  bad") && lines[3].contains("! ") && lines[3].contains('▒'),
            "{text}"
        );
        assert!(!lines[3].contains('█'), "{text}");
        waterfall(&json!({}), 0);
    }
}
