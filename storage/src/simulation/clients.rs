//! Clients that send, retry as told, and note what they were told.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::clock;
use super::oracle::Ledger;
use super::random::Random;
use crate::error::Kind as ErrorKind;
use crate::latency::Recorder;
use crate::principal::Acknowledgement;
use crate::record::{Clean, Draft, Field, Kind, TableId};
use crate::writer::{Idempotency, Known, Writer};

/// One request.
#[derive(Clone, Debug)]
struct Request {
    table: TableId,
    rows: Vec<String>,
    key: Option<String>,
    /// When its rows happened.
    time_ns: i64,
}

/// A client; it outlives the process it talks to.
#[derive(Debug)]
pub struct Client {
    number: u64,
    random: Random,
    next: u64,
    tables: Vec<TableId>,
    /// A request with a key whose outcome is not known.
    open: Option<Request>,
    /// Requests with a key that were acknowledged.
    done: Vec<Request>,
    /// The longest pause between two requests, milliseconds.
    pause_ms: u64,
    /// How often it was told to come back later.
    pub refused: u64,
    /// What it asks for.
    pub level: Acknowledgement,
}

/// The rows of a request, with their latency.
fn chunk(request: &Request) -> Clean {
    let mut draft = Draft::new(Kind::Events);
    let mut recorder = Recorder::default();
    let time_ns = request.time_ns;
    for id in &request.rows {
        draft.begin_row();
        draft.set_text(Field::Id, id);
        draft.set_int(Field::TimeNs, time_ns);
        draft.set_int(Field::ObservedNs, clock::now());
        draft.set_text(Field::Source, "s");
        draft.end_row();
        recorder.record("s", "op", false, time_ns, 1_000);
    }
    Clean::attest(&mut draft, 1).with_measurement(recorder.take())
}

impl Client {
    /// A client that writes to `tables`.
    pub fn new(number: u64, seed: u64, tables: Vec<TableId>, pause_ms: u64) -> Self {
        let random = Random::new(seed.wrapping_mul(31).wrapping_add(number));
        Self {
            number,
            random,
            next: 0,
            tables,
            open: None,
            done: Vec::new(),
            pause_ms,
            refused: 0,
            level: Acknowledgement::Durable,
        }
    }

    fn request(&mut self) -> Request {
        let at = usize::try_from(self.random.below(self.tables.len() as u64)).expect("a small index");
        let rows = 1 + self.random.below(3);
        let rows = (0..rows).map(|_| {
            self.next += 1;
            format!("c{}-{:06}", self.number, self.next)
        });
        let rows: Vec<String> = rows.collect();
        let has_key = self.random.happens(600);
        let age_days = if self.random.happens(100) { self.random.below(3) as i64 } else { 0 };
        let key = has_key.then(|| format!("k{}", rows[0]));
        let time_ns = clock::now() - age_days * 86_400_000_000_000;
        Request { table: self.tables[at].clone(), rows, key, time_ns }
    }
}

/// Sends until the power goes off or the log is poisoned.
pub async fn send(client: Rc<RefCell<Client>>, writer: Writer, ledger: Rc<RefCell<Ledger>>) {
    loop {
        let pause = {
            let mut client = client.borrow_mut();
            let most = client.pause_ms;
            Duration::from_millis(client.random.below(most))
        };
        tokio::time::sleep(pause).await;
        let (request, is_again) = {
            let mut client = client.borrow_mut();
            let done = client.done.len() as u64;
            let at = usize::try_from(client.random.below(done)).expect("a small index");
            let is_again = client.random.happens(150);
            let again = client.done.get(at).filter(|_| is_again).cloned();
            match (client.open.take(), again) {
                (Some(open), _) => (open, false),
                (None, Some(done)) => (done, true),
                (None, None) => (client.request(), false),
            }
        };
        {
            let mut ledger = ledger.borrow_mut();
            let tried = ledger.tried.entry(request.table.clone()).or_default();
            tried.extend(request.rows.iter().map(|id| (id.clone(), request.time_ns)));
        }
        if !is_again && request.key.is_some() {
            client.borrow_mut().open = Some(request.clone());
        }
        let level = client.borrow().level;
        let outcome = try_send(&writer, level, &request).await;
        match outcome {
            Outcome::Done => {
                let mut ledger = ledger.borrow_mut();
                let acknowledged = ledger.acknowledged.entry(request.table.clone()).or_default();
                acknowledged.extend(request.rows.iter().cloned());
                drop(ledger);
                let mut client = client.borrow_mut();
                if !is_again {
                    client.open = None;
                    if request.key.is_some() {
                        client.done.push(request);
                    }
                }
            }
            Outcome::Busy => {
                client.borrow_mut().refused += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            // The next incarnation is asked again, where there is a key.
            Outcome::Unknown => return,
        }
    }
}

enum Outcome {
    Done,
    Busy,
    Unknown,
}

async fn try_send(writer: &Writer, level: Acknowledgement, request: &Request) -> Outcome {
    let tenant = &request.table.tenant;
    let idempotency = request.key.as_ref().map(|key| Idempotency {
        key: key.as_str().into(),
        fingerprint: [7; 16],
        status: 200,
        reply: (*b"{}").into(),
    });
    if let Some(idempotency) = &idempotency {
        match writer.reserve(tenant, &idempotency.key, idempotency.fingerprint) {
            Known::New => {}
            Known::Replayed(_) => return Outcome::Done,
            Known::InFlight => return Outcome::Busy,
            Known::Mismatch => panic!("one key, one payload"),
        }
    }
    match writer.append_at(level, &request.table, chunk(request), idempotency.clone()).await {
        Ok(_) => Outcome::Done,
        Err(error) => {
            if let Some(idempotency) = &idempotency {
                writer.release(tenant, &idempotency.key);
            }
            let is_refused = matches!(error.kind(), ErrorKind::Busy { .. } | ErrorKind::Share { .. });
            if is_refused { Outcome::Busy } else { Outcome::Unknown }
        }
    }
}
