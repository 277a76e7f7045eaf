//! `cohort recipe`: what an app-compose file would do, what it costs, and its hashes.

pub mod new;
pub mod rehearsal;
pub mod rehearse;

use clap::Subcommand;
use cohort_agent::compute;
use cohort_protocol::recipe::{Language, Recipe};

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
            explain_proof(&recipe, *lang)
        }
        RecipeCommand::Hash => hash(settings),
        RecipeCommand::Lint => lint(settings),
        RecipeCommand::Cost => cost(settings),
        RecipeCommand::New(args) => new::make(args),
        RecipeCommand::Rehearse(args) => rehearse::rehearse(settings, args),
        RecipeCommand::CheckRehearsal(args) => rehearse::check(settings, args),
    }
}

/// Which rule admitted which node of the SQL's plan; all of it was proved when the file was read.
fn explain_proof(recipe: &Recipe, language: Language) -> Outcome {
    let failed = |e| Failure::refused(e, "see docs/spec/recipe.md, \"The proof\"");
    let Some(proof) = compute::prepare::prove(recipe).map_err(failed)? else { return Ok(()) };
    println!(
        "{}",
        match language {
            Language::English =>
                "Proved: each node of its plan keeps persons apart, the last has one row each.",
            Language::Turkish => {
                "Kanıtlandı: planın her düğümü kişileri ayrı tutar, sonuncusunda kişi başına bir satır vardır."
            }
        }
    );
    if proof.multiplies {
        let most = compute::prepare::PERSON_ROWS;
        match language {
            Language::English => println!(
                "A join can make several of one row: of each table only the first {most} rows of a person take part."
            ),
            Language::Turkish => println!(
                "Bir birleştirme bir satırdan birkaç satır üretebilir: her tablodan bir kişinin yalnızca ilk {most} satırı katılır."
            ),
        }
    }
    for step in proof.steps {
        let rule = serde_json::to_value(step.rule).unwrap_or_default();
        println!("  {:<18} {}", rule.as_str().unwrap_or_default(), step.node);
    }
    Ok(())
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
        let (declared, delta) = (recipe.epsilon_per_run(), recipe.delta_per_run().to_string());
        println!(
            "{}",
            serde_json::json!({ "measures": measures, "total": account.total, "declared": declared, "delta": delta })
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
    if recipe.delta_per_run().0 > 0 {
        println!("{:<31} {}", "at delta", recipe.delta_per_run());
    }
    let runs = recipe.epsilon_budget().0 / recipe.epsilon_per_run().0.max(1);
    let runs = recipe.delta_budget().0.checked_div(recipe.delta_per_run().0).map_or(runs, |by| by.min(runs));
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
