//! Lays the sources of the configuration over each other: file, environment, flags.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::secret::{self, NAMES, Secrets};
use super::{Config, Error, Settings, Size};

/// Keys whose value may have a unit of bytes.
const SIZES: [&str; 2] = ["memory_max", "query_memory_max"];

/// What the command line may say of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The file.
    pub config: Option<PathBuf>,
    /// The data folder.
    pub data: Option<PathBuf>,
    /// Where HTTP listens.
    pub http: Option<String>,
    /// Where gRPC listens.
    pub grpc: Option<String>,
}

/// Variables with our prefix that are not the server's configuration: the command line's own, and what
/// Kubernetes sets for a service named `floodmark`.
fn is_foreign(name: &str) -> bool {
    matches!(name, "config" | "url" | "key")
        || name == "port"
        || name.starts_with("port_")
        || name.starts_with("service_")
}

/// Loads and checks the configuration.
///
/// # Errors
/// Names the key, file or variable that is wrong, and the nearest key that exists.
pub fn load(flags: &Flags, environment: &[(String, String)]) -> Result<Config, Error> {
    let variable = |name: &str| environment.iter().find(|(have, _)| have == name).map(|(_, v)| v.clone());
    let known = known();
    let mut secrets = Secrets::default();
    let mut table = Table::new();

    let file = flags.config.clone().or_else(|| variable("FLOODMARK_CONFIG").map(PathBuf::from));
    if let Some(path) = file {
        let read = read_file(&path)?;
        refuse_unknown(&read, &known, "", &known)?;
        merge(&mut table, read);
    }
    for name in NAMES {
        if let Some(value) = table.remove(name) {
            let text = value.as_str().ok_or_else(|| Error::new(format!("{name} must be text")))?;
            set_secret(&mut secrets, name, secret::resolve(name, text, false, &variable)?);
        }
    }

    for (name, value) in environment {
        let Some(key) = name.strip_prefix("FLOODMARK_").map(str::to_ascii_lowercase) else { continue };
        if is_foreign(&key) {
            continue;
        }
        let path: Vec<&str> = key.split("__").collect();
        let Some(template) = look_up(&known, &path) else {
            return Err(unknown(&format!("environment variable {name}"), &path.join("."), &known));
        };
        if NAMES.contains(&key.as_str()) {
            // Set but empty is a placeholder, not absence.
            set_secret(&mut secrets, &key, secret::resolve(&key, value, true, &variable)?);
        } else {
            let value = match Size::parse(value) {
                Some(Size(bytes)) if SIZES.contains(&key.as_str()) => {
                    Value::Integer(i64::try_from(bytes).expect("a size is at most an i64"))
                }
                _ => typed(name, value, template)?,
            };
            merge(&mut table, nest(&path, value));
        }
    }
    if !table.contains_key("log")
        && !environment.iter().any(|(name, _)| name == "FLOODMARK_LOG")
        && let Some(level) = variable("LOG_LEVEL")
    {
        merge(&mut table, nest(&["log"], Value::String(level)));
    }

    for (key, value) in [
        ("data", flags.data.as_ref().map(|path| path.to_string_lossy().into_owned())),
        ("http_addr", flags.http.clone()),
        ("grpc_addr", flags.grpc.clone()),
    ] {
        if let Some(value) = value {
            merge(&mut table, nest(&[key], Value::String(value)));
        }
    }

    let mut settings: Settings = table.try_into().map_err(|error| Error::new(first_line(&error)))?;
    settings.storage.data = settings.data.clone();
    Config::check(settings, secrets)
}

fn set_secret(secrets: &mut Secrets, name: &str, secret: secrecy::SecretString) {
    *secrets.slot(name).expect("a name of the list") = Some(secret);
}

fn read_file(path: &Path) -> Result<Table, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::new(format!("cannot read {}: {error}", path.display())))?;
    // Only the message, never the line: it may hold what should have been a reference to a secret.
    text.parse::<Table>()
        .map_err(|error| Error::new(format!("{} is not valid TOML: {}", path.display(), error.message())))
}

/// Every key there is, with a value of its type.
fn known() -> Table {
    let mut known = Table::try_from(Settings::default()).expect("settings are plain values with text keys");
    if let Some(storage) = known.get_mut("storage").and_then(Value::as_table_mut) {
        // The folder is set by `data` alone.
        storage.remove("data");
        for name in ["store_url", "store_ca", "node"] {
            storage.insert(name.into(), Value::String(String::new()));
        }
    }
    for name in NAMES {
        known.insert(name.into(), Value::String(String::new()));
    }
    known
}

fn look_up<'a>(known: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = known.get(*first)?;
    match (rest, value) {
        ([], Value::Table(_)) => None,
        ([], value) => Some(value),
        (rest, Value::Table(inner)) => look_up(inner, rest),
        _ => None,
    }
}

fn refuse_unknown(given: &Table, known: &Table, prefix: &str, all: &Table) -> Result<(), Error> {
    for (key, value) in given {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (known.get(key), value) {
            (None, _) => return Err(unknown("key", &path, all)),
            (Some(Value::Table(known)), Value::Table(given)) => refuse_unknown(given, known, &path, all)?,
            _ => {}
        }
    }
    Ok(())
}

fn unknown(what: &str, path: &str, known: &Table) -> Error {
    let mut paths = Vec::new();
    leaves(known, "", &mut paths);
    // A key may be written without its table: then its last part is what is meant.
    let from_last_part = |have: &str| distance(have.rsplit('.').next().unwrap_or(have), path);
    let nearest = paths
        .into_iter()
        .min_by_key(|have| distance(have, path).min(from_last_part(have)))
        .unwrap_or_default();
    let what = if what == "key" { format!("key {path}") } else { what.to_owned() };
    Error::new(format!("unknown {what}; the nearest known key is {nearest}"))
}

fn leaves(table: &Table, prefix: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => leaves(inner, &path, out),
            _ => out.push(path),
        }
    }
}

/// Edits between two names (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Text of the environment as a value of the template's type.
fn typed(name: &str, text: &str, template: &Value) -> Result<Value, Error> {
    let wrong = |what: &str| Error::new(format!("environment variable {name} must be {what}"));
    Ok(match template {
        Value::Integer(_) => Value::Integer(text.trim().parse().map_err(|_| wrong("a whole number"))?),
        Value::Float(_) => Value::Float(text.trim().parse().map_err(|_| wrong("a number"))?),
        Value::Boolean(_) => Value::Boolean(text.trim().parse().map_err(|_| wrong("true or false"))?),
        Value::Array(_) => Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect(),
        ),
        _ => Value::String(text.to_owned()),
    })
}

fn nest(path: &[&str], value: Value) -> Table {
    let mut table = Table::new();
    match path {
        [] => {}
        [last] => drop(table.insert((*last).to_owned(), value)),
        [first, rest @ ..] => drop(table.insert((*first).to_owned(), Value::Table(nest(rest, value)))),
    }
    table
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn first_line(error: &toml::de::Error) -> String {
    error.message().lines().next().unwrap_or("the configuration does not fit").to_owned()
}
