//! `cohort kms log`: is a KMS's release log whole, does it go on from where it was, and does it fit the runs on chain?

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use alloy::primitives::Address;
use clap::{Args, Subcommand};
use cohort_protocol::{
    abi::IDstackApp::IDstackAppEvents,
    ids::RunId,
    release_log::{Entry, Head, LINE_BYTES_MAX, Outcome as Decided, Page, SignedHead},
};
use serde::Serialize;

use crate::{
    audit::{
        Finding, Severity,
        logs::{self, Entry as ChainEntry},
    },
    chain::App,
    config::Settings,
    failure::{Failure, Outcome},
    files,
    http::Service,
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
        Report::new(&log, None, Vec::new(), Vec::new())
    } else {
        let app = App::connect(settings).await?;
        let root = app.contract.kmsRoot().call().await.map_err(crate::failure::contract)?;
        for head in signed.iter().chain(&known) {
            check_root(head, &app, root)?;
        }
        let provider = app.contract.provider();
        let to = logs::head(provider, None).await?.number;
        let events = logs::read(provider, app.address(), None, to).await?;
        let (runs, findings) = compare(&log.entries, &events, app.address());
        Report::new(&log, Some(app.address()), runs, findings)
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

/// A log as far as it was read and verified.
struct Log {
    entries: Vec<Entry>,
    head: Head,
    torn_bytes: usize,
    known: Option<Head>,
    known_is_met: bool,
}

fn damaged(line: u64, what: &str) -> Failure {
    Failure::refused(
        format!("the release log is damaged at line {line}: {what}"),
        "keep this copy as evidence, and ask the KMS operator",
    )
}

impl Log {
    fn new(known: Option<&SignedHead>) -> Self {
        let (head, known) = (Head::empty(), known.map(|signed| signed.head));
        Self { entries: Vec::new(), head, torn_bytes: 0, known, known_is_met: known == Some(head) }
    }

    fn accept(&mut self, line: &[u8]) -> Outcome {
        let number = self.head.entries + 1;
        let line = self.head.accept(line).map_err(|what| damaged(number, what))?;
        self.known_is_met |= self.known == Some(self.head);
        self.entries.push(line.entry);
        Ok(())
    }

    fn read_file(&mut self, path: &Path) -> Outcome {
        let failed = |e: std::io::Error| Failure::read(path, &e);
        let mut reader = BufReader::new(File::open(path).map_err(failed)?);
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let limited = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut buffer);
            let bytes = limited.map_err(failed)?;
            match buffer.strip_suffix(b"\n") {
                Some(line) => self.accept(line)?,
                None if bytes as u64 == LINE_BYTES_MAX => {
                    return Err(damaged(self.head.entries + 1, "it is longer than 65,536 bytes"));
                }
                None => {
                    self.torn_bytes = bytes;
                    return Ok(());
                }
            }
        }
    }

    /// Reads the log from a KMS up to the head that it signs now.
    async fn ask(&mut self, kms: &Service<'_>) -> Outcome<SignedHead> {
        let signed: SignedHead = kms.get("v1/log/head").await?.ready("the KMS")?;
        if !signed.is_signed() {
            return Err(Failure::refused(
                "the KMS's log head is not signed by the root that it names",
                "ask the KMS operator",
            ));
        }
        while self.head.entries < signed.head.entries {
            let path = format!("v1/log?from={}", self.head.entries);
            let page: Page = kms.get(&path).await?.ready("the KMS")?;
            let before = self.head.entries;
            for line in page.entries {
                if self.head.entries < signed.head.entries {
                    let bytes = cohort_protocol::json::canonical(&line)
                        .map_err(|_| damaged(self.head.entries + 1, "it has no canonical form"))?;
                    self.accept(&bytes)?;
                }
            }
            if self.head.entries == before {
                return Err(damaged(before + 1, "the KMS does not show it"));
            }
        }
        if self.head == signed.head {
            return Ok(signed);
        }
        Err(damaged(self.head.entries, "the log ends otherwise than the head that the KMS signed"))
    }

    /// What was kept must be a beginning of this log.
    fn check_known(&self) -> Outcome {
        match self.known {
            Some(known) if !self.known_is_met => Err(Failure::refused(
                format!(
                    "the release log was rewritten: at {} entries it does not end in {} any more",
                    known.entries, known.hash
                ),
                "keep both, and show them to the owners: the KMS operator removed or changed entries",
            )),
            _ => Ok(()),
        }
    }
}

