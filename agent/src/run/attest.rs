//! What this process proves to the KMS, and the wrap keys that come back for it.

use alloy::primitives::{B256, Bytes};
use cohort_attestation::{
    Evidence, GuestEvidence,
    gpu::{self, GpuEvidence},
};
use cohort_protocol::{
    decision::Decision,
    hpke::{self, KeyPair},
    json::sha256,
    release::{Binding, Certificate, DatasetRequest, ReleaseRequest, WrapKeys},
};
use tracing::info;

use super::{ATTEMPTS, Agent, PAUSE, Prepared, RunError};
use crate::{chain::ListedOwner, kms::KmsError, store::Candidate};

/// Refusals of the KMS that end by themselves when its witnesses have caught up with the chain.
const NOT_YET: [&str; 4] = ["not_confirmed", "indexer_denies", "indexer_fork", "indexer_stale"];

/// What the KMS attested, without the keys.
#[derive(Debug, Clone)]
pub(super) struct Attested {
    pub(super) binding: Binding,
    pub(super) evidence: Evidence,
    pub(super) certificate: Certificate,
    pub(super) platform: String,
}

impl Agent {
    /// Asks the KMS for the keys of a run without opening it: its refusal says what is missing. Debits nothing.
    pub async fn preflight(&self, prepared: &Prepared) -> Result<(), RunError> {
        self.attest(prepared).await.map(drop)
    }

    /// What is debited never comes back: first the KMS must find nothing missing but the opening itself.
    pub(super) async fn check_before_debit(&self, prepared: &Prepared) -> Result<(), RunError> {
        match self.attest(prepared).await {
            Err(RunError::Kms(KmsError::Refused(refusal))) if refusal.code == Decision::RunUnknown.code() => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Asks again while some witness of the KMS has not yet seen what the others have: the opened run is young.
    pub(super) async fn attest_until_seen(
        &self,
        prepared: &Prepared,
    ) -> Result<(Attested, WrapKeys), RunError> {
        for _ in 1..ATTEMPTS {
            match self.attest(prepared).await {
                Err(RunError::Kms(KmsError::Refused(refusal)))
                    if NOT_YET.contains(&refusal.code.as_str()) =>
                {
                    info!(target: "cohort::agent", run = %prepared.run_id(), code = refusal.code, "asking again");
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
        self.attest(prepared).await
    }

    /// Fresh keys, challenge, quote, request: the wrap keys come back sealed to this call's key alone.
    pub(super) async fn attest(&self, prepared: &Prepared) -> Result<(Attested, WrapKeys), RunError> {
        let secret = hpke::random_secret().map_err(|_| RunError::Internal("no randomness"))?;
        let encryption = KeyPair::derive(&secret);
        let challenge = self.kms.challenge().await?;
        let mut binding = Binding {
            chain_id: self.chain.chain_id(),
            app: self.chain.app(),
            kms_root: challenge.kms_root,
            challenge: challenge.challenge,
            run_id: prepared.run_id(),
            encryption_key_hash: sha256(encryption.public_key().as_bytes()),
            receipt_key: self.receipt_key.address(),
            gpu_evidence_hash: None,
        };
        let gpu = self.gpu_evidence(&mut binding).await?;
        let evidence = self.evidence(&binding, gpu).await?;
        let request = ReleaseRequest {
            terms: prepared.terms.clone(),
            run: prepared.run.clone(),
            binding: binding.clone(),
            encryption_key: Bytes::copy_from_slice(encryption.public_key().as_bytes()),
            datasets: dataset_requests(prepared)?,
            evidence,
        };
        let answer = self.kms.release(&request).await?;
        let keys = WrapKeys::open(&encryption, &binding, &answer)
            .map_err(|_| RunError::Internal("the KMS's answer does not open with this request's key"))?;
        let (certificate, platform) = (answer.certificate, answer.platform);
        Ok((Attested { binding, evidence: request.evidence, certificate, platform }, keys))
    }

    /// Evidence of the GPUs that the recipe requires, to which the binding then commits; none if it requires none.
    async fn gpu_evidence(&self, binding: &mut Binding) -> Result<Vec<GpuEvidence>, RunError> {
        if self.recipe.gpu().is_none() {
            return Ok(Vec::new());
        }
        let gpus = self.guest.gpu_evidence(&binding.gpu_nonce()).await?;
        binding.gpu_evidence_hash = Some(B256::from(gpu::evidence_hash(&gpus)));
        Ok(gpus)
    }

    async fn evidence(&self, binding: &Binding, gpu: Vec<GpuEvidence>) -> Result<Evidence, RunError> {
        let quote = self.guest.quote(&binding.report_data()).await?;
        let (quote, event_log) = (quote.quote, quote.event_log);
        let collateral = match &self.collateral {
            Some(own) => own.clone(),
            None => self.kms.collateral(&quote).await?,
        };
        let guest = GuestEvidence { quote, event_log, app_compose: Some(self.app_compose.clone()), gpu };
        let evidence = guest.with_collateral(collateral);
        Ok(Evidence { privacy_proof: self.privacy_proof.clone(), ..evidence })
    }
}

fn dataset_requests(prepared: &Prepared) -> Result<Vec<DatasetRequest>, RunError> {
    let request = |(owner, candidate): &(ListedOwner, Candidate)| {
        let envelope = String::from_utf8(candidate.checked.envelope.bytes().to_vec())
            .map_err(|_| RunError::Internal("an envelope is not UTF-8"))?;
        Ok(DatasetRequest {
            owner: owner.id.clone(),
            envelope,
            data_root: B256::from(candidate.checked.data_root.0),
        })
    };
    prepared.inputs.iter().map(request).collect()
}
