//! Stand-in for dstack's guest agent on a development machine.
//!
//! It serves the real agent's socket API to one app, with quotes and keys of the development
//! platform. The app cannot tell the difference; a verifier can, by the root.

mod api;
mod socket;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use cohort_attestation::AppId;
use cohort_attestation::dev::{DevGpus, DevGuest, DevPlatform};
use cohort_attestation::evidence::MAX_APP_COMPOSE_BYTES;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How often the collateral file is written again, well within the collateral's 30 days.
const COLLATERAL_REFRESH: Duration = Duration::from_secs(24 * 3600);

/// Serve dstack's guest-agent API for one app on the development platform (NOT INTEL, no hardware).
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Unix socket to listen on.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// App id: the 20-byte address of the app's contract.
    #[arg(long, value_name = "0xHEX", value_parser = parse_app_id)]
    app_id: AppId,
    /// The app-compose.json that the guest runs; its exact bytes are measured.
    #[arg(long, value_name = "FILE")]
    app_compose: PathBuf,
    /// Seed of the development platform: 64 hex digits in a file that only its owner can read.
    #[arg(long, value_name = "FILE")]
    seed_file: PathBuf,
    /// Name of this instance; another name is another virtual machine.
    #[arg(long, value_name = "NAME", default_value = "guest")]
    instance_name: String,
    /// Write the platform's collateral (JSON) here, now and once a day.
    #[arg(long, value_name = "OUT")]
    collateral_file: Option<PathBuf>,
    /// Write the platform's root certificate (PEM) here.
    #[arg(long, value_name = "OUT")]
    root_file: Option<PathBuf>,
    /// Number of development GPUs in the machine.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16))]
    gpus: u32,
    /// Write what verifiers of development GPUs need into this folder: `gpu-root.pem`, `rim-root.pem`, `driver.swidtag`,
    /// `vbios.swidtag`.
    #[arg(long, value_name = "FOLDER")]
    gpu_folder: Option<PathBuf>,
    /// Exit when standard input ends, so that the service does not outlive its parent.
    #[arg(long)]
    exit_with_stdin: bool,
}

fn parse_app_id(text: &str) -> Result<AppId, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let bytes = hex::decode(digits).map_err(|error| error.to_string())?;
    AppId::from_slice(&bytes).ok_or_else(|| format!("has {} bytes, not 20", bytes.len()))
}

#[tokio::main]
async fn main() {
    if let Err(error) = run(Args::parse()).await {
        eprintln!("dev-guest-agent: error: {error:#}");
        std::process::exit(1);
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let platform = DevPlatform::from_seed(read_seed(&args.seed_file)?)?;
    let app_compose = read_app_compose(&args.app_compose)?;
    let instance_seed = platform.instance_seed(&args.instance_name);
    let guest = DevGuest::with_gpus(platform.clone(), args.app_id, &app_compose, &instance_seed, args.gpus)?;
    let router = api::router(&guest).context("cannot prepare the guest")?;
    if let Some(path) = &args.root_file {
        write_file(path, platform.root_certificate_pem()?.as_bytes())?;
    }
    if let Some(folder) = &args.gpu_folder {
        write_gpu_files(&DevGpus::of_platform(&platform, args.gpus)?, folder)?;
    }
    if let Some(path) = &args.collateral_file {
        write_collateral(&platform, path)?;
        tokio::spawn(refresh_collateral(platform, path.clone()));
    }
    let socket = socket::Socket::bind(&args.socket)?;
    let stop = stop(args.exit_with_stdin)?;
    eprintln!("dev-guest-agent: listening on {}", args.socket.display());
    let listener = socket.listener()?;
    tokio::select! {
        served = axum::serve(listener, router) => served.context("cannot serve the socket"),
        () = stop => Ok(()),
    }
}

fn read_seed(path: &Path) -> anyhow::Result<[u8; 32]> {
    let context = || format!("cannot read the seed file {}", path.display());
    let mode = fs::metadata(path).with_context(context)?.permissions().mode();
    ensure!(mode & 0o077 == 0, "others can read the seed file {0}: run chmod 600 {0}", path.display());
    let text = fs::read_to_string(path).with_context(context)?;
    let mut seed = [0u8; 32];
    hex::decode_to_slice(text.trim(), &mut seed)
        .map_err(|_| anyhow::anyhow!("the seed file {} is not 64 hex digits", path.display()))?;
    Ok(seed)
}

fn read_app_compose(path: &Path) -> anyhow::Result<String> {
    let context = || format!("cannot read the app-compose file {}", path.display());
    let bytes = fs::metadata(path).with_context(context)?.len();
    if bytes > MAX_APP_COMPOSE_BYTES as u64 {
        bail!("{} has {bytes} bytes, more than {MAX_APP_COMPOSE_BYTES}", path.display());
    }
    fs::read_to_string(path).with_context(context)
}

fn write_collateral(platform: &DevPlatform, path: &Path) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let collateral = platform.collateral(now.as_secs())?;
    write_file(path, &serde_json::to_vec_pretty(&collateral)?)
}

fn write_gpu_files(gpus: &DevGpus, folder: &Path) -> anyhow::Result<()> {
    let [driver, vbios] = gpus.manifests()?;
    write_file(&folder.join("gpu-root.pem"), gpus.root_certificate_pem()?.as_bytes())?;
    write_file(&folder.join("rim-root.pem"), gpus.rim_root_certificate_pem()?.as_bytes())?;
    write_file(&folder.join("driver.swidtag"), driver.as_bytes())?;
    write_file(&folder.join("vbios.swidtag"), vbios.as_bytes())
}

async fn refresh_collateral(platform: DevPlatform, path: PathBuf) {
    loop {
        tokio::time::sleep(COLLATERAL_REFRESH).await;
        if let Err(error) = write_collateral(&platform, &path) {
            eprintln!("dev-guest-agent: {error:#}");
        }
    }
}

/// Writes beside the file and renames, so that a reader never sees half of it.
fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Completes on SIGINT, SIGTERM, or the end of standard input if that is asked for.
fn stop(with_stdin: bool) -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let (sender, mut ended) = oneshot::channel();
    if with_stdin {
        // A thread of its own: the runtime would wait for a blocked read when it shuts down.
        std::thread::spawn(move || {
            let mut sink = [0u8; 256];
            while std::io::stdin().read(&mut sink).is_ok_and(|read| read > 0) {}
            let _ = sender.send(());
        });
    }
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = &mut ended, if with_stdin => {}
        }
    })
}
