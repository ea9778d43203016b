//! What an operator may set about storage.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::compact::plan::FILES_MAX;
use crate::declared::DeclaredKeySecret;
use crate::error::{Error, Kind, Result};
use crate::memory::{BASE_BYTES, MEMORY_BYTES_MIN, Memory, Pool};

/// Where a node's log lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalPlace {
    /// On the disk of the data folder.
    #[default]
    Disk,
    /// In the object store.
    Bucket,
}

/// Bounds and places of storage. Every bound has a unit in its name or type (B1).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Memory that the process may hold, in bytes: the one cap that every pool is a part of (B1).
    #[serde(skip)]
    pub memory_max: u64,
    /// The data folder: the write-ahead log, and the tables where no bucket is configured.
    pub data: PathBuf,
    /// Whether this start goes on over damage in the log, naming what it leaves out.
    #[serde(skip)]
    pub salvage: bool,
    /// URL of the object store (`s3://bucket/prefix`, `az://…`, `gs://…`); `None` = `data/store`.
    pub store_url: Option<String>,
    /// PEM file of the authorities that sign the certificate of the bucket's server, beside those that the
    /// system trusts.
    pub store_ca: Option<PathBuf>,
    /// How long a connection to the bucket's server takes at most, in milliseconds.
    pub store_connect_timeout_ms: u64,
    /// How long one request to the bucket takes at most, its body included, in milliseconds.
    pub store_timeout_ms: u64,
    /// How long after its start a failed request to the bucket is tried again, in milliseconds.
    pub store_retry_ms: u64,
    /// Where the log of writes lies that ask for no more than `durable`: on the disk of the data folder, or in the
    /// bucket, for a node whose disk is not to be trusted.
    pub wal_place: WalPlace,
    /// This node's name among those that share the bucket: its log there lies under it, and whoever starts under the
    /// same name takes that log over. `None` = the data folder's own, made once.
    pub node: Option<String>,
    /// How long the log in the bucket gathers at least between two objects, in milliseconds.
    pub wal_object_interval_ms: u64,
    /// Length of one log segment, preallocated.
    pub wal_segment_bytes: u64,
    /// All log segments together, and likewise the log in the bucket; at this mark ingest answers 503.
    pub wal_bytes_max: u64,
    /// Rows that wait in the hot buffer of one table before they are sealed.
    pub seal_rows: u64,
    /// Bytes that wait in the hot buffer of one table before they are sealed; 0 = a quarter of the memory for hot rows.
    pub seal_bytes: u64,
    /// How long a row waits in the hot buffer before it is sealed, in milliseconds, as long as
    /// `seal_commits_per_minute` allows.
    pub seal_age_ms: u64,
    /// How long a row waits in the hot buffer at most, in milliseconds; below `seal_age_ms` that counts.
    pub seal_age_max_ms: u64,
    /// Commits a minute of all tables together that age alone may cause: with thousands of tables that trickle,
    /// each waits longer instead, the oldest first.
    pub seal_commits_per_minute: u64,
    /// How old an event time may be at most when it arrives, in days; older records are refused as `too_old`. Each UTC
    /// date of event time is a file, so that times out of a broken clock cost more than their rows.
    pub past_days_max: u32,
    /// Free disk bytes below which ingest answers 503 (the smaller of this and 5 % of the disk).
    pub disk_free_bytes_min: u64,
    /// Disk that is kept back for sealing on a full disk (the smaller of this and 5 % of the disk); 0 = none.
    pub disk_reserve_bytes: u64,
    /// Rows in one row group of a segment.
    pub row_group_rows: usize,
    /// Commits between two checkpoints of a table.
    pub checkpoint_commits: u64,
    /// Files of about one size in one date of a table before they are merged into one; at least 2, at most 128.
    pub compact_files_min: usize,
    /// How long a date of a table gains no file before its last small files are merged too, in milliseconds; and how long
    /// the table then rests after rows came to it, or after a start, before that is done.
    pub compact_quiet_ms: u64,
    /// Bytes of a merged file; a file of half of it is merged no more. A merge takes up to four times as much memory;
    /// 0 = a quarter of the memory for merges, the most that it may be.
    pub compact_bytes_target: u64,
    /// Commits of a table's log that are kept although a checkpoint covers them.
    pub log_keep_commits: u64,
    /// How long a commit of a table's log is kept although a checkpoint covers it, in hours.
    pub log_keep_hours: u64,
    /// How long a file that no version names stays in the store, in hours.
    pub sweep_grace_hours: u64,
    /// The shortest retention that may be set, in days.
    pub retention_days_min: u32,
    /// How long an idempotency key is remembered, in hours.
    pub idempotency_hours: u64,
    /// Idempotency keys remembered per tenant.
    pub idempotency_keys_max: usize,
    /// Bytes that the remembered idempotency keys of one tenant and their replies take at most; the oldest are forgotten
    /// first.
    pub idempotency_bytes_max: u64,
    /// Datasets that one tenant may have beside the built-in ones; those that are there already stay.
    pub datasets_max: usize,
    /// Called by each thread of storage before it waits: the engine gives unused memory back to the system there.
    #[serde(skip, default = "nothing_at_rest")]
    pub at_rest: fn(),
    /// Keys the hashes under which idempotency keys are kept. The engine derives it from the master key.
    #[serde(skip)]
    pub declared_key_secret: DeclaredKeySecret,
}

