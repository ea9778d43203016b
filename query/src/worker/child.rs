//! The process of a worker: how it ended is told before the kernel takes it off its list.
//!
//! Taking a process off the list can last: the kernel lets go of all that stood below its `/proc`, and under an attack
//! it was seen at that for up to a minute. Memory, files and threads of the process are given back long before. So a
//! thread of its own takes dead processes off the list, and nobody waits for it.

use std::io;
use std::process::Child;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid};
use storage::cores;

/// How long a worker that closed its socket may take to end.
const END_MAX: Duration = Duration::from_secs(2);
/// Dead processes that wait to be taken off the list; whose process is one more waits, too. Chosen: far above what was
/// seen, which is one or two.
const DEAD_MAX: usize = 64;

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Aborted, as where an allocation fails, or killed from outside, as where the machine is out of memory.
    OutOfMemory,
    /// Any other way: our bug.
    Crashed,
}

/// Takes dead processes off the kernel's list, on a thread that nobody waits for.
#[derive(Clone, Debug)]
pub struct Reaper(mpsc::SyncSender<Child>);

impl Reaper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's.
    pub fn start() -> io::Result<Self> {
        let (dead, ended) = mpsc::sync_channel::<Child>(DEAD_MAX);
        std::thread::Builder::new().name("sql-reaper".into()).spawn(move || {
            // The kernel computes all that while: 40 s in six minutes of an attack, on a core that writes needed.
            cores::give_way();
            for mut child in ended {
                let _ = child.wait();
            }
            cores::end();
        })?;
        Ok(Self(dead))
    }

    /// Kills a process; its place on the list comes free some time later.
    pub fn bury(&self, mut child: Child) {
        let _ = child.kill();
        // Where the thread is gone the process is, too.
        let _ = self.0.send(child);
    }
}

/// A worker's process. Dropping it kills it, and waits where too many dead ones are on the list.
pub struct Process {
    /// `None` only while it is dropped.
    child: Option<Child>,
    /// Its place among those that give way to writes.
    share: Option<cores::Process>,
    reaper: Reaper,
}

impl Process {
    /// A process that was started now.
    pub fn new(child: Child, reaper: Reaper) -> Self {
        let share = cores::Process::new(child.id());
        Self { child: Some(child), share, reaper }
    }

    /// Its number, which is no other's while this lives.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        !matches!(self.status(WaitIdOptions::NOHANG), Ok(None))
    }

    /// It gives way no more: its end is waited for.
    fn hurry(&mut self) {
        if let Some(share) = self.share.take() {
            share.end();
        }
    }

    /// Kills it at once; [`Self::end`] waits until it has ended.
    pub fn kill(&mut self) {
        self.hurry();
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        }
    }

    /// Waits until its memory, files and threads are given back, and says how it ended; kills it where that takes too
    /// long. Blocks: milliseconds after a kill.
    pub fn end(&mut self) -> End {
        self.hurry();
        let begun = Instant::now();
        let status = loop {
            match self.status(WaitIdOptions::NOHANG) {
                Ok(None) if begun.elapsed() < END_MAX => std::thread::sleep(Duration::from_millis(1)),
                Ok(Some(status)) => break Some(status),
                _ => {
                    self.kill();
                    break self.status(WaitIdOptions::empty()).ok().flatten();
                }
            }
        };
        match status.and_then(|status| status.terminating_signal()) {
            Some(libc::SIGABRT | libc::SIGKILL) => End::OutOfMemory,
            _ => End::Crashed,
        }
    }

    /// How it ended, where it has. It stays on the kernel's list.
    fn status(&self, options: WaitIdOptions) -> rustix::io::Result<Option<WaitIdStatus>> {
        let child = self.child.as_ref().ok_or(rustix::io::Errno::CHILD)?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | options;
        waitid(WaitId::Pid(Pid::from_child(child)), options)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.hurry();
        if let Some(child) = self.child.take() {
            self.reaper.bury(child);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Child, Command};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::{DEAD_MAX, End, Process, Reaper};

    fn run(program: &str) -> Child {
        Command::new("sh").args(["-c", program]).spawn().unwrap()
    }

    /// B1: the kernel may take a minute for the list, and all that time the query and its place are waited for.
    #[test]
    fn how_a_process_ended_is_told_while_it_is_on_the_list() {
        let (sender, unheard) = mpsc::sync_channel(1);
        for (program, end) in [("kill -ABRT $$", End::OutOfMemory), ("exit 3", End::Crashed)] {
            let mut process = Process::new(run(program), Reaper(sender.clone()));
            let listed = format!("/proc/{}/stat", process.id());
            assert_eq!(process.end(), end, "{program}");
            let stat = std::fs::read_to_string(&listed).unwrap();
            assert!(stat.rsplit(')').next().unwrap().starts_with(" Z "), "{stat}");
            drop(process);
            unheard.recv().unwrap().wait().unwrap();
        }
    }

    /// B1: where the list does not get shorter, no more processes are started either.
    #[test]
    fn so_many_dead_processes_wait_for_the_list() {
        let (sender, unheard) = mpsc::sync_channel(DEAD_MAX);
        let reaper = Reaper(sender);
        (0..64).for_each(|_| reaper.bury(run("exit")));
        let mut more = Process::new(run("exit"), reaper);
        assert_eq!(more.end(), End::Crashed, "how it ended is told all the same");
        let more = std::thread::spawn(move || drop(more));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!more.is_finished());
        for mut dead in unheard {
            dead.wait().unwrap();
        }
        more.join().unwrap();
    }

    #[test]
    fn a_dead_process_is_taken_off_the_list() {
        let reaper = Reaper::start().unwrap();
        let mut process = Process::new(run("sleep 60"), reaper.clone());
        assert!(!process.has_ended());
        let listed = format!("/proc/{}", process.id());
        process.kill();
        assert_eq!(process.end(), End::OutOfMemory);
        drop(process);
        let dropped = Process::new(run("sleep 60"), reaper);
        let also = format!("/proc/{}", dropped.id());
        drop(dropped);
        for listed in [listed, also] {
            let is_gone = (0..3_000).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                !Path::new(&listed).exists()
            });
            assert!(is_gone, "{listed}");
        }
    }
}
