//! What an operator may set: defaults, then one TOML file, then `FLOODMARK_*`, then flags.
//!
//! A key that is not known refuses to start and names its nearest neighbour, so that a typo is never a silent
//! default. Secrets are apart ([`Secrets`]) and never printed.

mod load;
mod machine;
mod secret;
mod size;

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use storage::memory::MEMORY_BYTES_MIN;

use crate::jobs;
pub use load::{Flags, load};
use machine::Machine;
pub use secret::{Secrets, master_key_bytes};
pub use size::Size;

/// Why a configuration is refused: the process exits 78 with this text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// Makes an error of a lower-case sentence that quotes no secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// One line of text, for a person at a terminal.
    Text,
}

/// Bounds of reading.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuerySettings {
    /// How long one query may run, in milliseconds.
    pub time_max_ms: u64,
    /// Rows of a JSON answer.
    pub rows_max: usize,
    /// Threads of queries; 0 = as many as cores.
    pub threads: usize,
    /// Processes that answer SQL, at once; 0 = one for each 128 MB of `query_memory_max`, at least 2 and at most two
    /// a core.
    pub workers_max: usize,
    /// Processes that are kept ready for a tenant's first query.
    pub workers_warm: usize,
    /// Memory of one process that answers SQL, in bytes; 0 = its part of `query_memory_max`.
    pub worker_memory_bytes: Size,
}

impl Default for QuerySettings {
    fn default() -> Self {
        Self {
            time_max_ms: 30_000,
            rows_max: 10_000,
            threads: 0,
            workers_max: 0,
            workers_warm: 1,
            worker_memory_bytes: Size(0),
        }
    }
}

/// Everything that is no secret, as it stands in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where HTTP listens; port 0 takes a free one.
    pub http_addr: String,
    /// Where gRPC listens.
    pub grpc_addr: String,
    /// The data folder.
    pub data: PathBuf,
    /// Ingest lanes, each a thread with a log of its own; 0 = as many as cores.
    pub lanes: usize,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log: String,
    /// `json` or `text`.
    pub log_format: LogFormat,
    /// Origins that browsers may call from; none by default.
    pub allowed_origins: Vec<String>,
    /// Host names that requests may name; empty = any.
    pub allowed_hosts: Vec<String>,
    /// Open connections of the whole process.
    pub connections_max: usize,
    /// Open connections that have shown no valid key yet; fewer where half of the edge's memory is less.
    pub connections_unproven_max: usize,
    /// Those of them of one address (of one /64 of IPv6); 0 = not bounded by address.
    pub connections_per_ip_max: usize,
    /// Memory of the serving process, in bytes; 0 = by the machine: 350 MB and 50 MB for each core beyond two, at
    /// most a quarter of the machine's memory and 60 % of its cgroup's limit.
    pub memory_max: Size,
    /// Memory of all queries together, in bytes, beside `memory_max`; 0 = by the machine: 512 MB, at most a quarter
    /// of its memory and of its cgroup's limit.
    pub query_memory_max: Size,
    /// Where bytes are kept, and how much.
    pub storage: storage::Options,
    /// The bounds of one ingest request.
    pub ingest: ingest::Limits,
    /// The bounds of reading.
    pub query: QuerySettings,
    /// When jobs run by themselves.
    pub jobs: jobs::Settings,
    /// Whether this start takes over records of tenants and keys that have no proof of origin.
    #[serde(skip)]
    pub adopt_state: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http_addr: "127.0.0.1:4318".into(),
            grpc_addr: "127.0.0.1:4317".into(),
            data: PathBuf::from("floodmark-data"),
            lanes: 0,
            log: "info".into(),
            log_format: LogFormat::Json,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            connections_max: 10_000,
            connections_unproven_max: 1_024,
            connections_per_ip_max: 64,
            memory_max: Size(0),
            query_memory_max: Size(0),
            storage: storage::Options::default(),
            ingest: ingest::Limits::default(),
            query: QuerySettings::default(),
            jobs: jobs::Settings::default(),
            adopt_state: false,
        }
    }
}

/// A checked configuration.
#[derive(Clone)]
pub struct Config {
    /// Everything that may be shown.
    pub settings: Settings,
    /// Everything that may not.
    pub secrets: Secrets,
    /// Where HTTP listens.
    pub http_addr: SocketAddr,
}

impl Config {
    /// Checks what types alone cannot.
    ///
    /// # Errors
    /// Names the key that cannot be.
    pub fn check(mut settings: Settings, secrets: Secrets) -> Result<Self, Error> {
        share_memory(&mut settings, &Machine::this())?;
        let http_addr = socket_addr("http_addr", &settings.http_addr)?;
        socket_addr("grpc_addr", &settings.grpc_addr)?;
        if settings.log.parse::<tracing::Level>().is_err() {
            return Err(Error::new("log must be error, warn, info, debug or trace"));
        }
        settings.storage.validate().map_err(|error| Error::new(format!("storage.{}", error.context())))?;
        for (name, value) in [
            ("connections_max", settings.connections_max),
            ("connections_unproven_max", settings.connections_unproven_max),
            ("query.rows_max", settings.query.rows_max),
            ("ingest.body_bytes_max", settings.ingest.body_bytes_max),
            ("ingest.inflated_bytes_max", settings.ingest.inflated_bytes_max),
            ("ingest.records_max", settings.ingest.records_max),
        ] {
            if value == 0 {
                return Err(Error::new(format!("{name} must be at least 1")));
            }
        }
        if jobs::minutes_of_day(&settings.jobs.retention_at).is_none() {
            return Err(Error::new("jobs.retention_at must be a time of day as HH:MM, in UTC"));
        }
        if settings.jobs.sweep_minutes == 0 {
            return Err(Error::new("jobs.sweep_minutes must be at least 1"));
        }
        if settings.lanes > LANES_MAX {
            return Err(Error::new(format!("lanes {} exceeds {LANES_MAX}", settings.lanes)));
        }
        for origin in &settings.allowed_origins {
            if origin == "*" || !(origin.starts_with("http://") || origin.starts_with("https://")) {
                return Err(Error::new(
                    "allowed_origins are whole origins as https://host, never a wildcard",
                ));
            }
        }
        secrets.check()?;
        let config = Self { settings, secrets, http_addr };
        config.check_workers()?;
        Ok(config)
    }

