//! `floodmark serve`: runs the server.

use std::path::PathBuf;
use std::process::ExitCode;

use secrecy::{ExposeSecret as _, SecretString};

use super::demo;
use crate::config::{self, Config, Flags};
use crate::run;

/// Runs the server
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) sources: Sources,
    /// Send a made-up shop to itself, to have something to look at
    #[arg(long)]
    demo: bool,
    /// Go on over damage in the write-ahead log: what cannot be read is named, written down and left out. For a log
    /// that stopped a start with exit code 65 and has no good copy
    #[arg(long)]
    salvage: bool,
    /// Take over records of tenants, keys and policies that have no proof of origin, once: for a deployment that a build
    /// from before has written to since. Look at who can write to the store first
    #[arg(long)]
    adopt_state: bool,
}

/// Where the configuration comes from; what is given here wins.
#[derive(Debug, clap::Args)]
pub struct Sources {
    /// Folder that everything is kept in
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where HTTP listens; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Where gRPC listens
    #[arg(long, value_name = "ADDR")]
    grpc: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Sources {
    /// Loads and checks the configuration.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn load(self) -> Result<Config, config::Error> {
        let flags = Flags { config: self.config, data: self.data, http: self.http, grpc: self.grpc };
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        config::load(&flags, &environment)
    }
}

/// Says why a configuration is refused.
pub(super) fn refused(error: &config::Error) -> ExitCode {
    run::say(&format!("floodmark: configuration refused: {error}"));
    ExitCode::from(78)
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let mut config = match args.sources.load() {
        Ok(config) => config,
        Err(error) => return refused(&error),
    };
    config.settings.storage.salvage = args.salvage;
    config.settings.adopt_state = args.adopt_state;
    let given = config.secrets.bootstrap_key.as_ref().map(|key| key.expose_secret().to_owned());
    run::run(config, move |addr, made| async move {
        if !args.demo {
            return;
        }
        // The key of the first start, the configured one, or that of the environment of the other commands.
        let key = made.or(given).or_else(|| std::env::var("FLOODMARK_KEY").ok()).map(SecretString::from);
        let failed = match key {
            Some(key) => demo::run(&format!("http://{addr}"), Some(key), std::future::pending())
                .await
                .err()
                .map(|error| error.to_string()),
            None => Some("no key to send with: set FLOODMARK_KEY to one of this server".to_owned()),
        };
        if let Some(text) = failed {
            run::say(&format!("floodmark: the demo does not run: {text}"));
        }
    })
}
