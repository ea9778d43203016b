//! `floodmark retention list|set|run`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::remote::{self, Remote};
use super::table::Table;
use super::tenant::{What, show};
use crate::client::Call;

/// Shows and sets how long datasets are kept, and removes what is past it; needs an admin's key
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the datasets and how many days each is kept
    List,
    /// Set how long a dataset is kept
    Set {
        /// The dataset, such as events
        dataset: String,
        /// Days by event time, or forever
        #[arg(value_parser = days)]
        days: Days,
    },
    /// Remove what is past its retention, now
    Run {
        /// The dataset, such as events
        dataset: String,
        /// Only tell what would go
        #[arg(long)]
        dry_run: bool,
    },
}

/// How long; `None` = for ever.
#[derive(Clone, Copy, Debug)]
struct Days(Option<u32>);

fn days(text: &str) -> Result<Days, String> {
    match text {
        "forever" => Ok(Days(None)),
        text => text.parse().map(|days| Days(Some(days))).map_err(|_| "a number of days, or forever".into()),
    }
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    remote::run(async move {
        let mut session = args.remote.client()?.session();
        let (call, what) = match &args.command {
            Command::List => (Call::get("/api/v1/retention?limit=10000"), Some(What::List("retention"))),
            Command::Set { dataset, days } => {
                let body = json!({ "dataset": dataset, "days": days.0 }).to_string();
                (Call::put("/api/v1/retention", body), None)
            }
            Command::Run { dataset, dry_run } => {
                let body = json!({ "dataset": dataset, "dry_run": dry_run }).to_string();
                (Call::post("/api/v1/retention/run", "application/json", body), None)
            }
        };
        let mut answer = remote::ask(&mut session, &call).await?;
        match what {
            Some(what) => show(&answer, what, args.remote.json)?,
            None if args.remote.json => remote::print_json(&answer)?,
            None => {
                let leaving = answer.as_object_mut().and_then(|answer| answer.remove("leaving"));
                remote::print(&Table::of_objects(std::slice::from_ref(&answer), None).render())?;
                let leaving = leaving.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                if !leaving.is_empty() {
                    remote::print(&format!("\n{}", Table::of_objects(leaving, None).render()))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
