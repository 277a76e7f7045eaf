//! `cohort recipe`: what an app-compose file would do, what it costs, and its hashes.

pub mod new;
pub mod rehearsal;
pub mod rehearse;

use clap::Subcommand;
use cohort_agent::compute;
use cohort_protocol::recipe::Language;

use super::terms;
use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    files,
};

/// `cohort recipe …`; all of them read the file given by `--compose`.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one value a process")]
pub enum RecipeCommand {
    /// In plain words: which data, what leaves, at what privacy cost.
    Explain {
        /// Language: en or tr.
        #[arg(long, default_value = "en", value_parser = language)]
        lang: Language,
    },
    /// The compose hash (SHA-256 of the exact bytes, as dstack measures it), recipe and output-schema hash.
    Hash,
    /// What should not be approved: mutable images, host mounts, public logs.
    Lint,
    /// What a run costs by the accountant's own numbers.
    Cost,
    /// An app-compose file to start from.
    New(new::NewArgs),
    /// The very recipe on synthetic rows of its schema; writes a signed record for the owners.
    Rehearse(rehearse::RehearseArgs),
    /// Whether such a record is whole and of this app-compose file.
    CheckRehearsal(rehearse::CheckArgs),
}

/// Runs one of them.
pub fn run(settings: &Settings, command: &RecipeCommand) -> Outcome {
    match command {
        RecipeCommand::Explain { lang } => {
            let (_, recipe) = terms::read_recipe(settings.compose()?)?;
            println!("{}", recipe.explain(*lang));
            Ok(())
        }
        RecipeCommand::Hash => hash(settings),
        RecipeCommand::Lint => lint(settings),
        RecipeCommand::Cost => cost(settings),
        RecipeCommand::New(args) => new::make(args),
        RecipeCommand::Rehearse(args) => rehearse::rehearse(settings, args),
        RecipeCommand::CheckRehearsal(args) => rehearse::check(settings, args),
    }
}

fn language(code: &str) -> Result<Language, String> {
    Language::parse(code).ok_or_else(|| "en and tr are there".to_owned())
}

fn hash(settings: &Settings) -> Outcome {
    let (compose, recipe) = terms::read_recipe(settings.compose()?)?;
    if settings.json {
        println!(
            "{}",
            serde_json::json!({
                "compose_hash": compose.compose_hash(),
                "recipe_hash": recipe.recipe_hash(),
                "output_schema_hash": recipe.output_schema_hash(),
            })
        );
    } else {
        println!("compose-hash        {}", compose.compose_hash());
        println!("recipe-hash         {}", recipe.recipe_hash());
        println!("output-schema-hash  {}", recipe.output_schema_hash());
    }
    Ok(())
}

/// What OpenDP reports for the mechanisms that would run, not what the file says.
fn cost(settings: &Settings) -> Outcome {
    let (_, recipe) = terms::read_recipe(settings.compose()?)?;
    let account = compute::account(&recipe)
        .map_err(|e| Failure::refused(e, "raise epsilon_per_run or lower the measures' shares"))?;
    if settings.json {
        let measures = recipe.measures().iter().zip(&account.measures);
        let measures: serde_json::Map<_, _> =
            measures.map(|(measure, loss)| (measure.name.to_string(), (*loss).into())).collect();
        let declared = recipe.epsilon_per_run();
        println!(
            "{}",
            serde_json::json!({ "measures": measures, "total": account.total, "declared": declared })
        );
        return Ok(());
    }
    for (measure, loss) in recipe.measures().iter().zip(&account.measures) {
        println!("{:<31} {loss:.9}", measure.name.as_str());
    }
    println!(
        "{:<31} {:.9}  (OpenDP, rounded up; declared {})",
        "one run",
        account.total,
        recipe.epsilon_per_run()
    );
    let runs = recipe.epsilon_budget().0 / recipe.epsilon_per_run().0.max(1);
    println!("{:<31} {runs}", "runs within the budget");
    Ok(())
}

fn lint(settings: &Settings) -> Outcome {
    let path = settings.compose()?;
    let (compose, _) = (files::read_compose(path)?, terms::read_recipe(path)?);
    let findings = compose.lint();
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("{}: nothing found", path.display());
        return Ok(());
    }
    Err(Failure::refused(
        format!("{} findings in {}", findings.len(), path.display()),
        "correct them before owners are asked to approve",
    ))
}
