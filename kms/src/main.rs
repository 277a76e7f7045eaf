//! The key service's program: `cohort-kms serve`, `root new`, `root show`, `log verify`.

use std::{
    io::{Read as _, Write as _},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Parser as _;
use cohort_kms::{
    config::{Cli, Command, LogCommand, RootCommand, RootSource, Serve},
    http,
    limits::Limits,
    release_log,
    roots::{Roots, new_root_file},
    server,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// A release allocates some thousand times: with this less of its time goes there than with the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // No core dump holds keys or rows, and no process of the same user may trace this one.
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        eprintln!("error: cannot forbid core dumps: {error}");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(log_filter()).init();
    let done = match cli.command {
        Command::Serve(options) => serve(*options),
        Command::Root(RootCommand::New { out }) => new_root_file(&out)
            .map(|_| eprintln!("cohort-kms: new root secret in {}", out.display()))
            .map_err(Into::into),
        Command::Root(RootCommand::Show { source, chain_id, registry, epoch }) => {
            show_root(&source, chain_id, registry, epoch)
        }
        Command::Log(LogCommand::Verify { file }) => verify_log(&file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `RUST_LOG`, or this service's own lines.
fn log_filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn,kms=info".into())
}

fn show_root(
    source: &RootSource,
    chain_id: u64,
    registry: alloy::primitives::Address,
    epoch: u32,
) -> anyhow::Result<()> {
    let (secret, _) = runtime()?.block_on(source.secret())?;
    let roots = Roots::derive(&secret, &[epoch])?;
    let keys = roots.epoch(epoch).context("no keys for this epoch")?;
    print(&keys.statement(chain_id, registry)?)
}

fn verify_log(file: &std::path::Path) -> anyhow::Result<()> {
    let (head, torn_bytes) = release_log::verify(file)?;
    if torn_bytes > 0 {
        eprintln!("cohort-kms: the last {torn_bytes} bytes are an unfinished entry; its answer never left");
    }
    print(&head)
}

fn print<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

fn serve(options: Serve) -> anyhow::Result<()> {
    // Only the first call can fail to install it, and this is the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    for (path, maker) in options.insecure_roots() {
        eprintln!(
            "WARNING: INSECURE DEVELOPMENT KMS: trusts {} INSTEAD of {maker}. Whoever holds that platform's seed gets \
             every key. Never use it with real data.",
            path.display()
        );
    }
    if let Some(path) = &options.root.insecure_root_file {
        eprintln!(
            "WARNING: INSECURE KMS: its root secret is in {}. Whoever reads it opens all data. In production the root \
             comes from dstack's guest agent.",
            path.display()
        );
    }
    runtime()?.block_on(run(options))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")
}

async fn run(options: Serve) -> anyhow::Result<()> {
    let (listen, with_stdin) = (options.listen, options.exit_with_stdin);
    let rate = f64::from(options.requests_per_second);
    let log = options.log.clone();
    let (kms, torn_bytes) = options.open().await?;
    let kms = Arc::new(kms);
    if torn_bytes > 0 {
        eprintln!(
            "cohort-kms: cut {torn_bytes} bytes of an unfinished entry off {}: a crash while writing; its answer never left",
            log.display()
        );
    }
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    let end = end_of(with_stdin)?;
    writeln!(std::io::stdout(), "listening http://{address}").context("cannot write to standard output")?;
    // Beside the service: the other replicas of a set may have to learn from each other.
    let recovery = tokio::spawn({
        let kms = kms.clone();
        async move { kms.recover_votes().await }
    });
    server::serve(listener, http::router(kms, Limits::new(Some(rate))), end).await;
    recovery.abort();
    Ok(())
}

/// Completes at Ctrl-C, SIGTERM, or the end of standard input.
fn end_of(with_stdin: bool) -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let (ended, stdin_ended) = tokio::sync::oneshot::channel::<()>();
    if with_stdin {
        // A thread of its own: tokio would wait for its blocking read at the end.
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while matches!(std::io::stdin().read(&mut buffer), Ok(read) if read > 0) {}
            drop(ended);
        });
    }
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
            _ = stdin_ended, if with_stdin => (),
        }
    })
}