fn nothing() {}

fn nothing_at_rest() -> fn() {
    nothing
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_max: 350 << 20,
            data: PathBuf::from("floodmark-data"),
            salvage: false,
            store_url: None,
            store_ca: None,
            store_connect_timeout_ms: 5_000,
            store_timeout_ms: 30_000,
            store_retry_ms: 10_000,
            wal_place: WalPlace::Disk,
            node: None,
            // Ten puts a second at most: under full load some $4 a day at a bucket's usual prices.
            wal_object_interval_ms: 100,
            wal_segment_bytes: 64 << 20,
            wal_bytes_max: 4 << 30,
            seal_rows: 500_000,
            seal_bytes: 0,
            seal_age_ms: 10_000,
            seal_age_max_ms: 3_600_000,
            // A commit is two puts: at most some $9 a day at a bucket's usual prices. A hundred commits in ten
            // seconds: up to that many tables, age is `seal_age_ms` as ever.
            seal_commits_per_minute: 600,
            // A hundred years: logs of the nineties are loaded still, clocks that count from 1900 are not believed.
            past_days_max: 36_525,
            disk_free_bytes_min: 1 << 30,
            disk_reserve_bytes: 64 << 20,
            row_group_rows: 64 * 1024,
            checkpoint_commits: 20,
            compact_files_min: 8,
            compact_quiet_ms: 600_000,
            compact_bytes_target: 0,
            log_keep_commits: 100,
            log_keep_hours: 24,
            sweep_grace_hours: 24,
            retention_days_min: 1,
            idempotency_hours: 24,
            idempotency_keys_max: 100_000,
            idempotency_bytes_max: 64 << 20,
            datasets_max: 200,
            at_rest: nothing,
            declared_key_secret: DeclaredKeySecret::default(),
        }
    }
}

impl Options {
    /// With sizes that follow from the memory in place of 0.
    #[must_use]
    pub(crate) fn sized(mut self, memory: &Memory) -> Self {
        if self.seal_bytes == 0 {
            self.seal_bytes = memory.max(Pool::Hot) / 4;
        }
        if self.compact_bytes_target == 0 {
            self.compact_bytes_target = memory.max(Pool::Merge) / 4;
        }
        self
    }

