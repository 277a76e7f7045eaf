//! `cohort-agent`: runs inside the confidential VM.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use alloy::signers::local::PrivateKeySigner;
use anyhow::Context;
use clap::Parser;
use cohort_agent::{
    api,
    chain::Chain,
    compute::Sandbox,
    fetch::{Access, Sources},
    kms::Kms,
    run::{Agent, Setup},
};
use cohort_attestation::Collateral;
use cohort_guest::GuestAgent;
use tracing::info;
#[cfg(feature = "dev")]
use tracing::warn;

/// Computes the approved recipe on sealed data and lets out only its guarded aggregate.
#[derive(Parser)]
#[command(name = "cohort-agent", version)]
struct Args {
    /// dstack's guest agent socket.
    #[arg(long, env = "COHORT_GUEST_AGENT", default_value = cohort_guest::SOCKET)]
    guest_agent: PathBuf,
    /// dstack's simulator in place of the socket, as its SDKs name it: http://HOST:PORT or the path of a socket.
    #[cfg(feature = "dev")]
    #[arg(long, env = "DSTACK_SIMULATOR_ENDPOINT")]
    insecure_dev_simulator: Option<String>,
    /// Ethereum JSON-RPC endpoint; repeat for more: a result is revealed only when all show its receipt.
    #[arg(long = "rpc-url", env = "COHORT_RPC_URL", value_delimiter = ',', required = true)]
    rpc_urls: Vec<reqwest::Url>,
    /// The KMS.
    #[arg(long, env = "COHORT_KMS_URL")]
    kms_url: reqwest::Url,
    /// Folder with the sealed datasets (ciphertext).
    #[arg(long, env = "COHORT_SEALED")]
    sealed: PathBuf,
    /// Where else sealed datasets lie, as folders: file:///..., read in place; https://... and s3://BUCKET/..., asked for
    /// OWNER.tar when no folder here has a dataset of that owner. Repeat for more.
    #[arg(long = "sealed-url", env = "COHORT_SEALED_URLS", value_delimiter = ',')]
    sealed_urls: Vec<reqwest::Url>,
    /// Folder for fetched ciphertext.
    #[arg(long, env = "COHORT_FETCHED", default_value = "/tmp/cohort-fetched")]
    fetched: PathBuf,
    /// Folder for signed results, sealed, until their receipt is confirmed; without it a crash loses them.
    #[arg(long, env = "COHORT_STATE")]
    state: Option<PathBuf>,
    /// TDX collateral of this machine, as JSON (dcap-qvl's QuoteCollateralV3). Without it the KMS is asked for some before
    /// each request, so that it is always valid.
    #[arg(long, env = "COHORT_COLLATERAL_FILE")]
    collateral_file: Option<PathBuf>,
    /// Python interpreter with the package `cohort-sdk`, for Python recipes.
    #[arg(long, env = "COHORT_PYTHON", default_value = "/opt/cohort/python/bin/python3")]
    python: PathBuf,
    /// Folder with scripts that recipes name by SHA-256.
    #[arg(long, env = "COHORT_SCRIPTS", default_value = "/opt/cohort/scripts")]
    scripts: PathBuf,
    /// Run scripts with limits but unconfined; for a development machine whose kernel has no Landlock.
    #[cfg(feature = "dev")]
    #[arg(long)]
    insecure_dev_unconfined_scripts: bool,
    /// End as `kill -9` does when a run gets to this step.
    #[cfg(feature = "dev")]
    #[arg(long)]
    insecure_dev_kill_at: Option<String>,
    /// Blocks that openings and receipts must have on top before they count.
    #[arg(long, env = "COHORT_CONFIRMATIONS", default_value_t = 2)]
    confirmations: u64,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, env = "COHORT_AGENT_LISTEN", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Holds opened data this long before computing on it, as a long computation would.
    #[cfg(feature = "dev")]
    #[arg(long, env = "COHORT_INSECURE_DEV_SLOW_SECONDS", default_value_t = 0)]
    insecure_dev_slow_seconds: u64,
    /// Stop when standard input ends.
    #[arg(long)]
    exit_with_stdin: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // A panic's message may hold a value from a row (R15): only its place is printed.
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => eprintln!("panic at {}:{}", place.file(), place.line()),
        None => eprintln!("panic"),
    }));
    // No core dump, and no other process of this account reads this one's memory.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context("cannot make this process undumpable")?;
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("COHORT_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    #[cfg(feature = "dev")]
    if let Some(step) = args.insecure_dev_kill_at.clone() {
        cohort_agent::run::insecure_dev_kill_at(step);
    }
    let mut agent = start(&args).await?;
    if let Some(folder) = &args.state {
        agent = agent.keep_in(folder).await?;
    }
    let agent = Arc::new(agent);
    agent.resume();
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}; give another --listen", args.listen))?;
    println!("listening http://{}", listener.local_addr()?);
    info!(target: "cohort::agent", app = %agent.chain().app(), compose = %agent.compose_hash(), gas = %agent.chain().gas_account(), "ready");
    axum::serve(listener, api::router(agent)).with_graceful_shutdown(stop(args.exit_with_stdin)).await?;
    Ok(())
}

async fn start(args: &Args) -> anyhow::Result<Agent> {
    let guest = guest(args);
    let identity = guest.identity().await?;
    let gas = guest.key("cohort/gas", "gas").await?;
    let gas =
        PrivateKeySigner::from_slice(gas.expose_secret()).context("the guest agent's gas key is no key")?;
    let chain = Chain::connect(&args.rpc_urls, identity.app, gas, args.confirmations).await?;
    let collateral = args.collateral_file.as_deref().map(collateral).transpose()?;
    let mut sandbox = Sandbox::new(args.python.clone());
    sandbox.scripts.clone_from(&args.scripts);
    #[cfg(feature = "dev")]
    if args.insecure_dev_unconfined_scripts {
        warn!(target: "cohort::agent", "scripts run unconfined: rows can leave");
        sandbox.insecure_dev_unconfined = true;
    }
    Ok(Agent::new(Setup {
        chain,
        kms: Kms::new(args.kms_url.clone())?,
        guest,
        app_compose: identity.app_compose,
        sealed: Sources::new(
            args.sealed.clone(),
            args.sealed_urls.clone(),
            args.fetched.clone(),
            &Access::of(|name| std::env::var(name).ok()),
        )?,
        sandbox,
        collateral,
        #[cfg(feature = "dev")]
        insecure_dev_slow: std::time::Duration::from_secs(args.insecure_dev_slow_seconds),
    })?)
}

fn collateral(path: &Path) -> anyhow::Result<Collateral> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not collateral JSON (QuoteCollateralV3)", path.display()))
}

fn guest(args: &Args) -> GuestAgent {
    #[cfg(feature = "dev")]
    if let Some(endpoint) = &args.insecure_dev_simulator {
        warn!(target: "cohort::agent", endpoint, "a simulator stands for the guest agent: no key of it is a secret");
        return GuestAgent::insecure_dev_simulator(endpoint);
    }
    GuestAgent::new(&args.guest_agent)
}

/// Ctrl-C, SIGTERM, or the end of standard input where that was asked for.
async fn stop(with_stdin: bool) {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    let (ended, stdin_end) = tokio::sync::oneshot::channel::<()>();
    if with_stdin {
        // A thread of its own: the runtime would wait for a blocking task of its pool at shutdown.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = ended.send(());
        });
    } else {
        std::mem::forget(ended);
    }
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
        _ = stdin_end => {}
    }
}
