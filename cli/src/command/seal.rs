//! `cohort seal`: encrypts a dataset at its source, for exactly one recipe.

use std::{fmt::Display, path::PathBuf};

use alloy::primitives::Address;
use clap::Args;
use cohort_protocol::{
    compose::AppCompose,
    hpke::PublicKey,
    ids::{ComposeHash, OwnerId},
    recipe::Recipe,
    root::RootStatement,
};
use serde::Serialize;

use super::terms;
use crate::{
    chain::App,
    config::Settings,
    failure::{Failure, Outcome},
    root::{self, EvidenceArgs, KnownRoots, Trust, VerifiedRoot},
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
    #[command(flatten)]
    root: RootArgs,
    /// Keep the data key in this new file (mode 0600), for `cohort reseal`. With it and the sealed file anybody has
    /// the data: keep it where the data is kept.
    #[arg(long)]
    recovery_file: Option<PathBuf>,
}

/// Seals.
pub async fn run(settings: &Settings, args: SealArgs) -> Outcome {
    let (compose, recipe) = recipe_of(settings, &args.owner)?;
    forbid_core_dumps()?;
    let to_stdout = args.out.as_ref().is_some_and(|out| out.as_os_str() == "-");
    let Target { chain_id, app, root_epoch, root_key } =
        Target::find(settings, &args.owner, compose.compose_hash(), args.root).await?;
    let of_owner = recipe.sources().iter().filter(|source| source.is_of(&args.owner));
    let reads = of_owner.map(|source| source.column.clone()).collect();
    let input = SealInput {
        owner: args.owner,
        input: args.input,
        output: args.out,
        chain_id,
        app,
        compose_hash: compose.compose_hash(),
        root_epoch,
        root_key,
        no_metadata: args.no_metadata,
        recovery: args.recovery_file,
        reads,
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
pub(super) fn recipe_of(settings: &Settings, owner: &OwnerId) -> Outcome<(AppCompose, Recipe)> {
    let (compose, recipe) = terms::read_recipe(settings.compose()?)?;
    if !recipe.owners().contains(owner) {
        let names: Vec<_> = recipe.owners().iter().map(ToString::to_string).collect();
        return Err(Failure::input(
            format!("the recipe has no dataset of {owner}"),
            format!("its owners are: {}", names.join(", ")),
        ));
    }
    Ok((compose, recipe))
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
    pub(super) root_epoch: u32,
    pub(super) root_key: PublicKey,
}

/// Which root is sealed to, and how much of it is asked for again.
#[derive(Debug, Args)]
pub(super) struct RootArgs {
    /// A root that `cohort kms verify --out` verified and saved, instead of asking the KMS.
    #[arg(long)]
    root_file: Option<PathBuf>,
    /// Ask neither chain nor KMS: seal to the root of --root-file, or the remembered one, as it was verified then.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    evidence: EvidenceArgs,
}

impl Target {
    /// From chain and KMS; from chain and saved root; or, offline, from the saved or remembered root and the settings.
    pub(super) async fn find(
        settings: &Settings,
        owner: &OwnerId,
        compose_hash: ComposeHash,
        args: RootArgs,
    ) -> Outcome<Self> {
        let saved = args.root_file.as_deref().map(VerifiedRoot::read).transpose()?;
        if args.offline {
            return Self::offline(settings, saved);
        }
        let app = App::connect(settings).await?;
        app.owner(owner).await?;
        let (root, root_key) = match saved {
            None => root::to_seal_to(settings, &app, &Trust::new(args.evidence, None)).await?,
            Some(root) => {
                root.key_for(settings.registry()?, app.address())?;
                let key = app.authenticate_root(settings.registry()?, &root.statement).await?;
                let known = KnownRoots::of(settings)?.find(app.chain_id, settings.registry()?)?;
                if let Some(known) = known.filter(|known| !known.same_root(&root.statement)) {
                    return Err(root::changed(&known, &root.statement));
                }
                (root, key)
            }
        };
        if app.is_proposed(compose_hash).await == Some(false) {
            eprintln!(
                "warning: nobody has proposed the recipe {compose_hash} on chain yet: until its owners approve it, \
                 nothing opens this file; compare it with theirs: cohort recipe hash"
            );
        }
        let root_epoch = root.statement.epoch;
        Ok(Self { chain_id: app.chain_id, app: app.address(), root_epoch, root_key })
    }

    /// The record's own signature, and that it is of the registry and contract in the settings; the chain was asked
    /// when it was verified.
    fn offline(settings: &Settings, saved: Option<VerifiedRoot>) -> Outcome<Self> {
        let (registry, app) = (settings.registry()?, settings.app()?);
        let root = saved.map_or_else(|| remembered(settings, registry), Ok)?;
        let root_key = root.key_for(registry, app)?;
        eprintln!(
            "note: offline: KMS root {} (epoch {}, {}) as verified on {}; whether it was retired since is not asked",
            root.statement.root,
            root.statement.epoch,
            root.platform.in_words(),
            root.day()
        );
        let RootStatement { chain_id, epoch: root_epoch, .. } = root.statement;
        Ok(Self { chain_id, app, root_epoch, root_key })
    }
}

/// The one remembered root of a registry; offline nobody says which chain is meant.
fn remembered(settings: &Settings, registry: Address) -> Outcome<VerifiedRoot> {
    let known = KnownRoots::of(settings)?;
    let mut roots = known.of_registry(registry)?;
    match (roots.pop(), roots.len()) {
        (Some(root), 0) => Ok(root),
        (None, _) => Err(Failure::input(
            format!("no KMS root of registry {registry} is remembered in {}", known.path().display()),
            "where there is a network: cohort kms verify; or give --root-file FILE",
        )),
        _ => Err(Failure::input(
            format!("roots of registry {registry} on several chains are remembered"),
            "give --root-file FILE",
        )),
    }
}
