//! `floodmark bench`: loads a server the way the goals' figures were taken, and says what it saw.
//!
//! `body` makes requests cheaply of what `records` holds, `loads` draws them anew as real senders would, `load` sends them at a rate and measures, `process` reads what the
//! kernel says the server used, `baseline` is a server that does nothing, run in turn with the real one
//! because only ratios on one machine at one time mean much.

mod baseline;
mod body;
mod load;
mod loads;
mod process;
mod records;
mod report;
mod rest;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use self::baseline::Baseline;
use self::body::Load;
use self::load::Plan;
use self::process::Used;
use self::report::Run;
use super::remote::{self, Failure, Remote};
use crate::client::encoding::Encoding;
use crate::client::{Call, Client};
use crate::clock::Clock;

/// Loads a server at a fixed rate and reports latencies that count the time requests had to wait
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    /// What to send
    #[arg(long, value_enum, default_value = "ndjson")]
    protocol: Load,
    /// A load like real senders' instead, each record drawn anew: e service events, e0 the same without an e-mail
    /// address, s spans, l lines
    #[arg(long, value_enum, conflicts_with = "protocol")]
    load: Option<Drawn>,
    /// With --load: what tells every record
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// With --load: the time of the first record; where it is not said, midnight before yesterday's end, UTC
    #[arg(long, value_name = "TIME")]
    from: Option<jiff::Timestamp>,
    /// Stop after so many records, rounded up to whole requests, however long they take
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    records: Option<u64>,
    /// Records a second, or `max` for as many as the server takes
    #[arg(long, default_value = "50000", value_parser = parse_rate, value_name = "RATE")]
    rate: Rate,
    /// Connections
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Records a request; 1,000, of line protocol 5,000, where it is not said
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: Option<u32>,
    /// How long to begin requests, such as 30s
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Load before that which is not measured
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// Compression of the requests, at the generator's cost
    #[arg(long, value_enum, default_value_t)]
    compress: Encoding,
    /// The server's process on this machine: adds its CPU seconds a million records and its memory
    #[arg(long)]
    pid: Option<u32>,
    /// With --pid: time after the last reply until its CPU is read again, for what it does later
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    settle: Duration,
    /// Run the same against a server that reads and discards, first
    #[arg(long)]
    baseline: bool,
    /// The server's data folder on this machine: adds the bytes by which the live files of its tables grew
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Loads that are drawn anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Drawn {
    E,
    E0,
    S,
    L,
}

impl From<Drawn> for Load {
    fn from(drawn: Drawn) -> Self {
        match drawn {
            Drawn::E => Self::E,
            Drawn::E0 => Self::E0,
            Drawn::S => Self::S,
            Drawn::L => Self::L,
        }
    }
}

/// Longer than any number of records takes.
const DURATION_MAX: Duration = Duration::from_secs(86_400);

/// Records a second.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rate {
    Max,
    PerSecond(f64),
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    remote::run(async move { bench(&args).await })
}

async fn bench(args: &Args) -> Result<ExitCode, Failure> {
    let client = args.remote.client()?;
    // Better to learn now that nobody is there than after the baseline's run.
    client.session().send(&Call::get("/healthz")).await?;
    let load = args.load.map_or(args.protocol, Load::from);
    let plan = Plan {
        load,
        batch: u64::from(args.batch.unwrap_or_else(|| load.batch())),
        connections: args.connections,
        rate: match args.rate {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(rate),
        },
        duration: if args.records.is_some() { DURATION_MAX } else { args.duration },
        records: args.records,
        seed: args.seed,
        from_ns: args.from.map_or_else(yesterday_ns, |time| time.as_nanosecond() as u64),
        encoding: args.compress,
    };
    let floor = if args.baseline { Some(measure_baseline(args, plan).await?) } else { None };
    let mut runs = vec![measure(args, &client, plan).await?];
    runs.extend(floor);
    if args.remote.json {
        remote::print_json(&report::to_json(&runs))?;
    } else {
        remote::print(&report::to_text(&runs))?;
    }
    let failed = runs.iter().any(|run| !run.seen.errors.is_empty() || run.seen.answered == 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(args: &Args, client: &Client, plan: Plan) -> Result<Run, Failure> {
    let used = || match args.pid {
        None => Ok(None),
        Some(pid) => process::used(pid).map(Some).map_err(|error| {
            Failure::failed(format!("cannot read what process {pid} used: {error}; is --pid right?"))
        }),
    };
    // Ids must not repeat those of an earlier run: its requests are numbered from another start.
    let first = Clock::now_ns().cast_unsigned() >> 24 & 0xff_ffff_ffff;
    load::run(client, warming(args, plan), first << 20).await;
    let before = used()?;
    let rest_before = at_rest(args).await?;
    let seen = load::run(client, plan, (first << 20) + (1 << 19)).await;
    let replied = used()?;
    let settled = if args.settle.is_zero() {
        None
    } else {
        tokio::time::sleep(args.settle).await;
        used()?
    };
    let rest = at_rest(args).await?;
    let since = |now: Option<Used>| Some((now?.cpu - before?.cpu).as_secs_f64());
    Ok(Run {
        name: "server",
        seen,
        cpu_seconds: since(replied),
        cpu_seconds_settled: since(settled),
        memory_bytes_max: replied.map(|used| used.memory_bytes_max),
        rest_bytes: rest.zip(rest_before).map(|(after, before)| after.saturating_sub(before)),
    })
}

/// The load before the one that is measured: other records, so that none is sent twice.
fn warming(args: &Args, plan: Plan) -> Plan {
    Plan { duration: args.warmup, records: None, seed: !plan.seed, ..plan }
}

async fn at_rest(args: &Args) -> Result<Option<u64>, Failure> {
    let Some(folder) = &args.data else { return Ok(None) };
    let bytes = rest::live_bytes(folder).await.map_err(|error| {
        Failure::failed(format!("cannot read the tables in {}: {error}; is --data right?", folder.display()))
    })?;
    Ok(Some(bytes))
}

/// The last midnight but one: a day of records is in the past then.
fn yesterday_ns() -> u64 {
    const DAY_NS: u64 = 86_400_000_000_000;
    (Clock::now_ns().cast_unsigned() / DAY_NS).saturating_sub(1) * DAY_NS
}

async fn measure_baseline(args: &Args, plan: Plan) -> Result<Run, Failure> {
    // Its thread tells its CPU time only at its end, so the warm-up has a server of its own.
    let warm = Baseline::start()?;
    let client = Client::new(&warm.url(), None)?;
    load::run(&client, warming(args, plan), 0).await;
    warm.stop()?;
    let baseline = Baseline::start()?;
    let client = Client::new(&baseline.url(), None)?;
    let seen = load::run(&client, plan, 0).await;
    let cpu_seconds = Some(baseline.stop()?.as_secs_f64());
    Ok(Run {
        name: "baseline",
        seen,
        cpu_seconds,
        cpu_seconds_settled: None,
        memory_bytes_max: None,
        rest_bytes: None,
    })
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    match text.replace(['_', ','], "").parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Rate::PerSecond(rate)),
        _ => Err("a rate is a number of records a second, or max".to_owned()),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let wrong = || "a duration is a whole number and ms, s, m or h, such as 30s".to_owned();
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).filter(|ms| *ms <= 86_400_000).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_durations_are_read() {
        assert_eq!(parse_rate("max"), Ok(Rate::Max));
        assert_eq!(parse_rate("500_000"), Ok(Rate::PerSecond(500_000.0)));
        for bad in ["0", "-1", "nan", "inf", "fast"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "s", "1.5s", "-1s", "99999999999999999999s", "400d", "25h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
