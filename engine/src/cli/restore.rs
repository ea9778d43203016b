//! `floodmark restore`: makes a data folder of a backup.

use std::path::PathBuf;
use std::process::ExitCode;

use storage::backup;

use super::backup::{bar, described, failed, show};
use super::serve::{Sources, refused};
use crate::clock::Clock;
use crate::run::say;

/// Makes a data folder of a backup; the folder must be empty or absent
///
/// Every file is proved against its digest first. What the log holds goes into the tables, and the folder begins a new
/// epoch: a new name among writers and an empty log. Declared keys stay known.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Folder of the backup
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
}

/// Runs the command: 65 where a file is damaged or the backup is incomplete, 78 where backup and configuration do not go
/// together, 1 where the data folder is not empty.
pub fn run(args: Args) -> ExitCode {
    let config = match args.sources.load() {
        Ok(config) => config,
        Err(error) => return refused(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("floodmark: no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let bar = bar();
    let progress = |at| show(&bar, at);
    let options = config.settings.storage;
    let restored = runtime.block_on(backup::restore(
        &args.from,
        options,
        ingest::measure::measure,
        Clock::now_ns,
        &progress,
    ));
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => return failed(&bar, &error),
    };
    bar.finish_and_clear();
    say(&format!("restored from a backup {}", described(&restored.manifest)));
    for table in &restored.tables {
        say(&format!(
            "table {}: {} rows, {} bytes, version {}",
            table.table, table.rows, table.bytes, table.version
        ));
    }
    say(&format!(
        "{} rows came from the log, {} declared keys are known, {} objects of state, writers are named {} from now on",
        restored.log_rows, restored.keys, restored.state_objects, restored.node
    ));
    if !restored.manifest.has_master_key {
        say(
            "put the master key of the deployment in place before the server starts: no API key is known without it",
        );
    }
    ExitCode::SUCCESS
}
