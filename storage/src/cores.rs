//! Which cores reads and background work may use: all, but one fewer while others' writes wait for theirs (X2).
//!
//! A record is acknowledged after a chain of short steps: the lane, the log's thread, the file system's own threads and
//! the disk's. Where every core is busy each step waits for the next tick of the kernel's clock, four milliseconds or so,
//! however little else there is to do and whatever the priorities are. A core that is kept free is there at once. A
//! priority that only ever takes what is left over would do the same, and reads would stand still under a flood of writes:
//! they keep their share of the other cores instead.
//!
//! A disk with one queue tells one core what it has done, and what the kernel does then it does there, behind the threads
//! of that core: where they take all of it, for a second and more. That core is the first that is kept.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};

/// Syncs of logs a second from which on one core in [`ONE_OF`] is kept. Chosen: fewer are one client that waits for each,
/// and reads alone are to have all there is.
const SYNCS_MIN: u64 = 8;

/// Looks without as many syncs after which reads have all cores again.
const CALM_LOOKS: u32 = 8;

/// One core of so many is kept, one at least. Chosen: the steps of a write are short, and one core does thousands a second.
const ONE_OF: u32 = 8;

static CORES: LazyLock<Cores> = LazyLock::new(|| {
    let softirqs = std::fs::read_to_string("/proc/softirqs").unwrap_or_default();
    Cores::of(sched_getaffinity(None).ok(), &softirqs)
});

/// The calling thread does work that gives way to writes, and those that it starts do; call it as the thread begins.
pub fn give_way() {
    CORES.add(gettid());
}

/// The calling thread ends.
pub fn end() {
    CORES.remove(gettid());
}

/// A process of ours that gives way, with all its threads, until this is dropped.
#[derive(Debug)]
pub struct Process(Pid);

impl Process {
    /// The process of this number, a child that was not waited for yet.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(number).ok()?)?;
        CORES.add_process(pid);
        Some(Self(pid))
    }

    /// Gives it all cores: it is ended, and its memory and its place are waited for. Its threads would end where all who
    /// give way are, and behind them.
    pub fn end(self) {
        CORES.free_process(self.0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        CORES.shares().processes.remove(&self.0);
    }
}

/// Looks now and then how much is written.
#[derive(Debug, Default)]
pub struct Watch {
    syncs: u64,
    calm_looks: u32,
}

impl Watch {
    /// Looks: `syncs` of logs were made since the start, and the last look was `every` ago. Keeps a core for writes, or
    /// gives it back.
    pub fn look(&mut self, syncs: u64, every: std::time::Duration) {
        CORES.keep(self.is_busy(syncs, every));
    }

    fn is_busy(&mut self, syncs: u64, every: std::time::Duration) -> bool {
        let made = u128::from(syncs - std::mem::replace(&mut self.syncs, syncs));
        if made * 1_000 >= u128::from(SYNCS_MIN) * every.as_millis() {
            self.calm_looks = 0;
        } else {
            self.calm_looks = self.calm_looks.saturating_add(1);
        }
        self.calm_looks < CALM_LOOKS && self.syncs > 0
    }
}

/// The cores of a process, and who gives way on them.
#[derive(Debug)]
struct Cores {
    /// All of them, and all but those that are kept; `None` where there is one, or the system does not tell.
    sets: Option<(CpuSet, CpuSet)>,
    shares: Mutex<Shares>,
}

#[derive(Debug, Default)]
struct Shares {
    threads: HashSet<Pid>,
    processes: HashSet<Pid>,
    is_kept: bool,
}

impl Cores {
    /// Of the cores of a process and what `/proc/softirqs` says: those are kept that end most requests of disks.
    fn of(all: Option<CpuSet>, softirqs: &str) -> Self {
        let sets = all.filter(|all| all.count() > 1).map(|all| {
            let ended = ended_requests(softirqs);
            let mut rest = all;
            let mut cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
            cores.sort_by_key(|core| Reverse(ended.get(core).copied().unwrap_or(0)));
            let kept = all.count().div_ceil(ONE_OF) as usize;
            cores.into_iter().take(kept).for_each(|core| rest.unset(core));
            (all, rest)
        });
        Self { sets, shares: Mutex::default() }
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, shares: &Shares) -> Option<&CpuSet> {
        self.sets.as_ref().map(|(all, rest)| if shares.is_kept { rest } else { all })
    }

    fn add(&self, thread: Pid) {
        let mut shares = self.shares();
        shares.threads.insert(thread);
        let _ = self.set(&shares).map(|set| sched_setaffinity(Some(thread), set));
    }

    fn remove(&self, thread: Pid) {
        self.shares().threads.remove(&thread);
    }

    fn add_process(&self, process: Pid) {
        let mut shares = self.shares();
        shares.processes.insert(process);
        if let Some(set) = self.set(&shares) {
            let _ = set_all(process, set);
        }
    }

    fn free_process(&self, process: Pid) {
        let mut shares = self.shares();
        shares.processes.remove(&process);
        if let Some((all, _)) = self.sets.as_ref().filter(|_| shares.is_kept) {
            let _ = set_all(process, all);
        }
    }

    /// Keeps a core, or gives it back. A thread or process that the system does not find ends just now.
    fn keep(&self, is_kept: bool) {
        let mut shares = self.shares();
        if std::mem::replace(&mut shares.is_kept, is_kept) == is_kept {
            return;
        }
        let Some(set) = self.set(&shares) else { return };
        for thread in &shares.threads {
            let _ = sched_setaffinity(Some(*thread), set);
        }
        for process in &shares.processes {
            let _ = set_all(*process, set);
        }
    }
}

