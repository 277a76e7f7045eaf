//! The KMS under load: its own process, a real indexer, the contracts on anvil. Releases per core second beside the bare
//! `verify_with_policy` of dcap-qvl in the same run, p99, memory under a million challenges, and a flood of garbage quotes.
//!
//! `make bench-kms`. One line a target, with `ok` or `MISS`. Rates are per second of CPU that the KMS's process (or, for
//! the bare verification, the thread) used, so that anvil, indexer and the load itself do not count.
//! COHORT_BENCH_SECONDS (10) is how long each load lasts, COHORT_BENCH_CHALLENGES (1000000) how many are asked for.

mod load;
mod parts;
mod process;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use cohort_protocol::hpke::{KeyPair, SecretBytes};

use load::{Load, Measured};
use process::{Service, programs};
use support::consortium::Consortium;

/// Releases in work at once.
const AT_ONCE: usize = 48;
/// Least part of the bare verification's rate.
const RATE_TARGET: f64 = 0.70;
/// Least part of the memory after the challenges that was there before.
const MEMORY_TARGET: f64 = 0.90;
/// How many of the genuine requests get their keys under the flood.
const FLOOD_TARGET: f64 = 1.0;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn report(name: &str, ratio: f64, target: f64) {
    let verdict = if ratio >= target { "ok" } else { "MISS" };
    println!("bench {name} ratio={ratio:.2} target=>={target:.2} {verdict}");
}

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(consortium) = Consortium::deploy().await else { return };
    let agent = KeyPair::derive(&SecretBytes::new([9; 32]));
    let prepared = load::prepare(&consortium).await;
    let dir = tempfile::tempdir().expect("a folder");
    let Some(programs) = programs() else { return };
    let indexer = Service::indexer(&programs, &consortium, dir.path());
    let kms = Service::kms(&programs, &consortium, &indexer, dir.path());
    let load = Load::new(kms.url.clone(), consortium, agent, prepared);
    load.wait_until_allowed().await;
    let time = Duration::from_secs(setting("COHORT_BENCH_SECONDS", 10));

    let before = parts::bare_verification(&load, time / 4);
    load.releases(AT_ONCE, time / 5).await; // connections, caches
    let releases = measured("releases", &kms, load.releases(AT_ONCE, time)).await;
    let renewals = measured("lease renewals", &kms, load.renewals(AT_ONCE, time / 2)).await;
    let bare = before.min(parts::bare_verification(&load, time / 4));
    println!("bare verify_with_policy: {:.0} us of CPU, {:.0} per core second", bare * 1e6, 1.0 / bare);
    parts::breakdown(&load, &dir.path().join("release.log"), bare, releases.cpu_each, renewals.cpu_each);

    let growth = challenges(&load, &kms).await;
    let flooded = load.under_flood(time).await;
    println!(
        "flood: {} garbage quotes refused, {} of {} genuine requests released, p99 {:.0?} (without: {:.0?})",
        flooded.refused, flooded.genuine.done, flooded.asked, flooded.genuine.p99, releases.p99
    );
    println!("flood codes: {:?}", flooded.codes);
    report("release-rate", bare / releases.cpu_each, RATE_TARGET);
    report("challenge-memory", growth, MEMORY_TARGET);
    report("flood", flooded.genuine.done as f64 / flooded.asked.max(1) as f64, FLOOD_TARGET);
}

struct Cost {
    cpu_each: f64,
    p99: Duration,
}

/// What a load costs the KMS.
async fn measured(name: &str, kms: &Service, load: impl Future<Output = Measured>) -> Cost {
    let (cpu, started) = (kms.cpu_seconds(), Instant::now());
    let Measured { done, p50, p99 } = load.await;
    let (cpu, wall) = (kms.cpu_seconds() - cpu, started.elapsed().as_secs_f64());
    let cpu_each = cpu / done.max(1) as f64;
    println!(
        "{name}: {done} in {wall:.1} s, {:.0} a second, {:.0} per core second ({:.0} us of CPU each), p50 {p50:.1?}, p99 {p99:.1?}",
        done as f64 / wall,
        1.0 / cpu_each,
        cpu_each * 1e6
    );
    Cost { cpu_each, p99 }
}

/// Memory before by memory after.
async fn challenges(load: &Load, kms: &Service) -> f64 {
    let count = setting("COHORT_BENCH_CHALLENGES", 1_000_000);
    load.challenges(count / 50).await;
    let before = kms.resident_kib();
    load.challenges(count).await;
    let after = kms.resident_kib();
    println!("memory: {before} KiB before, {after} KiB after {count} challenges");
    before as f64 / after.max(1) as f64
}
