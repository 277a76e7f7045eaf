//! How far the endpoints are that are not asked now. One that stands still contradicts nothing, so nothing but another
//! can tell.

use std::{convert::Infallible, time::Duration};

use futures_util::future::join_all;
use tokio::{sync::watch, time::timeout};

use crate::rpc::Endpoint;

/// Pause between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// An endpoint that needs longer is as good as down.
const PATIENCE: Duration = Duration::from_secs(3);

/// Height of each endpoint's newest block at the last look.
pub(super) type Heights = Vec<Option<u64>>;

/// Looks again and again. Never ends.
pub(super) async fn around(endpoints: Vec<Endpoint>, heights: watch::Sender<Heights>) -> Infallible {
    if endpoints.len() < 2 {
        return std::future::pending().await;
    }
    loop {
        let asked = endpoints.iter().map(async |endpoint| {
            let newest = timeout(PATIENCE, endpoint.newest()).await.ok()?.ok()?;
            Some(newest.number)
        });
        heights.send_replace(join_all(asked).await);
        tokio::time::sleep(EVERY).await;
    }
}
