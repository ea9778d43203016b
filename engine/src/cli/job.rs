//! `floodmark job list|run`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::remote::{self, Remote};
use super::table::Table;
use crate::client::Call;

/// Lists jobs and asks for one; needs an admin's or an operator's key
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the last jobs, newest first
    List,
    /// Ask for a job: retention, sweep or checkpoint
    Run {
        /// What it is to do
        kind: String,
    },
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    remote::run(async move {
        let mut session = args.remote.client()?.session();
        let call = match &args.command {
            Command::List => Call::get("/api/v1/jobs?limit=10000"),
            Command::Run { kind } => {
                Call::post("/api/v1/jobs", "application/json", json!({ "kind": kind }).to_string())
            }
        };
        let answer = remote::ask(&mut session, &call).await?;
        if args.remote.json {
            remote::print_json(&answer)?;
            return Ok(ExitCode::SUCCESS);
        }
        match answer.get("jobs").and_then(Value::as_array) {
            None => remote::print(&Table::of_objects(std::slice::from_ref(&answer), None).render())?,
            Some(jobs) if jobs.is_empty() => remote::print("no jobs\n")?,
            Some(jobs) => {
                let rows: Vec<Value> = jobs.iter().map(row).collect();
                remote::print(&Table::of_objects(&rows, None).render())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What fits a line of a terminal; `--json` shows all.
fn row(job: &Value) -> Value {
    let names = ["id", "kind", "status", "tenant", "dataset", "ended_at", "detail"];
    names.iter().map(|name| ((*name).to_owned(), job.get(*name).cloned().unwrap_or_default())).collect()
}
