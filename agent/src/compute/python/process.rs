//! The confined process: three pipes, a deadline, and no other way out.

use std::{
    io::Read,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use cohort_protocol::recipe::Python;
use rustix::process::Pid;

use super::Sandbox;
use crate::compute::ComputeError;

/// Bytes of an answer that are read: 65 536 numbers are less. A longer one is cut, and so no answer.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// Threads that a script may have at once, its libraries' among them. No limit of the kernel's counts them for one
/// process alone, and a filter of system calls cannot count: so they are looked at.
const MAX_THREADS: u64 = 64;
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A started process, with the end of the pipe that its job goes into.
pub(super) struct Process {
    pub(super) input: ChildStdin,
    pub(super) running: Running,
}

/// A process that ends at its deadline at the latest.
pub(super) struct Running {
    child: Child,
    answer: JoinHandle<Vec<u8>>,
    stop: mpsc::Sender<()>,
    watchdog: JoinHandle<()>,
}

impl Process {
    pub(super) fn start(sandbox: &Sandbox, python: &Python, deadline: Instant) -> Result<Self, ComputeError> {
        let mut child = command(sandbox, python).spawn().map_err(|_| ComputeError::Sandbox)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ComputeError::Sandbox);
        };
        let answer = std::thread::spawn(move || read(output));
        let (stop, stopped) = mpsc::channel();
        let pid = Pid::from_child(&child);
        // The process is waited for after this thread has ended, so that the number cannot be another's.
        let watchdog = std::thread::spawn(move || {
            let goes_on =
                || Instant::now() < deadline && threads(pid).is_some_and(|count| count <= MAX_THREADS);
            let stop = loop {
                match stopped.recv_timeout(LOOK) {
                    Err(RecvTimeoutError::Timeout) if goes_on() => {}
                    stop => break stop,
                }
            };
            if stop.is_err() {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        Ok(Self { input, running: Running { child, answer, stop, watchdog } })
    }
}

impl Running {
    /// What the process wrote before it ended or was ended.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let answer = self.answer.join().unwrap_or_default();
        // It may have closed its output and go on: its time is over then.
        let _ = self.stop.send(());
        let _ = self.watchdog.join();
        let _ = self.child.kill();
        let _ = self.child.wait();
        answer
    }
}

/// How many threads a process has. Its name, which stands in parentheses before that, is its own to choose.
fn threads(pid: Pid) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let after_name = stat.rsplit(|byte| *byte == b')').next()?;
    std::str::from_utf8(after_name).ok()?.split_whitespace().nth(17)?.parse().ok()
}

fn read(output: ChildStdout) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A partial answer is no answer.
    match output.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(_) => Vec::new(),
    }
}

fn command(sandbox: &Sandbox, python: &Python) -> Command {
    let mut command = Command::new(&sandbox.launcher);
    command
        .args(["--memory-mib", &python.memory_mib.to_string()])
        // Of all threads together, of which there may be as many as processors.
        .args(["--cpu-seconds", &python.seconds.saturating_mul(2).max(10).to_string()]);
    for path in &sandbox.readable {
        command.arg("--read").arg(path);
    }
    #[cfg(feature = "dev")]
    if sandbox.insecure_dev_unconfined {
        command.arg("--insecure-dev-unconfined");
    }
    command
        .arg("--")
        .arg(&sandbox.python)
        // Isolated: no variables, no user folder, no current folder; and no byte code written.
        .args(["-I", "-B", "-m", "cohort._runner"])
        .env_clear()
        .envs(ENVIRONMENT)
        .current_dir(Path::new("/"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Few threads and few arenas, so that the limit on address space is one on memory.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("ARROW_DEFAULT_MEMORY_POOL", "system"),
    ("LC_ALL", "C.UTF-8"),
    ("MALLOC_ARENA_MAX", "2"),
    ("OMP_NUM_THREADS", "2"),
    ("OPENBLAS_NUM_THREADS", "2"),
    ("PYTHONHASHSEED", "0"),
    ("TZ", "UTC"),
];
