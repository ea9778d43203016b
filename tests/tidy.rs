//! The house rules, held by a test: edges, room sizes, banned names, and that docs name what exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file outside its tests; a longer one has more than one idea.
const ROOM_LINES_MAX: usize = 450;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the workspace").to_owned()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir()
            && !name.starts_with('.')
            && !matches!(name.as_str(), "target" | "corpus" | "artifacts")
        {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    let root = root();
    ["engine", "ingest", "storage", "query"]
        .iter()
        .flat_map(|room| files(&root.join(room), "rs"))
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// A source without its test modules.
fn production(text: &str) -> &str {
    text.find("#[cfg(test)]").map_or(text, |at| &text[..at])
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs")
        || name.ends_with("/fixture.rs")
        || name.ends_with("/model.rs")
        || name.contains("/tests/")
        || name.contains("/examples/")
        || name.contains("/simulation/")
        || name.contains("/longevity/")
}

#[test]
fn five_edges_and_no_other() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("engine", &["ingest", "query", "storage"][..]),
        ("ingest", &["storage"][..]),
        ("query", &["storage"][..]),
        ("storage", &[][..]),
    ]);
    for (room, edges) in allowed {
        let manifest: toml::Table =
            fs::read_to_string(root().join(room).join("Cargo.toml")).unwrap().parse().unwrap();
        let mut found: Vec<&str> = Vec::new();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let names = manifest.get(section).and_then(|section| section.as_table());
            found.extend(names.into_iter().flat_map(|table| table.keys()).map(String::as_str).filter(
                |name| matches!(*name, "engine" | "ingest" | "query" | "storage" | "tests" | "benches"),
            ));
        }
        found.sort_unstable();
        assert_eq!(found, edges, "edges of {room}");
    }
}

#[test]
fn rooms_have_one_idea() {
    let too_long: Vec<String> = sources()
        .into_iter()
        .filter(|(name, _)| !is_test(name))
        .map(|(name, text)| (name, production(&text).lines().count()))
        .filter(|(_, lines)| *lines > ROOM_LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    assert!(too_long.is_empty(), "split these rooms: {too_long:#?}");
}

#[test]
fn every_room_says_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(name, text)| !is_test(name) && !text.starts_with("//!"))
        .map(|(name, _)| name)
        .collect();
    assert!(silent.is_empty(), "no tour comment: {silent:#?}");
}

#[test]
fn no_room_is_called_utils() {
    for (name, _) in sources() {
        let stem = Path::new(&name).file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            !matches!(stem.as_str(), "utils" | "util" | "helpers" | "helper" | "common" | "misc"),
            "{name}"
        );
    }
}

/// What one room alone may do: (what, how it looks, who may).
const ALONE: &[(&str, &str, &[&str])] = &[
    (
        "attest that a chunk is clean (P1)",
        "Clean::attest(",
        &["ingest/src/scrub/", "storage/src/latency/rollup.rs"],
    ),
    ("make a principal (T1)", "Principal {", &["engine/src/identity/", "storage/src/principal.rs"]),
    ("read the wall clock", "SystemTime::now", &["engine/src/clock.rs"]),
    (
        "know Parquet's writer",
        "ArrowWriter",
        &["storage/src/segment/", "storage/src/commit/checkpoint/codec.rs"],
    ),
    ("know Delta's log", "_delta_log", &["storage/src/commit/"]),
    ("leave the process", "process::exit(", &["engine/src/"]),
];

