//! `cohort recipe rehearse`: the very recipe on synthetic rows, and a signed record of it that owners can check.

use std::{path::PathBuf, time::Instant};

use clap::Args;
use cohort_agent::compute::{self, Sandbox, synthetic::Rows};
use cohort_protocol::recipe::Recipe;
use serde_json::Value;

use super::rehearsal::{Record, Rehearsed};
use crate::{
    command::terms,
    config::Settings,
    failure::{Failure, Outcome},
    files,
    key::KeyArg,
};

/// Arguments of `cohort recipe rehearse`.
#[derive(Debug, Args)]
pub struct RehearseArgs {
    /// Synthetic rows for each owner.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rows: u32,
    /// Other rows for another number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Python interpreter with the package cohort-sdk, for Python recipes.
    #[arg(long, env = "COHORT_PYTHON", default_value = "python3")]
    python: PathBuf,
    /// Where to write the signed record.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    key: KeyArg,
}

/// Arguments of `cohort recipe check-rehearsal`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The record.
    file: PathBuf,
}

/// Runs the recipe and writes the record.
pub fn rehearse(settings: &Settings, args: &RehearseArgs) -> Outcome {
    files::refuse_existing(&args.out)?;
    let signer = args.key.signer()?;
    let (compose, recipe) = terms::read_recipe(settings.compose()?)?;
    let started = Instant::now();
    let payload = run(&recipe, args)?;
    let rehearsed = Rehearsed {
        compose: &compose,
        recipe: &recipe,
        rows_per_owner: args.rows,
        seed: args.seed,
        duration_seconds: started.elapsed().as_secs(),
        payload,
    };
    let record = Record::sign(rehearsed, &signer)?;
    files::write_json(&args.out, &record)?;
    show(settings, &record)?;
    if !settings.json {
        println!("-> {}: show it to the owners with cohort terms --rehearsal", args.out.display());
    }
    Ok(())
}

fn run(recipe: &Recipe, args: &RehearseArgs) -> Outcome<Value> {
    let python = which(&args.python);
    let sandbox = Sandbox::new(python);
    let rows = Rows { per_owner: args.rows, seed: args.seed };
    let failed = |e: compute::ComputeError| {
        Failure::refused(
            format!("{e} ({})", e.code()),
            "for a Python recipe give --python with an interpreter that has cohort-sdk (pip install ./agent/python)",
        )
    };
    if matches!(recipe.engine(), cohort_protocol::recipe::Engine::Python(_)) {
        sandbox.check().map_err(failed)?;
    }
    let (output, error) = compute::rehearse(recipe, rows, Some(&sandbox)).map_err(failed)?;
    if let Some(error) = error {
        eprintln!("{error}");
        return Err(Failure::refused(
            "the script failed on synthetic rows, with the words above",
            "correct the script; in a run nobody would be told",
        ));
    }
    let guarded = compute::guard(recipe, output.value())
        .map_err(|e| Failure::refused(format!("{e} ({})", e.code()), "correct output_schema"))?;
    Ok(guarded.into_value())
}

/// A program name is looked up in `PATH`, since the script's process has none.
fn which(program: &std::path::Path) -> PathBuf {
    if program.components().count() > 1 {
        return std::path::absolute(program).unwrap_or_else(|_| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| program.to_owned())
}

fn show(settings: &Settings, record: &Record) -> Outcome {
    if settings.json {
        let text = serde_json::to_string(record).map_err(|e| Failure::input(e, "rehearse again"))?;
        println!("{text}");
    } else {
        record.lines().iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}

/// Checks that a record is for this app-compose file, signed, and of the shape that the guard lets out.
pub fn check(settings: &Settings, args: &CheckArgs) -> Outcome {
    let (compose, recipe) = terms::read_recipe(settings.compose()?)?;
    let record = Record::read(&args.file, compose.compose_hash())?;
    record.check(&recipe)?;
    show(settings, &record)?;
    if !settings.json {
        println!("the record is whole, and of this recipe");
    }
    Ok(())
}
