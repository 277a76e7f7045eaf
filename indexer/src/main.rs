//! `cohort-indexer`: follows a chain and serves the mirror, or dumps it.

use std::{io::Write as _, net::SocketAddr, process::ExitCode, time::Duration};

use alloy::primitives::Address;
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use cohort_indexer::{
    Config, Indexer,
    config::{DEFAULT_CONFIRMATIONS, DEFAULT_MAX_LAG, DEFAULT_POLL, MAX_CONFIRMATIONS},
    dump::dump,
    store::{Database, Store},
};
use tokio::signal::unix::{SignalKind, signal};

/// Follows one chain, mirrors a DstackKms and all DstackApps registered in it into SQLite, and answers HTTP.
///
/// Prints `listening http://ADDRESS:PORT` as its first line on stdout; logs go to stderr (RUST_LOG sets what).
#[derive(Parser)]
#[command(version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    follow: FollowArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Prints all state of a database as canonical JSON lines: the same chain gives the same bytes.
    Dump {
        /// SQLite file of an indexer, or postgres:// URL [default: DATABASE_URL]
        #[arg(long, value_name = "PATH|URL", env = "COHORT_INDEXER_DATABASE", hide_env_values = true)]
        database: Option<Database>,
    },
}

#[derive(Args)]
struct FollowArgs {
    /// JSON-RPC endpoint over HTTP; repeat (or separate by commas) for fallbacks
    #[arg(long = "rpc-url", value_name = "URL", env = "COHORT_RPC_URL", required = true, value_delimiter = ',', value_parser = rpc_url, hide_env_values = true)]
    rpc_urls: Vec<reqwest::Url>,
    /// WebSocket endpoint that announces new heads, so that they need not wait for the next poll; repeat for fallbacks
    #[arg(long = "ws-url", value_name = "URL", env = "COHORT_WS_URL", value_delimiter = ',', value_parser = ws_url, hide_env_values = true)]
    ws_urls: Vec<reqwest::Url>,
    /// Chain that the endpoints must be of [default: the one they are of; fixed in the database from then on]
    #[arg(long, value_name = "ID", env = "COHORT_CHAIN_ID")]
    chain_id: Option<u64>,
    /// Address of the DstackKms
    #[arg(long, value_name = "ADDRESS", env = "COHORT_REGISTRY", required = true, value_parser = registry)]
    registry: Option<Address>,
    /// SQLite file, created if missing; or postgres:// URL, which belongs into the variable if it has a password
    /// [default: DATABASE_URL]
    #[arg(long, value_name = "PATH|URL", env = "COHORT_INDEXER_DATABASE", hide_env_values = true)]
    database: Option<Database>,
    /// Address to serve on; port 0 is any free one
    #[arg(long, value_name = "HOST:PORT", env = "COHORT_INDEXER_LISTEN", default_value = "127.0.0.1:8710", value_parser = listen)]
    listen: SocketAddr,
    /// Further origin that the console's pages may connect to, e.g. of an RPC endpoint; repeat or separate by commas
    #[arg(long, value_name = "ORIGIN", env = "COHORT_CONSOLE_CONNECT", value_delimiter = ',', value_parser = origin)]
    console_connect: Vec<String>,
    /// Origin whose pages may read the answers, `*` for any; repeat or separate by commas [default: none but its own]
    #[arg(long, value_name = "ORIGIN", env = "COHORT_ALLOW_ORIGIN", value_delimiter = ',', value_parser = any_origin)]
    allow_origin: Vec<String>,
    /// Blocks between the head and the confirmed position
    #[arg(long, value_name = "BLOCKS", env = "COHORT_CONFIRMATIONS", default_value_t = DEFAULT_CONFIRMATIONS, value_parser = clap::value_parser!(u64).range(..=MAX_CONFIRMATIONS))]
    confirmations: u64,
    /// No contract of interest was created below this block
    #[arg(long, value_name = "BLOCK", env = "COHORT_FROM_BLOCK", default_value_t = 0)]
    from_block: u64,
    /// Milliseconds between two looks at the chain's head
    #[arg(long, value_name = "MS", env = "COHORT_INDEXER_POLL_MS", default_value_t = DEFAULT_POLL.as_millis() as u64, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    poll_ms: u64,
    /// Seconds that the mirror may be behind the chain and still answer release decisions
    #[arg(long, value_name = "SECONDS", env = "COHORT_INDEXER_MAX_LAG", default_value_t = DEFAULT_MAX_LAG.as_secs(), value_parser = clap::value_parser!(u64).range(1..=3_600))]
    max_lag: u64,
    /// Believe what endpoints tell of blocks and logs without proof: for chains that do not encode headers and receipts
    /// as Ethereum does
    #[arg(long, env = "COHORT_INDEXER_INSECURE_UNPROVED")]
    insecure_unproved: bool,
    /// End when stdin is closed, so that nothing outlives the program that started this one
    #[arg(long, env = "COHORT_EXIT_WITH_STDIN")]
    exit_with_stdin: bool,
}

