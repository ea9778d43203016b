//! The load itself: requests at a fixed rate whether or not the server keeps up (open loop), or as fast
//! as it answers (closed loop).
//!
//! In an open loop request `k` is meant to start at `k × interval`. Where no connection was free by then
//! its latency still counts from the time it was meant to start, so a stalled server is charged for every
//! request that had to wait (no coordinated omission). Where a connection was free, it counts from the
//! time the request was really begun: the timer's own slip, up to a millisecond or so, is the generator's
//! fault, and is told apart as lag.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use super::body::{Body, Load, VARIANTS};
use super::loads::Generator;
use crate::cli::send::protocol::Protocol;
use crate::cli::send::tally::{self, Sent};
use crate::client::encoding::Encoding;
use crate::client::{Call, Client, ErrorKind};
use crate::clock::Clock;

/// What to send, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What the records are.
    pub load: Load,
    /// Records a request.
    pub batch: u64,
    /// Connections.
    pub connections: u16,
    /// Records a second, none for as many as the server takes.
    pub rate: Option<f64>,
    /// How long to begin requests.
    pub duration: Duration,
    /// Records after which no request is begun, none for as many as there is time for.
    pub records: Option<u64>,
    /// What tells the records that are drawn, and the time of the first of them.
    pub seed: u64,
    /// As above, nanoseconds since 1970 UTC.
    pub from_ns: u64,
    /// Compression of the requests.
    pub encoding: Encoding,
}

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// Latency of requests that were answered 2xx, in microseconds.
    pub latency: Histogram<u64>,
    /// How late requests with a free connection were begun, in microseconds.
    pub lag: Histogram<u64>,
    /// Requests that were answered 2xx.
    pub answered: u64,
    /// Records acknowledged.
    pub accepted: u64,
    /// Bytes of requests that were answered 2xx.
    pub bytes: u64,
    /// Requests that were not answered 2xx, by status or by what broke.
    pub errors: BTreeMap<String, u64>,
    /// Time from the first request to the last answer.
    pub elapsed: Duration,
}

/// Longest latency that is told apart: a minute, the client's own bound.
const LATENCY_MAX_US: u64 = 120_000_000;

/// State that the connections of one thread share.
struct Shared {
    plan: Plan,
    source: Source,
    /// The next request's number; numbers go on over warm-up and run so that ids never repeat.
    next: Cell<u64>,
    seen: RefCell<Seen>,
    start: Instant,
}

/// Where bodies come from.
enum Source {
    /// From a few that take turns, patched.
    Patched(Vec<Body>),
    /// Drawn anew.
    Drawn(RefCell<Generator>),
}

impl Source {
    fn of(plan: &Plan) -> Self {
        if plan.load.is_drawn() {
            let generator = Generator::new(plan.load, plan.batch, plan.seed, plan.from_ns);
            return Self::Drawn(RefCell::new(generator));
        }
        Self::Patched((0..VARIANTS as u64).map(|variant| plan.load.body(plan.batch, variant)).collect())
    }

    /// The body of request `number` of this run; ids of patched ones count on from `first`.
    fn body(&self, first: u64, number: u64) -> Vec<u8> {
        match self {
            Self::Drawn(generator) => generator.borrow_mut().request(number),
            Self::Patched(bodies) => {
                bodies[(number % VARIANTS as u64) as usize].fill(first + number, Clock::now_ns())
            }
        }
    }
}

/// Sends the load to the server of `client`, request numbers from `first`.
pub async fn run(client: &Client, plan: Plan, first: u64) -> Seen {
    let shared = Rc::new(Shared {
        plan,
        source: Source::of(&plan),
        next: Cell::new(0),
        seen: RefCell::new(Seen::new()),
        start: Instant::now(),
    });
    let local = LocalSet::new();
    for _ in 0..plan.connections {
        let (client, shared) = (client.clone(), shared.clone());
        local.spawn_local(async move { connection(&client, &shared, first).await });
    }
    local.await;
    let elapsed = shared.start.elapsed();
    let mut seen = shared.seen.replace(Seen::new());
    seen.elapsed = elapsed;
    seen
}

