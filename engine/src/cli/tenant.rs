//! `floodmark tenant create|list`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::remote::{self, Failure, Remote};
use super::table::Table;
use crate::client::Call;

/// Creates and lists tenants; needs an operator's key
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a tenant and print its admin key, which is shown this once
    Create {
        /// Lower-case letters, digits and hyphens, up to 63
        tenant: String,
    },
    /// List the tenants
    List,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    remote::run(async move {
        let mut session = args.remote.client()?.session();
        let (call, what) = match &args.command {
            Command::Create { tenant } => {
                let body = json!({ "tenant": tenant }).to_string();
                (Call::post("/api/v1/tenants", "application/json", body), What::Created)
            }
            Command::List => (Call::get("/api/v1/tenants?limit=10000"), What::List("tenants")),
        };
        let answer = remote::ask(&mut session, &call).await?;
        show(&answer, what, args.remote.json)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// What an answer holds.
#[derive(Clone, Copy)]
pub(super) enum What {
    /// One thing, with a secret shown this once.
    Created,
    /// A list under this name.
    List(&'static str),
}

/// Prints an answer as a table, or as JSON.
pub(super) fn show(answer: &Value, what: What, json: bool) -> Result<(), Failure> {
    if json {
        return remote::print_json(answer);
    }
    match what {
        What::Created => {
            let table = Table::of_objects(std::slice::from_ref(answer), None).render();
            remote::print(&format!("{table}\nThe key is shown this once: keep it now.\n"))
        }
        What::List(name) => {
            let rows = answer.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            if rows.is_empty() {
                return remote::print(&format!("no {name}\n"));
            }
            remote::print(&Table::of_objects(rows, None).render())
        }
    }
}
