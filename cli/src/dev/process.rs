//! Child processes that cannot outlive this one.
//!
//! Every child gets a pipe as standard input and stops when it ends, so that even `kill -9` of this process leaves
//! nothing running; a child that cannot do so itself is started under a shell that watches the pipe for it.

use std::{
    ffi::OsStr,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    signal::unix::{SignalKind, signal},
};

use crate::failure::{Failure, Outcome};

/// How long a service may take to say where it listens.
const START: Duration = Duration::from_secs(30);
/// How long a child may take to stop when its input ends.
const STOP: Duration = Duration::from_secs(5);

/// What our programs read a filter of their log from.
const LOG_FILTERS: [&str; 2] = ["COHORT_LOG", "RUST_LOG"];

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    log: PathBuf,
}

impl Process {
    /// Starts a program of ours, which takes `--exit-with-stdin`.
    pub fn start<I, S>(name: &'static str, program: &Path, args: I, logs: &Path) -> Outcome<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        Self::start_logging(name, program, args, logs, None)
    }

    /// [`start`](Self::start), with another choice of what is logged than the program's own.
    pub fn start_logging<I, S>(
        name: &'static str,
        program: &Path,
        args: I,
        logs: &Path,
        filter: Option<&str>,
    ) -> Outcome<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new(program);
        command.args(args).arg("--exit-with-stdin");
        for variable in LOG_FILTERS {
            command.envs(filter.map(|filter| (variable, filter)));
        }
        Self::spawn(name, command, logs)
    }

    /// Starts another program under a shell that stops it when our pipe ends.
    pub fn start_watched<I, S>(name: &'static str, program: &Path, args: I, logs: &Path) -> Outcome<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new("sh");
        command.arg("-c").arg("\"$@\" & child=$!; cat > /dev/null; kill $child 2> /dev/null; wait $child");
        command.arg("sh").arg(program).args(args);
        Self::spawn(name, command, logs)
    }

    fn spawn(name: &'static str, mut command: Command, logs: &Path) -> Outcome<Self> {
        let log = logs.join(format!("{name}.log"));
        let file =
            File::options().create(true).append(true).open(&log).map_err(|e| Failure::write(&log, &e))?;
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).spawn().map_err(|e| {
                Failure::input(format!("cannot start {name}: {e}"), "build everything first: make build")
            })?;
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        Ok(Self { name, child, lines, log })
    }

    /// Waits for the line that starts with `prefix` and returns its rest. All lines go to the log, also afterwards.
    pub async fn ready(&mut self, prefix: &str) -> Outcome<String> {
        let Some(mut lines) = self.lines.take() else {
            return Err(Failure::unreachable(
                format!("{} has no output to wait for", self.name),
                "start it anew",
            ));
        };
        let mut log =
            File::options().append(true).open(&self.log).map_err(|e| Failure::write(&self.log, &e))?;
        let wanted = async {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = writeln!(log, "{line}");
                if let Some(rest) = line.strip_prefix(prefix) {
                    return Some(rest.trim().to_owned());
                }
            }
            None
        };
        match tokio::time::timeout(START, wanted).await {
            Ok(Some(rest)) => {
                // A full pipe would stop the child.
                tokio::spawn(async move {
                    while let Ok(Some(line)) = lines.next_line().await {
                        let _ = writeln!(log, "{line}");
                    }
                });
                Ok(rest)
            }
            _ => Err(Failure::unreachable(
                format!("{} did not start: {}", self.name, tail(&self.log)),
                format!("see {}", self.log.display()),
            )),
        }
    }

    /// Stops the child at once, as a crash would.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }
}

/// Ends the child's input and waits for it: not even an interrupted caller leaves something running. A kill would
/// be quicker and would orphan what a watching shell has started.
impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.start_kill();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
}

/// Ctrl-C or SIGTERM.
pub(super) async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
