//! The lease of a run's keys: renewed while it computes; once it is lost, the run stops and reveals nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use alloy::primitives::B256;
use cohort_protocol::{
    hpke,
    release::{LeaseRequest, Refusal},
};
use tokio::{sync::oneshot, task::JoinHandle};
use tracing::{info, warn};

use super::{Agent, Prepared, RunError, error::request};
use crate::kms::KmsError;

/// Refusals that may end by themselves before the lease does. Every other one ends the run at once.
const PASSING: [&str; 15] = [
    "rate_limited",
    "busy",
    "timeout",
    "rpc_unreachable",
    "head_stale",
    "endpoints_disagree",
    "chain_too_short",
    "not_confirmed",
    "indexer_unreachable",
    "indexer_stale",
    "indexer_fork",
    "indexer_denies",
    "guest_unavailable",
    "own_evidence_refused",
    "log_unavailable",
];
/// A lease is renewed when this part of it is over.
const RENEW_AFTER: u32 = 3;
/// Pause after a renewal that failed and may yet succeed.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether the computation must stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Must it?
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A running lease. Dropping it ends the renewals, not the KMS's side.
pub(super) struct Lease {
    until: Instant,
    stop: Stop,
    lost: oneshot::Receiver<RunError>,
    renewals: JoinHandle<()>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewals.abort();
    }
}

impl Lease {
    /// Starts renewing a lease of `seconds` that began at `asked`, the moment at which the keys were asked for.
    pub(super) fn start(agent: Arc<Agent>, prepared: Prepared, asked: Instant, seconds: u64) -> Self {
        let until = asked + Duration::from_secs(seconds);
        let stop = Stop::default();
        let (lose, lost) = oneshot::channel();
        let stopper = stop.clone();
        let renewals = tokio::spawn(async move {
            let error = keep(&agent, &prepared, until).await;
            warn!(target: "cohort::agent", run = %prepared.run_id(), code = error.refusal().code, "lease lost");
            stopper.set();
            let _ = lose.send(error);
        });
        Self { until, stop, lost, renewals }
    }

    /// What the computation looks at.
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Waits for `work`, which looks at [`Self::stop`]. If the lease is lost meanwhile it waits for the work to end, so
    /// that its data is wiped, and returns why instead.
    pub(super) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Result<T, RunError> {
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => Ok(done),
            lost = &mut self.lost => {
                self.stop.set();
                drop(work.await);
                Err(lost.unwrap_or_else(|_| ended()))
            }
        }
    }

    /// Asks a last time, before the receipt is signed: the KMS must allow it now.
    pub(super) async fn finish(self, agent: &Arc<Agent>, prepared: &Prepared) -> Result<(), RunError> {
        self.renewals.abort();
        let mut until = self.until.max(Instant::now() + PAUSE * 10);
        renew(agent, prepared, &mut until).await
    }
}

fn ended() -> RunError {
    request(
        "lease_ended",
        "the lease of this run's keys ended before the KMS renewed it".to_owned(),
        "open another run when the KMS and its chain endpoints answer",
    )
}

/// Renews until that fails for good.
async fn keep(agent: &Arc<Agent>, prepared: &Prepared, mut until: Instant) -> RunError {
    loop {
        tokio::time::sleep(until.saturating_duration_since(Instant::now()) / RENEW_AFTER).await;
        if let Err(error) = renew(agent, prepared, &mut until).await {
            return error;
        }
    }
}

/// Renews once, trying again while the lease lasts and the failure may pass. `until` moves on.
async fn renew(agent: &Arc<Agent>, prepared: &Prepared, until: &mut Instant) -> Result<(), RunError> {
    loop {
        let asked = Instant::now();
        let left = until.saturating_duration_since(asked);
        if left.is_zero() {
            return Err(ended());
        }
        let seconds = match tokio::time::timeout(left, agent.renew_once(prepared)).await {
            Ok(Ok(seconds)) => seconds,
            Ok(Err(RunError::Kms(KmsError::Refused(refusal)))) if !passes(&refusal) => {
                return Err(RunError::Kms(KmsError::Refused(refusal)));
            }
            Ok(Err(error @ RunError::Internal(_))) => return Err(error),
            Ok(Err(error)) => {
                info!(target: "cohort::agent", run = %prepared.run_id(), code = error.refusal().code, "lease not renewed yet");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(_elapsed) => return Err(ended()),
        };
        *until = asked + Duration::from_secs(seconds);
        return Ok(());
    }
}

fn passes(refusal: &Refusal) -> bool {
    PASSING.contains(&refusal.code.as_str())
}

impl Agent {
    /// Asks the KMS for some more seconds: with the receipt key alone, or, if the KMS knows no such lease (it was
    /// started anew), with a quote. The keys that come with that are the ones that this process has.
    async fn renew_once(&self, prepared: &Prepared) -> Result<u64, RunError> {
        let nonce = hpke::random_secret().map_err(|_| RunError::Internal("no randomness"))?;
        let nonce = B256::from(*nonce.expose_secret());
        let domain = self.domain();
        let asked = LeaseRequest::issue(&self.receipt_key, &domain, prepared.run_id(), nonce)
            .map_err(|_| RunError::Internal("signing failed"))?;
        match self.kms.lease(&asked).await {
            Ok(answer) => {
                let signer = answer.signer(&domain, &asked);
                if signer.is_none() || signer != self.lessor(prepared.run_id()) {
                    return Err(RunError::Internal("the lease is not by the KMS that released the keys"));
                }
                Ok(answer.seconds)
            }
            Err(KmsError::Refused(refusal)) if refusal.code == "lease_unknown" => {
                let (_, keys) = self.attest(prepared).await?;
                Ok(keys.lease_seconds)
            }
            Err(error) => Err(error.into()),
        }
    }
}
