//! What is derived from rows, and what a process died of while it derived it.
//!
//! Rows are read back whatever happens; what is derived from them (their durations, the roll-up of those) is work on what
//! a client sent, and a process may die of it: by a panic that aborts, by memory. The log brings the same rows back, and
//! the next start would die of them too. So a note says which step is on, for which table and frame. A note that still
//! stands at a start names what the last process died in. Once is bad luck: any process may be killed at any moment. What
//! two in a row died in is passed over: the rows are there, their durations are not.
//!
//! The notes are one small file beside the logs (`wal/attempt`) that is written without a sync: a process that dies
//! leaves what it wrote to the next, a machine that loses its power does not, and has no part in this.

use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, DiskFile, read_small};
use crate::record::TableId;

/// Processes in a row that may die in one step on one thing before it is passed over.
pub const DEATHS_MAX: u32 = 2;

/// Bytes of one note.
const NOTE_BYTES: usize = 512;

/// A step that derives something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Measuring one chunk that was read back.
    Measure,
    /// Rolling up what was measured in a table's chunks.
    RollUp,
}

impl Step {
    const ALL: [Self; 2] = [Self::Measure, Self::RollUp];

    fn at(self) -> u64 {
        (self as usize * NOTE_BYTES) as u64
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    step: Step,
    /// The boot of the machine it was written under.
    boot: String,
    table: String,
    writer: String,
    seq: u64,
    /// Processes that begun the step on this, one after the other, without ending it.
    deaths: u32,
}

impl Note {
    fn is_of(&self, table: &TableId, writer: &str, seq: u64) -> bool {
        self.table == table.to_string() && self.writer == writer && self.seq == seq
    }
}

/// The notes of this process, and those that the last one left.
#[derive(Debug, Default)]
pub struct Attempts {
    boot: String,
    left: Vec<Note>,
    /// `None` where notes cannot be kept, and while a step is on: another one at the same time has none.
    files: [Mutex<Option<Box<dyn DiskFile>>>; Step::ALL.len()],
}

impl Attempts {
    /// Reads what the last process left beside the logs in `wal`, and keeps this one's notes there.
    ///
    /// Where the file cannot be used there are no notes: a start does not fail for want of them.
    pub fn open(disk: &dyn Disk, wal: &Path) -> Self {
        let Some(boot) = disk.boot() else { return Self::default() };
        let path = wal.join("attempt");
        let bytes = read_small(disk, &path, (NOTE_BYTES * Step::ALL.len()) as u64).unwrap_or_default();
        let notes = bytes.chunks(NOTE_BYTES).filter_map(|note| serde_json::from_slice::<Note>(note).ok());
        let left = notes.filter(|note| note.boot == boot).collect();
        let opened = || {
            if !matches!(disk.len(&path), Ok(bytes) if bytes == (NOTE_BYTES * Step::ALL.len()) as u64) {
                let _ = disk.remove(&path);
                disk.create(&path)?.write_at(&[b' '; NOTE_BYTES * Step::ALL.len()], 0)?;
            }
            disk.open(&path)
        };
        let file = || match opened() {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::warn!(%error, "no notes are kept of what a start does");
                None
            }
        };
        Self { boot, left, files: Step::ALL.map(|_| Mutex::new(file())) }
    }

    /// Begins a step on a frame of a table; `None` where it is to be passed over.
    ///
    /// The note stands until what is returned is dropped.
    pub fn begin(&self, step: Step, table: &TableId, writer: &str, seq: u64) -> Option<Attempt<'_>> {
        let before = self.left.iter().find(|note| note.step == step && note.is_of(table, writer, seq));
        let deaths = before.map_or(0, |note| note.deaths);
        if deaths >= DEATHS_MAX {
            return None;
        }
        let file = self.files[step as usize].lock().ok().and_then(|mut file| file.take());
        if let Some(file) = &file {
            let (table, writer, boot) = (table.to_string(), writer.to_owned(), self.boot.clone());
            write(&**file, step, &Some(Note { step, boot, table, writer, seq, deaths: deaths + 1 }));
        }
        Some(Attempt { attempts: self, step, file })
    }

    /// Whether the roll-up of the table ended processes before: what is measured in its chunks is to be left out.
    pub fn roll_up_is_deadly(&self, table: &TableId) -> bool {
        let table = table.to_string();
        self.left
            .iter()
            .any(|note| note.step == Step::RollUp && note.table == table && note.deaths >= DEATHS_MAX)
    }
}

