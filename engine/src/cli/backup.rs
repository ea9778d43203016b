//! `floodmark backup`: copies a deployment to a folder, or proves such a copy.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use storage::ErrorKind;
use storage::backup::{self, Manifest, Progress};

use super::serve::{Sources, refused};
use crate::clock::Clock;
use crate::run::say;

/// Copies a deployment to a folder, whether its server runs or not
///
/// Holds everything acknowledged before it began. With a bucket it holds state, log and keys; the tables are in the bucket.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Empty folder that the backup goes to
    #[arg(long, value_name = "FOLDER", required_unless_present = "check")]
    out: Option<PathBuf>,
    /// Copy DIR/master.key too; without it no API key is known after a restore, so keep a copy apart
    #[arg(long, conflicts_with = "check")]
    with_master_key: bool,
    /// Take no backup: prove every file of the one in FOLDER against its digest
    #[arg(long, value_name = "FOLDER", conflicts_with = "out")]
    check: Option<PathBuf>,
}

/// Runs the command: 65 where a file is damaged or the backup is incomplete, 78 where it cannot be as it was asked for.
pub fn run(args: Args) -> ExitCode {
    let bar = bar();
    if let Some(folder) = args.check {
        return match backup::check(&folder, &|at| show(&bar, at)) {
            Ok(manifest) => {
                bar.finish_and_clear();
                say(&format!("whole: {}", described(&manifest)));
                ExitCode::SUCCESS
            }
            Err(error) => failed(&bar, &error),
        };
    }
    let config = match args.sources.load() {
        Ok(config) => config,
        Err(error) => return refused(&error),
    };
    let out = args.out.expect("the arguments require it where nothing is checked");
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("floodmark: no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let options = &config.settings.storage;
    let progress = |at| show(&bar, at);
    let taken =
        runtime.block_on(backup::take(options, &out, args.with_master_key, Clock::now_ns(), &progress));
    match taken {
        Ok(manifest) => {
            bar.finish_and_clear();
            say(&format!("backup in {}: {}", out.display(), described(&manifest)));
            if manifest.is_bucket {
                say(
                    "the tables are in the bucket and not in this backup: protect the bucket by its own means",
                );
            }
            if !manifest.has_master_key {
                say(
                    "the master key is not in this backup: keep a copy of it apart, no API key is known without it",
                );
            }
            ExitCode::SUCCESS
        }
        Err(error) => failed(&bar, &error),
    }
}

/// A bar of bytes where a person watches.
pub(super) fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left, {msg} files",
    );
    ProgressBar::new(0).with_style(style.expect("the template is a constant"))
}

pub(super) fn show(bar: &ProgressBar, at: Progress) {
    bar.set_length(at.bytes_total);
    bar.set_position(at.bytes);
    bar.set_message(at.files.to_string());
}

/// Tells why nothing came of it.
pub(super) fn failed(bar: &ProgressBar, error: &storage::Error) -> ExitCode {
    bar.finish_and_clear();
    say(&format!("floodmark: {error}"));
    ExitCode::from(match error.kind() {
        ErrorKind::Corrupt => 65,
        ErrorKind::Invalid => 78,
        _ => 1,
    })
}

pub(super) fn described(manifest: &Manifest) -> String {
    let rows: u64 = manifest.tables.iter().map(|table| table.rows).sum();
    let log =
        manifest.files.iter().filter(|file| file.path.ends_with(".wal")).map(|file| file.bytes).sum::<u64>();
    format!(
        "begun {}, {} tables of {rows} rows and {log} bytes of log in {} files of {} bytes",
        manifest.begun,
        manifest.tables.len(),
        manifest.files.len(),
        manifest.bytes(),
    )
}