#[test]
fn some_things_are_done_in_one_room_alone() {
    let mut found = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| !is_test(name)) {
        let code: Vec<&str> =
            production(text).lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for (what, look, who) in ALONE {
            if code.iter().any(|line| line.contains(look)) && !who.iter().any(|room| name.starts_with(room)) {
                found.push(format!("{name} may not {what}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Every decoder has self-made fixtures or table tests, a fuzz target and a bench.
#[test]
fn every_decoder_has_fixtures_and_is_fuzzed_and_measured() {
    let payloads = fs::read_to_string(root().join("tests/payloads.rs")).unwrap();
    let benches = files(&root().join("benches"), "rs")
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect::<String>();
    for (decoder, targets) in [
        (
            "otlp",
            &[
                "decode_otlp_traces_proto",
                "decode_otlp_logs_proto",
                "decode_otlp_traces_json",
                "decode_otlp_logs_json",
            ][..],
        ),
        ("ndjson", &["decode_ndjson", "decode_audit"][..]),
        ("line_protocol", &["decode_line_protocol"][..]),
    ] {
        let room = root().join("ingest/src/decode").join(decoder);
        assert!(room.is_dir(), "{decoder} has a room");
        for target in targets {
            let path = root().join("fuzz/fuzz_targets").join(format!("{target}.rs"));
            assert!(path.exists(), "{} is missing", path.display());
            // `payloads` sends them.
            let fixtures = root().join("fuzz/corpus").join(target);
            assert!(
                fs::read_dir(&fixtures).is_ok_and(|mut all| all.next().is_some()),
                "{target} has no fixtures"
            );
            assert!(payloads.contains(target), "no test sends the fixtures of {target}");
        }
        assert!(benches.contains(decoder), "no bench names {decoder}");
    }
}

#[test]
fn every_invariant_is_listed_and_tested() {
    let listed = fs::read_to_string(root().join("docs/INVARIANTS.md")).unwrap();
    let code = code();
    for id in [
        "A1", "A2", "A3", "P1", "P2", "T1", "B1", "W1", "W2", "W3", "C1", "C2", "C3", "M1", "E1", "E2", "R1",
        "Q1", "X1", "X2", "X3",
    ] {
        let row = listed.lines().find(|line| line.starts_with(&format!("| {id} |")));
        let row = row.unwrap_or_else(|| panic!("{id} is not listed"));
        let has_test = long_names(row).any(|name| code.contains(&format!("fn {name}(")));
        assert!(has_test || row.contains("not built"), "{id} names no test");
    }
}

/// Every constant `…_MAX` of the four crates is a row of `docs/BOUNDS.md`, and every row's test exists.
#[test]
fn every_bound_is_listed_with_its_test() {
    let page = fs::read_to_string(root().join("docs/BOUNDS.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    let mut wrong = Vec::new();
    let mut found = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| !is_test(name) && !name.contains("/conformance/"))
    {
        for line in production(text).lines() {
            let Some((_, rest)) = line.split_once("const ") else { continue };
            let Some((constant, _)) = rest.split_once(':') else { continue };
            if constant.ends_with("_MAX") || constant.contains("_MAX_") {
                found.push((constant.to_owned(), name.clone()));
            }
        }
    }
    for (constant, file) in &found {
        if !rows.iter().any(|row| row[0] == constant && row[1] == file) {
            wrong.push(format!(
                "{constant} in {file} is no row of docs/BOUNDS.md: what test turns red without it?"
            ));
        }
    }
    let code = code();
    for row in &rows {
        let is_constant =
            row[0].bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_' || byte.is_ascii_digit());
        if is_constant && !found.iter().any(|(constant, file)| constant == row[0] && file == row[1]) {
            wrong.push(format!("{} is not in {}", row[0], row[1]));
        }
        match row.get(4) {
            None => wrong.push(format!("{} names no test", row[0])),
            // A reason, in words.
            Some(test) if test.contains(' ') => {}
            Some(test) if code.contains(&format!("fn {test}(")) => {}
            Some(test) => wrong.push(format!("{}: there is no test {test}", row[0])),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A test, a metric or a setting that a page names in backquotes exists.
#[test]
fn docs_name_names_that_exist() {
    let code = code();
    let mut missing = Vec::new();
    for page in files(&root().join("docs"), "md") {
        let text = fs::read_to_string(&page).unwrap();
        // The metrics library adds the suffix of counters.
        let is_gone = |name: &&str| !code.contains(name.strip_suffix("_total").unwrap_or(name));
        let gone = text.lines().flat_map(long_names).filter(is_gone);
        missing.extend(gone.map(|name| format!("{}: {name}", page.display())));
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// All sources, tests included.
fn code() -> String {
    let rooms = ["engine", "ingest", "storage", "query", "tests"].map(|room| files(&root().join(room), "rs"));
    rooms.iter().flatten().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// What a line names in backquotes that has at least three words joined by underscores.
fn long_names(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter(|name| {
        name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            && name.matches('_').count() >= 2
    })
}

/// Every path that a page names in backquotes exists, unless the line says that it is not built.
#[test]
fn docs_name_what_exists() {
    let mut missing = Vec::new();
    let mut pages = files(&root().join("docs"), "md");
    pages.extend(["README.md", "CONTRIBUTING.md"].map(|page| root().join(page)));
    for page in pages {
        for line in fs::read_to_string(&page).unwrap().lines() {
            if line.contains("not built") {
                continue;
            }
            for path in line.split('`').skip(1).step_by(2).filter(|text| looks_like_a_path(text)) {
                let path = path.split(['#', ':']).next().unwrap();
                if !root().join(path).exists() {
                    missing.push(format!("{}: {path}", page.file_name().unwrap().to_string_lossy()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

fn looks_like_a_path(text: &str) -> bool {
    let rooms = [
        "engine/", "ingest/", "storage/", "query/", "tests/", "benches/", "fuzz/", "docs/", ".ci/", ".cargo/",
    ];
    rooms.iter().any(|room| text.starts_with(room)) && !text.contains(['*', '{', '<', ' ', '…'])
}
