//! `cohort audit`: a consortium's history from the chain alone, re-checked, as a report.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    audit::{Against, Range, audit, html, text},
    chain::App,
    config::Settings,
    failure::{Failure, Outcome},
    files,
    http::Service,
    release_log::Log,
};

/// Arguments of `cohort audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// First block to read: one before the app was deployed. Without it, found by asking for the contract's code; an
    /// endpoint that keeps no old states is read from the first block on.
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
    /// Also match the KMS's release log with the runs, one to one: a copy of its file, or the address of the KMS. Of
    /// replicas all, with a comma between.
    #[arg(long, value_name = "FILE|URL", value_delimiter = ',', conflicts_with = "to_block")]
    kms_log: Vec<String>,
}

/// Reads, checks, prints.
pub async fn run(settings: &Settings, args: &AuditArgs) -> Outcome {
    if let Some(path) = &args.html {
        files::refuse_existing(path)?;
    }
    let indexer = args.compare_indexer.then(|| settings.indexer_url()).transpose()?;
    let mut logs = Vec::new();
    for place in &args.kms_log {
        logs.push(release_log(place).await?);
    }
    let app = App::connect(settings).await?;
    let range = Range { from: args.from_block, to: args.to_block };
    let endpoints = settings.rpc_urls()?;
    let audit = audit(&app, range, Against { endpoints, indexer, logs: &logs }).await?;
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
    match (audit.violations(), audit.silent()) {
        (0, 0) => Ok(()),
        (0, silent) => Err(Failure::unreachable(
            format!("no rule was broken, but {silent} of the endpoints did not answer"),
            "try again, or leave out --rpc-url of those that are down",
        )),
        (count, _) => Err(Failure::refused(
            format!("{count} of the findings break a rule"),
            "repeat it with another endpoint; if it stays, show the report to the owners",
        )),
    }
}

/// A log from its file, or from the KMS, which signs where it ends.
async fn release_log(place: &str) -> Outcome<Log> {
    let mut log = Log::new(place, &[]);
    match place.parse::<reqwest::Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            log.ask(&Service::new("the KMS", &url)?).await?;
        }
        _ => log.read_file(Path::new(place))?,
    }
    Ok(log)
}
