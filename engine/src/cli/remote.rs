//! What every command that talks to a server shares: where it is, which key asks, how to run, and how a
//! failure is told so that the reader knows what to do next.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;

use http::StatusCode;
use secrecy::SecretString;
use serde_json::Value;

use crate::client::{Call, Client, Error, ErrorKind, Reply, Session};

/// Where the server is and who asks.
#[derive(Clone, Debug, clap::Args)]
pub struct Remote {
    /// Address of the server
    #[arg(
        long,
        global = true,
        env = "FLOODMARK_URL",
        default_value = "http://127.0.0.1:4318",
        value_name = "URL"
    )]
    pub url: String,
    /// API key; better given in the environment, where other users cannot see it
    #[arg(long, global = true, env = "FLOODMARK_KEY", hide_env_values = true, value_name = "KEY")]
    pub key: Option<SecretString>,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
}

impl Remote {
    /// Returns a client for the server named.
    ///
    /// # Errors
    /// When the URL is not one this client can speak to.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.url, self.key.clone()).map_err(Failure::from)
    }
}

/// Why a command ends without having done its work.
#[derive(Debug)]
pub struct Failure {
    usage: bool,
    message: String,
}

impl Failure {
    /// The arguments ask for what cannot be: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { usage: true, message: message.into() }
    }

    /// The work failed: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { usage: false, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Usage => Self::usage(error.to_string()),
            ErrorKind::Unreachable => Self::failed(format!(
                "{error}; is `floodmark serve` running there? Another address goes in --url"
            )),
            ErrorKind::TimedOut => {
                Self::failed(format!("{error}; the server is slow or stuck: ask `floodmark health`"))
            }
            ErrorKind::Broken => {
                Self::failed(format!("{error}; the server may have gone away: ask `floodmark health`"))
            }
            ErrorKind::TooLarge => Self::failed(error.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

/// Runs `work` on a runtime of this thread and turns its outcome into an exit code.
pub fn run<F>(work: F) -> ExitCode
where
    F: Future<Output = Result<ExitCode, Failure>>,
{
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tell(&Failure::failed(format!("no runtime: {error}"))),
    };
    runtime.block_on(work).unwrap_or_else(|failure| tell(&failure))
}

/// Writes a failure to standard error and returns its exit code.
pub fn tell(failure: &Failure) -> ExitCode {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(io::stderr(), "floodmark: {failure}");
    ExitCode::from(if failure.usage { 2 } else { 1 })
}

/// Prints `text` to standard output; a reader that went away (`| head`) is not a failure.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints `value` as indented JSON.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// Sends `call` and reads the answer as JSON; anything but 2xx is a failure told with its remedy.
///
/// # Errors
/// When there is no answer, a refusal, or an answer that is no JSON.
pub async fn ask(session: &mut Session, call: &Call) -> Result<Value, Failure> {
    let reply = session.send(call).await?;
    if !reply.status.is_success() {
        return Err(refusal(&reply));
    }
    if reply.body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&reply.body)
        .map_err(|_| Failure::failed("the answer is not JSON; is this really a Floodmark server?"))
}

/// Tells a refusal: what the server says, and what to do about it.
pub fn refusal(reply: &Reply) -> Failure {
    let mut message = format!("the server answered {}", reply.status.as_u16());
    let problem = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
    let field = |name: &str| problem.get(name).and_then(Value::as_str);
    if let Some(code) = field("code") {
        let _ = write!(message, " ({})", printable(code));
    }
    // The API's own problem documents, InfluxDB's two dialects, OTLP's status.
    let detail = field("detail").or(field("title")).or(field("error")).or(field("message"));
    if let Some(detail) = detail {
        let _ = write!(message, ": {}", printable(detail));
    }
    if let Some(remedy) = remedy(reply.status) {
        let _ = write!(message, "; {remedy}");
    }
    if let Some(id) = reply.headers.get("x-correlation-id").and_then(|id| id.to_str().ok()) {
        let _ = write!(message, " [correlation id {}]", printable(id));
    }
    Failure::failed(message)
}

fn remedy(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        401 => {
            "give a key with --key or FLOODMARK_KEY; the first key was printed when the server first started"
        }
        403 => "this key lacks the role for it; an admin makes another with `floodmark key create`",
        413 => "send smaller batches with --batch",
        429 => "the tenant is over a limit: wait, or have an operator raise it",
        503 => "the server is under pressure or draining: try again, and ask `floodmark health`",
        500..=599 => "the server's log tells more under the correlation id",
        _ => return None,
    })
}

/// Returns `text` with control characters escaped: what others sent must not steer a terminal.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        let bidirectional = matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match char {
            char if char.is_control() || bidirectional => out.extend(char.escape_default()),
            char => out.push(char),
        }
    }
    out
}

/// Percent-encodes one segment of a path.
pub fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_and_what_next() {
        let cases = [
            (
                401,
                r#"{"code":"unauthorized","detail":"no credential"}"#,
                "answered 401 (unauthorized): no credential; give a key",
            ),
            (413, r#"{"error":"body too large"}"#, "answered 413: body too large; send smaller"),
            (404, "<html>", "the server answered 404"),
            (400, "{\"detail\":\"a\u{1b}[2Jb\"}", "400: a\\u{1b}[2Jb"),
        ];
        for (status, body, expected) in cases {
            let reply = Reply {
                status: StatusCode::from_u16(status).expect("a status"),
                headers: http::HeaderMap::new(),
                body: body.replace('\u{1b}', "\\u001b").into(),
            };
            let message = refusal(&reply).to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn segments_and_text_are_made_harmless() {
        assert_eq!(segment("a/b c?"), "a%2Fb%20c%3F");
        assert_eq!(printable("späti\n\u{202e}x"), "späti\\n\\u{202e}x");
    }
}
