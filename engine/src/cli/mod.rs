//! The command line: one module a command.

pub mod bench;
pub mod demo;
pub mod health;
pub mod key;
pub mod query;
pub mod remote;
pub mod send;
pub mod table;
pub mod tenant;
pub mod trace;

use std::process::ExitCode;

use clap::Parser as _;

#[derive(clap::Parser)]
#[command(name = "floodmark", version)]
enum Command {
    Send(send::Args),
    Query(query::Args),
    Trace(trace::Args),
    Tenant(tenant::Args),
    Key(key::Args),
    Health(health::Args),
    Bench(bench::Args),
    Demo(demo::Args),
}

/// Runs the command that the process was given.
pub fn main() -> ExitCode {
    match Command::parse() {
        Command::Send(args) => send::run(args),
        Command::Query(args) => query::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Tenant(args) => tenant::run(args),
        Command::Key(args) => key::run(args),
        Command::Health(args) => health::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Demo(args) => demo::run_command(args),
    }
}