/// Requests of disks that each core has ended since the machine started, of the text of `/proc/softirqs`.
fn ended_requests(softirqs: &str) -> HashMap<usize, u64> {
    let mut lines = softirqs.lines();
    let cores = lines.next().unwrap_or_default().split_whitespace();
    let cores = cores.map(|name| name.strip_prefix("CPU").and_then(|number| number.parse().ok()));
    let counts = lines.find_map(|line| line.trim_start().strip_prefix("BLOCK:")).unwrap_or_default();
    let counts = counts.split_whitespace().map(|count| count.parse().ok());
    cores.zip(counts).filter_map(|(core, count)| Some((core?, count?))).collect()
}

/// Sets the cores of all threads of a process. One that another starts meanwhile has its cores.
fn set_all(process: Pid, set: &CpuSet) -> io::Result<()> {
    sched_setaffinity(Some(process), set)?;
    for thread in std::fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()))? {
        let number = thread?.file_name().to_str().and_then(|name| name.parse().ok());
        let _ = number.and_then(Pid::from_raw).map(|thread| sched_setaffinity(Some(thread), set));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::thread::{CpuSet, gettid, sched_getaffinity};

    use super::{CALM_LOOKS, Cores, Watch, ended_requests};

    fn cores(numbers: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        numbers.iter().for_each(|core| set.set(*core));
        set
    }

    #[test]
    fn one_core_of_eight_is_kept_and_one_at_least() {
        assert!(Cores::of(Some(cores(&[3])), "").sets.is_none(), "there is but one");
        assert!(Cores::of(None, "").sets.is_none());
        assert_eq!(Cores::of(Some(cores(&[1, 3])), "").sets, Some((cores(&[1, 3]), cores(&[3]))));
        let many: Vec<usize> = (0..17).collect();
        assert_eq!(Cores::of(Some(cores(&many)), "").sets.unwrap().1, cores(&many[3..]));
    }

    #[test]
    fn the_core_that_ends_the_requests_of_disks_is_kept() {
        let text = "\
                    CPU0       CPU1       CPU3\n\
          TIMER:      900        900        900\n\
          BLOCK:        7         80         80\n";
        assert_eq!(ended_requests(text), [(0, 7), (1, 80), (3, 80)].into());
        let rest = |all: &[usize]| Cores::of(Some(cores(all)), text).sets.unwrap().1;
        assert_eq!(rest(&[0, 1, 3]), cores(&[0, 3]), "the first of two alike");
        assert_eq!(rest(&[0, 3]), cores(&[0]));
        assert_eq!(rest(&[0, 2]), cores(&[2]), "of one that has no place there nothing is known");
        for odd in ["", "BLOCK: 1 2", "CPU0 CPU1\n", "CPU0 CPUx\nBLOCK: a 2 3\n"] {
            assert!(ended_requests(odd).is_empty(), "{odd}");
        }
    }

    #[test]
    fn a_core_is_kept_while_much_is_written_and_some_time_after() {
        let second = Duration::from_secs(1);
        let mut watch = Watch::default();
        assert!(!watch.is_busy(0, second), "nothing was ever written");
        assert!(watch.is_busy(8, second));
        for _ in 1..CALM_LOOKS {
            assert!(watch.is_busy(15, second));
        }
        assert!(!watch.is_busy(15, second));
        assert!(!watch.is_busy(17, second), "two are few");
        assert!(watch.is_busy(19, second / 4), "two in a quarter of a second are not");
    }

    #[test]
    fn who_gives_way_leaves_a_core_while_it_is_kept() {
        let Some(all) = sched_getaffinity(None).ok().filter(|all| all.count() > 1) else {
            // There is one core, and nothing to keep.
            return;
        };
        let mine = Cores::of(Some(all), "");
        let rest = mine.sets.unwrap().1;
        let own = || sched_getaffinity(None).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                mine.add(gettid());
                assert_eq!(own(), all);
                mine.keep(true);
                assert_eq!(own(), rest);
                let started = std::thread::spawn(own);
                assert_eq!(started.join().unwrap(), rest, "one that it starts");
                mine.keep(false);
                assert_eq!(own(), all);
                mine.remove(gettid());
                mine.keep(true);
                assert_eq!(own(), all, "it gave way no more");
            });
        });
        std::thread::scope(|scope| {
            scope.spawn(|| {
                mine.add(gettid());
                assert_eq!(own(), rest, "it came later");
            });
        });
        // A process, and what it becomes.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = rustix::thread::Pid::from_child(&child);
        mine.add_process(pid);
        assert_eq!(sched_getaffinity(Some(pid)).unwrap(), rest);
        mine.keep(false);
        assert_eq!(sched_getaffinity(Some(pid)).unwrap(), all);
        mine.keep(true);
        assert_eq!(sched_getaffinity(Some(pid)).unwrap(), rest);
        mine.free_process(pid);
        assert_eq!(sched_getaffinity(Some(pid)).unwrap(), all, "it is ended");
        mine.keep(false);
        mine.keep(true);
        assert_eq!(sched_getaffinity(Some(pid)).unwrap(), all, "it gave way no more");
        // One that is gone is nobody's to set.
        mine.add_process(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        mine.keep(false);
        mine.keep(true);
    }
}
