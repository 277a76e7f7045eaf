//! `cohort recipe rehearse`: the very recipe on synthetic rows, and a signed record of it that owners can check.

use std::{path::PathBuf, time::Instant};

use alloy::{
    primitives::{Address, B256, Bytes},
    signers::SignerSync,
    sol_types::{Eip712Domain, SolStruct, eip712_domain},
};
use clap::Args;
use cohort_agent::compute::{self, Sandbox, synthetic::Rows};
use cohort_protocol::{
    eip712,
    ids::{ComposeHash, RecipeHash},
    json::canonical_hash,
    recipe::Recipe,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    command::terms,
    config::Settings,
    failure::{Failure, Outcome},
    files,
    key::KeyArg,
};

/// The format's name and version.
const FORMAT: &str = "cohort-rehearsal/1";

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

alloy::sol! {
    /// EIP-712: what an analyst rehearsed. Of no chain and no contract: it grants nothing.
    struct Rehearsal {
        bytes32 composeHash;
        bytes32 recipeHash;
        bytes32 outputHash;
        uint32 rowsPerOwner;
        uint64 seed;
    }
}

/// The record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: String,
    compose_hash: ComposeHash,
    recipe_hash: RecipeHash,
    rows_per_owner: u32,
    seed: u64,
    /// An example of what would leave.
    payload: Value,
    /// How many numbers were withheld.
    withheld: usize,
    seconds: u64,
    analyst: Address,
    signature: Bytes,
}

fn domain() -> Eip712Domain {
    eip712_domain! { name: "Cohort rehearsal", version: "1", }
}

impl Record {
    fn digest(&self) -> Outcome<B256> {
        let output = canonical_hash(&self.payload).map_err(|e| {
            Failure::input(format!("the payload has no canonical form: {e}"), "rehearse again")
        })?;
        let message = Rehearsal {
            composeHash: self.compose_hash.0,
            recipeHash: self.recipe_hash.0,
            outputHash: output,
            rowsPerOwner: self.rows_per_owner,
            seed: self.seed,
        };
        Ok(message.eip712_signing_hash(&domain()))
    }
}

/// Runs the recipe and writes the record.
pub fn rehearse(settings: &Settings, args: &RehearseArgs) -> Outcome {
    files::refuse_existing(&args.out)?;
    let (compose, recipe) = terms::read_recipe(settings.compose()?)?;
    let started = Instant::now();
    let payload = run(&recipe, args)?;
    let signer = args.key.signer()?;
    let mut record = Record {
        format: FORMAT.to_owned(),
        compose_hash: compose.compose_hash(),
        recipe_hash: recipe.recipe_hash(),
        rows_per_owner: args.rows,
        seed: args.seed,
        withheld: withheld(&payload),
        payload,
        seconds: started.elapsed().as_secs(),
        analyst: signer.address(),
        signature: Bytes::new(),
    };
    let signature =
        signer.sign_hash_sync(&record.digest()?).map_err(|e| Failure::input(e, "check the key file"))?;
    record.signature = signature.as_bytes().to_vec().into();
    files::write_json(&args.out, &record)?;
    show(&recipe, &record);
    println!("-> {}", args.out.display());
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
        return Err(Failure::refused(
            format!("the script failed on synthetic rows:\n{error}"),
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

fn withheld(payload: &Value) -> usize {
    let measures = payload.get("measures").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let cells = measures.iter().filter_map(|measure| measure.get("cells")?.as_array()).flatten();
    cells.filter(|cell| cell.get("suppressed") == Some(&Value::Bool(true))).count()
}

fn show(recipe: &Recipe, record: &Record) {
    println!(
        "rehearsed    {} synthetic rows for each of {} owners",
        record.rows_per_owner,
        recipe.owners().len()
    );
    println!("compose-hash {}", record.compose_hash);
    println!("took         {} s; {} numbers withheld", record.seconds, record.withheld);
    println!("signed by    {}", record.analyst);
}

/// Checks that a record is for this app-compose file, signed, and of the shape that the guard lets out.
pub fn check(settings: &Settings, args: &CheckArgs) -> Outcome {
    let record: Record = files::read_json(&args.file, "a record of cohort recipe rehearse")?;
    let (compose, recipe) = terms::read_recipe(settings.compose()?)?;
    let refuse = |what: &str| Err(Failure::refused(what, "ask the analyst to rehearse this very file"));
    if record.format != FORMAT {
        return refuse("the record has another format");
    }
    if record.compose_hash != compose.compose_hash() || record.recipe_hash != recipe.recipe_hash() {
        return refuse("the record is for another app-compose file");
    }
    if eip712::recover(record.digest()?, &record.signature) != Some(record.analyst) {
        return refuse("the record is not signed by the analyst that it names");
    }
    if compute::guard(&recipe, &record.payload).is_err() {
        return refuse("the record's payload is not what this recipe puts out");
    }
    show(&recipe, &record);
    println!("the record is whole, and of this recipe");
    Ok(())
}
