//! `floodmark sql-worker`: what the server starts to answer SQL in; of no use to anybody else.

use std::process::ExitCode;

use query::worker::Allocator;

use crate::allocator;

/// Answers SQL for the server that started it, over the socket that is its standard input
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Its memory is limited already
    #[arg(long)]
    limited: bool,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let allocator = Allocator {
        begin_thread: allocator::share_an_arena,
        rest: allocator::rest,
        kept_bytes: allocator::kept_bytes,
    };
    match query::worker::main(args.limited, allocator) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads what it would say: its server sees that it has gone.
        Err(_) => ExitCode::FAILURE,
    }
}
