//! `floodmark hold list|place|release`.

use std::process::ExitCode;

use serde_json::json;

use super::remote::{self, Remote};
use super::table::Table;
use super::tenant::{What, show};
use crate::client::Call;

/// Places, lists and releases legal holds; needs an admin's key
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the holds in force
    List,
    /// Place a hold: nothing of the dataset is deleted until it is released
    Place {
        /// The dataset, such as events
        dataset: String,
        /// Why, for whoever asks later
        reason: String,
    },
    /// Release a hold
    Release {
        /// The hold's id, as `hold list` shows it
        id: String,
    },
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    remote::run(async move {
        let mut session = args.remote.client()?.session();
        match &args.command {
            Command::List => {
                let answer = remote::ask(&mut session, &Call::get("/api/v1/holds?limit=10000")).await?;
                show(&answer, What::List("holds"), args.remote.json)?;
            }
            Command::Place { dataset, reason } => {
                let body = json!({ "dataset": dataset, "reason": reason }).to_string();
                let call = Call::post("/api/v1/holds", "application/json", body);
                let answer = remote::ask(&mut session, &call).await?;
                if args.remote.json {
                    remote::print_json(&answer)?;
                } else {
                    remote::print(&Table::of_objects(std::slice::from_ref(&answer), None).render())?;
                }
            }
            Command::Release { id } => {
                let call = Call::delete(format!("/api/v1/holds/{}", remote::segment(id)));
                remote::ask(&mut session, &call).await?;
                if args.remote.json {
                    remote::print_json(&json!({ "released": id }))?;
                } else {
                    remote::print(&format!("released {}\n", remote::printable(id)))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
