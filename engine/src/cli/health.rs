//! `floodmark health`: asks readiness and tells it per dependency.

use std::process::ExitCode;

use serde_json::Value;

use super::remote::{self, Failure, Remote};
use super::table::Table;
use crate::client::Call;

/// Tells whether the server is ready, per dependency; exit code 1 when it is not
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    remote::run(async move { health(&args).await })
}

async fn health(args: &Args) -> Result<ExitCode, Failure> {
    let mut session = args.remote.client()?.session();
    let reply = session.send(&Call::get("/readyz")).await?;
    let ready: Value = serde_json::from_slice(&reply.body).map_err(|_| remote::refusal(&reply))?;
    if args.remote.json {
        remote::print_json(&ready)?;
    } else {
        remote::print(&report(&ready))?;
    }
    Ok(if reply.status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(ready: &Value) -> String {
    let text = |value: &Value, name: &str| match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let mut table = Table::new(["check", "status", "detail"]);
    for (name, check) in ready.get("checks").and_then(Value::as_object).into_iter().flatten() {
        table.row([name.clone(), text(check, "status"), text(check, "detail")]);
    }
    format!("{}\n\n{}", remote::printable(&text(ready, "status")), table.render())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_check_has_its_line() {
        let ready = json!({"status": "degraded", "checks": {
            "wal": {"status": "ok", "detail": "12 ms"}, "object_store": {"status": "slow", "detail": null}}});
        let text = report(&ready);
        assert!(text.starts_with("degraded\n\n"), "{text}");
        assert!(text.contains("wal           ok      12 ms\nobject_store  slow\n"), "{text}");
    }
}
