//! What this KMS shows of itself: a quote of its own virtual machine over each epoch's statement.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use cohort_attestation::{self as attestation, KmsEvidence};
use cohort_guest::GuestAgent;
use cohort_protocol::{abi::boot::AppBootInfo, root::RootStatement};
use tokio::sync::Mutex;

use crate::{collateral::CollateralCache, denial::Denial, guest, limits::Peer, service::unix_now};

/// For how long a quote is shown again before a new one is made. Anonymous callers cause no more than one an hour.
const QUOTE_REMEMBERED: Duration = Duration::from_secs(3600);

/// The same where it does not verify, as before there is collateral.
const FAULT_REMEMBERED: Duration = Duration::from_secs(10);

/// Makes and remembers the evidence.
pub struct OwnEvidence {
    guest: GuestAgent,
    collateral: Arc<CollateralCache>,
    policy: attestation::Policy,
    remembered: Mutex<BTreeMap<u32, Own>>,
}

#[derive(Clone)]
struct Own {
    made: Instant,
    evidence: KmsEvidence,
    /// What the evidence verifies to, under the rules for everybody's.
    machine: Option<AppBootInfo>,
}

impl OwnEvidence {
    /// From this guest agent, with collateral from this cache; verified under `policy`.
    pub fn new(guest: GuestAgent, collateral: Arc<CollateralCache>, policy: attestation::Policy) -> Self {
        Self { guest, collateral, policy, remembered: Mutex::default() }
    }

    /// Evidence that the keys of `statement` are in this virtual machine.
    pub async fn of(&self, statement: &RootStatement) -> Result<KmsEvidence, Denial> {
        self.own(statement).await.map(|own| own.evidence)
    }

    /// The machine that this KMS runs in, for `DstackKms.isKmsAllowed`: its own evidence must verify as everybody's.
    pub async fn machine(&self, statement: &RootStatement) -> Result<AppBootInfo, Denial> {
        self.own(statement).await?.machine.ok_or(Denial::OwnEvidence)
    }

    /// Collateral for a quote that somebody else presents, or (`None`) for its own, if there is any valid one.
    pub async fn collateral(
        &self,
        quote: &[u8],
        now: u64,
        peer: Option<Peer>,
    ) -> Option<attestation::Collateral> {
        let found = self.collateral.of_quote(quote, now, peer).await;
        found
            .inspect_err(|error| {
                tracing::warn!(target: "kms", error = error as &dyn std::error::Error, "no collateral");
            })
            .ok()
    }

    async fn own(&self, statement: &RootStatement) -> Result<Own, Denial> {
        let mut remembered = self.remembered.lock().await;
        if let Some(own) = remembered.get(&statement.epoch)
            && own.made.elapsed() < (if own.machine.is_some() { QUOTE_REMEMBERED } else { FAULT_REMEMBERED })
        {
            return Ok(own.clone());
        }
        let mut evidence = guest::evidence(&self.guest, &statement.report_data()).await.map_err(|error| {
            tracing::error!(target: "kms", error = &error as &dyn std::error::Error, "no quote of this KMS");
            Denial::GuestUnavailable
        })?;
        let now = unix_now()?;
        // Collateral helps whoever verifies; its absence is no reason to show no quote.
        evidence.collateral = self.collateral(&evidence.quote, now, None).await;
        let verified = attestation::kms::verify(statement, &evidence, None, &self.policy, now);
        let machine = verified
            .inspect_err(|error| {
                tracing::warn!(target: "kms", error = error as &dyn std::error::Error, "own evidence refused");
            })
            .ok()
            .map(|kms| kms.td().boot_info());
        let own = Own { made: Instant::now(), evidence, machine };
        remembered.insert(statement.epoch, own.clone());
        Ok(own)
    }
}
