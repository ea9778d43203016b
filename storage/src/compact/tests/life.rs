//! Random lives of a table, and a long one under a reader's eyes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arrow::array::RecordBatch;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tokio::sync::watch;

use super::rig::{Rig, START_NS, chunk, column, run, start_ns};
use crate::compact::run::compact;
use crate::reader::HotRows;
use crate::record::fit::{Coordinates, to_rows};
use crate::segment::Fingerprint;

#[derive(Clone, Debug)]
enum Step {
    /// Rows arrive.
    Append { rows: u8, shape: u8 },
    /// What waits goes into files.
    Seal,
    /// What is due is merged.
    Compact,
    /// The process ends after a merge put its file and before it committed.
    Crash,
    /// Another process takes a file out while a merge is under way.
    Remove { at: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u8..30, 0_u8..4).prop_map(|(rows, shape)| Step::Append { rows, shape }),
        6 => Just(Step::Seal),
        3 => Just(Step::Compact),
        1 => Just(Step::Crash),
        1 => any::<u8>().prop_map(|at| Step::Remove { at }),
    ]
}

/// A table and what must be in it.
struct Life {
    rig: Rig,
    /// Every chunk: its frame, its first row, the rows; as the log would have them.
    chunks: Vec<(u64, u64, RecordBatch)>,
    next_row: u64,
    removed: Vec<i64>,
}

impl Life {
    async fn step(&mut self, step: &Step) {
        match step {
            Step::Append { rows, shape } => {
                let first = self.next_row;
                self.next_row += u64::from(*rows);
                let batch = chunk(first as i64..self.next_row as i64, *shape);
                let seq = self.chunks.len() as u64 + 1;
                self.rig.push(seq, first, batch.clone());
                self.chunks.push((seq, first, batch));
            }
            Step::Seal => drop(self.rig.seal().await.unwrap()),
            Step::Compact => self.rig.compact().await,
            Step::Crash => {
                self.rig.store.refuses_commits.store(true, Ordering::Relaxed);
                compact(&self.rig.shared, || true).await;
                self.start_again().await;
            }
            Step::Remove { at } => {
                let files = self.rig.files();
                let Some(file) = files.get(usize::from(*at) % files.len().max(1)) else { return };
                let rows = column(&self.rig.rows(file).await);
                let is_done = AtomicBool::new(false);
                let remove = || {
                    if !is_done.swap(true, Ordering::Relaxed) {
                        futures::executor::block_on(self.rig.remove_elsewhere(&file.path));
                    }
                    true
                };
                while compact(&self.rig.shared, remove).await {}
                // Without a merge in the way nothing was removed.
                if is_done.load(Ordering::Relaxed) {
                    self.removed.extend(rows);
                    // A seal or a merge will learn of it; so does a start.
                    self.start_again().await;
                }
            }
        }
    }

    /// What is left on disk, and what a replay of the log makes hot again.
    async fn start_again(&mut self) {
        self.rig = Rig::on(Arc::clone(&self.rig.folder), start_ns).await;
        let sealed = self.rig.table().published().state.last_seq("w-0");
        for (seq, first, batch) in self.chunks.iter().filter(|(seq, ..)| *seq > sealed) {
            self.rig.push(*seq, *first, batch.clone());
        }
    }

    /// M1, A3: every row that was not removed is found once, with every value it had.
    async fn check(&self) -> Result<(), TestCaseError> {
        let columns = self.rig.table().columns();
        let mut fingerprint = Fingerprint::default();
        for (_, first_seq, batch) in &self.chunks {
            let fitted = columns.fit(batch.clone()).0;
            let at = Coordinates { writer: "w-0", first_seq: *first_seq };
            let rows = to_rows(&fitted, columns.schema(), at);
            let kept = column(&rows).iter().map(|n| Some(!self.removed.contains(n))).collect();
            fingerprint.add(&arrow::compute::filter_record_batch(&rows, &kept).unwrap());
        }
        let (numbers, found) = self.rig.found().await;
        let expected: Vec<i64> = (0..self.next_row as i64).filter(|n| !self.removed.contains(n)).collect();
        prop_assert_eq!(numbers, expected);
        prop_assert_eq!(found, fingerprint);
        let stats = &self.rig.shared.stats;
        prop_assert_eq!(stats.segment_mismatches.load(Ordering::Relaxed), 0);
        prop_assert_eq!(stats.damaged_files.load(Ordering::Relaxed), 0);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        max_shrink_iters: 200,
        // A failing life is printed with its seed.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_lives_keep_every_row(steps in prop::collection::vec(step(), 1..40)) {
        run(async {
            let mut life =
                Life { rig: Rig::new().await, chunks: Vec::new(), next_row: 0, removed: Vec::new() };
            for step in &steps {
                life.step(step).await;
                life.check().await?;
            }
            life.rig.compact().await;
            life.check().await
        })?;
    }
}

