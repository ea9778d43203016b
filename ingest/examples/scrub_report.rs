//! Measures the detectors on labelled text: `cargo run -p ingest --example scrub_report -- DIR [--misses]`.
//!
//! DIR holds the labelled sets as JSON lines (`text`, `spans` with `byte_start`, `byte_end`, `type`). A secret
//! is found if every byte of it is covered; a detector's hit is right if it meets any labelled span. `ip` is
//! switched on for the addresses alone, and measured apart.

#![allow(clippy::print_stdout, reason = "a report for a terminal")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ingest::scrub::{Found, Rules, RulesConfig, find, scrub_text};

const SETS: [&str; 5] = [
    "loglines",
    "secrets-gitleaks",
    "secrets-detect-secrets",
    "presidio-research-sentences",
    "real-negatives",
];

/// Types that no detector claims: names of persons, places, times.
const UNCLAIMED: [&str; 13] = [
    "PERSON",
    "STREET_ADDRESS",
    "GPE",
    "ORGANIZATION",
    "DATE_TIME",
    "TITLE",
    "AGE",
    "NRP",
    "ZIP_CODE",
    "DOMAIN_NAME",
    "US_DRIVER_LICENSE",
    "IPV4",
    "IPV6",
];

#[derive(serde::Deserialize)]
struct Line {
    text: String,
    spans: Vec<Label>,
}

#[derive(serde::Deserialize)]
struct Label {
    byte_start: usize,
    byte_end: usize,
    r#type: String,
}

#[derive(Default)]
struct Counts {
    labelled: usize,
    found: usize,
    right: usize,
    wrong: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: scrub_report DIR [--misses]")?;
    let shows_misses = arguments.next().is_some();
    let rules = Rules::default_on();
    let config =
        RulesConfig { detectors: BTreeMap::from([("ip".to_owned(), true)]), ..RulesConfig::default() };
    let with_ip = Rules::compile(&config, None)?;
    for set in SETS {
        let path = Path::new(&directory).join(format!("{set}.jsonl"));
        let lines: Vec<Line> =
            std::fs::read_to_string(path)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        report(set, &lines, &rules, &with_ip, shows_misses);
    }
    Ok(())
}

fn report(set: &str, lines: &[Line], rules: &Rules, with_ip: &Rules, shows_misses: bool) {
    let mut by_type: BTreeMap<String, Counts> = BTreeMap::new();
    let mut by_detector: BTreeMap<&str, Counts> = BTreeMap::new();
    let (mut altered, mut altered_clean, mut clean) = (0, 0, 0);
    for line in lines {
        let is_address = |label: &Label| matches!(label.r#type.as_str(), "IPV4" | "IPV6" | "IP_ADDRESS");
        let found = find(rules, &line.text);
        for label in &line.spans {
            let hits = if is_address(label) { &find(with_ip, &line.text) } else { &found };
            let counts = by_type.entry(label.r#type.clone()).or_default();
            counts.labelled += 1;
            if is_covered(label, hits) {
                counts.found += 1;
            } else if shows_misses && !UNCLAIMED.contains(&label.r#type.as_str()) {
                println!(
                    "  missed {}: {:?} in {:?}",
                    label.r#type,
                    &line.text[label.byte_start..label.byte_end],
                    line.text
                );
            }
        }
        for hit in &found {
            let counts = by_detector.entry(hit.detector).or_default();
            if line
                .spans
                .iter()
                .any(|label| label.byte_start < hit.range.end && hit.range.start < label.byte_end)
            {
                counts.right += 1;
            } else {
                counts.wrong += 1;
                if shows_misses {
                    println!(
                        "  wrong {}: {:?} in {:?}",
                        hit.detector,
                        &line.text[hit.range.clone()],
                        line.text
                    );
                }
            }
        }
        let is_altered = *scrub_text(rules, &line.text) != line.text;
        if !found.is_empty() && !is_altered {
            println!("  seen by a detector but not let through by the prefilter: {:?}", line.text);
        }
        altered += usize::from(is_altered);
        if line.spans.is_empty() {
            clean += 1;
            altered_clean += usize::from(is_altered);
        }
    }
    println!(
        "\n{set}: {} lines, {altered} altered; {clean} without a label, {altered_clean} of them altered",
        lines.len()
    );
    println!("  {:<18} {:>6} {:>6} {:>7}", "type", "n", "found", "recall");
    for (name, counts) in &by_type {
        println!(
            "  {name:<18} {:>6} {:>6} {:>7}",
            counts.labelled,
            counts.found,
            ratio(counts.found, counts.labelled)
        );
    }
    println!("  {:<18} {:>6} {:>6} {:>9}", "detector", "right", "wrong", "precision");
    for (name, counts) in &by_detector {
        println!(
            "  {name:<18} {:>6} {:>6} {:>9}",
            counts.right,
            counts.wrong,
            ratio(counts.right, counts.right + counts.wrong)
        );
    }
}

fn is_covered(label: &Label, hits: &[Found]) -> bool {
    let covered: BTreeSet<usize> = hits.iter().flat_map(|hit| hit.range.clone()).collect();
    (label.byte_start..label.byte_end).all(|at| covered.contains(&at))
}

fn ratio(part: usize, whole: usize) -> String {
    // Per mille in integers: no lossy casts for a table.
    match (part * 1000).checked_div(whole) {
        Some(mille) => format!("{}.{:03}", mille / 1000, mille % 1000),
        None => "-".to_owned(),
    }
}