impl FollowArgs {
    fn config(self) -> anyhow::Result<Config> {
        Ok(Config {
            rpc_urls: self.rpc_urls,
            ws_urls: self.ws_urls,
            chain_id: self.chain_id,
            registry: self.registry.context("--registry is missing")?,
            database: database(self.database)?,
            listen: self.listen,
            console_connect: self.console_connect,
            allow_origins: self.allow_origin,
            confirmations: self.confirmations,
            from_block: self.from_block,
            poll: Duration::from_millis(self.poll_ms),
            max_lag: Duration::from_secs(self.max_lag),
            insecure_unproved: self.insecure_unproved,
        })
    }
}

fn database(given: Option<Database>) -> anyhow::Result<Database> {
    let url = || std::env::var("DATABASE_URL").ok().and_then(|url| url.parse().ok());
    given.or_else(url).context("--database is missing: give a path, or set DATABASE_URL")
}

fn rpc_url(text: &str) -> Result<reqwest::Url, String> {
    let url: reqwest::Url = text.parse().map_err(|_| "not a URL; e.g. http://127.0.0.1:8545".to_owned())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must start with http:// or https://".to_owned());
    }
    Ok(url)
}

fn ws_url(text: &str) -> Result<reqwest::Url, String> {
    let url: Option<reqwest::Url> = text.parse().ok();
    let url = url.filter(|url| matches!(url.scheme(), "ws" | "wss"));
    url.ok_or_else(|| "must start with ws:// or wss://".to_owned())
}

/// An origin as a content security policy names it: nothing else may get into that header.
fn origin(text: &str) -> Result<String, String> {
    let url: Option<reqwest::Url> = text.parse().ok();
    let origin = url.map(|url| url.origin().ascii_serialization()).filter(|origin| origin != "null");
    origin.ok_or_else(|| "must be an origin; e.g. https://rpc.example.org".to_owned())
}

fn any_origin(text: &str) -> Result<String, String> {
    if text == "*" { Ok(text.to_owned()) } else { origin(text) }
}

fn registry(text: &str) -> Result<Address, String> {
    let address = text.parse().ok().filter(|_| text.starts_with("0x"));
    address.ok_or_else(|| "must be the DstackKms address: 0x and 40 hex digits".to_owned())
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be IP:PORT; e.g. 127.0.0.1:8710".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    // A bad value ends here with exit code 2 and a message that names the flag.
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = match cli.command {
        Some(Command::Dump { database }) => print_dump(database).await,
        None => follow(cli.follow).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn print_dump(given: Option<Database>) -> anyhow::Result<()> {
    let database = database(given)?;
    let named = || format!("--database {database}");
    let store = Store::open_existing(&database).await.with_context(named)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    dump(&store, &mut out).await.with_context(named)?;
    out.flush().context("stdout")
}

async fn follow(args: FollowArgs) -> anyhow::Result<()> {
    let exit_with_stdin = args.exit_with_stdin;
    let indexer = Indexer::bind(&args.config()?).await?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM handler")?;
    println!("listening http://{}", indexer.address());
    indexer
        .run(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
                () = stdin_closed(), if exit_with_stdin => {}
            }
        })
        .await?;
    Ok(())
}

/// Resolves at the end of stdin. Read on its own thread: tokio's stdin would keep the runtime from ending.
async fn stdin_closed() {
    let (closed, wait) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let copied = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop((copied, closed));
    });
    // The sender only ever goes away.
    wait.await.unwrap_or(());
}
