//! The engine as a process of its own, on a folder of its own and a free port.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Response, request};

/// The bootstrap key of every server under test.
pub const KEY: &str = "a-bootstrap-key-for-tests-only-0123456789";

/// A running engine.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
    data: PathBuf,
    _folder: Option<tempfile::TempDir>,
    environment: Vec<(String, String)>,
    /// What a shell does before it becomes the engine.
    before: String,
    /// Everything it wrote to standard error since it started.
    pub log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts on an empty folder.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts on an empty folder with more environment.
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = owned(environment);
        let data = folder.path().to_owned();
        let (child, addr, log) = spawn(&data, &environment, "").expect("the engine starts");
        Self { child, addr, data, _folder: Some(folder), environment, before: String::new(), log }
    }

    /// Starts on a folder that outlives it.
    pub fn start_on(data: &Path, environment: &[(&str, &str)]) -> Self {
        Self::start_within(data, environment, String::new())
    }

    /// Starts on a folder that outlives it, within bounds that a shell sets for itself `before` it becomes the engine.
    pub fn start_within(data: &Path, environment: &[(&str, &str)], before: String) -> Self {
        let environment = owned(environment);
        let (child, addr, log) = spawn(data, &environment, &before).expect("the engine starts");
        Self { child, addr, data: data.to_owned(), _folder: None, environment, before, log }
    }

    /// As [`Self::start_on`]; gives the exit status and what it said where it ends instead of listening.
    pub fn try_start_on(data: &Path, environment: &[(&str, &str)]) -> Result<Self, (ExitStatus, String)> {
        let environment = owned(environment);
        let (child, addr, log) = spawn(data, &environment, "")?;
        let before = String::new();
        Ok(Self { child, addr, data: data.to_owned(), _folder: None, environment, before, log })
    }

    /// Starts again on the same folder; the port may be another.
    pub fn restart(&mut self) {
        self.try_restart().expect("the engine starts again");
    }

    /// As [`Self::restart`]; gives the exit status where it ends instead of listening.
    pub fn try_restart(&mut self) -> Result<(), ExitStatus> {
        let (child, addr, log) =
            spawn(&self.data, &self.environment, &self.before).map_err(|(status, _)| status)?;
        (self.child, self.addr, self.log) = (child, addr, log);
        Ok(())
    }

    /// Starts again on the same folder, going on over damage in the log.
    pub fn salvage(&mut self) {
        let mut command = serve(&self.data, &self.environment, &self.before);
        let started = listening(command.arg("--salvage")).expect("the engine starts");
        (self.child, self.addr, self.log) = started;
    }

    /// What it says on a start that must fail.
    pub fn refused(&self) -> String {
        let started = spawn(&self.data, &self.environment, &self.before);
        started.map(|(mut child, _, _)| child.kill()).expect_err("the engine starts").1
    }

    /// Changes the environment of the next start.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.environment = owned(environment);
    }

    /// Starts on the same folder after an end, and kills what was started after a while, wherever it is by then.
    pub fn start_and_kill(&mut self, after: Duration) {
        let mut child =
            serve(&self.data, &self.environment, &self.before).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Bytes of log segments in the data folder.
    pub fn wal_bytes(&self) -> u64 {
        let lanes = std::fs::read_dir(self.data.join("wal")).unwrap();
        let files = lanes.filter_map(|lane| std::fs::read_dir(lane.unwrap().path()).ok()).flatten();
        files
            .map(|file| file.unwrap())
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "wal"))
            // Trimmed meanwhile is gone.
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum()
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill is at hand");
    }

    /// How the process ended, where it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the engine does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends with the bootstrap key.
    pub fn post(&self, target: &str, content_type: &str, body: &[u8]) -> Response {
        self.send(KEY, "POST", target, &[("Content-Type", content_type)], body)
    }

    pub fn get(&self, target: &str) -> Response {
        self.send(KEY, "GET", target, &[], b"")
    }

    /// Sends with any key.
    pub fn send(
        &self,
        key: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let bearer = format!("Bearer {key}");
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        request(self.addr, method, target, &all, body)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// Rows of a query, which must succeed.
    pub fn sql(&self, query: &str) -> Vec<Value> {
        let body = json!({"query": query}).to_string();
        let response = self.post("/api/v1/sql", "application/json", body.as_bytes());
        assert_eq!(response.status, 200, "{query}: {}", response.text());
        response.json()["rows"].as_array().unwrap().clone()
    }

    /// The one number that a query answers.
    pub fn count(&self, query: &str) -> i64 {
        let rows = self.sql(query);
        rows[0].as_object().unwrap().values().next().unwrap().as_i64().unwrap_or_else(|| panic!("{rows:?}"))
    }

    /// Seals and commits everything acknowledged so far.
    pub fn flush(&self) {
        let response = self.post("/api/v1/system/flush", "application/json", b"");
        assert_eq!(response.status, 200, "{}", response.text());
    }

    /// Runs a client command against this server, with `--json`; gives its exit code and what it printed.
    pub fn command(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let done = binary()
            .args(arguments)
            .arg("--json")
            .env("FLOODMARK_URL", format!("http://{}", self.addr))
            .env("FLOODMARK_KEY", KEY)
            .output()
            .expect("the engine's binary runs");
        let printed = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| {
            panic!("{arguments:?}: {error}: {}", String::from_utf8_lossy(&done.stderr));
        });
        (done.status.code(), printed)
    }

    /// Makes a tenant; returns its admin key.
    pub fn tenant(&self, tenant: &str) -> String {
        let body = json!({"tenant": tenant}).to_string();
        let response = self.post("/api/v1/tenants", "application/json", body.as_bytes());
        assert_eq!(response.status, 201, "{}", response.text());
        response.json()["admin_key"].as_str().unwrap().to_owned()
    }

    /// Makes a key of the admin's tenant with one role.
    pub fn key(&self, admin: &str, role: &str) -> String {
        let body = json!({"name": role, "role": role}).to_string();
        let headers = [("Content-Type", "application/json")];
        let response = self.send(admin, "POST", "/api/v1/keys", &headers, body.as_bytes());
        assert_eq!(response.status, 201, "{}", response.text());
        response.json()["key"].as_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command that needs no server; gives its exit code and what it told.
pub fn floodmark(arguments: &[&str]) -> (Option<i32>, String) {
    let done = binary().args(arguments).output().expect("the engine's binary runs");
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

/// Variables that are not the engine's, without their prefix.
const OF_THE_TESTS: [&str; 18] = [
    "ADVERSARY_SECONDS",
    "ADVERSARY_SEED",
    "AZURE_URL",
    "BIN",
    "BUCKET_CA",
    "BUCKET_URL",
    "DISK_CYCLES",
    "FOOTPRINT",
    "FUZZ_SECONDS",
    "KILL_ROUNDS",
    "KILL_SEED",
    "KILL_STATE",
    "MAKE_OLD_DATA",
    "PROOFS",
    "SHARED_DATA",
    "STATEMENTS",
    "SYSCALL_CASES",
    "TOOLS",
];

type Spawned = (Child, SocketAddr, Arc<Mutex<String>>);

/// The engine's binary, without the tests' own variables: the engine refuses those it does not know.
fn binary() -> Command {
    let path = std::env::var("FLOODMARK_BIN")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_floodmark-under-test").to_owned());
    let mut command = Command::new(path);
    for name in OF_THE_TESTS {
        command.env_remove(format!("FLOODMARK_{name}"));
    }
    command
}

fn owned(environment: &[(&str, &str)]) -> Vec<(String, String)> {
    environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The command that serves a data folder.
fn serve(data: &Path, environment: &[(String, String)], before: &str) -> Command {
    let mut command = binary();
    if !before.is_empty() {
        let engine = command.get_program().to_owned();
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(engine);
        for (name, _) in command.get_envs() {
            shell.env_remove(name);
        }
        command = shell;
    }
    command
        .args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--data"])
        .arg(data)
        .env("FLOODMARK_BOOTSTRAP_KEY", KEY)
        .envs(environment.iter().cloned())
        .stdout(Stdio::null());
    command
}

fn spawn(
    data: &Path,
    environment: &[(String, String)],
    before: &str,
) -> Result<Spawned, (ExitStatus, String)> {
    listening(&mut serve(data, environment, before))
}

/// Starts a server and waits until it listens, or for how it ended and what it said.
fn listening(command: &mut Command) -> Result<Spawned, (ExitStatus, String)> {
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the engine's binary runs");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let log = Arc::new(Mutex::new(String::new()));
    for line in lines.by_ref() {
        let line = line.unwrap_or_default();
        log.lock().unwrap().push_str(&format!("{line}\n"));
        if let Some(rest) = line.strip_prefix("listening http=") {
            let addr = rest.split(' ').next().unwrap().parse().unwrap();
            let kept = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    kept.lock().unwrap().push_str(&format!("{line}\n"));
                }
            });
            return Ok((child, addr, log));
        }
    }
    let status = child.wait().unwrap();
    let told = log.lock().unwrap().clone();
    eprintln!("{told}");
    Err((status, told))
}
