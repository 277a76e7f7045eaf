//! Commit, then reveal: no result before its receipt is on chain, and what a crash in between leaves is taken up.

use std::{
    path::Path,
    sync::{Arc, PoisonError},
};

use alloy::primitives::B256;
use cohort_protocol::{
    release::ReceiptQuestion,
    sign_rpc::{self, ResultFile},
};
use tracing::{info, warn};

use super::{ATTEMPTS, Agent, PAUSE, RunError, RunResult, RunState, Stage, crash::kill_point};
use crate::{
    compute,
    kms::KmsError,
    resume::{Keeper, Pending},
};

impl Agent {
    /// Keeps signed results in `folder`, sealed, so that a crash between receipt and reveal loses nothing.
    pub async fn keep_in(mut self, folder: &Path) -> Result<Self, RunError> {
        let secret = self.guest.key("cohort/resume", "resume").await?;
        self.keeper = Some(Keeper::new(folder, &secret, self.compose_hash)?);
        Ok(self)
    }

    /// Takes up what an earlier boot had signed: posts the receipt if it is missing, and reveals.
    pub fn resume(self: &Arc<Self>) {
        for pending in self.keeper.as_ref().map(Keeper::load).unwrap_or_default() {
            let id = pending.receipt.run_id;
            if !self.is_whole(&pending) {
                warn!(target: "cohort::agent", run = %id, "a kept result does not fit this agent; left alone");
                continue;
            }
            info!(target: "cohort::agent", run = %id, "taken up again");
            let pending = Arc::new(pending);
            self.signed.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&pending));
            self.set(id, RunState::Running(Stage::PostingReceipt));
            let agent = Arc::clone(self);
            tokio::spawn(async move {
                let _turn = agent.turn.lock().await;
                let outcome = agent.reveal(&pending).await;
                agent.end(id, outcome);
            });
        }
    }

    /// The guard's own check again: nothing but what it lets out is ever revealed.
    fn is_whole(&self, pending: &Pending) -> bool {
        pending.binding.app == self.chain.app()
            && pending.binding.chain_id == self.chain.chain_id()
            && pending.terms.compose_hash == self.compose_hash
            && compute::guard(&self.recipe, &pending.payload)
                .is_ok_and(|output| output.hash() == pending.receipt.output_hash)
    }

    /// Commit, then reveal: the receipt on chain, seen by all endpoints and by the KMS, and only then the output (R16).
    pub(super) async fn reveal(&self, signed: &Pending) -> Result<RunResult, RunError> {
        let id = signed.receipt.run_id;
        let digest = signed.receipt.digest(&self.domain());
        kill_point("kept");
        let (receipt, certificate) = (&signed.receipt, &signed.certificate);
        self.chain.post_receipt(&signed.terms, &signed.run, receipt, certificate, digest).await?;
        kill_point("posted");
        self.wait_for_the_kms(signed, digest).await?;
        kill_point("seen");
        let position = self.chain.receipt_position(id, digest).await?;
        let Pending { platform, payload, receipt, certificate, terms, run, inputs, binding, evidence } =
            signed.clone();
        let mut result = ResultFile {
            format: sign_rpc::FORMAT.to_owned(),
            chain_id: self.chain.chain_id(),
            app: self.chain.app(),
            attestation: platform,
            payload,
            receipt,
            certificate,
            terms,
            run,
            inputs,
            binding,
            evidence,
            position,
            chain: None,
        };
        result.chain = self.chain.prove(&result).await;
        Ok(result)
    }

    /// This agent's own endpoints are its host's, who may show it any chain. The KMS, whose root alone opens the data,
    /// must have seen the receipt too.
    async fn wait_for_the_kms(&self, signed: &Pending, digest: B256) -> Result<(), RunError> {
        let question = ReceiptQuestion { run_id: signed.receipt.run_id, digest };
        let mut asked = 1;
        let answer = loop {
            match self.kms.receipt(&question).await {
                Err(KmsError::Refused(refusal)) if refusal.code == "receipt_not_seen" && asked < ATTEMPTS => {
                    asked += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                answer => break answer?,
            }
        };
        if answer.signer(&self.domain(), &question) == Some(signed.binding.kms_root) {
            return Ok(());
        }
        Err(RunError::Internal(
            "the statement that the receipt was seen is not by the KMS that released the keys",
        ))
    }
}
