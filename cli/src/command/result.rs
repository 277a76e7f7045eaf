//! `cohort result`: what is done with a result file beside verifying it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::verify::read_result;
use crate::{config::Settings, failure::Outcome, files, verify::online};

/// `cohort result ...`
#[derive(Debug, Subcommand)]
pub enum ResultCommand {
    /// Put the chain's proofs into a result file that has none, so that it verifies without any endpoint.
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
}

/// Runs one of them.
pub async fn run(settings: &Settings, command: &ResultCommand) -> Outcome {
    let ResultCommand::AttachProofs(args) = command;
    files::refuse_existing(&args.out)?;
    let mut result = read_result(&args.file)?;
    let proof = online::fetch(settings.rpc_urls()?, &result).await?;
    let words = proof.storage.len();
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
