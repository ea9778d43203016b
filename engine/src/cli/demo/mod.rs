//! `floodmark demo`, and `serve --demo`: a made-up shop that sends to a server through its own port, as
//! any customer would: traces and logs over OTLP, events and audit records as NDJSON.
//!
//! About fifty spans a second. When the server refuses or is gone, what could not be sent is dropped and
//! the next try waits longer, up to a minute: a demo must never be what keeps a server down.

mod journeys;
pub mod random;
mod shop;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::shop::{Shop, Told};
use super::remote::{self, Failure, Remote};
use crate::client::retry::Retry;
use crate::client::{Call, Client, Error, Session};
use crate::clock::Clock;

/// Sends a lively made-up shop to a server until interrupted
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    /// The same seed makes the same shop
    #[arg(long)]
    seed: Option<u64>,
}

/// Time between sends.
const TICK: Duration = Duration::from_secs(1);
/// Time before the start that is made up first, so that there is something to look at.
const PAST_SECONDS: u64 = 300;
/// Part of that past in one send.
const PAST_STEP_SECONDS: u64 = 10;
/// Longest pause after refusals.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A demo's record is not worth more than this.
const RETRY: Retry =
    Retry { attempts_max: 2, wait_first: Duration::from_secs(1), wait_max: Duration::from_secs(30) };

/// Runs the command.
pub fn run_command(args: Args) -> ExitCode {
    remote::run(async move {
        let client = args.remote.client()?;
        remote::print(&format!("sending the demo shop to {} until interrupted\n", args.remote.url))?;
        let stop = async {
            // Where the signal cannot be watched, the default still ends the process.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        live(&client, args.seed, stop).await;
        Ok::<_, Failure>(ExitCode::SUCCESS)
    })
}

/// Sends the shop to the server at `url` until `stop` is ready.
///
/// # Errors
/// When the URL cannot be used. Refusals and a missing server are no errors: it goes on trying.
pub async fn run(url: &str, key: Option<SecretString>, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let client = Client::new(url, key)?;
    live(&client, None, stop).await;
    Ok(())
}

async fn live(client: &Client, seed: Option<u64>, stop: impl Future<Output = ()>) {
    tokio::select! {
        () = stop => {}
        () = send_for_ever(client, seed) => {}
    }
}

async fn send_for_ever(client: &Client, seed: Option<u64>) {
    let mut session = client.session();
    let mut shop = Shop::new(seed.unwrap_or_else(now_ns));
    let mut pause = Pause::default();
    let mut until_ns = now_ns().saturating_sub(PAST_SECONDS * 1_000_000_000);
    while until_ns + PAST_STEP_SECONDS * 1_000_000_000 < now_ns() {
        let next_ns = until_ns + PAST_STEP_SECONDS * 1_000_000_000;
        let told = shop.live(until_ns, next_ns);
        until_ns = next_ns;
        pause.after(send(&mut session, &told).await).await;
    }
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // After a pause the shop was closed: what nobody could be told did not happen.
        let from_ns = until_ns.max(now_ns().saturating_sub(2 * TICK.as_nanos() as u64));
        until_ns = now_ns().max(from_ns + 1);
        let told = shop.live(from_ns, until_ns);
        pause.after(send(&mut session, &told).await).await;
    }
}

/// Sends one stretch; the first refusal ends it.
async fn send(session: &mut Session, told: &Told) -> Result<(), String> {
    let calls = [
        ("/v1/traces", "application/x-protobuf", told.traces.clone()),
        ("/v1/logs", "application/x-protobuf", told.logs.clone()),
        ("/api/v1/events", "application/x-ndjson", told.events.clone().into_bytes()),
        ("/api/v1/audit", "application/x-ndjson", told.audit.clone().into_bytes()),
    ];
    for (target, content_type, body) in calls {
        if body.is_empty() {
            continue;
        }
        let mut call = Call::post(target, content_type, body);
        call.idempotency_key = Some(format!("demo-{}", uuid::Uuid::new_v4().simple()));
        let reply = session.send_with_retry(&call, &RETRY).await.map_err(|error| error.to_string())?;
        if !reply.status.is_success() {
            return Err(remote::refusal(&reply).to_string());
        }
    }
    Ok(())
}

/// Waits after refusals, twice as long each time.
#[derive(Default)]
struct Pause {
    refusals: u32,
}

impl Pause {
    async fn after(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.refusals = 0,
            Err(reason) => {
                self.refusals += 1;
                let wait = pause_after(self.refusals);
                tracing::warn!(reason, wait_s = wait.as_secs(), "the demo was refused and waits");
                sleep(wait).await;
            }
        }
    }
}

fn pause_after(refusals: u32) -> Duration {
    TICK.saturating_mul(1 << refusals.min(10)).min(PAUSE_MAX)
}

fn now_ns() -> u64 {
    u64::try_from(Clock::now_ns()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `serve` spawns it.
    #[test]
    fn the_demo_can_move_between_threads() {
        fn check<T: Send>(_: &T) {}
        check(&run("http://127.0.0.1:1", None, std::future::pending()));
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let seconds: Vec<u64> = (1..=8).map(|refusals| pause_after(refusals).as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
