//! From an approved request to a signed result: open, attest, unseal, compute, guard, sign. Once a run.

#[cfg(feature = "dev")]
use std::time::Duration;
use std::{
    sync::{Arc, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use alloy::{primitives::Bytes, signers::SignerSync};
use cohort_protocol::{
    hpke::SecretBytes,
    recipe::Engine,
    release::WrapKeys,
    sign_rpc::{self, PrivacyProof, SignedReceipt},
};
use zeroize::Zeroizing;

use super::{
    Agent, Prepared, RunError, Stage,
    attest::Attested,
    crash::kill_point,
    lease::{Lease, Stop},
};
use crate::{
    compute::{self, GuardedOutput},
    resume::Pending,
};

impl Agent {
    /// Opens the run if it is not, gets its keys, computes, guards and signs: once a run.
    pub(super) async fn compute_once(
        self: &Arc<Self>,
        prepared: &Prepared,
        stage: &impl Fn(Stage),
    ) -> Result<Arc<Pending>, RunError> {
        let id = prepared.run_id();
        if !self.chain.run_is_known(id).await? {
            stage(Stage::Opening);
            self.chain.check_gas().await?;
            self.check_before_debit(prepared).await?;
            self.chain.open_run(&prepared.terms, &prepared.run).await?;
        }
        stage(Stage::Attesting);
        let asked = Instant::now();
        let (attested, keys) = self.attest_until_seen(prepared).await?;
        kill_point("released");
        stage(Stage::Computing);
        self.set_lessor(id, attested.binding.kms_root);
        let mut lease = Lease::start(Arc::clone(self), prepared.clone(), asked, keys.lease_seconds);
        let stop = lease.stop();
        let output = lease.hold(self.compute(prepared, keys, stop)).await??;
        lease.finish(self, prepared).await?;
        let receipt = self.sign_receipt(prepared, &attested, &output)?;
        let Attested { binding, evidence, certificate, platform } = attested;
        let signed = Arc::new(Pending {
            platform,
            payload: output.into_value(),
            receipt,
            certificate,
            terms: prepared.terms.clone(),
            run: prepared.run.clone(),
            inputs: prepared.inputs(),
            binding,
            evidence,
        });
        kill_point("signed");
        if let Some(keeper) = &self.keeper {
            keeper.save(&signed)?;
        }
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&signed));
        Ok(signed)
    }

    /// Unseals and computes away from the async threads; plaintext and keys are wiped when it returns.
    /// It ends early, with nothing, when the lease of the keys is lost.
    async fn compute(
        &self,
        prepared: &Prepared,
        keys: WrapKeys,
        stop: Stop,
    ) -> Result<GuardedOutput, RunError> {
        let mut jobs = Vec::with_capacity(prepared.inputs.len());
        for (owner, candidate) in &prepared.inputs {
            let key = keys
                .keys
                .iter()
                .find(|key| key.dataset_id == candidate.dataset_id())
                .ok_or(RunError::Internal("the KMS's answer lacks a key"))?;
            let bytes = Zeroizing::new(
                hex::decode(&key.wrap_key).map_err(|_| RunError::Internal("a wrap key is not hex"))?,
            );
            let key =
                SecretBytes::from_slice(&bytes).ok_or(RunError::Internal("a wrap key is not 32 bytes"))?;
            jobs.push((owner.id.clone(), candidate.clone(), key));
        }
        drop(keys);
        let (recipe, sandbox) = (self.recipe.clone(), self.sandbox.clone());
        let computing = self.machine.computing();
        #[cfg(feature = "dev")]
        let slow = self.insecure_dev_slow;
        tokio::task::spawn_blocking(move || {
            let _computing = computing;
            let mut data = Vec::with_capacity(jobs.len());
            for (owner, candidate, key) in &jobs {
                go_on(&stop)?;
                data.push((owner.clone(), candidate.unseal(key)?));
            }
            #[cfg(feature = "dev")]
            insecure_dev_pause(slow, &stop);
            go_on(&stop)?;
            let output = compute::compute(&recipe, data, sandbox.as_ref())?;
            go_on(&stop)?;
            Ok(compute::guard(&recipe, output.value())?)
        })
        .await
        .map_err(|_| RunError::Internal("the computation was interrupted"))?
    }

    fn sign_receipt(
        &self,
        prepared: &Prepared,
        attested: &Attested,
        output: &GuardedOutput,
    ) -> Result<SignedReceipt, RunError> {
        let evidence_hash = sign_rpc::evidence_hash(&attested.binding, &attested.evidence)
            .map_err(|_| RunError::Internal("the evidence has no canonical form"))?;
        let mut receipt = SignedReceipt {
            run_id: prepared.run_id(),
            output_hash: output.hash(),
            inputs_hash: sign_rpc::inputs_hash(&prepared.inputs()),
            evidence_hash,
            epsilon: prepared.terms.epsilon_per_run,
            delta: prepared.terms.delta_per_run,
            privacy_proof: self.privacy_proof(),
            produced_at: now(),
            signature: Bytes::new(),
        };
        let digest = receipt.digest(&self.domain());
        let signature =
            self.receipt_key.sign_hash_sync(&digest).map_err(|_| RunError::Internal("signing failed"))?;
        receipt.signature = signature.as_bytes().to_vec().into();
        Ok(receipt)
    }

    /// R18: what a script's numbers reveal of one person is its author's claim.
    fn privacy_proof(&self) -> PrivacyProof {
        match self.recipe.engine() {
            Engine::Declared => PrivacyProof::Proved,
            Engine::Python(_) => PrivacyProof::Declared,
        }
    }
}

/// The way out of a computation whose lease is lost: what it holds is wiped as it is dropped.
fn go_on(stop: &Stop) -> Result<(), RunError> {
    if stop.is_set() { Err(RunError::Internal("stopped")) } else { Ok(()) }
}

/// Development only: holds the opened data, as a long computation would.
#[cfg(feature = "dev")]
fn insecure_dev_pause(pause: Duration, stop: &Stop) {
    let end = Instant::now() + pause;
    while Instant::now() < end && !stop.is_set() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
