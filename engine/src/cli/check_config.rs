//! `floodmark check-config`: prints the configuration that would hold, secrets redacted.

use std::io::Write as _;
use std::process::ExitCode;

use super::serve::{Sources, refused};
use crate::config;

/// Prints the effective configuration, secrets redacted
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    sources: Sources,
}

/// Runs the command: 78 where a start would be refused.
pub fn run(args: Args) -> ExitCode {
    match args.sources.load() {
        Ok(config) => match std::io::stdout().write_all(config::render(&config).as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => refused(&error),
    }
}
