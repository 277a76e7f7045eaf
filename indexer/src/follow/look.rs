//! What all endpoints show beside the one that is followed. One that stands still contradicts nothing, and one that makes a
//! whole chain up fits itself: only others can tell.

use std::{convert::Infallible, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    rpc::{Endpoint, Header},
    store::{Store, StoreError},
};

/// Pause between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// An endpoint that needs longer is as good as down.
const PATIENCE: Duration = Duration::from_secs(3);
/// Confirmed blocks that the others have not been asked for yet, at most, while the mirror is current.
const UNSEEN_BLOCKS: u64 = 16;

/// What the others are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mirrored {
    /// The mirror's confirmed block.
    pub(super) confirmed: Header,
    /// How often blocks were taken back before.
    pub(super) rewinds: u64,
}

impl Mirrored {
    /// Whether the others, asked for `earlier`, have said what they have against this one.
    fn is_covered_by(self, earlier: Option<Self>) -> bool {
        let unseen = |earlier: Self| self.confirmed.number.saturating_sub(earlier.confirmed.number);
        earlier.is_some_and(|it| it.rewinds == self.rewinds && unseen(it) <= UNSEEN_BLOCKS)
    }
}

/// What one endpoint showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Height of its newest block.
    pub(super) height: u64,
    shows: Option<Shows>,
}

#[derive(Debug, Clone, Copy)]
enum Shows {
    /// This block of the mirror.
    Same(Header),
    /// Another one in its place.
    Other(Header),
    OtherChain(u64),
}

/// One look around.
#[derive(Debug, Clone, Default)]
pub(super) struct Looks {
    ours: Option<Mirrored>,
    /// At each endpoint that answered.
    pub(super) at: Vec<Option<Look>>,
}

/// Looks again and again, for what is mirrored once the mirror is caught up. Never ends.
pub(super) async fn around(
    endpoints: Vec<Endpoint>,
    store: Store,
    mut mirrored: watch::Receiver<Option<Mirrored>>,
    looks: watch::Sender<Looks>,
) -> Infallible {
    if endpoints.len() < 2 {
        return std::future::pending().await;
    }
    loop {
        let ours = *mirrored.borrow();
        let asked = endpoints.iter().map(|endpoint| timeout(PATIENCE, look(endpoint, &store, ours)));
        let at = join_all(asked).await.into_iter().map(|answer| answer.ok().flatten()).collect();
        looks.send_replace(Looks { ours, at });
        tokio::select! {
            () = sleep(EVERY) => {}
            Ok(_) = mirrored.wait_for(|now| now.is_some_and(|now| !now.is_covered_by(ours))) => {}
        }
    }
}

/// Compares as high as both go: a block of the mirror that is confirmed there is not confirmed on a shorter chain.
async fn look(endpoint: &Endpoint, store: &Store, ours: Option<Mirrored>) -> Option<Look> {
    let height = endpoint.newest().await.ok()?.number;
    let Some(ours) = ours else { return Some(Look { height, shows: None }) };
    let (chain_id, want) = (endpoint.chain_id().await.ok()?, store.source().await.ok()??.chain_id);
    if chain_id != want {
        return Some(Look { height, shows: Some(Shows::OtherChain(chain_id)) });
    }
    let ours = store.snapshot().await.ok()?.block_up_to(ours.confirmed.number.min(height)).await.ok()?;
    let shows = match ours {
        Some(ours) => endpoint.header(ours.number).await.ok()?.map(|theirs| match theirs.hash == ours.hash {
            true => Shows::Same(ours),
            false => Shows::Other(ours),
        }),
        None => None,
    };
    Some(Look { height, shows })
}

/// What the endpoints say against the mirror. Each says it until it agrees, however silent it is meanwhile.
#[derive(Debug)]
pub(super) struct Disputes(Vec<Witness>);

#[derive(Debug, Clone, Default)]
struct Witness {
    /// The newest block of the mirror that it was seen to have.
    agreed: Option<Header>,
    dispute: Option<String>,
}

impl Disputes {
    pub(super) fn none(endpoints: usize) -> Self {
        Self(vec![Witness::default(); endpoints])
    }

    /// Whether this endpoint does not show the mirror's chain.
    pub(super) fn of(&self, place: usize) -> bool {
        self.0.get(place).is_some_and(|witness| witness.dispute.is_some())
    }

    /// The mirror has taken back what is above `keep`: whoever had that has not said yet that it is gone.
    pub(super) fn rewound(&mut self, keep: Option<u64>) {
        for (place, witness) in (1..).zip(&mut self.0) {
            if let Some(agreed) =
                witness.agreed.take_if(|agreed| keep.is_none_or(|keep| agreed.number > keep))
            {
                witness.dispute = Some(other_block(place, agreed));
            }
        }
    }

    /// Why what is mirrored is not current, as far as the others can tell.
    pub(super) async fn hear(
        &mut self,
        looks: &Looks,
        store: &Store,
        mirrored: Mirrored,
    ) -> Result<Option<String>, StoreError> {
        if self.0.len() < 2 {
            return Ok(None);
        }
        let mut snapshot = store.snapshot().await?;
        for (place, (witness, look)) in (1..).zip(self.0.iter_mut().zip(&looks.at)) {
            match look.and_then(|look| look.shows) {
                Some(Shows::Same(ours)) if snapshot.block(ours.number).await? == Some(ours) => {
                    *witness = Witness { agreed: Some(ours), dispute: None };
                }
                Some(Shows::Other(ours)) => witness.dispute = Some(other_block(place, ours)),
                Some(Shows::OtherChain(id)) => {
                    witness.dispute =
                        Some(format!("RPC endpoint {place} is of chain {id}, not the mirror's"));
                }
                _ => {}
            }
            // Of several replicas another one may have taken it back.
            if let Some(agreed) = witness.agreed
                && snapshot.block(agreed.number).await?.is_some_and(|stored| stored != agreed)
            {
                *witness = Witness { agreed: None, dispute: Some(other_block(place, agreed)) };
            }
        }
        if let Some(dispute) = self.0.iter().find_map(|witness| witness.dispute.clone()) {
            return Ok(Some(dispute));
        }
        let asked = match looks.ours.filter(|_| mirrored.is_covered_by(looks.ours)) {
            Some(ours) => snapshot.block(ours.confirmed.number).await? == Some(ours.confirmed),
            None => false,
        };
        let number = mirrored.confirmed.number;
        Ok((!asked).then(|| format!("the other RPC endpoints have not been asked for block {number} yet")))
    }
}

fn other_block(place: usize, ours: Header) -> String {
    format!("RPC endpoint {place} has another block {} than the mirror", ours.number)
}
