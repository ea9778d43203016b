//! `floodmark inspect wal|segment|table PATH`: shows what stands in a file or folder, without a server.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::remote::{Failure, tell};

/// Shows what a file or folder of the data directory holds, without a server
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Frames of a write-ahead log's segment
    Wal {
        /// A segment's file
        path: PathBuf,
    },
    /// Row groups and columns of a Parquet file
    Segment {
        /// The file
        path: PathBuf,
    },
    /// Versions and files of a table
    Table {
        /// The table's folder
        path: PathBuf,
    },
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (outcome, path) = match args.what {
        What::Wal { path } => (storage::inspect::wal(&path, &mut out), path),
        What::Segment { path } => (storage::inspect::segment(&path, &mut out), path),
        What::Table { path } => (storage::inspect::table(&path, &mut out), path),
    };
    let written = out.flush();
    match (outcome, written) {
        (Err(error), _) => tell(&Failure::failed(format!("cannot show {}: {error}", path.display()))),
        (Ok(()), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => tell(&error.into()),
        (Ok(()), _) => ExitCode::SUCCESS,
    }
}
