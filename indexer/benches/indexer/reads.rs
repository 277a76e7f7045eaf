//! Release decisions from a full mirror, over kept-alive connections.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{Target, load::Loaded, quantile, service::Service, verdict};

/// Connections that each ask the next question when they have an answer.
const CONNECTIONS: u64 = 4;

pub(crate) async fn measure(loaded: &Loaded, service: &Service, scale: f64) -> anyhow::Result<()> {
    let time = Duration::from_secs_f64((10.0 * scale).max(2.0));
    let questions: Arc<Vec<String>> = Arc::new(
        (0..loaded.recipes).map(|place| format!("{}{}", service.url(), loaded.question(place))).collect(),
    );
    let (cpu, begun) = (service.cpu_seconds()?, Instant::now());
    let clients: Vec<_> =
        (0..CONNECTIONS).map(|client| tokio::spawn(ask(questions.clone(), client, time))).collect();
    let mut delays = Vec::new();
    for client in clients {
        delays.extend(client.await??);
    }
    let (cpu, seconds, reads) =
        (service.cpu_seconds()? - cpu, begun.elapsed().as_secs_f64(), delays.len() as f64);
    let p99 = quantile(&mut delays, 0.99) * 1e3;
    println!("{reads} release decisions in {seconds:.1} s, {cpu:.2} CPU s, p99 {p99:.2} ms");
    verdict("reads-per-core-second", reads / cpu, &Target::Floor(2_000.0));
    verdict("reads-p99-ms", p99, &Target::Ceiling(5.0));
    Ok(())
}

async fn ask(questions: Arc<Vec<String>>, client: u64, time: Duration) -> anyhow::Result<Vec<f64>> {
    let http = reqwest::Client::new();
    let (begun, mut delays) = (Instant::now(), Vec::new());
    // Strides that share no factor with the number of questions spread them over the whole file.
    let mut next = client as usize;
    while begun.elapsed() < time {
        next = (next + 7_919) % questions.len();
        let asked = Instant::now();
        let answer = http.get(&questions[next]).send().await?.text().await?;
        delays.push(asked.elapsed().as_secs_f64());
        anyhow::ensure!(answer.contains("\"allow\""), "{answer}");
    }
    Ok(delays)
}