    /// Whether only this machine can reach the listener.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.http_addr.ip().is_loopback()
    }

    /// How many lanes there are.
    #[must_use]
    pub fn lane_count(&self) -> usize {
        or_cores(self.settings.lanes)
    }

    /// What queries may use.
    #[must_use]
    pub fn query_options(&self) -> query::Options {
        let settings = &self.settings.query;
        let threads = or_cores(settings.threads);
        let workers_max = self.workers_max();
        query::Options {
            memory_bytes: usize::try_from(self.settings.memory_max.0 / READS_PART).unwrap_or(usize::MAX),
            time_max: Duration::from_millis(settings.time_max_ms),
            rows_max: settings.rows_max,
            threads,
            workers: query::worker::Options {
                launch: query::worker::Launch::Process,
                workers_max,
                warm: settings.workers_warm.min(workers_max),
                memory_bytes: self.worker_memory_bytes(),
                threads,
            },
            at_rest: crate::allocator::tidy,
        }
    }

    fn workers_max(&self) -> usize {
        if self.settings.query.workers_max > 0 {
            return self.settings.query.workers_max;
        }
        let by_memory = self.settings.query_memory_max.0 / WORKER_MEMORY_BYTES;
        usize::try_from(by_memory).unwrap_or(usize::MAX).clamp(2, 2 * or_cores(0))
    }

    fn worker_memory_bytes(&self) -> u64 {
        match self.settings.query.worker_memory_bytes.0 {
            0 => self.settings.query_memory_max.0 / self.workers_max() as u64,
            bytes => bytes,
        }
    }

    /// Refuses workers that together would take more than there is for them.
    fn check_workers(&self) -> Result<(), Error> {
        let (count, each) = (self.workers_max(), self.worker_memory_bytes());
        let most = self.settings.query_memory_max.0;
        if self.settings.query.workers_max > WORKERS_MAX {
            return Err(Error::new(format!("query.workers_max {count} exceeds {WORKERS_MAX}")));
        }
        if (count as u64).saturating_mul(each) > most {
            return Err(Error::new(format!(
                "query.workers_max {count} times query.worker_memory_bytes {each} exceeds query_memory_max {most}"
            )));
        }
        Ok(())
    }
}

/// Memory that one worker is given by default, in bytes: some thirty million are the worker's own.
const WORKER_MEMORY_BYTES: u64 = 128_000_000;

/// More workers than this are a typo.
const WORKERS_MAX: usize = 256;

/// Of `memory_max`, the part that reads in the serving process may reserve: one eighth.
const READS_PART: u64 = 8;

/// Fills in the memory caps that are not set, and refuses those that cannot hold.
fn share_memory(settings: &mut Settings, machine: &Machine) -> Result<(), Error> {
    let limit = machine.limit();
    let (is_given, is_query_given) = (settings.memory_max.0 > 0, settings.query_memory_max.0 > 0);
    if !is_given {
        settings.memory_max = Size(machine.memory_max());
    }
    if !is_query_given {
        settings.query_memory_max = Size(machine.query_memory_max());
    }
    let (memory_max, query_memory_max) = (settings.memory_max.0, settings.query_memory_max.0);
    if memory_max < MEMORY_BYTES_MIN {
        return Err(Error::new(format!(
            "memory_max {memory_max} is less than {MEMORY_BYTES_MIN}: a start alone takes half of that"
        )));
    }
    // What the process is killed for is no cap. Defaults on a tiny machine are the best there is.
    if (is_given || is_query_given) && memory_max.saturating_add(query_memory_max) > limit {
        return Err(Error::new(format!(
            "memory_max {memory_max} and query_memory_max {query_memory_max} together exceed the {limit} bytes that \
             this machine or its cgroup has: lower one of them"
        )));
    }
    settings.storage.memory_max = memory_max;
    Ok(())
}

/// More lanes than this are a typo: each preallocates log segments.
const LANES_MAX: usize = 256;

fn or_cores(count: usize) -> usize {
    match count {
        0 => std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        count => count,
    }
}

fn socket_addr(name: &str, text: &str) -> Result<SocketAddr, Error> {
    text.to_socket_addrs()
        .ok()
        .and_then(|mut addrs| addrs.next())
        .ok_or_else(|| Error::new(format!("{name} {text:?} is no address of the form host:port")))
}

/// The effective configuration as TOML, secrets redacted.
#[must_use]
pub fn render(config: &Config) -> String {
    let mut out = String::new();
    for (name, is_set) in config.secrets.are_set() {
        let value = if is_set { "\"(set, not shown)\"" } else { "\"(not set)\"" };
        out.push_str(&format!("# {name} = {value}\n"));
    }
    let mut table =
        toml::Table::try_from(&config.settings).expect("settings are plain values with text keys");
    if let Some(storage) = table.get_mut("storage").and_then(toml::Value::as_table_mut) {
        storage.remove("data");
    }
    out.push_str(&toml::to_string(&table).expect("a table of plain values"));
    out
}

#[cfg(test)]
mod tests;
