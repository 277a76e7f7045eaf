//! `make bench-indexer`: backfill beside Ponder and beside merely downloading and decoding, in the same run; memory; delay
//! behind the chain's head; a reorganisation; reads. Each claim ends with `bench NAME ratio=X target=>=Y ok` or `MISS`.
//!
//! `BENCH_SCALE=0.05` runs it with a twentieth of the 8,000 blocks; start-up then weighs more than it should. Needs what
//! `make test` needs, PostgreSQL for Ponder, and npm's registry. Explained in `docs/benchmarks.md`.

use std::{process::ExitCode, time::Instant};

use anyhow::Context as _;

#[path = "../../tests/indexer/anvil.rs"]
mod anvil;
mod download;
mod live;
mod load;
mod ponder;
mod postgres;
mod reads;
mod service;

use self::{load::Loaded, service::Service};

/// Blocks of 100 logs at full scale.
const BLOCKS: f64 = 8_000.0;
/// Backfills of each kind; the best counts, since other programs only ever make one slower.
const ROUNDS: usize = 2;

/// What a measured value must be.
enum Target {
    Floor(f64),
    Ceiling(f64),
}

fn verdict(name: &str, value: f64, target: &Target) -> bool {
    let (sign, bound, met) = match target {
        Target::Floor(bound) => (">=", bound, value >= *bound),
        Target::Ceiling(bound) => ("<=", bound, value <= *bound),
    };
    println!("bench {name} ratio={value:.3} target={sign}{bound} {}", if met { "ok" } else { "MISS" });
    met
}

/// The value below which a share of the samples is.
fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let place = (samples.len() as f64 * share).ceil() as usize;
    samples[place.clamp(1, samples.len()) - 1]
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        // A target that is missed is a result, not a failure of the benchmark.
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-indexer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let scale: f64 = match std::env::var("BENCH_SCALE") {
        Ok(text) => text.parse().context("BENCH_SCALE must be a number, e.g. 0.05")?,
        Err(_) => 1.0,
    };
    let blocks = ((BLOCKS * scale) as u64).max(300);
    let server = postgres::Server::start().context("PostgreSQL is needed, for Ponder")?;
    let peer = ponder::Ponder::install()?;

    println!("making {blocks} blocks with {} logs each", load::LOGS_OF_A_BLOCK);
    let begun = Instant::now();
    let loaded = Loaded::make(blocks).await?;
    println!("made in {:.1} s", begun.elapsed().as_secs_f64());

    let service = backfill(&loaded, &server, &peer).await?;
    reads::measure(&loaded, &service, scale).await?;
    drop((service, loaded, server));
    live::measure(scale).await
}

/// Backfills by turns. Gives the last of ours, which goes on serving.
async fn backfill(
    loaded: &Loaded,
    server: &postgres::Server,
    peer: &ponder::Ponder,
) -> anyhow::Result<Service> {
    let rate = |seconds: f64| loaded.logs as f64 / seconds;
    let told = |what: &str, seconds: f64| {
        println!("{what}: {seconds:.2} s, {:.0} logs/s", rate(seconds));
    };
    // By one reader and by two.
    let mut downloads = [f64::MAX; 2];
    let (mut ours, mut growth) = (f64::MAX, f64::MAX);
    let mut last = None;
    for _ in 0..ROUNDS {
        for (best, at_once) in downloads.iter_mut().zip(1..) {
            let seconds = download::seconds(loaded, at_once).await?;
            told(&format!("download and decode, {at_once} requests at once"), seconds);
            *best = best.min(seconds);
        }
        drop(last.take());
        let mut service = Service::start(loaded, None).await?;
        let filled = service.backfilled(loaded).await?;
        told("cohort-indexer, SQLite", filled.seconds);
        println!(
            "  {:.2} CPU s, peak {:.0} MB, {:.0} MB on disk",
            filled.cpu,
            filled.peak_mb,
            service.disk_mb()
        );
        (ours, growth) = (ours.min(filled.seconds), growth.min(filled.growth));
        last = Some(service);
    }
    let mut replica = Service::start(loaded, Some(server.url())).await?;
    let on_server = replica.backfilled(loaded).await?;
    told("cohort-indexer, PostgreSQL", on_server.seconds);
    drop(replica);
    let theirs = peer.seconds(loaded, server).await?;
    told("Ponder 1.0.0, PostgreSQL", theirs);

    verdict("backfill-vs-ponder", theirs / ours, &Target::Floor(5.0));
    verdict("backfill-postgres-vs-ponder", theirs / on_server.seconds, &Target::Floor(5.0));
    let [one, two] = downloads;
    verdict("backfill-vs-download", ours / one, &Target::Ceiling(1.3));
    println!("beside two requests at once, which take all of two cores: {:.2}", ours / two);
    verdict("backfill-memory-growth", growth, &Target::Ceiling(1.25));
    last.context("no round")
}