    /// Explains the first relation between the options that cannot hold.
    ///
    /// # Errors
    /// `Kind::Invalid` naming both options.
    pub fn validate(&self) -> Result<()> {
        let broken = |text: String| Err(Error::new(Kind::Invalid, text));
        if self.wal_segment_bytes < 64 << 10 {
            return broken("wal_segment_bytes must be at least 65536".into());
        }
        let is_name = |name: &str| {
            (1..=32).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if self.node.as_deref().is_some_and(|name| !is_name(name)) {
            return broken("node must be 1 to 32 of a-z, 0-9 and -".into());
        }
        if self.wal_place == WalPlace::Bucket && self.node.is_none() {
            return broken(
                "wal_place bucket needs node: under that name another machine takes the log over".into(),
            );
        }
        if self.wal_bytes_max < 4 * self.wal_segment_bytes {
            return broken(format!(
                "wal_bytes_max {} must hold at least four segments of wal_segment_bytes {}",
                self.wal_bytes_max, self.wal_segment_bytes
            ));
        }
        if self.memory_max < MEMORY_BYTES_MIN {
            return broken(format!("memory_max {} must be at least {MEMORY_BYTES_MIN}", self.memory_max));
        }
        let memory = Memory::new(self.memory_max, BASE_BYTES);
        let hot_max = memory.max(Pool::Hot);
        if self.seal_bytes > hot_max / 2 {
            return broken(format!(
                "seal_bytes {} must be at most {}, half of the memory for hot rows: raise memory_max",
                self.seal_bytes,
                hot_max / 2
            ));
        }
        if self.past_days_max == 0 {
            return broken("past_days_max must be at least 1".into());
        }
        if self.store_connect_timeout_ms == 0 || self.store_timeout_ms < self.store_connect_timeout_ms {
            return broken(format!(
                "store_timeout_ms {} must be at least store_connect_timeout_ms {}, and both above 0",
                self.store_timeout_ms, self.store_connect_timeout_ms
            ));
        }
        if self.seal_rows == 0 || self.row_group_rows == 0 || self.checkpoint_commits == 0 {
            return broken("seal_rows, row_group_rows and checkpoint_commits must be at least 1".into());
        }
        if !(2..=FILES_MAX).contains(&self.compact_files_min) {
            return broken(format!("compact_files_min must be 2 to {FILES_MAX}"));
        }
        let target_max = memory.max(Pool::Merge) / 4;
        if self.compact_bytes_target > target_max || (1..1 << 20).contains(&self.compact_bytes_target) {
            return broken(format!(
                "compact_bytes_target {} must be 0, or at least 1048576 and at most {target_max}, a quarter of the memory \
                 for merges: raise memory_max",
                self.compact_bytes_target
            ));
        }
        if self.log_keep_hours < 2 {
            return broken("log_keep_hours must be at least 2: a process may be that far behind".into());
        }
        if self.datasets_max == 0 {
            return broken("datasets_max must be at least 1".into());
        }
        if self.sweep_grace_hours == 0 || self.retention_days_min == 0 {
            return broken("sweep_grace_hours and retention_days_min must be at least 1".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, WalPlace};
    use crate::memory::{BASE_BYTES, Memory, Pool};

    #[test]
    fn relations_that_cannot_hold_are_named() {
        let check = |change: fn(&mut Options), named: &str| {
            let mut options = Options::default();
            change(&mut options);
            let error = options.validate().unwrap_err();
            assert!(error.context().contains(named), "{error} does not name {named}");
        };
        assert!(Options::default().validate().is_ok());
        check(|options| options.memory_max = 1 << 20, "memory_max");
        check(|options| options.seal_bytes = options.memory_max, "seal_bytes");
        check(|options| options.past_days_max = 0, "past_days_max");
        check(|options| options.wal_bytes_max = options.wal_segment_bytes, "wal_bytes_max");
        check(|options| options.wal_place = WalPlace::Bucket, "node");
        check(|options| options.node = Some("../a".into()), "node");
        check(|options| options.datasets_max = 0, "datasets_max");
        check(|options| options.compact_files_min = 1, "compact_files_min");
        check(|options| options.compact_files_min = 129, "compact_files_min");
        check(|options| options.compact_bytes_target = 1, "compact_bytes_target");
        check(|options| options.compact_bytes_target = 64 << 20, "memory_max");
    }

    // B1: what is held at once follows from the cap.
    #[test]
    fn sizes_follow_from_the_memory() {
        let options = Options::default();
        let memory = Memory::new(options.memory_max, BASE_BYTES);
        let sized = options.clone().sized(&memory);
        assert_eq!(sized.seal_bytes, memory.max(Pool::Hot) / 4);
        assert_eq!(sized.compact_bytes_target, memory.max(Pool::Merge) / 4);
        assert!(sized.validate().is_ok());
        let chosen = Options { seal_bytes: 7, compact_bytes_target: 8, ..options }.sized(&memory);
        assert_eq!((chosen.seal_bytes, chosen.compact_bytes_target), (7, 8));
    }
}
