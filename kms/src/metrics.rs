//! Prometheus text format 0.0.4: what was answered, by route and code, how long it took, and a few states. Nothing in it
//! says whose request it was.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The code of a refusal, as an extension of its response.
#[derive(Debug, Clone)]
pub(crate) struct Code(pub(crate) String);

/// Upper bounds of the buckets of a duration, in seconds.
const BOUNDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 25.0];

/// What this process has answered since it started.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    answers: BTreeMap<(&'static str, String), u64>,
    durations: BTreeMap<&'static str, Durations>,
}

#[derive(Debug, Default)]
struct Durations {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: Duration,
}

/// States at the time of asking.
#[derive(Debug, Clone, Copy)]
pub struct States {
    /// Everything is there that a release needs.
    pub is_ready: bool,
    /// Entries of the release log.
    pub log_entries: u64,
    /// Runs whose lease has not ended.
    pub leases: usize,
    /// Challenges that were used and have not expired.
    pub challenges: usize,
}

impl Metrics {
    /// Counts an answer. Routes and codes are few: both are this program's own words.
    pub fn count(&self, route: &'static str, code: &str, took: Duration) {
        let mut counts = self.counts();
        *counts.answers.entry((route, code.to_owned())).or_default() += 1;
        let durations = counts.durations.entry(route).or_default();
        for (bound, bucket) in BOUNDS.iter().zip(&mut durations.buckets) {
            *bucket += u64::from(took.as_secs_f64() <= *bound);
        }
        durations.count += 1;
        durations.sum += took;
    }

    /// All of it as text.
    pub fn render(&self, states: &States) -> String {
        let mut out = String::new();
        let mut gauge = |name: &str, help: &str, value: u64| {
            // Writing to a String does not fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        };
        gauge(
            "cohort_kms_ready",
            "1 while everything is there that a release needs.",
            states.is_ready.into(),
        );
        gauge("cohort_kms_log_entries", "Entries of the release log.", states.log_entries);
        gauge("cohort_kms_leases", "Runs whose lease has not ended.", states.leases as u64);
        gauge(
            "cohort_kms_challenges_used",
            "Challenges that were used and have not expired.",
            states.challenges as u64,
        );
        let counts = self.counts();
        let name = "cohort_kms_answers_total";
        let _ =
            writeln!(out, "# HELP {name} Answers by route and code; ok: no refusal.\n# TYPE {name} counter");
        for ((route, code), count) in &counts.answers {
            let _ = writeln!(out, "{name}{{route=\"{route}\",code=\"{code}\"}} {count}");
        }
        let name = "cohort_kms_answer_seconds";
        let _ = writeln!(
            out,
            "# HELP {name} From a request's header to its answer, refusals included.\n# TYPE {name} histogram"
        );
        for (route, Durations { buckets, count, sum }) in &counts.durations {
            for (bound, bucket) in BOUNDS.iter().zip(buckets) {
                let _ = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {bucket}");
            }
            let _ = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {count}");
            let _ = writeln!(out, "{name}_sum{{route=\"{route}\"}} {}", sum.as_secs_f64());
            let _ = writeln!(out, "{name}_count{{route=\"{route}\"}} {count}");
        }
        out
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Each change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
