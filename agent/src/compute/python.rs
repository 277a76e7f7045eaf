//! Python recipes: rows in, and out only the numbers that the recipe declares.
//!
//! Whatever the script does (end, fail, loop, write nonsense), a run has an output of the declared shape: a number that is missing or none counts as the middle of its bounds. So a script can speak through
//! its declared numbers alone, after they were clamped, rounded to their grid and given noise.

mod job;
mod process;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use cohort_protocol::{
    json::sha256,
    recipe::{Bounds, Engine, Measure, MeasureKind, Python, Recipe, Script, Step},
};
use serde::Deserialize;

use super::{ComputeError, Input, aggregate, deadline, statistic::Statistic};
use job::Job;
use process::Process;

/// Where scripts run: the confining program, the interpreter, and what it may read.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// `cohort-sandbox`.
    pub launcher: PathBuf,
    /// A Python interpreter that has the package `cohort-sdk`.
    pub python: PathBuf,
    /// Files and folders that the interpreter needs to read.
    pub readable: Vec<PathBuf>,
    /// Folder with scripts that recipes name by SHA-256, as `0x….py`.
    pub scripts: PathBuf,
    /// Limits only, no confinement; for development machines whose kernel has no Landlock.
    #[cfg(feature = "dev")]
    pub insecure_dev_unconfined: bool,
}

/// Whether a script's errors are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errors {
    /// In a run: an error's text can hold anything from a row.
    Hidden,
    /// In a rehearsal, whose rows are synthetic.
    Shown,
}

/// Exact statistics of a Python recipe, and what went wrong in the script if that is shown.
pub(super) fn statistics(
    recipe: &Recipe,
    inputs: Vec<Input>,
    sandbox: &Sandbox,
    errors: Errors,
) -> Result<(Vec<Vec<Statistic>>, Option<String>), ComputeError> {
    let Engine::Python(python) = recipe.engine() else { return Err(ComputeError::Sandbox) };
    let deadline = deadline(python.seconds);
    let script = sandbox.script(python)?;
    let process = Process::start(sandbox, python, deadline)?;
    let owners = inputs.iter().map(|(owner, _)| owner);
    let mut job = Job::begin(recipe, &script, owners, errors == Errors::Shown, process.input)?;
    let exact = aggregate::statistics(recipe, inputs, &mut job);
    drop(job);
    let answer = process.running.finish();
    let answer = Answer::read(&answer);
    let mut exact = exact?;
    for (measure, statistics) in recipe.measures().iter().zip(&mut exact) {
        put_in(measure, &answer, statistics);
    }
    let error = answer.error.filter(|_| errors == Errors::Shown);
    Ok((exact, error))
}

impl Sandbox {
    /// The usual places: `cohort-sandbox` beside the running program, and the system's libraries.
    pub fn new(python: PathBuf) -> Self {
        let beside =
            std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("cohort-sandbox")));
        let readable =
            ["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom"];
        Self {
            launcher: beside.unwrap_or_else(|| "cohort-sandbox".into()),
            readable: readable.into_iter().map(PathBuf::from).chain(environment(&python)).collect(),
            python,
            scripts: PathBuf::from("/opt/cohort/scripts"),
            #[cfg(feature = "dev")]
            insecure_dev_unconfined: false,
        }
    }

    /// Can scripts be confined here, and does the interpreter have the package? Runs an empty job, without data.
    pub fn check(&self) -> Result<(), ComputeError> {
        const MEMORY_MIB: u32 = 2048;
        const SECONDS: u64 = 60;
        let python =
            Python { script: Script::Text("import pyarrow".into()), seconds: 60, memory_mib: MEMORY_MIB };
        let process = Process::start(self, &python, Instant::now() + Duration::from_secs(SECONDS))?;
        job::empty(process.input, b"import pyarrow\nfrom cohort import emit_signed\nemit_signed(7)\n")?;
        let answer = Answer::read(&process.running.finish());
        match answer.values.get("check").map(Vec::as_slice) {
            Some([Some(7.0)]) => Ok(()),
            _ => Err(ComputeError::Sandbox),
        }
    }

    fn script(&self, python: &Python) -> Result<Vec<u8>, ComputeError> {
        match &python.script {
            Script::Text(text) => Ok(text.clone().into_bytes()),
            Script::Sha256(hash) => {
                let path = self.scripts.join(format!("{hash}.py"));
                let bytes = std::fs::read(path).map_err(|_| ComputeError::Script)?;
                if sha256(&bytes) == *hash { Ok(bytes) } else { Err(ComputeError::Script) }
            }
        }
    }

    /// Whether the recipe's script is here, unaltered.
    pub fn has_script(&self, python: &Python) -> Result<(), ComputeError> {
        self.script(python).map(drop)
    }
}

/// The folders that an interpreter lives in: itself, what it links to, and their environments.
fn environment(python: &std::path::Path) -> Vec<PathBuf> {
    let real = python.canonicalize().ok();
    let bases = [Some(python.to_owned()), real];
    let roots = bases.into_iter().flatten().filter_map(|path| Some(path.parent()?.parent()?.to_owned()));
    roots.filter(|root| root.parent().is_some()).collect()
}

/// What the script's process wrote, as far as it makes sense.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    values: std::collections::BTreeMap<String, Vec<Option<f64>>>,
    error: Option<String>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

/// The emitted numbers as rounding steps.
fn put_in(measure: &Measure, answer: &Answer, statistics: &mut [Statistic]) {
    let (MeasureKind::Emitted { bounds, .. }, [statistic]) = (&measure.kind, statistics) else { return };
    let emitted = answer.values.get(measure.name.as_str()).map_or(&[][..], Vec::as_slice);
    // A list of another length says nothing about which number is which.
    let emitted = if emitted.len() == statistic.values.len() { emitted } else { &[] };
    for (at, value) in statistic.values.iter_mut().enumerate() {
        *value = steps(emitted.get(at).copied().flatten(), *bounds, measure.round_to);
    }
}

/// A number within its bounds on its grid; the middle where there is none.
fn steps(value: Option<f64>, bounds: Bounds, step: Step) -> i64 {
    let (least, most) = step.ends(bounds);
    let (lower, upper) = (bounds.lower as f64, bounds.upper as f64);
    let value = value.filter(|value| value.is_finite()).unwrap_or((lower + upper) / 2.0);
    let steps = (value.clamp(lower, upper) * Step::ONE as f64 / step.micros() as f64).round();
    (steps as i64).min(most).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_clamped_and_what_is_none_is_the_middle() {
        let (bounds, step) = (Bounds { lower: -1, upper: 2 }, Step::parse("0.1").unwrap());
        for (value, expected) in [
            (Some(0.449_999), 4),
            (Some(-7.0), -10),
            (Some(1e300), 20),
            (Some(f64::NAN), 5),
            (Some(f64::INFINITY), 5),
            (None, 5),
        ] {
            assert_eq!(steps(value, bounds, step), expected, "{value:?}");
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_empty() {
        for bytes in [&b""[..], b"{", b"[]", br#"{"values":{"a":[NaN]}}"#, br#"{"values":{"a":["x"]}}"#] {
            assert!(Answer::read(bytes).values.is_empty());
        }
        assert_eq!(Answer::read(br#"{"values":{"a":[1,null]}}"#).values["a"], [Some(1.0), None]);
    }
}
