//! `cohort reseal`: a sealed file for another recipe, without its plaintext.

use std::path::PathBuf;

use clap::Args;
use cohort_protocol::{
    ids::{ComposeHash, OwnerId},
    sealed::{ResealPart, ResealTarget},
};

use super::seal::{RootArgs, Target, forbid_core_dumps, print_report, recipe_of};
use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    seal::{
        Interrupt, Place,
        reseal::{self, ResealInput},
    },
};

/// Arguments of `cohort reseal`. The new recipe is the global `--compose`.
#[derive(Debug, Args)]
pub struct ResealArgs {
    /// The sealed file; it is not changed.
    file: PathBuf,
    /// What `cohort seal --recovery-file` wrote for it.
    #[arg(long)]
    recovery_file: PathBuf,
    /// Where to write; without it ./sealed/NAME-HASH.tar; - writes standard output.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write only what stands before the data, to be joined with the sealed file where that is kept.
    #[arg(long)]
    head: bool,
    /// Another name of the owner; without it the sealed file's.
    #[arg(long)]
    owner: Option<OwnerId>,
    #[command(flatten)]
    root: RootArgs,
}

/// Reseals.
pub async fn run(settings: &Settings, args: ResealArgs) -> Outcome {
    let old = reseal::envelope(&args.file).map_err(Failure::from)?;
    let owner = args.owner.clone().unwrap_or_else(|| old.owner().clone());
    let compose_hash = recipe_of(settings, &owner)?.0.compose_hash();
    forbid_core_dumps()?;
    let mut place = match &args.out {
        Some(path) if path.as_os_str() == "-" => Place::standard_output().map_err(Failure::from)?,
        Some(path) => Place::File(path.clone()),
        None => Place::File(default_output(&args, compose_hash)),
    };
    let Target { chain_id, app, root_epoch, root_key } =
        Target::find(settings, &owner, compose_hash, args.root).await?;
    let to_stdout = matches!(place, Place::Stream(_));
    let part = if args.head { ResealPart::Head } else { ResealPart::Whole };
    let target = ResealTarget { chain_id, app, compose_hash, owner, root_epoch, root: root_key };
    let input = ResealInput { file: args.file, recovery: args.recovery_file, target, part };
    let work = move || reseal::reseal_file(&input, &mut place, &Interrupt::listen());
    let report = tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Failure::input("resealing was interrupted", "reseal again"))?
        .map_err(Failure::from)?;
    print_report(settings.json, to_stdout, &report);
    Ok(())
}

/// Named after the old file and the new recipe, so that two recipes' files can lie side by side.
fn default_output(args: &ResealArgs, compose_hash: ComposeHash) -> PathBuf {
    let mut name = args.file.file_stem().unwrap_or_default().to_owned();
    let short: String = compose_hash.to_string().trim_start_matches("0x").chars().take(8).collect();
    name.push(format!("-{short}.{}", if args.head { "head" } else { "tar" }));
    PathBuf::from("./sealed").join(name)
}
