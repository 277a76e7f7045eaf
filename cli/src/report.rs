//! A report of checks, one line each.

use cohort_protocol::text;
use serde::{Serialize, Serializer};

/// Names a check.
pub trait Line: Copy + PartialEq {
    /// Stable.
    fn name(self) -> &'static str;

    /// What it rests on, and what it does not prove, where that is told.
    fn basis(self) -> Option<(&'static str, &'static str)> {
        None
    }
}

impl Line for &'static str {
    fn name(self) -> &'static str {
        self
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Ok,
    /// It does not.
    Failed,
    /// It could not be made with what was given.
    Skipped,
}

/// One line of the report.
#[derive(Debug, Clone)]
pub struct Check<N> {
    /// Which.
    pub name: N,
    /// How it ended.
    pub verdict: Verdict,
    /// What was compared.
    pub detail: String,
}

impl<N: Line> Serialize for Check<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Told<'a> {
            name: &'static str,
            verdict: Verdict,
            detail: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            rests_on: Option<&'static str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            does_not_prove: Option<&'static str>,
        }
        let (rests_on, does_not_prove) = self.name.basis().unzip();
        let (name, verdict, detail) = (self.name.name(), self.verdict, self.detail.as_str());
        Told { name, verdict, detail, rests_on, does_not_prove }.serialize(serializer)
    }
}

/// The report, in the order of the checks.
#[derive(Debug)]
pub struct Report<N> {
    /// All lines.
    pub checks: Vec<Check<N>>,
}

impl<N> Default for Report<N> {
    fn default() -> Self {
        Self { checks: Vec::new() }
    }
}

impl<N: Line> Report<N> {
    /// Adds a line; gives back whether it holds.
    pub fn check(&mut self, name: N, holds: bool, detail: impl Into<String>) -> bool {
        let verdict = if holds { Verdict::Ok } else { Verdict::Failed };
        self.checks.push(Check { name, verdict, detail: detail.into() });
        holds
    }

    /// Adds a line for what was not checked.
    pub fn skip(&mut self, name: N, detail: impl Into<String>) {
        self.checks.push(Check { name, verdict: Verdict::Skipped, detail: detail.into() });
    }

    /// Drops what was not checked where another line made the same check, or says again, later, why it was not.
    pub fn settle(&mut self) {
        let names: Vec<_> = self.checks.iter().map(|check| (check.name, check.verdict)).collect();
        let mut at = 0;
        self.checks.retain(|check| {
            at += 1;
            let made =
                names.iter().any(|(name, verdict)| *name == check.name && *verdict != Verdict::Skipped);
            let again = names[at..].iter().any(|(name, _)| *name == check.name);
            check.verdict != Verdict::Skipped || !(made || again)
        });
    }

    /// How many checks ended so.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }

    /// Was this check made, and did it hold wherever it was made?
    pub fn holds(&self, name: N) -> bool {
        let mut made = self.checks.iter().filter(|check| check.name == name).peekable();
        made.peek().is_some() && made.all(|check| check.verdict == Verdict::Ok)
    }

    /// The first that failed.
    pub fn first_failure(&self) -> Option<&Check<N>> {
        self.checks.iter().find(|check| check.verdict == Verdict::Failed)
    }

    /// Prints it on standard output; `brief` leaves out what each line rests on.
    pub fn print_lines(&self, brief: bool) {
        for check in &self.checks {
            let mark = match check.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Failed => "FAIL",
                Verdict::Skipped => "skip",
            };
            println!("{mark}  {:<18} {}", check.name.name(), text::line(&check.detail));
            if let Some((rests_on, does_not_prove)) = check.name.basis().filter(|_| !brief) {
                println!("      {:<18} rests on {rests_on}", "");
                println!("      {:<18} does not prove {does_not_prove}", "");
            }
        }
    }
}
