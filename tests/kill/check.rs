//! Whether the engine has each acknowledged number exactly once, and in order.
//!
//! The engine folds the rows to one word of bits for every 64 numbers of a client and writer, with their count and the
//! range of their row numbers: exact, and a few bytes for each thousand rows.

use std::collections::{BTreeMap, HashMap};

use super::ledger::{Account, BATCH, WORD};
use crate::harness::{KEY, Server};

/// How far back a look goes behind the newest row of the look before it: longer than any request takes.
const OVERLAP_NS: i64 = 20_000_000_000;

/// What was checked so far, and what was found.
#[derive(Debug, Default)]
pub struct Check {
    checked: HashMap<String, u64>,
    newest_ns: i64,
}

/// The rows of 64 numbers of one client under one writer.
struct Found {
    rows: u64,
    bits: i64,
    seqs: (i64, i64),
    /// Lowest and highest number less row number.
    shift: (i64, i64),
}

impl Check {
    /// Checks what was acknowledged since the last look.
    pub fn newest(&mut self, server: &Server, accounts: &[Account]) -> Result<(), String> {
        let since = self.newest_ns.saturating_sub(OVERLAP_NS);
        let newest = format!("SELECT max(time_ns) AS newest FROM events WHERE time_ns >= {since}");
        let newest = server.sql(&newest)[0]["newest"].as_i64();
        let mut found = words(server, &format!("time_ns >= {since}"));
        for account in accounts {
            let from = self.checked.get(&account.name).copied().unwrap_or(0);
            let words = found.remove(&account.name).unwrap_or_default();
            settled(account, from, &words)?;
            self.checked.insert(account.name.clone(), account.batches);
        }
        self.newest_ns = newest.unwrap_or(self.newest_ns);
        Ok(())
    }

    /// Takes everything before as checked by an earlier run.
    pub fn skip(&mut self, accounts: &[Account], newest_ns: i64) {
        self.checked = accounts.iter().map(|account| (account.name.clone(), account.batches)).collect();
        self.newest_ns = newest_ns;
    }
}

/// Checks everything from the beginning, one client at a time; `is_at_rest` where nobody sends, so that there may be no
/// other row either.
pub fn everything(server: &Server, accounts: &[Account], is_at_rest: bool) -> Result<(), String> {
    for account in accounts {
        let mut found = words(server, &format!("source = '{}'", account.name));
        let words = found.remove(&account.name).unwrap_or_default();
        settled(account, 0, &words)?;
        let end = account.batches * BATCH / WORD;
        if is_at_rest && words.keys().any(|word| *word >= end) {
            return Err(format!("{} has rows that it never sent", account.name));
        }
    }
    Ok(())
}

type Words = BTreeMap<u64, Vec<(String, Found)>>;

fn words(server: &Server, condition: &str) -> HashMap<String, Words> {
    let query = format!(
        "SELECT source, writer, n / {WORD} AS word, count(*) AS \"rows\", bit_or(1 << (n % {WORD})) AS bits, \
         min(seq) AS low, max(seq) AS high, min(n - seq) AS near, max(n - seq) AS far \
         FROM events WHERE {condition} GROUP BY source, writer, n / {WORD}"
    );
    let body = serde_json::json!({"query": query}).to_string();
    let headers = [("Content-Type", "application/json"), ("Accept", "text/csv")];
    let response = server.send(KEY, "POST", "/api/v1/sql", &headers, body.as_bytes());
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    let mut found: HashMap<String, Words> = HashMap::new();
    for line in response.text().lines().skip(1).filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |at: usize| fields[at].parse::<i64>().unwrap_or_else(|_| panic!("{line}"));
        let row = Found {
            rows: number(3).cast_unsigned(),
            bits: number(4),
            seqs: (number(5), number(6)),
            shift: (number(7), number(8)),
        };
        let words = found.entry(fields[0].to_owned()).or_default();
        words.entry(number(2).cast_unsigned()).or_default().push((fields[1].to_owned(), row));
    }
    found
}

/// Each settled batch from `from` on is there exactly once, or, where its fate is unknown, whole or not at all; and the
/// numbers of a client rise with the row numbers of each writer.
fn settled(account: &Account, from: u64, words: &Words) -> Result<(), String> {
    let name = &account.name;
    let mut last: HashMap<&str, i64> = HashMap::new();
    for batch in from..account.batches {
        let range = batch * BATCH / WORD..(batch + 1) * BATCH / WORD;
        let is_absent = range.clone().all(|word| !words.contains_key(&word));
        if is_absent && account.unknown.binary_search(&batch).is_ok() {
            continue;
        }
        for word in range {
            let at = word * WORD;
            let found = words.get(&word).ok_or_else(|| format!("{name}: {at} to {} are lost", at + WORD))?;
            let [(writer, found)] = &found[..] else {
                return Err(format!("{name}: numbers behind {at} are under several writers"));
            };
            if found.bits != -1 {
                return Err(format!("{name}: of {at} to {} some are lost: {:x}", at + WORD, found.bits));
            }
            if found.rows != WORD {
                return Err(format!("{name}: {at} to {} are {} rows", at + WORD, found.rows));
            }
            let is_in_step = found.shift.0 == found.shift.1;
            if !is_in_step || last.get(writer.as_str()).is_some_and(|last| *last >= found.seqs.0) {
                return Err(format!("{name}: order of {at} to {} under {writer}", at + WORD));
            }
            last.insert(writer, found.seqs.1);
        }
    }
    Ok(())
}