fn write(file: &dyn DiskFile, step: Step, note: &Option<Note>) {
    let mut bytes = [b' '; NOTE_BYTES];
    if let Some(note) = note {
        let text = serde_json::to_vec(note).expect("plain data becomes JSON");
        // Names of tables and writers are far shorter.
        if let Some(room) = bytes.get_mut(..text.len()) {
            room.copy_from_slice(&text);
        }
    }
    // Without the note a death of this is not told from another, once.
    let _ = file.write_at(&bytes, step.at());
}

/// A step that is on.
#[derive(Debug)]
pub struct Attempt<'a> {
    attempts: &'a Attempts,
    step: Step,
    file: Option<Box<dyn DiskFile>>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        write(&*file, self.step, &None);
        if let Ok(mut place) = self.attempts.files[self.step as usize].lock() {
            *place = Some(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Attempts, Step};
    use crate::disk::LocalDisk;
    use crate::fixture::table;

    /// A process that dies in a step.
    fn die(wal: &Path, step: Step, seq: u64) -> bool {
        let attempts = Attempts::open(&LocalDisk, wal);
        let Some(attempt) = attempts.begin(step, &table(), "w-0", seq) else { return false };
        std::mem::forget(attempt);
        true
    }

    #[test]
    fn what_two_processes_died_in_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let wal = folder.path();
        assert!(die(wal, Step::Measure, 7) && die(wal, Step::Measure, 7));
        assert!(!die(wal, Step::Measure, 7), "the third does not try");
        let attempts = Attempts::open(&LocalDisk, wal);
        assert!(attempts.begin(Step::Measure, &table(), "w-0", 8).is_some(), "another frame is another");
        assert!(attempts.begin(Step::RollUp, &table(), "w-0", 7).is_some());
        assert!(!attempts.roll_up_is_deadly(&table()));
    }

    #[test]
    fn one_death_between_two_ends_is_bad_luck() {
        let folder = tempfile::tempdir().unwrap();
        let wal = folder.path();
        for _ in 0..5 {
            assert!(die(wal, Step::RollUp, 7));
            let attempts = Attempts::open(&LocalDisk, wal);
            drop(attempts.begin(Step::RollUp, &table(), "w-0", 7).expect("tried again"));
        }
        assert!(die(wal, Step::RollUp, 7) && die(wal, Step::RollUp, 7));
        assert!(Attempts::open(&LocalDisk, wal).roll_up_is_deadly(&table()));
    }

    #[test]
    fn notes_of_another_boot_and_torn_ones_say_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let wal = folder.path();
        die(wal, Step::Measure, 7);
        let path = wal.join("attempt");
        let text = std::fs::read_to_string(&path).unwrap();
        let at = text.find("\"deaths\":1").unwrap();
        let deadly = text.replace("\"deaths\":1", "\"deaths\":9");
        std::fs::write(&path, &deadly).unwrap();
        assert!(!die(wal, Step::Measure, 7));
        let boot = text.find("\"boot\":\"").unwrap() + 8;
        for (name, bytes) in [
            ("another boot", format!("{}x{}", &deadly[..boot], &deadly[boot + 1..])),
            ("torn", deadly[..at].to_owned()),
            ("empty", String::new()),
            ("long", "x".repeat(9_000)),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert!(die(wal, Step::Measure, 7), "{name}");
        }
    }
}
