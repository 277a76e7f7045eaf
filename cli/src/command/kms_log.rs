//! `cohort kms log`: is a KMS's release log whole, does it go on from where it was, and does it fit the runs on chain?

use std::path::{Path, PathBuf};

use alloy::primitives::Address;
use clap::{Args, Subcommand};
use cohort_protocol::release_log::{Entry, Outcome as Decided, SignedHead};
use serde::Serialize;

use crate::{
    audit::{
        Finding, Severity, logs,
        releases::{self, Matched, RunLine},
    },
    chain::App,
    config::Settings,
    failure::{Failure, Outcome},
    files,
    http::Service,
    release_log::Log,
};

/// `cohort kms log …`
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Verifies a release log: every entry and its hash, and that its releases and the runs on chain match one to one.
    Verify(VerifyArgs),
}

/// Options of `cohort kms log verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A copy of the log's file. Without it the KMS is asked for its log.
    file: Option<PathBuf>,
    /// Address of the KMS to ask; otherwise the configured one.
    #[arg(long, conflicts_with = "file", value_name = "URL")]
    url: Option<reqwest::Url>,
    /// A signed head that was kept earlier: the log must go on from it.
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// Keep the KMS's signed head here, for the next time.
    #[arg(long, conflicts_with = "file", value_name = "FILE")]
    save_head: Option<PathBuf>,
    /// Check the file alone: neither runs on chain nor the pinned root are compared.
    #[arg(long, requires = "file")]
    offline: bool,
}

/// Runs one of them.
pub async fn run(settings: &Settings, command: &LogCommand) -> Outcome {
    let LogCommand::Verify(args) = command;
    let known = args.head.as_deref().map(read_head).transpose()?;
    let mut log = Log::new(known.as_ref());
    let mut signed = None;
    match &args.file {
        Some(path) => log.read_file(path)?,
        None => {
            let url = args.url.as_ref().map_or_else(|| settings.kms_url(), Ok)?;
            signed = Some(log.ask(&Service::new("the KMS", url)?).await?);
        }
    }
    log.check_known()?;
    let report = if args.offline {
        Report::new(&log, None, Matched { runs: Vec::new(), findings: Vec::new() })
    } else {
        let app = App::connect(settings).await?;
        let root = app.contract.kmsRoot().call().await.map_err(crate::failure::contract)?;
        for head in signed.iter().chain(&known) {
            check_root(head, &app, root)?;
        }
        let provider = app.contract.provider();
        let to = logs::head(provider, None).await?.number;
        let events = logs::read(provider, app.address(), None, to).await?;
        let matched = releases::compare(&log.entries, &events, app.address());
        Report::new(&log, Some(app.address()), matched)
    };
    if let Some((path, head)) = args.save_head.as_ref().zip(signed.as_ref()) {
        files::write_json(path, head)?;
    }
    report.print(settings.json)?;
    report.outcome()
}

/// The head that was kept must be about the same root; a registry may list several.
fn check_root(head: &SignedHead, app: &App, pinned: Address) -> Outcome {
    if head.chain_id == app.chain_id && head.root == pinned {
        return Ok(());
    }
    Err(Failure::refused(
        format!(
            "the head is signed by {} for chain {}, the contract on chain {} pins {pinned}",
            head.root, head.chain_id, app.chain_id
        ),
        "ask the consortium which KMS it agreed on",
    ))
}

fn read_head(path: &Path) -> Outcome<SignedHead> {
    let head: SignedHead = files::read_json(path, "what --save-head wrote")?;
    if head.is_signed() {
        return Ok(head);
    }
    Err(Failure::refused(
        format!("{} is not signed by the root that it names", path.display()),
        "take a head that was saved with --save-head",
    ))
}

/// What is told.
#[derive(Debug, Serialize)]
struct Report {
    entries: u64,
    hash: alloy::primitives::B256,
    /// Bytes of an unfinished last line: what a crash while writing leaves.
    torn_bytes: usize,
    releases: usize,
    denials: usize,
    /// Absent: not compared with the chain.
    app: Option<Address>,
    runs: Vec<RunLine>,
    findings: Vec<Finding>,
}

impl Report {
    fn new(log: &Log, app: Option<Address>, Matched { runs, findings }: Matched) -> Self {
        let released = |entry: &&Entry| entry.record.outcome == Decided::Released;
        let releases = log.entries.iter().filter(released).count();
        Self {
            entries: log.head.entries,
            hash: log.head.hash,
            torn_bytes: log.torn_bytes,
            releases,
            denials: log.entries.len() - releases,
            app,
            runs,
            findings,
        }
    }

    fn print(&self, json: bool) -> Outcome {
        if json {
            let text = serde_json::to_string_pretty(self)
                .map_err(|e| Failure::input(e, "report this: the report has no JSON form"))?;
            println!("{text}");
            return Ok(());
        }
        println!("log        {} entries, each with its hash, ends in {}", self.entries, self.hash);
        println!("decisions  {} releases, {} denials", self.releases, self.denials);
        if self.torn_bytes > 0 {
            println!("unfinished {} bytes of an entry whose answer never left", self.torn_bytes);
        }
        let Some(app) = self.app else {
            println!("runs       not compared with the chain");
            return Ok(());
        };
        println!("runs       of {app}: opened in block, keys by entry, receipt in block");
        for run in &self.runs {
            println!("  {}", run.text());
        }
        for finding in &self.findings {
            let severity = if finding.severity == Severity::Violation { "VIOLATION" } else { "notice" };
            println!("{severity:<10} {} ({})", finding.text, finding.code);
        }
        Ok(())
    }

    fn outcome(&self) -> Outcome {
        match self.findings.iter().filter(|finding| finding.severity == Severity::Violation).count() {
            0 => Ok(()),
            count => Err(Failure::refused(
                format!("releases and runs do not match: {count} findings"),
                "show them to the owners; several KMS replicas have a log each",
            )),
        }
    }
}
