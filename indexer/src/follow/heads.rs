//! New heads over WebSocket, as hints only: what is at the head is asked over HTTP. A subscription may drop or repeat
//! messages, and polling goes on beside it, so nothing depends on it but the delay.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::Health;

/// A connection that says nothing for so long is taken for dead: no chain of interest has slower blocks.
const SILENCE: Duration = Duration::from_secs(90);
/// Time to connect and subscribe.
const CONNECT: Duration = Duration::from_secs(10);
/// Pauses between attempts, doubling.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// Keeps one subscription open, on the next endpoint whenever one fails, and wakes the follower with each head.
/// Never ends; URLs may hold access keys and are not logged, only their place in the list.
pub(super) async fn listen(
    urls: Vec<reqwest::Url>,
    wake: Arc<Notify>,
    health: watch::Sender<Health>,
) -> Infallible {
    let [mut pause, longest] = PAUSES;
    if urls.is_empty() {
        return std::future::pending().await;
    }
    let mut next = 0usize;
    loop {
        let place = next % urls.len();
        next = next.wrapping_add(1);
        let Some(url) = urls.get(place) else { continue };
        let subscribed = subscription(url, &wake, &health).await;
        health.send_if_modified(|health| std::mem::take(&mut health.websocket));
        let reason = subscribed.err().unwrap_or("closed");
        tracing::warn!(target: "indexer::follow", endpoint = place + 1, reason, "WebSocket ended, polling goes on");
        pause = if subscribed.is_ok() { PAUSES[0] } else { (pause * 2).min(longest) };
        tokio::time::sleep(pause).await;
    }
}

/// `Ok`: it was open and ended. `Err`: it never was, with the reason.
async fn subscription(
    url: &reqwest::Url,
    wake: &Notify,
    health: &watch::Sender<Health>,
) -> Result<(), &'static str> {
    let connected = timeout(CONNECT, connect_async(url.as_str())).await;
    let (mut socket, _) = connected.map_err(|_| "no answer")?.map_err(|_| "no connection")?;
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#;
    socket.send(Message::text(ask)).await.map_err(|_| "no connection")?;
    let answer = timeout(CONNECT, socket.next()).await.map_err(|_| "no subscription")?;
    let Some(Ok(Message::Text(answer))) = answer else { return Err("no subscription") };
    let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|_| "no subscription")?;
    if !answer["result"].is_string() {
        return Err("the endpoint refuses to subscribe");
    }
    health.send_modify(|health| health.websocket = true);
    // Heads may have come before.
    wake.notify_one();
    loop {
        match timeout(SILENCE, socket.next()).await {
            Ok(Some(Ok(Message::Text(_) | Message::Binary(_)))) => wake.notify_one(),
            // Pings are answered by the library.
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            _ => return Ok(()),
        }
    }
}