/// One run, by chain and log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RunLine {
    run_id: RunId,
    /// Block in which it was opened; absent: it is not on chain.
    opened: Option<u64>,
    /// First entry of the log that released its keys.
    released: Option<u64>,
    /// Block with its receipt.
    receipt: Option<u64>,
}

impl RunLine {
    fn of(run_id: RunId) -> Self {
        Self { run_id, opened: None, released: None, receipt: None }
    }
}

/// Matches releases and runs of `app` one to one.
fn compare(entries: &[Entry], events: &[ChainEntry], app: Address) -> (Vec<RunLine>, Vec<Finding>) {
    let mut runs: BTreeMap<RunId, RunLine> = BTreeMap::new();
    let mut keys: BTreeMap<RunId, &Entry> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut find = |severity, code, text: String, block| {
        findings.push(Finding { severity, code, text, block });
    };
    for entry in entries {
        if entry.record.app != app || entry.record.outcome != Decided::Released {
            continue;
        }
        let run = entry.record.run_id;
        let first = *keys.entry(run).or_insert(entry);
        if first.record.receipt_key != entry.record.receipt_key {
            let text = format!("entry {}: the keys of run {run} went to a second agent", entry.index);
            find(Severity::Violation, "released_twice", text, None);
        }
        let line = runs.entry(run).or_insert_with(|| RunLine::of(run));
        line.released = line.released.or(Some(entry.index));
    }
    for event in events {
        match &event.event {
            IDstackAppEvents::RunOpened(opened) => {
                let run = RunId(opened.runId);
                runs.entry(run).or_insert_with(|| RunLine::of(run)).opened = Some(event.block);
            }
            IDstackAppEvents::ReceiptPosted(posted) => {
                let run = RunId(posted.runId);
                runs.entry(run).or_insert_with(|| RunLine::of(run)).receipt = Some(event.block);
                let Some(release) = keys.get(&run) else { continue };
                if release.record.receipt_key != posted.agent {
                    let text = format!(
                        "run {run} has a receipt of {}, its keys went to {} (entry {})",
                        posted.agent, release.record.receipt_key, release.index
                    );
                    find(Severity::Violation, "receipt_of_another", text, Some(event.block));
                }
            }
            _ => (),
        }
    }
    for line in runs.values() {
        let run = line.run_id;
        match (line.opened, line.released, line.receipt) {
            (None, Some(index), _) => find(
                Severity::Violation,
                "release_without_run",
                format!("entry {index} releases the keys of run {run}, which the chain does not know"),
                None,
            ),
            (_, None, Some(block)) => find(
                Severity::Violation,
                "release_missing",
                format!(
                    "run {run} has a receipt and no release in this log: an entry is missing, or another KMS released"
                ),
                Some(block),
            ),
            (Some(block), None, None) => find(
                Severity::Notice,
                "no_keys_released",
                format!("run {run} was opened and got no keys"),
                Some(block),
            ),
            (_, Some(index), None) => find(
                Severity::Notice,
                "no_receipt",
                format!("run {run} got its keys (entry {index}) and has no receipt"),
                line.opened,
            ),
            _ => (),
        }
    }
    (runs.into_values().collect(), findings)
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
    fn new(log: &Log, app: Option<Address>, runs: Vec<RunLine>, findings: Vec<Finding>) -> Self {
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
        let text = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        for run in &self.runs {
            println!(
                "  {}  {:>9}  {:>6}  {:>9}",
                run.run_id,
                text(run.opened),
                text(run.released),
                text(run.receipt)
            );
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
