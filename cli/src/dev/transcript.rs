//! What the demo prints: numbered steps with their time, the commands as one would type them, their real output.

use std::{ffi::OsStr, fmt::Display, path::Path, time::Instant};

use super::{Stack, stack::Ran};
use crate::failure::{Failure, Outcome};

/// A transcript on standard output.
#[derive(Debug)]
pub(super) struct Transcript {
    start: Instant,
    step: u32,
    step_start: Instant,
}

impl Transcript {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { start: now, step: 0, step_start: now }
    }

    /// Begins the next step.
    pub(super) fn step(&mut self, title: &str) {
        self.finish_step();
        self.step += 1;
        self.step_start = Instant::now();
        println!("\n{:>2}. {title}", self.step);
    }

    /// Ends the last step with its time.
    pub(super) fn finish_step(&mut self) {
        if self.step > 0 {
            println!("    [{:.1} s]", self.step_start.elapsed().as_secs_f64());
        }
    }

    /// A line of its own.
    pub(super) fn line(&self, text: impl Display) {
        for line in text.to_string().lines() {
            println!("    {line}");
        }
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Runs a `cohort` command that must succeed, shows it and its output.
    pub(super) async fn cohort<S: AsRef<OsStr>>(&self, stack: &Stack, args: &[S]) -> Outcome<Ran> {
        self.show(args);
        let ran = stack.cohort(args).await?;
        if !ran.succeeded() {
            return Err(Failure::refused(
                format!("the command above failed: {}", ran.stderr.trim()),
                format!("see the logs in {}", stack.path("logs").display()),
            ));
        }
        self.line(ran.stdout.trim_end());
        Ok(ran)
    }

    /// Runs a `cohort` command that must be refused for `reason`, shows it and the refusal.
    pub(super) async fn refused<S: AsRef<OsStr>>(&self, stack: &Stack, args: &[S], reason: &str) -> Outcome {
        self.show(args);
        let ran = stack.cohort(args).await?;
        if ran.succeeded() || !ran.stderr.contains(&format!("({reason})")) {
            return Err(Failure::refused(
                format!("expected a refusal ({reason}), got: {}{}", ran.stdout, ran.stderr),
                "this is a fault of the system: do not rely on it",
            ));
        }
        self.line(
            ran.stderr.lines().filter(|line| line.starts_with("error:")).collect::<Vec<_>>().join("\n"),
        );
        Ok(())
    }

    fn show<S: AsRef<OsStr>>(&self, args: &[S]) {
        let words: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy().into_owned()).collect();
        println!("    $ cohort {}", words.join(" "));
    }
}

/// Copies a file, as an upload to public storage would.
pub(super) fn publish(from: &Path, to: &Path) -> Outcome {
    std::fs::copy(from, to).map(drop).map_err(|e| Failure::write(to, &e))
}
