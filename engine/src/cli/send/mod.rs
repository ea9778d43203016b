//! `floodmark send FILE`: any file of records, in any protocol, to a running server.
//!
//! `input` opens and inflates, `protocol` tells what it holds, `split` cuts it into requests (all three on
//! a thread of their own, for they block), a bounded queue feeds as many sessions as asked for, and
//! `tally` reads the replies. Each request has an idempotency key, the same on every attempt, so a retry
//! is never stored twice; with `--idempotency-key` that holds for a second run of the command too.

mod input;
mod otlp_json;
pub mod protocol;
mod split;
pub mod tally;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::{Mutex, mpsc};

use self::input::Input;
use self::protocol::{Form, Protocol};
use self::split::{Bounds, Splitter};
use self::tally::{Sent, Tally};
use super::remote::{self, Failure, Remote, printable};
use crate::client::encoding::Encoding;
use crate::client::retry::Retry;
use crate::client::{Call, Client, Error, ErrorKind};

/// Sends a file or standard input; gzip and zstd files are inflated on the way
///
/// Exit code 1 when a record was not accepted.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    /// The file, `-` for standard input
    file: PathBuf,
    /// What it holds; guessed from name and content where it is not said
    #[arg(long = "as", value_enum, value_name = "PROTOCOL")]
    protocol: Option<Protocol>,
    /// Most records in a request
    #[arg(long, default_value_t = 5_000, value_name = "RECORDS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Most bytes in a request, before compression
    #[arg(long, default_value_t = 4 << 20, value_name = "BYTES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    batch_bytes: u32,
    /// Unit of line protocol's timestamps: auto, ns, us, ms or s
    #[arg(long, value_parser = ["auto", "ns", "us", "ms", "s"])]
    precision: Option<String>,
    /// Dataset for events; the built-in one where it is not said
    #[arg(long)]
    dataset: Option<String>,
    /// Refuse a whole request for one bad record (events and line protocol)
    #[arg(long)]
    atomic: bool,
    /// Requests under way at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Compression of the requests
    #[arg(long, value_enum, default_value_t)]
    compress: Encoding,
    /// Start of the requests' idempotency keys; give the same again to repeat a run without storing twice
    #[arg(long, value_name = "TEXT")]
    idempotency_key: Option<String>,
    /// Attempts for a request that meets pressure, a limit or a broken connection
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
}

/// A request on its way to a session.
struct Item {
    call: Call,
    sent: Sent,
    bytes: usize,
}

/// What the sessions have found so far.
#[derive(Default)]
struct Progress {
    tally: Tally,
    requests: u64,
    bytes: u64,
    /// Why no more is sent.
    failure: Option<Failure>,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    remote::run(async move { send(args).await })
}

