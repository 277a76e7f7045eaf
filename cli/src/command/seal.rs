//! `cohort seal`: encrypts a dataset at its source, for exactly one recipe.

use std::path::PathBuf;

use clap::Args;
use cohort_protocol::{hpke::PublicKey, ids::OwnerId, root::RootStatement};

use super::{kms, terms};
use crate::{
    chain::App,
    config::Settings,
    failure::{Failure, Outcome},
    files,
    seal::{self, SealInput},
};

/// Arguments of `cohort seal`.
#[derive(Debug, Args)]
pub struct SealArgs {
    /// Which owner seals, as listed in the contract.
    #[arg(long)]
    owner: OwnerId,
    /// Parquet, CSV, Arrow or any other file; - reads standard input.
    #[arg(long = "in")]
    input: PathBuf,
    /// Where to write; without it ./sealed/NAME.tar.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Keep rows and schema out of the public envelope.
    #[arg(long)]
    no_metadata: bool,
    /// A statement that `cohort kms verify --out` checked and saved, instead of asking the KMS.
    #[arg(long)]
    root_file: Option<PathBuf>,
}

/// Seals.
pub async fn run(settings: &Settings, args: SealArgs) -> Outcome {
    let (compose, recipe) = terms::read_recipe(settings.compose()?)?;
    if !recipe.owners().contains(&args.owner) {
        let names: Vec<_> = recipe.owners().iter().map(ToString::to_string).collect();
        return Err(Failure::input(
            format!("the recipe has no dataset of {}", args.owner),
            format!("its owners are: {}", names.join(", ")),
        ));
    }
    let app = App::connect(settings).await?;
    app.owner(&args.owner).await?;
    let (statement, root_key) = root(settings, &app, args.root_file.as_deref()).await?;
    let input = SealInput {
        owner: args.owner,
        input: args.input,
        output: args.out,
        chain_id: app.chain_id,
        app: app.address(),
        compose_hash: compose.compose_hash(),
        root_epoch: statement.epoch,
        root_key,
        no_metadata: args.no_metadata,
    };
    let report = tokio::task::spawn_blocking(move || seal::seal_file(&input))
        .await
        .map_err(|_| Failure::input("sealing was interrupted", "seal again"))?
        .map_err(Failure::from)?;
    if settings.json {
        println!("{}", serde_json::json!(report));
    } else {
        println!("{report}");
    }
    Ok(())
}

async fn root(
    settings: &Settings,
    app: &App,
    file: Option<&std::path::Path>,
) -> Outcome<(RootStatement, PublicKey)> {
    let Some(path) = file else { return kms::authenticated_root(settings, app).await };
    let statement: RootStatement = files::read_json(path, "a KMS root statement")?;
    let key = app.authenticate_root(settings.registry()?, &statement).await?;
    Ok((statement, key))
}