async fn connection(client: &Client, shared: &Shared, first: u64) {
    let plan = &shared.plan;
    let mut session = client.session();
    loop {
        let number = shared.next.get();
        shared.next.set(number + 1);
        let meant = match plan.rate {
            Some(rate) => shared.start + meant_after(number, plan.batch, rate),
            None => Instant::now(),
        };
        let is_enough = plan.records.is_some_and(|records| number * plan.batch >= records);
        if is_enough || meant.duration_since(shared.start) >= plan.duration {
            return;
        }
        let bytes = shared.source.body(first, number);
        let len = bytes.len() as u64;
        let Ok(bytes) = plan.encoding.encode(bytes) else { return };
        let mut call = Call::post(plan.load.path(), plan.load.content_type(), bytes);
        call.encoding = plan.encoding;

        let mut begun = meant;
        if plan.rate.is_none() {
            begun = Instant::now();
        } else if meant > Instant::now() {
            tokio::time::sleep_until(meant.into()).await;
            begun = Instant::now();
            shared.seen.borrow_mut().lagged(begun - meant);
        }
        let outcome = session.send(&call).await;
        let latency = begun.elapsed();
        if outcome.is_err() {
            // A server that is gone must not turn a closed loop into a busy one.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut seen = shared.seen.borrow_mut();
        match outcome {
            Ok(reply) if reply.status.is_success() => {
                let sent =
                    Sent { protocol: plan.load.into(), records: plan.batch, first_line: 0, atomic: false };
                let tally = tally::read(sent, &reply);
                seen.answered(latency, tally.accepted, len);
                if tally.rejected_count() > 0 {
                    seen.error("rejected records".to_owned());
                }
            }
            Ok(reply) => seen.error(reply.status.as_u16().to_string()),
            Err(error) => seen.error(kind_name(error.kind()).to_owned()),
        }
    }
}

/// Returns when request `number` is meant to start, counted from the first.
fn meant_after(number: u64, batch: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 * batch as f64 / rate)
}

fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Usage => "not sent",
        ErrorKind::Unreachable => "no connection",
        ErrorKind::TimedOut => "no reply in time",
        ErrorKind::Broken => "connection broke",
        ErrorKind::TooLarge => "reply too large",
    }
}

impl From<Load> for Protocol {
    fn from(load: Load) -> Self {
        match load {
            Load::Otlp | Load::OtlpJson | Load::S => Self::OtlpTraces,
            Load::OtlpLogs => Self::OtlpLogs,
            Load::Ndjson | Load::E | Load::E0 => Self::Ndjson,
            Load::Audit => Self::Audit,
            Load::Lines | Load::L => Self::Lines,
        }
    }
}

impl Seen {
    fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("the bounds are constants within range")
        };
        Self {
            latency: histogram(),
            lag: histogram(),
            answered: 0,
            accepted: 0,
            bytes: 0,
            errors: BTreeMap::new(),
            elapsed: Duration::ZERO,
        }
    }

    fn answered(&mut self, latency: Duration, accepted: u64, bytes: u64) {
        self.latency.saturating_record(micros(latency));
        self.answered += 1;
        self.accepted += accepted;
        self.bytes += bytes;
    }

    fn lagged(&mut self, lag: Duration) {
        self.lag.saturating_record(micros(lag));
    }

    fn error(&mut self, what: String) {
        *self.errors.entry(what).or_default() += 1;
    }

    /// Returns the latency under which `quantile` of the requests stayed, in milliseconds.
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// Returns the records acknowledged a second.
    pub fn records_per_second(&self) -> f64 {
        self.accepted as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::baseline::Baseline;
    use super::*;

    #[test]
    fn requests_are_meant_at_even_distances() {
        assert_eq!(meant_after(0, 1_000, 10_000.0), Duration::ZERO);
        assert_eq!(meant_after(5, 1_000, 10_000.0), Duration::from_millis(500));
    }

    /// Against the server that discards: all is answered, in both loops and every protocol.
    #[test]
    fn everything_sent_is_counted() {
        let baseline = Baseline::start().expect("a free port on loopback");
        let client = Client::new(&baseline.url(), None).expect("own url");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        for (load, rate) in [
            (Load::Ndjson, Some(10_000.0)),
            (Load::Otlp, None),
            (Load::OtlpJson, None),
            (Load::OtlpLogs, None),
            (Load::Audit, None),
            (Load::Lines, Some(5_000.0)),
            (Load::E0, Some(10_000.0)),
            (Load::S, None),
            (Load::L, None),
        ] {
            let plan = Plan {
                load,
                batch: 100,
                connections: 2,
                rate,
                duration: Duration::from_millis(100),
                records: None,
                seed: 1,
                from_ns: 1_767_225_600_000_000_000,
                encoding: Encoding::None,
            };
            let seen = runtime.block_on(run(&client, plan, 0));
            assert!(seen.errors.is_empty(), "{:?}", seen.errors);
            assert_eq!(seen.accepted, seen.answered * 100);
            assert_eq!(seen.latency.len(), seen.answered);
            if let Some(rate) = rate {
                // Every request meant to start within the time was sent: late, if need be, but sent.
                assert_eq!(seen.answered, (rate * 0.1 / 100.0) as u64);
            }
        }
        baseline.stop().expect("the server's thread ends");
    }

    #[test]
    fn a_number_of_records_is_sent_and_no_more() {
        let baseline = Baseline::start().expect("a free port on loopback");
        let client = Client::new(&baseline.url(), None).expect("own url");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let plan = Plan {
            load: Load::E,
            batch: 100,
            connections: 3,
            rate: None,
            duration: Duration::from_secs(60),
            records: Some(1_950),
            seed: 1,
            from_ns: 1_767_225_600_000_000_000,
            encoding: Encoding::None,
        };
        let seen = runtime.block_on(run(&client, plan, 0));
        assert_eq!((seen.answered, seen.accepted), (20, 2_000));
        baseline.stop().expect("the server's thread ends");
    }
}
