//! The process: binary, CLI, configuration, identity, listeners and wiring.
//!
//! `run` is the server from start to end; `http` takes requests in, in the order of refusal of the contract;
//! `routes` is the one table of what there is and who may call it; `api` answers what the engine itself is asked,
//! `lane` and `query` the rest.

mod allocator;
mod api;
mod app;
pub mod cli;
pub mod client;
pub mod clock;
mod config;
mod http;
mod identity;
mod jobs;
mod lane;
mod logs;
mod metrics;
mod panics;
mod private;
mod rest;
mod routes;
mod run;
mod state;
mod turns;

pub use routes::routes;

/// The process' `main`: runs the command line.
#[must_use]
pub fn main() -> std::process::ExitCode {
    panics::hide_messages();
    allocator::start();
    private::start();
    cli::run()
}
