//! What the endpoints show that are not asked now: how far they are, since one that stands still contradicts nothing and
//! only another can tell; and whether they have the mirror's confirmed block, since one that tells a false story in which
//! everything fits can be told from the chain only by another, too.

use std::{convert::Infallible, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::rpc::{Endpoint, Header, RpcError};

/// Pause between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// An endpoint that needs longer is as good as down.
const PATIENCE: Duration = Duration::from_secs(3);

/// What one endpoint showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Height of its newest block.
    pub(super) height: u64,
    /// A block of the mirror in whose place it has another one.
    pub(super) disputes: Option<Header>,
}

/// The last look at each endpoint that answered.
pub(super) type Looks = Vec<Option<Look>>;

/// Looks again and again. `confirmed` is the mirror's confirmed block once it is caught up. Never ends.
pub(super) async fn around(
    endpoints: Vec<Endpoint>,
    mut confirmed: watch::Receiver<Option<Header>>,
    looks: watch::Sender<Looks>,
) -> Infallible {
    if endpoints.len() < 2 {
        return std::future::pending().await;
    }
    loop {
        let ours = *confirmed.borrow();
        let asked = endpoints.iter().map(|endpoint| timeout(PATIENCE, look(endpoint, ours)));
        let answers = join_all(asked).await.into_iter();
        looks.send_replace(answers.map(|answer| answer.ok()?.ok()).collect());
        tokio::select! {
            () = sleep(EVERY) => {}
            Ok(_) = confirmed.wait_for(Option::is_some), if ours.is_none() => {}
        }
    }
}

async fn look(endpoint: &Endpoint, ours: Option<Header>) -> Result<Look, RpcError> {
    let height = endpoint.newest().await?.number;
    let disputes = match ours {
        Some(ours) if ours.number <= height => {
            let theirs = endpoint.header(ours.number).await?;
            theirs.filter(|theirs| theirs.hash != ours.hash).map(|_| ours)
        }
        _ => None,
    };
    Ok(Look { height, disputes })
}