static LATER_NS: AtomicI64 = AtomicI64::new(START_NS);

fn later_ns() -> i64 {
    LATER_NS.load(Ordering::Relaxed)
}

/// A3: a thousand seals of two small files each, merged by the caretaker as they come, while a reader takes snapshots; a day later
/// a file a date is left.
#[test]
fn many_small_seals_end_in_few_files() {
    run(async {
        let rig = Rig::on(Arc::new(tempfile::tempdir().unwrap()), later_ns).await;
        let (stop, stopped) = watch::channel(false);
        let caretaker = crate::caretaker::start(Arc::clone(&rig.shared), stopped).unwrap();
        for seal in 0..1_000_i64 {
            rig.push(seal as u64 + 1, seal as u64 * 2, chunk(seal * 2..seal * 2 + 2, 0));
            let snapshot = rig.table().snapshot();
            let filed: u64 = snapshot.files.iter().map(|file| file.rows).sum();
            let hot: usize = snapshot.hot.iter().map(HotRows::num_rows).sum();
            assert_eq!(filed + hot as u64, seal as u64 * 2 + 2, "A3: by counts, at every moment");
            rig.seal().await.unwrap();
            if seal % 200 == 0 {
                assert_eq!(rig.numbers().await, (0..seal * 2 + 2).collect::<Vec<_>>());
            }
        }
        stop.send_replace(true);
        caretaker.join().unwrap();
        assert!(rig.shared.stats.caretaker_cpu_ns.load(Ordering::Relaxed) > 0);
        let before = rig.found().await;
        rig.compact().await;
        let files = rig.files().len();
        assert!(files <= 2 * 2 * 9, "{files} files: at most two of each tier and date");
        LATER_NS.fetch_add(86_400_000_000_000, Ordering::Relaxed);
        rig.compact().await;
        assert_eq!(rig.files().len(), 2);
        assert_eq!(rig.found().await, before);
        assert_eq!(rig.shared.stats.compaction_failures.load(Ordering::Relaxed), 0);
    });
}

static MINUTES_NS: AtomicI64 = AtomicI64::new(START_NS);

fn minutes_ns() -> i64 {
    MINUTES_NS.load(Ordering::Relaxed)
}

/// A table that was just in use rests before its quiet dates are tidied up; one in use, or long out of use, tidies them.
#[test]
fn quiet_dates_wait_while_their_table_rests() {
    run(async {
        let rig = Rig::on(Arc::new(tempfile::tempdir().unwrap()), minutes_ns).await;
        let at_minute = |minute: i64| MINUTES_NS.store(START_NS + minute * 60_000_000_000, Ordering::Relaxed);
        let files = || {
            let of_day = |day: &str| rig.files().iter().filter(|file| file.path.contains(day)).count();
            (of_day("2023-11-14"), of_day("2023-11-15"))
        };
        let push = |at: i64, numbers: std::ops::Range<i64>| {
            rig.push(at as u64 + 1, numbers.start as u64, chunk(numbers, 0));
        };
        for at in 0..2 {
            push(at, at * 2..at * 2 + 2);
            rig.seal().await.unwrap();
        }
        rig.compact().await;
        assert_eq!(files(), (2, 2));
        // Even numbers are of the first day.
        at_minute(9);
        push(2, 4..5);
        rig.compact().await;
        rig.seal().await.unwrap();
        rig.compact().await;
        assert_eq!(files(), (1, 2), "the first is crowded");
        at_minute(11);
        rig.compact().await;
        assert_eq!(files(), (1, 2), "the second is quiet, and rows came two minutes ago");
        at_minute(12);
        push(3, 6..7);
        rig.compact().await;
        assert_eq!(files(), (1, 1), "rows came");
        rig.seal().await.unwrap();
        at_minute(21);
        rig.compact().await;
        assert_eq!(files(), (2, 1));
        at_minute(22);
        rig.compact().await;
        assert_eq!(files(), (1, 1), "nothing came for as long as a date is to be quiet");
        assert_eq!(rig.numbers().await, [0, 1, 2, 3, 4, 6]);
    });
}
