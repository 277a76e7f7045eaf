//! `cohort result`: what is done with a result file beside verifying it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::verify::read_result;
use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    files,
    policy::PolicyArgs,
    verify::{self, online},
};

/// `cohort result ...`
#[derive(Debug, Subcommand)]
pub enum ResultCommand {
    /// Put the chain's proofs into a result file, so that it verifies without any endpoint; with --registry also those
    /// that the registry lists the CVM image, for terms that name none.
    AttachProofs(AttachArgs),
}

/// Arguments of `cohort result attach-proofs`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The result file of `cohort run`.
    file: PathBuf,
    /// Where to write the file with its proofs.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    evidence: PolicyArgs,
}

/// Runs one of them.
pub async fn run(settings: &Settings, command: &ResultCommand) -> Outcome {
    let ResultCommand::AttachProofs(args) = command;
    files::refuse_existing(&args.out)?;
    let mut result = read_result(&args.file)?;
    let urls = settings.rpc_urls()?;
    let mut proof = online::fetch(urls, &result).await?;
    if let Some(registry) = settings.registry().ok().filter(|_| result.terms.systems.is_zero()) {
        let td = verify::machine(&result, &args.evidence.policy("the file's")?).map_err(|refusal| {
            Failure::refused(
                format!("the file's evidence does not hold: {refusal} ({})", refusal.code()),
                "cohort verify tells more; leave out --registry to attach the rest",
            )
        })?;
        online::fetch_registry(urls, &mut proof, registry, &td).await?;
    }
    let words = proof.storage.len() + proof.registry.as_ref().map_or(0, |registry| registry.storage.len());
    result.chain = Some(proof);
    files::write_json(&args.out, &result)?;
    let value = serde_json::json!({
        "block_number": result.position.block_number,
        "block_hash": result.position.block_hash,
        "storage_words": words,
    });
    if settings.json {
        println!("{value}");
        return Ok(());
    }
    println!("block {} {}", result.position.block_number, result.position.block_hash);
    println!("{words} storage words and the receipt, proved");
    println!("-> {}", args.out.display());
    Ok(())
}
