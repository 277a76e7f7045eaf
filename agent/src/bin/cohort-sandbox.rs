//! Confines itself, then becomes the program that it is given: what a Python recipe runs in.
//!
//! It needs no privilege, so that it works inside a container. Whatever cannot be established ends it before the
//! program starts. What stays is memory, the clock, and the three files that it was started with.

#![cfg_attr(not(target_arch = "x86_64"), allow(unused_imports))]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};
use clap::Parser;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{
    Resource, Rlimit, Signal, set_parent_process_death_signal, setpriority_process, setrlimit,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Runs PROGRAM with no network, no disk but for reading what is named, no new processes, and limits.
#[derive(Parser)]
#[command(name = "cohort-sandbox", version)]
struct Args {
    /// Address space in MiB.
    #[arg(long)]
    memory_mib: u64,
    /// Processor seconds, of all threads together.
    #[arg(long)]
    cpu_seconds: u64,
    /// File or folder that may be read and executed; repeat for more. What does not exist is passed over.
    #[arg(long = "read")]
    readable: Vec<PathBuf>,
    /// Limits only. For a development machine whose kernel has no Landlock; rows can leave by any way.
    #[cfg(feature = "dev")]
    #[arg(long)]
    insecure_dev_unconfined: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("cohort-sandbox: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<std::convert::Infallible> {
    let (name, rest) = args.program.split_first().context("no program is given")?;
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie its life to its parent's")?;
    limits(args).context("cannot set limits")?;
    give_way()?;
    #[cfg(feature = "dev")]
    let confine = !args.insecure_dev_unconfined;
    #[cfg(not(feature = "dev"))]
    let confine = true;
    if confine {
        read_only(&args.readable).context("cannot restrict files (Landlock)")?;
        system_calls().context("cannot restrict system calls (seccomp)")?;
    }
    let failed = Command::new(name).args(rest).exec();
    Err(failed).with_context(|| format!("cannot start {}", name.to_string_lossy()))
}

fn limits(args: &Args) -> anyhow::Result<()> {
    let limit = |of, value: u64| {
        setrlimit(of, Rlimit { current: Some(value), maximum: Some(value) }).context("setrlimit")
    };
    limit(Resource::As, args.memory_mib.saturating_mul(1 << 20))?;
    limit(Resource::Cpu, args.cpu_seconds)?;
    // No core dump and no file of any size, wherever it might be.
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, 256)
}

/// What the agent answers, and how soon, does not depend on how busy the program is; and if memory runs out, it is the
/// program that the kernel ends.
fn give_way() -> anyhow::Result<()> {
    const LAST: i32 = 19;
    setpriority_process(None, LAST).context("cannot lower its priority")?;
    std::fs::write("/proc/self/oom_score_adj", "1000").context("cannot be the first to go without memory")
}

/// Landlock: reading and executing beneath `readable`, nothing else in any file system, no TCP, no signals and no
/// abstract sockets to the outside. The file rights of the first version are required; later ones where the kernel
/// has them, since the system call filter covers them too.
fn read_only(readable: &[PathBuf]) -> anyhow::Result<()> {
    let newest = ABI::V6;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?;
    for path in readable {
        let Ok(file) = PathFd::new(path) else { continue };
        let access = if path.is_dir() {
            AccessFs::ReadDir | AccessFs::ReadFile | AccessFs::Execute
        } else {
            AccessFs::ReadFile | AccessFs::Execute
        };
        rules = rules.add_rule(PathBeneath::new(file, access))?;
    }
    if rules.restrict_self()?.ruleset == RulesetStatus::NotEnforced {
        bail!("this kernel does not enforce Landlock");
    }
    Ok(())
}

/// The list of calls is written for the processors that TDX is on.
#[cfg(not(target_arch = "x86_64"))]
fn system_calls() -> anyhow::Result<()> {
    bail!("the system call filter is for x86-64 only")
}

#[cfg(target_arch = "x86_64")]
/// A list of the allowed calls; any other fails with EPERM. Files can only be opened for reading, sockets not at all.
fn system_calls() -> anyhow::Result<()> {
    let architecture = std::env::consts::ARCH.try_into()?;
    // The C library then uses `clone`, whose flags a filter can read.
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let newer = [libc::SYS_clone3, libc::SYS_openat2, libc::SYS_faccessat2, libc::SYS_rseq];
    let newer: BTreeMap<i64, Vec<SeccompRule>> = newer.map(|call| (call, Vec::new())).into();
    let as_missing: BpfProgram =
        SeccompFilter::new(newer, SeccompAction::Allow, missing, architecture)?.try_into()?;
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let allowed: BpfProgram =
        SeccompFilter::new(rules()?, denied, SeccompAction::Allow, architecture)?.try_into()?;
    apply_filter(&as_missing)?;
    apply_filter(&allowed)?;
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn rules() -> anyhow::Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.map(|call| (call, Vec::new())).into();
    // Exactly read-only: neither O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND nor O_TMPFILE.
    let writes = libc::O_ACCMODE
        | libc::O_CREAT
        | libc::O_TRUNC
        | libc::O_APPEND
        | (libc::O_TMPFILE & !libc::O_DIRECTORY);
    rules.insert(libc::SYS_open, vec![masked(1, writes, libc::O_RDONLY)?]);
    rules.insert(libc::SYS_openat, vec![masked(2, writes, libc::O_RDONLY)?]);
    // Threads, but no processes.
    rules.insert(libc::SYS_clone, vec![masked(0, libc::CLONE_THREAD, libc::CLONE_THREAD)?]);
    // Its own limits only: the agent may run under the same account.
    rules.insert(libc::SYS_prlimit64, vec![masked(0, -1, 0)?]);
    // Not shared: memory that no limit counts.
    rules.insert(libc::SYS_mmap, vec![masked(3, libc::MAP_SHARED, 0)?, masked(2, libc::PROT_WRITE, 0)?]);
    Ok(rules)
}

#[cfg(target_arch = "x86_64")]
fn masked(argument: u8, mask: i32, value: i32) -> anyhow::Result<SeccompRule> {
    // The lower 32 bits, as the call's own type reads them.
    let (mask, value) = (u64::from(mask.cast_unsigned()), u64::from(value.cast_unsigned()));
    let condition =
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

#[cfg(target_arch = "x86_64")]
/// What an interpreter with numerical libraries needs. No call here makes a socket, a process, a file, a signal to
/// another process, or reads another process's memory. `clone3`, `openat2`, `faccessat2` and `rseq` pass here and are
/// answered by the other filter, which is the stricter.
const ALLOWED: [i64; 74] = [
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_lstat,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_prctl,
    libc::SYS_preadv,
    libc::SYS_read,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_stat,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_time,
    libc::SYS_uname,
    libc::SYS_write,
];
