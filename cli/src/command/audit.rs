//! `cohort audit`: a consortium's history from the chain alone, re-checked, as a report.

use std::path::PathBuf;

use clap::Args;

use crate::{
    audit::{Range, audit, html, text},
    chain::App,
    config::Settings,
    failure::{Failure, Outcome},
    files,
};

/// Arguments of `cohort audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// First block to read: one before the app was deployed. Without it, found by asking for the contract's code,
    /// which needs an endpoint that keeps old states.
    #[arg(long)]
    from_block: Option<u64>,
    /// Last block to read; the newest if not given.
    #[arg(long)]
    to_block: Option<u64>,
    /// Also write the report as one self-contained HTML page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also compare the indexer that is configured (--indexer-url) with the chain.
    #[arg(long)]
    compare_indexer: bool,
}

/// Reads, checks, prints.
pub async fn run(settings: &Settings, args: &AuditArgs) -> Outcome {
    if let Some(path) = &args.html {
        files::refuse_existing(path)?;
    }
    let indexer = args.compare_indexer.then(|| settings.indexer_url()).transpose()?;
    let app = App::connect(settings).await?;
    let range = Range { from: args.from_block, to: args.to_block };
    let others = settings.rpc_urls()?.get(1..).unwrap_or_default();
    let audit = audit(&app, others, range, indexer).await?;
    if let Some(path) = &args.html {
        files::write_text(path, &html::render(&audit))?;
        eprintln!("written: {}", path.display());
    }
    if settings.json {
        let json = serde_json::to_string_pretty(&audit)
            .map_err(|e| Failure::input(e, "report this: the audit has no JSON form"))?;
        println!("{json}");
    } else {
        print!("{}", text::render(&audit));
    }
    match audit.violations() {
        0 => Ok(()),
        count => Err(Failure::refused(
            format!("{count} of the findings break a rule"),
            "repeat it with another endpoint; if it stays, show the report to the owners",
        )),
    }
}
