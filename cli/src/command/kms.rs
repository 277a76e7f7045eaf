//! `cohort kms`: is this the KMS that the consortium agreed on?

use std::path::PathBuf;

use clap::Subcommand;
use cohort_attestation::KmsEvidence;
use cohort_protocol::{
    hpke::PublicKey,
    root::{RootAnswer, RootStatement},
};

use crate::{chain::App, config::Settings, failure::Outcome, files, http::Service};

/// `cohort kms …`
#[derive(Debug, Subcommand)]
pub enum KmsCommand {
    /// Checks the KMS's root against the contract and the registry.
    Verify {
        /// Save the checked statement, for sealing offline.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

/// Runs one of them.
pub async fn run(settings: &Settings, command: &KmsCommand) -> Outcome {
    let KmsCommand::Verify { out } = command;
    let app = App::connect(settings).await?;
    let (statement, _) = authenticated_root(settings, &app).await?;
    if let Some(out) = out {
        files::write_json(out, &statement)?;
    }
    if settings.json {
        println!(
            "{}",
            serde_json::json!({ "epoch": statement.epoch, "root": statement.root, "key_id": statement.key_id() })
        );
    } else {
        println!(
            "root {} (epoch {}): signed statement, pinned by {}, listed by {}",
            statement.root,
            statement.epoch,
            app.address(),
            statement.registry
        );
        println!("sealing key {} (SHA-256)", statement.key_id());
    }
    Ok(())
}

/// Asks the KMS for its root and checks it against the chain.
pub async fn authenticated_root(settings: &Settings, app: &App) -> Outcome<(RootStatement, PublicKey)> {
    let service = Service::new("the KMS", settings.kms_url()?)?;
    let answer: RootAnswer<KmsEvidence> = service.get("v1/root").await?.ready("the KMS")?;
    let statement = answer.statement;
    let key = app.authenticate_root(settings.registry()?, &statement).await?;
    Ok((statement, key))
}
