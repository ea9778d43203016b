//! What was acknowledged: batches as one rising number a client, so that millions of records are a few bytes.
//!
//! Batch `b` of a client holds the numbers `b * BATCH` to `(b + 1) * BATCH`, exclusive. With a state folder the
//! ledger is kept after each round, beside the data folder, and a later run goes on from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::{Value, json};

/// Records in a batch: a multiple of [`WORD`].
pub const BATCH: u64 = 256;

/// Numbers that are checked as one word of bits.
pub const WORD: u64 = 64;

/// What one client sent, in order, one batch at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The `source` of its records.
    pub name: String,
    /// Whether it declares idempotency keys, and so may send a batch again whose fate it does not know.
    pub is_declared: bool,
    /// Batches that are settled: acknowledged, or in `unknown`.
    pub batches: u64,
    /// Batches whose answer was lost and that were not sent again, rising: each is there whole or not at all.
    pub unknown: Vec<u64>,
}

impl Account {
    pub fn new(name: String, is_declared: bool) -> Self {
        Self { name, is_declared, batches: 0, unknown: Vec::new() }
    }

    /// Records that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        (self.batches - self.unknown.len() as u64) * BATCH
    }
}

/// Every client's account, and how far the rounds are.
#[derive(Debug)]
pub struct Ledger {
    pub seed: u64,
    /// The generator's state at the start of this run.
    pub random: u64,
    /// Rounds that earlier runs did and checked.
    pub rounds: u64,
    pub accounts: Vec<Mutex<Account>>,
    folder: Option<PathBuf>,
}

impl Ledger {
    pub fn new(seed: u64, accounts: impl IntoIterator<Item = Account>, folder: Option<&Path>) -> Self {
        let accounts = accounts.into_iter().map(Mutex::new).collect();
        Self { seed, random: seed, rounds: 0, accounts, folder: folder.map(Path::to_owned) }
    }

    /// The ledger of an earlier run, where the folder has one.
    pub fn resume(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("ledger.json")).ok()?;
        let kept: Value = serde_json::from_str(&text).unwrap();
        let number = |value: &Value| value.as_u64().unwrap();
        assert_eq!(number(&kept["batch"]), BATCH, "the ledger counts other batches");
        let accounts = kept["accounts"].as_array().unwrap().iter().map(|account| Account {
            name: account["name"].as_str().unwrap().to_owned(),
            is_declared: account["is_declared"].as_bool().unwrap(),
            batches: number(&account["batches"]),
            unknown: account["unknown"].as_array().unwrap().iter().map(number).collect(),
        });
        let mut ledger = Self::new(number(&kept["seed"]), accounts, Some(folder));
        (ledger.random, ledger.rounds) = (number(&kept["random"]), number(&kept["rounds"]));
        Some(ledger)
    }

    /// A copy of every account at this moment.
    pub fn look(&self) -> Vec<Account> {
        self.accounts.iter().map(|account| account.lock().unwrap().clone()).collect()
    }

    /// Keeps the ledger as it is after so many rounds, where it has a folder.
    pub fn keep(&self, rounds: u64, random: u64) {
        let Some(folder) = &self.folder else { return };
        let accounts: Vec<Value> = self
            .look()
            .into_iter()
            .map(|account| {
                json!({
                    "name": account.name,
                    "is_declared": account.is_declared,
                    "batches": account.batches,
                    "unknown": account.unknown,
                })
            })
            .collect();
        let kept = json!({"batch": BATCH, "seed": self.seed, "random": random, "rounds": rounds, "accounts": accounts});
        fs::write(folder.join("ledger.json.part"), kept.to_string()).unwrap();
        fs::rename(folder.join("ledger.json.part"), folder.join("ledger.json")).unwrap();
    }

    /// Goes on behind what a run that was itself killed had sent and not kept: it is there whole or not at all.
    pub fn skip_past(&self, last_number: impl Fn(&str) -> Option<u64>) {
        for account in &self.accounts {
            let mut account = account.lock().unwrap();
            let Some(last) = last_number(&account.name) else { continue };
            let next = last / BATCH + 1;
            let lost = account.batches..next.max(account.batches);
            account.unknown.extend(lost.clone());
            account.batches = lost.end;
        }
    }
}