async fn send(args: Args) -> Result<ExitCode, Failure> {
    let client = args.remote.client()?;
    let name = args.file.display().to_string();
    let mut input =
        input::open(&args.file).map_err(|error| Failure::failed(format!("cannot open {name}: {error}")))?;
    let head = input.head().map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
    let (protocol, form) = protocol::guess(args.protocol, &input.name, &head)?;
    let target = target(&args, protocol)?;
    let bar = progress_bar(&input, args.remote.json);
    let read_bytes = input.read_bytes.clone();

    let (sender, receiver) = mpsc::channel(usize::from(args.concurrency));
    let key =
        args.idempotency_key.clone().unwrap_or_else(|| format!("send-{}", uuid::Uuid::new_v4().simple()));
    let plan = Plan { protocol, form, target, key, encoding: args.compress, atomic: args.atomic };
    let bounds = Bounds { records_max: args.batch as usize, bytes_max: args.batch_bytes as usize };
    let reader = std::thread::spawn(move || read_file(input, &plan, bounds, &sender));

    let progress = Arc::new(StdMutex::new(Progress::default()));
    let retry = Retry { attempts_max: args.attempts, ..Retry::PATIENT };
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..args.concurrency {
        tasks.spawn(work(client.clone(), retry, receiver.clone(), progress.clone()));
    }
    while !tasks.is_empty() {
        // The bar moves while requests are under way, so it is looked at ten times a second.
        let _ = tokio::time::timeout(Duration::from_millis(100), tasks.join_next()).await;
        bar.set_position(read_bytes.load(Ordering::Relaxed));
        bar.set_message(lock(&progress).tally.accepted.to_string());
    }
    bar.finish_and_clear();
    let read = reader.join().expect("the reader returns its errors");
    let progress = std::mem::take(&mut *lock(&progress));
    report(&progress, args.remote.json)?;
    if let Some(failure) = progress.failure {
        return Err(failure);
    }
    read.map_err(|error| Failure::failed(format!("cannot read all of {name}: {error}")))?;
    Ok(if progress.tally.rejected.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How requests are made of batches.
struct Plan {
    protocol: Protocol,
    form: Form,
    target: String,
    key: String,
    encoding: Encoding,
    atomic: bool,
}

/// Cuts the file and queues its requests; ends early when nobody takes them any more.
fn read_file(input: Input, plan: &Plan, bounds: Bounds, queue: &mpsc::Sender<Item>) -> io::Result<()> {
    let mut splitter = Splitter::new(input.reader, plan.protocol, plan.form, bounds);
    let mut number = 0u64;
    while let Some(batch) = splitter.next_batch()? {
        let sent = Sent {
            protocol: plan.protocol,
            records: batch.records,
            first_line: batch.first_line,
            atomic: plan.atomic,
        };
        let bytes = batch.body.len();
        let body = plan.encoding.encode(batch.body)?;
        let mut call = Call::post(plan.target.clone(), plan.protocol.content_type(plan.form), body);
        call.encoding = plan.encoding;
        call.idempotency_key = Some(format!("{}-{number}", plan.key));
        number += 1;
        if queue.blocking_send(Item { call, sent, bytes }).is_err() {
            break;
        }
    }
    Ok(())
}

/// Sends what the queue holds over one connection.
async fn work(
    client: Client,
    retry: Retry,
    queue: Arc<Mutex<Option<mpsc::Receiver<Item>>>>,
    progress: Arc<StdMutex<Progress>>,
) {
    let mut session = client.session();
    loop {
        let item = match queue.lock().await.as_mut() {
            Some(queue) => queue.recv().await,
            None => None,
        };
        let Some(item) = item else { return };
        let outcome = session.send_with_retry(&item.call, &retry).await;
        let failure = {
            let mut progress = lock(&progress);
            progress.requests += 1;
            progress.bytes += item.bytes as u64;
            let (tally, failure) = settle(&item, outcome);
            progress.tally.add(tally);
            let failed = failure.is_some();
            progress.failure = progress.failure.take().or(failure);
            failed
        };
        if failure {
            // What comes after would meet the same: drop the queue, which ends the reader and the others.
            *queue.lock().await = None;
            return;
        }
    }
}

/// Counts one request's outcome, and says whether there is a point in going on.
fn settle(item: &Item, outcome: Result<crate::client::Reply, Error>) -> (Tally, Option<Failure>) {
    match outcome {
        Ok(reply) => {
            let tally = tally::read(item.sent, &reply);
            let goes_on = reply.status.is_success()
                || matches!(
                    reply.status,
                    StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY
                );
            (tally, (!goes_on).then(|| remote::refusal(&reply)))
        }
        Err(error) => {
            let code = match error.kind() {
                ErrorKind::Unreachable | ErrorKind::Usage => "not_sent",
                // It may be stored; the same idempotency key finds out.
                ErrorKind::TimedOut | ErrorKind::Broken | ErrorKind::TooLarge => "no_reply",
            };
            (Tally::unacknowledged(item.sent.records, code), Some(error.into()))
        }
    }
}

fn target(args: &Args, protocol: Protocol) -> Result<String, Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let is_events = matches!(protocol, Protocol::Ndjson | Protocol::Text);
    if let Some(dataset) = &args.dataset {
        if !is_events {
            return Err(Failure::usage("--dataset is for events only"));
        }
        query.append_pair("dataset", dataset);
    }
    if let Some(precision) = &args.precision {
        if protocol != Protocol::Lines {
            return Err(Failure::usage("--precision is for line protocol only"));
        }
        query.append_pair("precision", precision);
    }
    if args.atomic {
        match protocol {
            Protocol::Lines => query.append_pair("accept_partial", "false"),
            _ if is_events => query.append_pair("atomic", "true"),
            // Audit records are all or nothing anyway.
            Protocol::Audit => &mut query,
            _ => return Err(Failure::usage("--atomic is for events and line protocol only")),
        };
    }
    let query = query.finish();
    let separator = if query.is_empty() { "" } else { "?" };
    Ok(format!("{}{separator}{query}", protocol.path()))
}

fn progress_bar(input: &Input, json: bool) -> ProgressBar {
    let (Some(size), true) = (input.size_bytes, io::stderr().is_terminal() && !json) else {
        return ProgressBar::hidden();
    };
    let style = ProgressStyle::with_template(
        "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left, {msg} accepted",
    );
    let bar = ProgressBar::new(size);
    bar.with_style(style.expect("the template is a constant"))
}

fn report(progress: &Progress, json: bool) -> Result<(), Failure> {
    let tally = &progress.tally;
    if json {
        let examples: Vec<_> = tally
            .examples
            .iter()
            .map(|example| json!({"place": example.place, "reason": example.reason}))
            .collect();
        return remote::print_json(&json!({
            "sent": tally.sent,
            "accepted": tally.accepted,
            "rejected": tally.rejected_count(),
            "codes": tally.rejected,
            "replayed": tally.replayed,
            "requests": progress.requests,
            "bytes": progress.bytes,
            "examples": examples,
        }));
    }
    let mut text = String::new();
    for example in &tally.examples {
        text.push_str(&format!("{}: {}\n", example.place, printable(&example.reason)));
    }
    text.push_str(&printable(&tally.line()));
    text.push('\n');
    remote::print(&text)
}

/// Locks what cannot be left half done: a panic elsewhere does not spoil counts.
fn lock(progress: &StdMutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
