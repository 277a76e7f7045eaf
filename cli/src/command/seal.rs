//! `cohort seal`: encrypts a dataset at its source, for exactly one recipe.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

use alloy::primitives::Address;
use clap::Args;
use cohort_protocol::{compose::AppCompose, hpke::PublicKey, ids::OwnerId, root::RootStatement};
use serde::Serialize;

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
    /// Where to write; without it ./sealed/NAME.tar; - writes standard output, and the report to standard error.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Keep rows and schema out of the public envelope.
    #[arg(long)]
    no_metadata: bool,
    /// A statement that `cohort kms verify --out` checked and saved, instead of asking the KMS.
    #[arg(long)]
    root_file: Option<PathBuf>,
    /// Ask neither chain nor KMS: seal to the root of --root-file as it was verified when it was saved.
    #[arg(long, requires = "root_file")]
    offline: bool,
    /// Keep the data key in this new file (mode 0600), for `cohort reseal`. With it and the sealed file anybody has
    /// the data: keep it where the data is kept.
    #[arg(long)]
    recovery_file: Option<PathBuf>,
}

/// Seals.
pub async fn run(settings: &Settings, args: SealArgs) -> Outcome {
    let compose = recipe_of(settings, &args.owner)?;
    forbid_core_dumps()?;
    let to_stdout = args.out.as_ref().is_some_and(|out| out.as_os_str() == "-");
    let Target { chain_id, app, statement, root_key } =
        Target::find(settings, &args.owner, args.root_file.as_deref(), args.offline).await?;
    let input = SealInput {
        owner: args.owner,
        input: args.input,
        output: args.out,
        chain_id,
        app,
        compose_hash: compose.compose_hash(),
        root_epoch: statement.epoch,
        root_key,
        no_metadata: args.no_metadata,
        recovery: args.recovery_file,
    };
    let report = tokio::task::spawn_blocking(move || seal::seal_file(&input))
        .await
        .map_err(|_| Failure::input("sealing was interrupted", "seal again"))?
        .map_err(Failure::from)?;
    print_report(settings.json, to_stdout, &report);
    Ok(())
}

/// On standard output, unless the sealed data goes there.
pub(super) fn print_report(json: bool, to_stdout: bool, report: &(impl Serialize + Display)) {
    let text = if json { serde_json::json!(report).to_string() } else { report.to_string() };
    if to_stdout { eprintln!("{text}") } else { println!("{text}") }
}

/// The app-compose file in the settings, whose recipe must have a dataset of `owner`.
pub(super) fn recipe_of(settings: &Settings, owner: &OwnerId) -> Outcome<AppCompose> {
    let (compose, recipe) = terms::read_recipe(settings.compose()?)?;
    if !recipe.owners().contains(owner) {
        let names: Vec<_> = recipe.owners().iter().map(ToString::to_string).collect();
        return Err(Failure::input(
            format!("the recipe has no dataset of {owner}"),
            format!("its owners are: {}", names.join(", ")),
        ));
    }
    Ok(compose)
}

/// Keys and rows pass through this process's memory.
pub(super) fn forbid_core_dumps() -> Outcome {
    seal::secrecy::forbid_core_dumps().map_err(|error| {
        Failure::input(
            format!("core dumps of this process cannot be forbidden: {error}"),
            "this needs Linux and prctl(PR_SET_DUMPABLE)",
        )
    })
}

/// Where the data may be opened: an authenticated root, and a contract that lists the owner.
pub(super) struct Target {
    pub(super) chain_id: u64,
    pub(super) app: Address,
    pub(super) statement: RootStatement,
    pub(super) root_key: PublicKey,
}

impl Target {
    /// From chain and KMS; from chain and saved statement; or, offline, from the saved statement and the settings.
    pub(super) async fn find(
        settings: &Settings,
        owner: &OwnerId,
        root_file: Option<&Path>,
        offline: bool,
    ) -> Outcome<Self> {
        let saved = root_file
            .map(|path| files::read_json::<RootStatement>(path, "a KMS root statement"))
            .transpose()?;
        if let (true, Some(statement)) = (offline, &saved) {
            return Self::offline(settings, statement.clone());
        }
        let app = App::connect(settings).await?;
        app.owner(owner).await?;
        let (statement, root_key) = match saved {
            None => kms::authenticated_root(settings, &app).await?,
            Some(statement) => {
                let key = app.authenticate_root(settings.registry()?, &statement).await?;
                (statement, key)
            }
        };
        Ok(Self { chain_id: app.chain_id, app: app.address(), statement, root_key })
    }

    /// The statement's own signature, and that it is of the registry in the settings; the chain was asked when it was
    /// saved.
    fn offline(settings: &Settings, statement: RootStatement) -> Outcome<Self> {
        let hint = "save it again where there is a network: cohort kms verify --out FILE";
        let root_key = statement.verify().map_err(|error| Failure::refused(error, hint))?;
        let registry = settings.registry()?;
        if statement.registry != registry {
            return Err(Failure::refused(
                format!("the saved root is of registry {}, this study's is {registry}", statement.registry),
                hint,
            ));
        }
        let app = settings.app()?;
        Ok(Self { chain_id: statement.chain_id, app, statement, root_key })
    }
}
