//! At the head: how long a block takes from its announcement to the API, and a reorganisation to be healed.

use std::time::{Duration, Instant};

use alloy::primitives::U64;
use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::{Target, load::Chain, quantile, service::Service, verdict};

const DEPTH: u64 = 64;
const REORGANISATIONS: usize = 5;

pub(crate) async fn measure(scale: f64) -> anyhow::Result<()> {
    let chain = Chain::start(&[]).await?;
    // With so slow a poll, only what is announced can be fast.
    let ws_url = chain.anvil.ws_url();
    let service = Service::follow(&chain, None, &["--ws-url", ws_url.as_str(), "--poll-ms", "10000"]).await?;
    service.reaches(|status| status["synced"] == true).await?;
    while service.get("/readyz").await?["heads_by"] != "websocket" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let blocks = ((400.0 * scale) as u64).max(100);
    delays(&chain, &service, blocks).await?;
    reorganisations(&chain, &service, blocks).await
}

async fn delays(chain: &Chain, service: &Service, blocks: u64) -> anyhow::Result<()> {
    let (mut socket, _) = connect_async(chain.anvil.ws_url().as_str()).await?;
    let ask = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"] });
    socket.send(Message::text(ask.to_string())).await?;
    socket.next().await.context("no subscription")??;
    let mut delays = Vec::new();
    for place in 0..blocks {
        let emitted = chain.emit(place);
        let announced = async {
            let text = socket.next().await.context("closed")??.into_text()?;
            let begun = Instant::now();
            let head: Value = serde_json::from_str(&text)?;
            let number: U64 = serde_json::from_value(head["params"]["result"]["number"].clone())?;
            service.reaches(|status| status["head"]["number"].as_u64() >= Some(number.to())).await?;
            anyhow::Ok(begun.elapsed().as_secs_f64())
        };
        let ((), delay) = tokio::join!(emitted, announced);
        delays.push(delay?);
    }
    let (p50, p99) = (quantile(&mut delays, 0.5) * 1e3, quantile(&mut delays, 0.99) * 1e3);
    println!("{blocks} blocks of 100 logs from announcement to API: p50 {p50:.1} ms, p99 {p99:.1} ms");
    verdict("head-to-api-p99-ms", p99, &Target::Ceiling(100.0));
    Ok(())
}

async fn reorganisations(chain: &Chain, service: &Service, blocks: u64) -> anyhow::Result<()> {
    let mut worst: f64 = 0.0;
    for round in 0..REORGANISATIONS {
        chain.anvil.call("anvil_reorg", json!([DEPTH, []])).await;
        let begun = Instant::now();
        let (_, hash) = chain.anvil.tip().await;
        service.reaches(|status| status["head"]["hash"] == json!(hash) && status["synced"] == true).await?;
        worst = worst.max(begun.elapsed().as_secs_f64());
        // Blocks with logs again, for the next one to take back.
        for place in 0..DEPTH {
            chain.emit(blocks + round as u64 * DEPTH + place).await;
        }
        let (number, _) = chain.anvil.tip().await;
        service.reaches(|status| status["head"]["number"] == number).await?;
    }
    println!("{REORGANISATIONS} reorganisations of {DEPTH} blocks: worst {worst:.3} s");
    verdict("reorg-64-seconds", worst, &Target::Ceiling(1.0));
    Ok(())
}
