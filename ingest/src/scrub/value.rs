//! One value: what is found in it, in its encodings and in the JSON it may hold, and the text without it.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use storage::record::json_text;

use super::decoded::{self, View};
use super::detectors::{Input, Span};
use super::json_walk::{self, Walked};
use super::rules::Rules;
use super::wrapped::wrapped;
use super::{FIELD_AT, Report};
use crate::cut;

/// Layers of escapes that are undone. Chosen: JSON in a JSON string in a log line in a JSON body is three.
const LAYERS_MAX: usize = 4;

/// How a column's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Text, which may hold JSON.
    Text,
    /// One JSON value, which must stay one.
    Json,
    /// Bytes: text as far as they are UTF-8.
    Bytes,
    /// Bytes in base64, which must stay base64.
    Base64,
}

/// What scanning needs: the rules, room, and where to count.
pub(super) struct Scan<'a> {
    pub(super) rules: &'a Rules,
    pub(super) report: &'a mut Report,
}

impl Scan<'_> {
    /// Appends the value without what must not be kept to `out`; appends nothing and answers false where there
    /// is nothing to replace.
    pub(super) fn value(&mut self, value: &[u8], how: How, out: &mut Vec<u8>, depth: usize) -> bool {
        match how {
            How::Text => self.text(str(value), out, depth),
            How::Json => match json_walk::walk(self, str(value), out, depth) {
                Walked::Clean => false,
                Walked::Changed => true,
                Walked::NotJson => self.plain(str(value), out),
            },
            How::Bytes => self.bytes(value, out, depth),
            How::Base64 => {
                let mut replaced = Vec::new();
                let decoded = STANDARD.decode(value).unwrap_or_default();
                if self.bytes(&decoded, &mut replaced, depth) {
                    out.extend_from_slice(STANDARD.encode(&replaced).as_bytes());
                    return true;
                }
                // What only looks like base64 (sixteen digits do) must not slip through as such.
                self.text(str(value), out, depth)
            }
        }
    }

    /// As [`Self::value`], for text: JSON in it is walked, for its names say more than its text.
    pub(super) fn text(&mut self, text: &str, out: &mut Vec<u8>, depth: usize) -> bool {
        if depth < LAYERS_MAX && text.trim_ascii_start().starts_with(['{', '[', '"']) {
            match json_walk::walk(self, text, out, depth) {
                Walked::Clean => return false,
                Walked::Changed => return true,
                Walked::NotJson => {}
            }
        }
        self.plain(text, out)
    }

    fn plain(&mut self, text: &str, out: &mut Vec<u8>) -> bool {
        let spans = find(self.rules, text);
        let mut from = 0;
        for span in &spans {
            self.report.count(span.detector, 1);
            out.extend_from_slice(cut::bytes(text.as_bytes(), from, span.start));
            out.extend_from_slice(span.label.as_bytes());
            from = span.end;
        }
        if !spans.is_empty() {
            out.extend_from_slice(cut::tail(text.as_bytes(), from));
        }
        !spans.is_empty()
    }

    fn bytes(&mut self, value: &[u8], out: &mut Vec<u8>, depth: usize) -> bool {
        let start = out.len();
        let mut is_changed = false;
        for chunk in value.utf8_chunks() {
            if self.text(chunk.valid(), out, depth) {
                is_changed = true;
            } else {
                out.extend_from_slice(chunk.valid().as_bytes());
            }
            out.extend_from_slice(chunk.invalid());
        }
        if !is_changed {
            out.truncate(start);
        }
        is_changed
    }

    /// What a value under a field rule becomes; `None` where it is removed.
    pub(super) fn by_rule(
        &mut self,
        rule: &super::fields::Verdict,
        name: &str,
        value: &[u8],
    ) -> Option<String> {
        self.report.count(FIELD_AT, 1);
        self.rules.replacement(rule, name, value)
    }

    /// As [`Self::by_rule`], as JSON text.
    pub(super) fn json_by_rule(
        &mut self,
        rule: &super::fields::Verdict,
        name: &str,
        value: &[u8],
        out: &mut Vec<u8>,
    ) {
        match self.by_rule(rule, name, value) {
            Some(text) => json_text::string(out, &text),
            None => out.extend_from_slice(b"null"),
        }
    }
}

/// Text columns and JSON tokens are UTF-8; the caller has checked the column.
fn str(value: &[u8]) -> &str {
    std::str::from_utf8(value).expect("text columns hold text: decoders check UTF-8")
}

/// Everything in `text` that must not be kept: rising, without overlaps.
pub(super) fn find(rules: &Rules, text: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    detect(rules, text, &mut spans, |span| span);
    let mut view = decoded::decode(text);
    for _ in 0..LAYERS_MAX {
        let Some(current) = view else { break };
        detect(rules, &current.text, &mut spans, |span| current.original(span));
        view = View::decoded(&current);
    }
    merge(&mut spans, text);
    spans
}

/// Runs the detectors over text and over what it wraps in base64 and hex.
fn detect(rules: &Rules, text: &str, spans: &mut Vec<Span>, place: impl Fn(Range<usize>) -> Range<usize>) {
    let first = spans.len();
    run(rules, text, spans);
    let mut inner = Vec::new();
    wrapped(text, |range, wrapped| {
        inner.clear();
        run(rules, wrapped, &mut inner);
        if let Some(longest) = inner.iter().max_by_key(|span| span.end - span.start) {
            // The whole run goes: part of it could be decoded still.
            spans.push(Span { start: range.start, end: range.end, ..*longest });
        }
    });
    for span in spans.iter_mut().skip(first) {
        let original = place(span.start..span.end);
        (span.start, span.end) = (original.start, original.end);
    }
}

fn run(rules: &Rules, text: &str, spans: &mut Vec<Span>) {
    let input = Input { text, fields: &rules.fields };
    for (place, detector) in &rules.active {
        let from = spans.len();
        (detector.find)(input, spans);
        for span in spans.iter_mut().skip(from) {
            span.detector = *place;
        }
    }
}

/// Makes overlapping spans one: what any detector wants gone is gone, under the label of the longest (of
/// equals, of the detector listed first).
fn merge(spans: &mut Vec<Span>, text: &str) {
    // A password before `@host` also looks like an address: the host may stay.
    let ends_before_host = |end: usize| {
        let rest = cut::tail(text.as_bytes(), end);
        rest.starts_with(b"@") || rest.starts_with(b"%40")
    };
    let is_credential = |span: &&Span| span.label != "[email]" && ends_before_host(span.end);
    let mut hosts: Vec<usize> = spans.iter().filter(is_credential).map(|span| span.end).collect();
    hosts.sort_unstable();
    spans.retain(|span| {
        let first = hosts.partition_point(|host| *host <= span.start);
        span.label != "[email]" || hosts.get(first).is_none_or(|host| *host >= span.end)
    });
    spans.sort_unstable_by_key(|span| (span.start, std::cmp::Reverse(span.end), span.detector));
    let mut kept: Vec<Span> = Vec::with_capacity(spans.len());
    for next in spans.drain(..) {
        match kept.last_mut() {
            Some(last) if next.start < last.end => {
                let longest = if next.end - next.start > last.end - last.start { next } else { *last };
                *last = Span { start: last.start, end: last.end.max(next.end), ..longest };
            }
            _ => kept.push(next),
        }
    }
    *spans = kept;
}
