//! `cohort kms log`: is a KMS's release log whole, does it go on from where it was, and does it fit the runs on chain?

use std::path::{Path, PathBuf};

use alloy::primitives::Address;
use clap::{Args, Subcommand};
use cohort_protocol::release_log::{Outcome as Decided, SignedHead};
use serde::{Deserialize, Serialize};

use crate::{
    audit::{
        Finding, Severity, logs,
        releases::{self, LogEnd, Matched, RunLine},
    },
    chain::App,
    config::Settings,
    failure::{Failure, Outcome},
    files,
    http::Service,
    release_log::{Log, check_known},
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
    /// Copies of logs' files: one for each replica. Without them the KMS is asked for its log.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Address of the KMS to ask, or of each replica; otherwise the configured one.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    url: Vec<reqwest::Url>,
    /// Signed heads that were kept earlier: the log must go on from them.
    #[arg(long, value_name = "FILE")]
    head: Vec<PathBuf>,
    /// Keep the signed heads of those that are asked here, for the next time.
    #[arg(long, value_name = "FILE")]
    save_head: Option<PathBuf>,
    /// Check the files alone: neither runs on chain nor the pinned root are compared.
    #[arg(long, requires = "files", conflicts_with = "url")]
    offline: bool,
}

/// Runs one of them.
pub async fn run(settings: &Settings, command: &LogCommand) -> Outcome {
    let LogCommand::Verify(args) = command;
    let mut known = Vec::new();
    for path in &args.head {
        known.extend(read_heads(path)?);
    }
    let mut logs = Vec::new();
    for path in &args.files {
        let mut log = Log::new(path.display(), &known);
        log.read_file(path)?;
        logs.push(log);
    }
    let configured =
        if args.files.is_empty() && args.url.is_empty() { Some(settings.kms_url()?) } else { None };
    for url in args.url.iter().chain(configured) {
        let mut log = Log::new(url, &known);
        log.ask(&Service::new("the KMS", url)?).await?;
        logs.push(log);
    }
    let signed: Vec<_> = logs.iter().filter_map(|log| log.signed.clone()).collect();
    check_known(&logs, &known)?;
    if args.save_head.is_some() && signed.is_empty() {
        return Err(Failure::input(
            "--save-head: a file has no signed head",
            "ask the KMS for its log: --url",
        ));
    }
    let report = if args.offline {
        Report::new(&logs, None, Matched { runs: Vec::new(), findings: Vec::new() })
    } else {
        let app = App::connect(settings).await?;
        let root = app.contract.kmsRoot().call().await.map_err(crate::failure::contract)?;
        for head in signed.iter().chain(&known) {
            check_root(head, &app, root)?;
        }
        let provider = app.contract.provider();
        let to = logs::head(provider, None).await?.number;
        let events = logs::read(provider, app.address(), None, to).await?;
        let matched = releases::compare(&logs, &events, app.chain_id, app.address());
        Report::new(&logs, Some(app.address()), matched)
    };
    match (&args.save_head, signed.as_slice()) {
        (Some(path), [one]) => files::write_json(path, one)?,
        (Some(path), several) => files::write_json(path, &several)?,
        (None, _) => (),
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

/// What `--save-head` writes: of one KMS, or of several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    One(Box<SignedHead>),
    Several(Vec<SignedHead>),
}

fn read_heads(path: &Path) -> Outcome<Vec<SignedHead>> {
    let heads = match files::read_json(path, "what --save-head wrote")? {
        Kept::One(head) => vec![*head],
        Kept::Several(heads) => heads,
    };
    if heads.iter().all(SignedHead::is_signed) {
        return Ok(heads);
    }
    Err(Failure::refused(
        format!("{} is not signed by the root that it names", path.display()),
        "take a head that was saved with --save-head",
    ))
}

/// What is told.
#[derive(Debug, Serialize)]
struct Report {
    logs: Vec<LogEnd>,
    releases: usize,
    denials: usize,
    /// Absent: not compared with the chain.
    app: Option<Address>,
    runs: Vec<RunLine>,
    findings: Vec<Finding>,
}

impl Report {
    fn new(logs: &[Log], app: Option<Address>, Matched { runs, findings }: Matched) -> Self {
        let entries = logs.iter().flat_map(|log| &log.entries);
        let releases = entries.clone().filter(|entry| entry.record.outcome == Decided::Released).count();
        let denials = entries.count() - releases;
        Self { logs: logs.iter().map(LogEnd::of).collect(), releases, denials, app, runs, findings }
    }

    fn print(&self, json: bool) -> Outcome {
        if json {
            let text = serde_json::to_string_pretty(self)
                .map_err(|e| Failure::input(e, "report this: the report has no JSON form"))?;
            println!("{text}");
            return Ok(());
        }
        for end in &self.logs {
            println!("log        {}: {}", end.name, end.text());
        }
        println!("decisions  {} releases, {} denials", self.releases, self.denials);
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
                "show them to the owners; of several KMS replicas give all logs at once",
            )),
        }
    }
}
