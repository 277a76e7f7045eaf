//! The program as it is deployed, as a process of its own.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::Value;

use crate::load::{Chain, Loaded};

/// A backfill ends by then, or not at all.
const PATIENCE: Duration = Duration::from_secs(300);
/// Units of `/proc/PID/stat` and bytes of a page, on Linux for x86-64 and ARM.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_MB: f64 = 4096.0 / 1e6;

pub(crate) struct Service {
    child: Child,
    dir: tempfile::TempDir,
    url: String,
    client: reqwest::Client,
    begun: Instant,
}

/// How a backfill went.
pub(crate) struct Backfilled {
    /// From the start of the process.
    pub(crate) seconds: f64,
    pub(crate) cpu: f64,
    pub(crate) peak_mb: f64,
    /// Peak of the second half over peak of the first half.
    pub(crate) growth: f64,
}

impl Service {
    pub(crate) async fn start(loaded: &Loaded, database: Option<String>) -> anyhow::Result<Self> {
        Self::follow(&loaded.chain, database, &[]).await
    }

    pub(crate) async fn follow(
        chain: &Chain,
        database: Option<String>,
        options: &[&str],
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = || dir.path().join("mirror.sqlite").display().to_string();
        let begun = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_cohort-indexer"))
            .args(["--rpc-url", chain.anvil.url.as_str(), "--registry", &chain.registry.to_string()])
            .args(["--listen", "127.0.0.1:0", "--exit-with-stdin"])
            .args(options)
            .env("COHORT_INDEXER_DATABASE", database.unwrap_or_else(file))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        let url = line.trim().strip_prefix("listening ").context("the indexer does not start")?.to_owned();
        Ok(Self { child, dir, url, client: reqwest::Client::new(), begun })
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.client.get(format!("{}{path}", self.url)).send().await?.json().await?)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits until the mirror holds this block, and gives what `/v1/status` says then.
    pub(crate) async fn reaches(&self, done: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let status = self.get("/v1/status").await?;
            if done(&status) {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        anyhow::bail!("the indexer stands still: {}", self.get("/readyz").await?)
    }

    /// Waits for the end of the backfill, looking at memory meanwhile.
    pub(crate) async fn backfilled(&mut self, loaded: &Loaded) -> anyhow::Result<Backfilled> {
        let mut samples = Vec::new();
        loop {
            let ready = self.get("/readyz").await?;
            let head = ready["head"].as_u64().unwrap_or_default();
            samples.push((head, self.memory_mb()?));
            if head >= loaded.tip && ready["ready"] == true {
                break;
            }
            anyhow::ensure!(self.begun.elapsed() < PATIENCE, "the backfill does not end: {ready}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        let peak = |late: bool| {
            let half = samples.iter().filter(|(head, _)| (*head >= loaded.tip / 2) == late);
            half.map(|(_, mb)| *mb).fold(f64::MIN_POSITIVE, f64::max)
        };
        let (early, late) = (peak(false), peak(true));
        Ok(Backfilled { seconds, cpu: self.cpu_seconds()?, peak_mb: early.max(late), growth: late / early })
    }

    fn memory_mb(&self) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages: f64 = text.split(' ').nth(1).context("statm")?.parse()?;
        Ok(pages * PAGE_MB)
    }

    /// User and system time of the process so far.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in parentheses, may hold spaces; 11 and 12 after it are utime and stime.
        let (_, after) = text.rsplit_once(") ").context("stat")?;
        let fields: Vec<&str> = after.split(' ').collect();
        let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok());
        Ok((ticks(11).context("utime")? + ticks(12).context("stime")?) / TICKS_PER_SECOND)
    }

    pub(crate) fn disk_mb(&self) -> f64 {
        let files = std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len() as f64)).sum::<f64>() / 1e6
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        drop(ended);
    }
}
