//! The least that any indexer of this chain must do: read all logs over HTTP and decode them.

use std::time::Instant;

use cohort_indexer::{
    event::AppEvent,
    rpc::{Endpoint, LogFilter},
};
use tokio::task::JoinSet;

use crate::load::Loaded;

/// Blocks of one request: 10,000 logs, which is where a local anvil answers fastest.
const BLOCKS: u64 = 100;

pub(crate) async fn seconds(loaded: &Loaded, at_once: usize) -> anyhow::Result<f64> {
    let endpoint = Endpoint::new(1, loaded.chain.anvil.url.clone())?;
    let begun = Instant::now();
    let mut ranges = (0..=loaded.tip).step_by(BLOCKS as usize);
    let (mut asked, mut decoded) = (JoinSet::new(), 0u64);
    loop {
        while asked.len() < at_once
            && let Some(first) = ranges.next()
        {
            let (endpoint, app, last) =
                (endpoint.clone(), loaded.chain.app, loaded.tip.min(first + BLOCKS - 1));
            asked.spawn(async move {
                let logs = endpoint.logs(&LogFilter::Range(first..=last), &[app]).await?;
                let known = logs.iter().filter(|log| AppEvent::decode(&log.topics, &log.data).is_some());
                anyhow::Ok(known.count() as u64)
            });
        }
        let Some(count) = asked.join_next().await else { break };
        decoded += count??;
    }
    anyhow::ensure!(decoded >= loaded.logs, "{decoded} logs of {}", loaded.logs);
    Ok(begun.elapsed().as_secs_f64())
}
