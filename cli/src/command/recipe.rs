//! `cohort recipe`: what an app-compose file would do, and its hashes.

use clap::Subcommand;
use cohort_protocol::recipe::Language;

use super::terms;
use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    files,
};

/// `cohort recipe …`; all of them read the file given by `--compose`.
#[derive(Debug, Subcommand)]
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
