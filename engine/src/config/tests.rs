//! Precedence, unknown keys and redaction.

use super::{Flags, load, render};

const KEY: &str = "0b7hJq2xVw9sT4kLm8nR1cYz5dFg3aEu";

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> (tempfile::TempDir, Flags) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("floodmark.toml");
    std::fs::write(&path, text).expect("write the file");
    (folder, Flags { config: Some(path), ..Flags::default() })
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let (_folder, mut flags) =
        file("http_addr = \"127.0.0.1:1\"\nlanes = 3\n[storage]\nseal_rows = 10\nseal_age_ms = 7\n");
    flags.http = Some("127.0.0.1:3".into());
    let variables = environment(&[
        ("FLOODMARK_HTTP_ADDR", "127.0.0.1:2"),
        ("FLOODMARK_STORAGE__SEAL_ROWS", "20"),
        ("FLOODMARK_ALLOWED_ORIGINS", "https://a.example, https://b.example"),
        ("FLOODMARK_PORT_4318_TCP_ADDR", "10.0.0.1"),
        ("FLOODMARK_URL", "http://x"),
        ("PATH", "/bin"),
    ]);
    let config = load(&flags, &variables).expect("a good configuration");
    assert_eq!(config.http_addr.port(), 3);
    assert_eq!(config.settings.lanes, 3);
    assert_eq!((config.settings.storage.seal_rows, config.settings.storage.seal_age_ms), (20, 7));
    assert_eq!(config.settings.allowed_origins, ["https://a.example", "https://b.example"]);
}

#[test]
fn what_cannot_be_is_named() {
    let check = |text: &str, variables: &[(&str, &str)], says: &str| {
        let (_folder, flags) = file(text);
        let error = match load(&flags, &environment(variables)) {
            Ok(_) => panic!("{text} {variables:?} was accepted"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(says), "{error}");
    };
    check("http_adr = \"x\"", &[], "unknown key http_adr; the nearest known key is http_addr");
    check("[storage]\nseal_row = 1", &[], "the nearest known key is storage.seal_rows");
    check("[storage]\ndata = \"x\"", &[], "unknown key storage.data");
    check("", &[("FLOODMARK_STORAGE__SEAL_ROW", "1")], "FLOODMARK_STORAGE__SEAL_ROW");
    check("", &[("FLOODMARK_STORE_URL", "x")], "the nearest known key is storage.store_url");
    check("", &[("FLOODMARK_LANES", "many")], "FLOODMARK_LANES must be a whole number");
    check("http_addr = \"nowhere\"", &[], "http_addr");
    check("allowed_origins = [\"*\"]", &[], "wildcard");
    check("log = \"loud\"", &[], "log must be");
    check("[storage]\nseal_rows = 0", &[], "seal_rows");
    check("", &[("FLOODMARK_BOOTSTRAP_KEY", "")], "bootstrap_key is a placeholder");
    check("", &[("FLOODMARK_OPERATOR_KEY", "short")], "at least 32");
    check(&format!("operator_key = \"{KEY}\""), &[], "must be a reference");
    check("operator_key = \"env:NOWHERE\"", &[], "not set");
    check("memory_max = \"lots\"", &[], "a number of bytes, alone or with a unit");
    check("memory_max = -1", &[], "a number of bytes, alone or with a unit");
    check("memory_max = \"1MiB\"", &[], "memory_max 1048576 is less than");
    check("memory_max = \"8000000GB\"", &[], "together exceed");
    check("query_memory_max = \"8000000GB\"", &[], "together exceed");
    check("", &[("FLOODMARK_MEMORY_MAX", "lots")], "FLOODMARK_MEMORY_MAX must be a whole number");
    check("", &[("FLOODMARK_LANES", "4KiB")], "FLOODMARK_LANES must be a whole number");
    check("[query]\nworkers_max = 1000", &[], "query.workers_max 1000 exceeds 256");
    check(
        "query_memory_max = \"200MB\"\n[query]\nworkers_max = 3\nworker_memory_bytes = \"90MB\"",
        &[],
        "exceeds query_memory_max",
    );
    check("a = = b", &[], "not valid TOML");
}

/// Secrets never leave in what is printed.
#[test]
fn secrets_are_redacted() {
    let (_folder, flags) = file("operator_key = \"env:THE_KEY\"");
    let config = load(&flags, &environment(&[("THE_KEY", KEY)])).expect("a good configuration");
    let text = render(&config);
    assert!(!text.contains(KEY), "{text}");
    assert!(text.contains("operator_key = \"(set, not shown)\"") && text.contains("seal_rows"), "{text}");
    // What is printed is a configuration again.
    let (_folder, flags) = file(&text);
    assert!(load(&flags, &[]).is_ok());
}

/// What is not set is shown as what it is on this machine, and storage is told.
#[test]
fn the_memory_cap_is_always_a_number() {
    let check = |text: &str, variables: &[(&str, &str)], expected: Option<(u64, u64)>| {
        let (_folder, flags) = file(text);
        let config = load(&flags, &environment(variables)).expect("a good configuration");
        let got = (config.settings.memory_max.0, config.settings.query_memory_max.0);
        assert!(got.0 > 0 && got.1 > 0, "{got:?}");
        assert_eq!(config.settings.storage.memory_max, got.0);
        let workers = config.query_options().workers;
        assert!(workers.workers_max as u64 * workers.memory_bytes <= got.1, "{workers:?}");
        assert!(render(&config).contains(&format!("\nmemory_max = {}\n", got.0)), "{}", render(&config));
        if let Some(expected) = expected {
            assert_eq!(got, expected);
        }
    };
    check("", &[], None);
    check("memory_max = 190000000\nquery_memory_max = \"10MB\"", &[], Some((190_000_000, 10_000_000)));
    let variables = [("FLOODMARK_MEMORY_MAX", "200MiB"), ("FLOODMARK_QUERY_MEMORY_MAX", "1000000")];
    check("memory_max = \"190MB\"", &variables, Some((200 << 20, 1_000_000)));
}

/// All workers together stay within the memory that is theirs.
#[test]
fn workers_share_the_memory_of_queries() {
    let check = |text: &str, expected: (usize, u64)| {
        let (_folder, flags) = file(text);
        let config = load(&flags, &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
        let workers = config.query_options().workers;
        assert_eq!((workers.workers_max, workers.memory_bytes), expected, "{text}");
        assert!(
            workers.workers_max as u64 * workers.memory_bytes <= config.settings.query_memory_max.0,
            "{text}"
        );
    };
    check("query_memory_max = \"100MB\"", (2, 50_000_000));
    check("query_memory_max = \"256MB\"", (2, 128_000_000));
    check("query_memory_max = \"512MB\"\n[query]\nworkers_max = 3", (3, 170_666_666));
    check(
        "query_memory_max = \"512MB\"\n[query]\nworkers_max = 1\nworker_memory_bytes = \"400MB\"",
        (1, 400_000_000),
    );
}
