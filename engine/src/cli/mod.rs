//! The command line: one module a command.

pub mod backup;
pub mod bench;
pub mod check_config;
pub mod demo;
pub mod health;
pub mod hold;
pub mod inspect;
pub mod job;
pub mod key;
pub mod query;
pub mod remote;
pub mod restore;
pub mod retention;
pub mod send;
pub mod serve;
pub mod sql_worker;
pub mod table;
pub mod tenant;
pub mod trace;

use std::process::ExitCode;

use clap::Parser as _;

/// A telemetry engine: takes events, traces and logs, keeps them, and answers questions about them
#[derive(clap::Parser)]
#[command(name = "floodmark", version)]
enum Command {
    Serve(serve::Args),
    CheckConfig(check_config::Args),
    Send(send::Args),
    Query(query::Args),
    Trace(trace::Args),
    Tenant(tenant::Args),
    Key(key::Args),
    Retention(retention::Args),
    Hold(hold::Args),
    Job(job::Args),
    Health(health::Args),
    Inspect(inspect::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Bench(bench::Args),
    Demo(demo::Args),
    #[command(hide = true)]
    SqlWorker(sql_worker::Args),
}

/// Runs the command that the process was given.
pub fn run() -> ExitCode {
    match Command::parse() {
        Command::Serve(args) => serve::run(args),
        Command::CheckConfig(args) => check_config::run(args),
        Command::Send(args) => send::run(args),
        Command::Query(args) => query::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Tenant(args) => tenant::run(args),
        Command::Key(args) => key::run(args),
        Command::Retention(args) => retention::run(args),
        Command::Hold(args) => hold::run(args),
        Command::Job(args) => job::run(args),
        Command::Health(args) => health::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Demo(args) => demo::run_command(args),
        Command::SqlWorker(args) => sql_worker::run(args),
    }
}
