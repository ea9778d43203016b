//! What a worker gives up before it reads a statement.
//!
//! Descriptors, the end of its server, dumps, priority and memory are the process' own limits and always hold.
//! Landlock and seccomp hold where the kernel has them: then even a worker that runs foreign code can open no file, no
//! socket and no process. Everything here only takes away, so it needs no privilege.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, nice, set_parent_process_death_signal, setrlimit,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Descriptors of a worker: its socket and those of its threads.
const DESCRIPTORS_MAX: u64 = 64;
/// How much lower a worker's priority is than the server's: ingest keeps its latency whatever queries run (X1).
const NICENESS: i32 = 5;
/// The address space that a worker begins in, beside its binary: stacks of at most four threads, the allocator's
/// arenas, room to plan a first query. Chosen below 1 GiB: an allocator that takes so much at once, as some do, would
/// bring room that the limit does not see.
const BEGIN_BYTES: u64 = 640 << 20;
/// Memory that a query has at least, in bytes, whatever the worker itself takes.
const QUERY_BYTES_MIN: u64 = 24 << 20;

/// Sets the first limit. The allocator takes memory before `main`, so the process is to be started again for the limit
/// to hold from its first byte.
///
/// # Errors
/// The system's.
pub fn begin() -> io::Result<()> {
    let current = Some(begin_bytes()?);
    Ok(setrlimit(Resource::As, Rlimit { current, maximum: getrlimit(Resource::As).maximum })?)
}

fn begin_bytes() -> io::Result<u64> {
    Ok(mapped_files()?.saturating_add(BEGIN_BYTES))
}

/// Bytes of address space that files take: the binary and its libraries.
fn mapped_files() -> io::Result<u64> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    Ok(maps
        .lines()
        .filter(|line| line.contains('/'))
        .filter_map(|line| {
            let (begin, end) = line.split(' ').next()?.split_once('-')?;
            Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(begin, 16).ok()?)
        })
        .sum())
}

/// Leaves the process without a descriptor but its socket and two of `/dev/null`, ends it with its server, and sets the
/// limits that need no measure.
///
/// # Errors
/// The system's: the worker is not to start.
pub fn process() -> io::Result<OwnedFd> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    close_inherited();
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    limits()?;
    // Where memory is short the kernel is to end a worker and never the server. Raising it needs no privilege.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let _ = nice(NICENESS);
    Ok(socket)
}

/// No dump, no file that grows, few descriptors.
fn limits() -> io::Result<()> {
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, DESCRIPTORS_MAX)
}

/// Closes what the server may have been started with and did not mark: its own descriptors all close by themselves.
fn close_inherited() {
    let Ok(folder) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> =
        folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        if fs::read_link(format!("/proc/self/fd/{descriptor}")).is_ok() {
            // SAFETY: the process has one thread and has opened nothing yet, so nobody owns this descriptor; the
            // folder's own is closed by now and was left out by the line above.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
}

/// Takes the file system and the network away from this thread and those that it starts. Says whether it holds.
pub fn file_system() -> bool {
    let restricted = || {
        let abi = ABI::V6;
        let rules = Ruleset::default()
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .scope(Scope::from_all(abi))?
            .create()?;
        // No rule at all: nothing is allowed.
        Ok::<_, landlock::RulesetError>(rules.restrict_self()?.ruleset)
    };
    restricted().is_ok_and(|status| status != RulesetStatus::NotEnforced)
}

/// Where the process can read what memory it has, also once it can open nothing.
///
/// # Errors
/// The system's.
pub fn measure() -> io::Result<fs::File> {
    fs::File::open("/proc/self/status")
}

/// Lets the process have no more threads, and no more address space than it has now and `memory_bytes` less what it
/// holds already. Gives what a query may take.
///
/// # Errors
/// The system's: the worker is not to start.
pub fn memory(mut measure: fs::File, memory_bytes: u64) -> io::Result<u64> {
    let mut status = String::new();
    measure.read_to_string(&mut status)?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    };
    let missing = || io::Error::from(io::ErrorKind::InvalidData);
    // Pages of the binary are the server's too: what a worker holds is what it wrote.
    let (mapped, held) = (of("VmSize:").ok_or_else(missing)?, of("RssAnon:").ok_or_else(missing)?);
    let query_bytes = memory_bytes.saturating_sub(held).max(QUERY_BYTES_MIN);
    limit(Resource::As, mapped.saturating_add(query_bytes))?;
    limit(Resource::Nproc, 0)?;
    Ok(query_bytes)
}

/// Lets the process make no call but those that computing, its socket and open files need. Says whether it holds.
pub fn calls() -> bool {
    filter().is_ok_and(|program| seccompiler::apply_filter_all_threads(&program).is_ok())
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    // Ends of its own only: a signal to another process is none of them.
    let own =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(std::process::id()))?;
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own])?]);
    let eperm = u32::try_from(libc::EPERM).expect("a small number");
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Errno(eperm), SeccompAction::Allow, arch)?.try_into()
}

/// The calls of a worker that runs. What is not here fails with EPERM: opening, connecting, starting, tracing.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Sets a limit for good; never above what the server itself was given.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |given| given.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::limits;

    // X3: told by a process that was started within them.
    #[test]
    fn a_process_has_few_descriptors_and_writes_no_file() {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "ulimit -n; ulimit -c; ulimit -f"]);
        // SAFETY: between fork and exec it makes two system calls for each limit, and allocates nothing.
        let told = unsafe { shell.pre_exec(limits) }.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout), "64\n0\n0\n");
    }
}
