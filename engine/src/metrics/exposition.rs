//! Prometheus' text format, in both of its dialects.

use std::fmt::Write as _;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for.
    #[must_use]
    pub fn of(accept: &str) -> Self {
        // Prometheus sends both and prefers this one by its place and weight.
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Labels of one sample.
pub type Labels<'a> = [(&'a str, &'a str)];

/// The text as it grows.
pub(super) struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self { format, text: String::with_capacity(16 << 10) }
    }

    /// Begins a counter, whose name here lacks `_total`; samples follow by [`Self::count`].
    pub(super) fn counter(&mut self, name: &str, help: &str) {
        match self.format {
            Format::Text => self.family(&format!("{name}_total"), help, "counter"),
            Format::OpenMetrics => self.family(name, help, "counter"),
        }
    }

    /// One sample of a counter.
    pub(super) fn count(&mut self, name: &str, labels: &Labels<'_>, value: u64) {
        self.sample(&format!("{name}_total"), labels, &value.to_string());
    }

    /// The one sample of a counter of seconds.
    pub(super) fn seconds(&mut self, name: &str, ns: u64) {
        self.sample(&format!("{name}_total"), &[], &format!("{}", ns as f64 / 1e9));
    }

    /// Begins a gauge.
    pub(super) fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, help, "gauge");
    }

    /// One sample of a gauge.
    pub(super) fn value(&mut self, name: &str, labels: &Labels<'_>, value: f64) {
        let text = if value.is_nan() { "NaN".to_owned() } else { format!("{value}") };
        self.sample(name, labels, &text);
    }

    /// Begins a histogram.
    pub(super) fn histogram(&mut self, name: &str, help: &str) {
        self.family(name, help, "histogram");
    }

    /// One histogram: bounds in seconds with the counts up to each, then everything.
    pub(super) fn buckets(
        &mut self,
        name: &str,
        labels: &Labels<'_>,
        bounds: &[f64],
        counts: &[u64],
        sum_seconds: f64,
    ) {
        let mut sum = 0;
        let bucket = format!("{name}_bucket");
        for (at, count) in counts.iter().enumerate() {
            sum += count;
            let le = bounds.get(at).map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
            let mut all = labels.to_vec();
            all.push(("le", &le));
            self.sample(&bucket, &all, &sum.to_string());
        }
        self.sample(&format!("{name}_sum"), labels, &format!("{sum_seconds}"));
        self.sample(&format!("{name}_count"), labels, &sum.to_string());
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &Labels<'_>, value: &str) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.text.push_str(if at == 0 { "{" } else { "," });
            let _ = write!(self.text, "{label}=\"");
            for c in text.chars() {
                match c {
                    '"' => self.text.push_str("\\\""),
                    '\\' => self.text.push_str("\\\\"),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::{Exposition, Format};

    fn written(format: Format) -> String {
        let mut out = Exposition::new(format);
        out.counter("a", "counts");
        out.count("a", &[("x", "q\"\\\n")], 3);
        out.histogram("h_seconds", "lasts");
        out.buckets("h_seconds", &[], &[0.5, 1.0], &[1, 2, 3], 4.5);
        out.finish()
    }

    #[test]
    fn both_dialects_are_written_as_their_readers_expect() {
        assert_eq!(
            written(Format::Text),
            "# HELP a_total counts\n# TYPE a_total counter\na_total{x=\"q\\\"\\\\\\n\"} 3\n\
             # HELP h_seconds lasts\n# TYPE h_seconds histogram\nh_seconds_bucket{le=\"0.5\"} 1\n\
             h_seconds_bucket{le=\"1.0\"} 3\nh_seconds_bucket{le=\"+Inf\"} 6\nh_seconds_sum 4.5\nh_seconds_count 6\n"
        );
        let open = written(Format::OpenMetrics);
        assert!(open.contains("# TYPE a counter\na_total{") && open.ends_with("# EOF\n"), "{open}");
        assert_eq!(Format::of("application/openmetrics-text;version=1.0.0,text/plain"), Format::OpenMetrics);
        assert_eq!(Format::of("*/*"), Format::Text);
    }
}
