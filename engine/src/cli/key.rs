//! `floodmark key create|list|revoke`.

use std::process::ExitCode;

use serde_json::json;

use super::remote::{self, Remote};
use super::tenant::{What, show};
use crate::client::Call;

/// Creates, lists and revokes API keys; needs an admin's key
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a key and print it, which happens this once
    Create {
        /// What the key is for
        name: String,
        /// ingest sends, analyst reads, auditor reads and proves, admin does all within its tenant,
        /// operator runs the system
        #[arg(long, value_parser = ["ingest", "analyst", "auditor", "admin", "operator"])]
        role: String,
        /// When its writes are answered: durable once a crash of the machine leaves them, object once its loss does,
        /// buffered (202) before either
        #[arg(long, value_parser = ["durable", "object", "buffered"], default_value = "durable")]
        acknowledgement: String,
        /// The tenant it belongs to, where an operator makes it
        #[arg(long)]
        tenant: Option<String>,
    },
    /// List the keys, without their secrets
    List,
    /// Revoke a key at once
    Revoke {
        /// The key's id, as `key list` shows it
        id: String,
    },
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    remote::run(async move {
        let mut session = args.remote.client()?.session();
        match &args.command {
            Command::Create { name, role, acknowledgement, tenant } => {
                let mut body = json!({ "name": name, "role": role, "acknowledgement": acknowledgement });
                if let Some(tenant) = tenant {
                    body["tenant"] = json!(tenant);
                }
                let call = Call::post("/api/v1/keys", "application/json", body.to_string());
                show(&remote::ask(&mut session, &call).await?, What::Created, args.remote.json)?;
            }
            Command::List => {
                let answer = remote::ask(&mut session, &Call::get("/api/v1/keys?limit=10000")).await?;
                show(&answer, What::List("keys"), args.remote.json)?;
            }
            Command::Revoke { id } => {
                let call = Call::delete(format!("/api/v1/keys/{}", remote::segment(id)));
                let answer = remote::ask(&mut session, &call).await?;
                if args.remote.json {
                    remote::print_json(&answer)?;
                } else {
                    remote::print(&format!("revoked {id}\n"))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
