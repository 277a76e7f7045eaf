//! Ponder, from npm, under `target/bench/ponder`: never among this project's own packages.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};

use crate::{anvil::root, load::Loaded, postgres::Server};

/// PostgreSQL's schema that it writes into.
const SCHEMA: &str = "bench";
/// It takes a minute at full scale on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(480);

pub(crate) struct Ponder {
    folder: PathBuf,
}

/// Ended with its children when dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        drop(ended);
    }
}

impl Ponder {
    pub(crate) fn install() -> anyhow::Result<Self> {
        let (from, folder) = (root().join("test/bench/ponder"), root().join("target/bench/ponder"));
        for file in
            ["package.json", "ponder.config.ts", "ponder.schema.ts", "src/index.ts", "src/api/index.ts"]
        {
            let to = folder.join(file);
            std::fs::create_dir_all(to.parent().context("a folder")?)?;
            std::fs::copy(from.join(file), &to).with_context(|| file.to_owned())?;
        }
        let artifact = root().join("target/bench/out/IDstackApp.sol/IDstackApp.json");
        let artifact: serde_json::Value = serde_json::from_slice(&std::fs::read(artifact)?)?;
        std::fs::write(folder.join("abi.json"), artifact["abi"].to_string())?;
        let npm = Command::new("npm")
            .args(["install", "--silent", "--no-fund", "--no-audit", "--ignore-scripts"])
            .current_dir(&folder)
            .status()
            .context("npm")?;
        anyhow::ensure!(npm.success(), "npm install of test/bench/ponder failed");
        Ok(Self { folder })
    }

    /// From the moment that its table exists, when nothing is read yet, until all rows are there.
    pub(crate) async fn seconds(&self, loaded: &Loaded, server: &Server) -> anyhow::Result<f64> {
        // It keeps what it has read beside the schema; the whole database is its own.
        let database = server.url().parse::<PgConnectOptions>()?;
        let mut session = database.connect().await?;
        sqlx::query("create database ponder").execute(&mut session).await?;
        let mut session = database.database("ponder").connect().await?;
        let url = server.url().replace("/postgres?", "/ponder?");
        let log = std::fs::File::create(self.folder.join("ponder.log"))?;
        let mut started = Started(
            Command::new("node")
                .args([
                    "node_modules/ponder/dist/esm/bin/ponder.js",
                    "start",
                    "--schema",
                    SCHEMA,
                    "--port",
                    "0",
                ])
                .current_dir(&self.folder)
                .env("DATABASE_URL", url)
                .env("BENCH_RPC_URL", loaded.chain.anvil.url.as_str())
                .env("BENCH_APP", loaded.chain.app.to_string().to_lowercase())
                .env("PONDER_TELEMETRY_DISABLED", "true")
                .stdout(log.try_clone()?)
                .stderr(log)
                .stdin(Stdio::null())
                .spawn()
                .context("node")?,
        );
        let begun = Instant::now();
        let mut first = None;
        while begun.elapsed() < PATIENCE {
            let rows = sqlx::query_scalar::<_, i64>("select count(*) from bench.event")
                .fetch_one(&mut session)
                .await;
            if let Ok(rows) = rows {
                let first = *first.get_or_insert_with(Instant::now);
                if rows as u64 >= loaded.logs {
                    return Ok(first.elapsed().as_secs_f64());
                }
            }
            if let Some(status) = started.0.try_wait()? {
                anyhow::bail!("Ponder ended, {status}: target/bench/ponder/ponder.log");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::bail!("Ponder does not finish: target/bench/ponder/ponder.log")
    }
}
