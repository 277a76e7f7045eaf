//! `cohort dataset register`: the commitment of a sealed file goes on chain.

use std::{fs::File, path::PathBuf};

use alloy::primitives::B256;
use clap::Subcommand;
use cohort_protocol::{
    abi,
    ids::{DatasetId, Label},
};

use crate::{
    chain::{self, App},
    config::Settings,
    failure::{Failure, Outcome},
    files, inspect,
    key::KeyArg,
};

/// `cohort dataset …`
#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Puts a sealed file's commitment, region, kind, records and size on chain.
    Register {
        /// The sealed file.
        file: PathBuf,
        /// Short label of where it is held: EU-West.
        #[arg(long)]
        region: Label,
        /// Short label of what it is: EHR.
        #[arg(long)]
        kind: Label,
        /// The owner's dataset that this one replaces.
        #[arg(long)]
        supersedes: Option<DatasetId>,
        /// The owner's key.
        #[command(flatten)]
        key: KeyArg,
    },
}

/// Runs one of them.
pub async fn run(settings: &Settings, command: &DatasetCommand) -> Outcome {
    let DatasetCommand::Register { file, region, kind, supersedes, key } = command;
    let reader = File::open(file).map_err(|e| Failure::read(file, &e))?;
    let checked = inspect::check(reader).map_err(|e| {
        Failure::refused(
            format!("{} is not an intact sealed dataset: {}", file.display(), files::chain_text(&e)),
            "seal it again: cohort seal",
        )
    })?;
    let signer = key.signer()?;
    let app = App::connect_with(settings, signer.clone()).await?;
    let context = checked.envelope.context();
    if context.chain_id != app.chain_id || context.app != app.address() {
        return Err(Failure::input(
            format!(
                "{} is sealed for chain {} and contract {}, not for chain {} and {}",
                file.display(),
                context.chain_id,
                context.app,
                app.chain_id,
                app.address()
            ),
            "seal it for this study, or give the right --app and --rpc-url",
        ));
    }
    let owner = app.owner(&context.owner).await?;
    if owner.account != signer.address() {
        return Err(Failure::input(
            format!(
                "{} belongs to {}, whose account is {}, not {}",
                file.display(),
                context.owner,
                owner.account,
                signer.address()
            ),
            "give the key file of that account",
        ));
    }
    let info = abi::DatasetInfo {
        datasetId: checked.dataset_id.0,
        composeHash: context.compose_hash.0,
        region: region.word(),
        kind: kind.word(),
        records: checked.envelope.content().rows.unwrap_or_default(),
        sizeBytes: checked.file_bytes,
        supersedes: supersedes.map_or(B256::ZERO, |id| id.0),
    };
    let receipt = chain::transact(app.contract.registerDataset(info), "register the dataset").await?;
    if settings.json {
        println!(
            "{}",
            serde_json::json!({ "dataset_id": checked.dataset_id, "transaction": receipt.transaction_hash })
        );
    } else {
        println!("registered {} of {}", checked.dataset_id, context.owner);
        println!("transaction {}", receipt.transaction_hash);
    }
    Ok(())
}
