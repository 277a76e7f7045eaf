//! `cohort terms`: what owners will be asked to approve, made from the app-compose file.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use alloy::primitives::B256;
use clap::Args;
use cohort_agent::compute::prepare;
use cohort_protocol::{
    compose::AppCompose,
    recipe::Recipe,
    terms::{Terms, id_list_hash},
};

use super::recipe::rehearsal::{self, Record};
use crate::{
    chain::App,
    config::Settings,
    failure::{self, Failure, Outcome},
    files,
};

/// Arguments of `cohort terms`.
#[derive(Debug, Args)]
pub struct TermsArgs {
    /// Where to write the terms.
    #[arg(long)]
    out: PathBuf,
    /// Days until the proposal ends.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=400))]
    days: u64,
    /// Another number makes another proposal of the same terms, after a revocation say.
    #[arg(long, default_value_t = 0)]
    round: u32,
    /// mr_system of a CVM image that may run it, `0x` and 64 hex digits; may be repeated. Without it: any image that
    /// the registry of the KMS lists, now or later.
    #[arg(long, value_name = "HASH")]
    system: Vec<B256>,
    /// Id of a device that may run it, likewise. Without it: any.
    #[arg(long, value_name = "HASH")]
    device: Vec<B256>,
    /// The record of a rehearsal (cohort recipe rehearse), kept beside the terms for the owners to see.
    #[arg(long)]
    rehearsal: Option<PathBuf>,
}

/// Makes the terms for the app's current era.
pub async fn make(settings: &Settings, args: &TermsArgs) -> Outcome {
    files::refuse_existing(&args.out)?;
    let (compose, recipe) = read_recipe(settings.compose()?)?;
    let rehearsal = match &args.rehearsal {
        Some(path) => {
            files::refuse_existing(&rehearsal::beside(&args.out))?;
            let record = Record::read(path, compose.compose_hash())?;
            record.check(&recipe)?;
            Some(record)
        }
        None => None,
    };
    let app = App::connect(settings).await?;
    let config = app.contract.config().call().await.map_err(failure::contract)?;
    let terms = Terms {
        compose_hash: compose.compose_hash(),
        recipe_hash: recipe.recipe_hash(),
        output_schema_hash: recipe.output_schema_hash(),
        epsilon_per_run: recipe.privacy().epsilon_per_run,
        delta_per_run: recipe.delta_per_run().0,
        epsilon_budget: recipe.privacy().epsilon_budget,
        delta_budget: recipe.delta_budget().0,
        expiry: now()? + args.days * 86_400,
        devices: id_list(&args.device),
        systems: id_list(&args.system),
        era: config.era,
        round: args.round,
    };
    files::write_json(&args.out, &terms)?;
    if let Some(record) = rehearsal {
        files::write_json(&rehearsal::beside(&args.out), &record)?;
    }
    if settings.json {
        println!("{}", serde_json::json!({ "proposal_id": terms.proposal_id(), "terms": terms }));
    } else {
        println!("proposal      {}", terms.proposal_id());
        println!("compose-hash  {}", terms.compose_hash);
        println!("privacy       epsilon {} per run, {} in all", terms.epsilon_per_run, terms.epsilon_budget);
        if terms.delta_per_run > 0 {
            println!(
                "              delta {} per run, {} in all",
                recipe.delta_per_run(),
                recipe.delta_budget()
            );
        }
        for line in limits(&terms) {
            println!("{line}");
        }
        println!("-> {}", args.out.display());
    }
    Ok(())
}

/// The ids in ascending order, each once, as a field of terms; zero for none.
fn id_list(ids: &[B256]) -> B256 {
    let ids: Vec<B256> = ids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    id_list_hash(&ids).unwrap_or_default()
}

/// Where the terms may run, in words.
pub fn limits(terms: &Terms) -> [String; 2] {
    let limit = |name: &str, field: B256, any: &str, ids: &str| {
        if field.is_zero() {
            format!("{name:<12}  {any}")
        } else {
            format!("{name:<12}  only the {ids} with the list hash {field}")
        }
    };
    [
        limit(
            "CVM images",
            terms.systems,
            "any that the KMS's registry lists, now or later",
            "mr_system values",
        ),
        limit("devices", terms.devices, "any", "device ids"),
    ]
}

/// The app-compose file and the recipe in it, whose SQL, if it has any, is proved to keep persons apart.
pub fn read_recipe(path: &Path) -> Outcome<(AppCompose, Recipe)> {
    let compose = files::read_compose(path)?;
    let recipe = compose.recipe().map_err(|e| {
        Failure::input(
            format!("{} has no usable recipe: {}", path.display(), files::chain_text(&e)),
            "see docs/spec/recipe.md",
        )
    })?;
    prepare::prove(&recipe).map_err(|e| Failure::refused(e, "see docs/spec/recipe.md, \"The proof\""))?;
    Ok((compose, recipe))
}

/// Reads terms and, where an app-compose file is known, checks that they are for exactly it.
pub fn read_terms(settings: &Settings, path: &Path) -> Outcome<(Terms, Option<Recipe>)> {
    match settings.compose() {
        Ok(compose) => read_matching(path, compose).map(|(terms, recipe)| (terms, Some(recipe))),
        Err(_) => Ok((read_file(path)?, None)),
    }
}

/// Reads terms that are for exactly this app-compose file, whose bytes are hashed here.
pub fn read_matching(path: &Path, compose_path: &Path) -> Outcome<(Terms, Recipe)> {
    let terms = read_file(path)?;
    let (compose, recipe) = read_recipe(compose_path)?;
    if compose.compose_hash() != terms.compose_hash {
        return Err(Failure::refused(
            format!(
                "the terms are for compose-hash {}, but {} has {}",
                terms.compose_hash,
                compose_path.display(),
                compose.compose_hash()
            ),
            "do not approve code that you have not got in front of you; fetch the file that was proposed",
        ));
    }
    if recipe.recipe_hash() != terms.recipe_hash || recipe.output_schema_hash() != terms.output_schema_hash {
        return Err(Failure::refused(
            "the terms name another recipe or output schema than the app-compose file holds",
            "make the terms afresh: cohort terms",
        ));
    }
    Ok((terms, recipe))
}

fn read_file(path: &Path) -> Outcome<Terms> {
    files::read_json(path, "a terms file of cohort terms")
}

/// Unix seconds.
pub fn now() -> Outcome<u64> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|d| d.as_secs())
        .map_err(|_| Failure::input("this machine's clock is before 1970", "set the clock"))
}
