//! The part of `cohort verify` that the chain answers: one endpoint at a time, at the receipt's own block.

use alloy::{
    eips::BlockId,
    network::Ethereum,
    primitives::{B256, keccak256},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::types::TransactionReceipt,
    sol_types::SolEvent,
};
use cohort_agent::run::RunResult;
use cohort_protocol::{
    abi::{IDstackApp, IDstackApp::IDstackAppInstance},
    eip712,
    loss::Epsilon,
};

use super::verify::Report;
use crate::failure::{self, Outcome};

type App = IDstackAppInstance<DynProvider<Ethereum>>;

/// Adds the chain's checks as one endpoint answers them.
pub(super) async fn check(url: &reqwest::Url, result: &RunResult, report: &mut Report) -> Outcome {
    let provider = ProviderBuilder::new().connect_http(url.clone()).erased();
    let chain_id = provider.get_chain_id().await.map_err(|e| failure::rpc(&e))?;
    report.check("chain", chain_id == result.chain_id, format!("the endpoint serves chain {chain_id}"));
    if chain_id != result.chain_id {
        return Ok(());
    }
    let app = IDstackApp::new(result.app, provider);
    let Some(mined) = mined(&app, result).await? else {
        report.check(
            "receipt on chain",
            false,
            format!("no successful transaction {}", result.position.transaction),
        );
        return Ok(());
    };
    // The block that the chain names, not the one that the file claims.
    let at = BlockId::from(mined.block_number.unwrap_or_default());
    receipt(&app, result, &mined, at, report).await?;
    approvals(&app, result, at, report).await?;
    budget(&app, result, report).await
}

/// The receipt's transaction, if it succeeded.
async fn mined(app: &App, result: &RunResult) -> Outcome<Option<TransactionReceipt>> {
    let hash = result.position.transaction;
    let found = app.provider().get_transaction_receipt(hash).await.map_err(|e| failure::rpc(&e))?;
    Ok(found.filter(TransactionReceipt::status))
}

async fn receipt(
    app: &App,
    result: &RunResult,
    mined: &TransactionReceipt,
    at: BlockId,
    report: &mut Report,
) -> Outcome {
    let digest = result.receipt.digest(&eip712::app_domain(result.chain_id, result.app));
    let posted = mined.logs().iter().any(|log| {
        log.address() == result.app
            && IDstackApp::ReceiptPosted::decode_log(&log.inner)
                .is_ok_and(|event| event.data.digest == digest && event.data.runId == result.receipt.run_id.0)
    });
    let same_block = mined.block_hash == Some(result.position.block_hash)
        && mined.block_number == Some(result.position.block_number);
    let detail = format!("block {} holds exactly this receipt", result.position.block_number);
    report.check("receipt on chain", posted && same_block, detail);

    let run = app.run(result.receipt.run_id.0).call().await.map_err(failure::contract)?;
    // The run's id is the hash of the request, which names the proposal; the proposal's id that of the terms.
    let holds = result.run.run_id() == result.receipt.run_id
        && result.terms.proposal_id() == result.run.proposal_id
        && run.participants == result.run.participants
        && run.digest == digest
        && result.terms.epsilon_per_run == result.receipt.epsilon;
    let detail = format!(
        "the contract debited epsilon {} for this run and closed it with this receipt",
        result.terms.epsilon_per_run
    );
    report.check("run on chain", holds, detail);

    let root = app.kmsRoot().block(at).call().await.map_err(failure::contract)?;
    let detail = format!("{} is the root that the contract pinned", result.binding.kms_root);
    report.check("kms root", root == result.binding.kms_root, detail);
    let revoked = app.agentRevoked(result.certificate.agent).call().await.map_err(failure::contract)?;
    report.check("agent key", !revoked, format!("no owner has revoked {}", result.certificate.agent));
    Ok(())
}

/// Quorum and each participant's own approval, as they stood at the receipt's block.
async fn approvals(app: &App, result: &RunResult, at: BlockId, report: &mut Report) -> Outcome {
    let id = result.run.proposal_id.0;
    let proposal = app.proposal(id).block(at).call().await.map_err(failure::contract)?;
    let config = app.config().block(at).call().await.map_err(failure::contract)?;
    let signed = (proposal.approvals & config.activeOwners).count_ones();
    let quorum = u32::from(proposal.thresholdSnapshot.max(config.threshold));
    let holds = signed >= quorum && !proposal.revoked && !proposal.superseded;
    let detail = format!("{signed} / {} owners had approved, {quorum} needed", config.ownerCount);
    report.check("quorum", holds, detail);
    let own = result.run.participants & !proposal.approvals == 0;
    report.check("own approval", own, "each owner whose data took part had approved itself");
    owners_and_datasets(app, result, at, report).await
}

async fn owners_and_datasets(app: &App, result: &RunResult, at: BlockId, report: &mut Report) -> Outcome {
    let mut participants = 0u128;
    let mut holds = true;
    for input in &result.inputs {
        let owner = app.ownerOf(input.owner.word()).block(at).call().await.map_err(failure::contract)?;
        let dataset = app.dataset(input.dataset_id.0).block(at).call().await.map_err(failure::contract)?;
        holds &= owner.listed
            && dataset.registered
            && dataset.ownerIndex == owner.index
            && dataset.composeHash == result.terms.compose_hash.0;
        participants |= 1u128.checked_shl(u32::from(owner.index)).unwrap_or(0);
    }
    let owners: Vec<_> = result.inputs.iter().map(|input| input.owner.as_str()).collect();
    let detail = format!("registered for this compose hash by {}", owners.join(", "));
    report.check("datasets", holds && participants == result.run.participants, detail);
    let digest = eip712::digest(&result.run.abi(), &eip712::app_domain(result.chain_id, result.app));
    if eip712::recover(digest, &result.run.signature) != Some(result.run.analyst) {
        let code = app.provider().get_code_at(result.run.analyst).await.map_err(|e| failure::rpc(&e))?;
        let detail = "by a contract account: that the contract opened the run shows that it was valid";
        report.check("request signature", !code.is_empty(), detail);
    }
    let listed = app.isAnalyst(result.run.analyst).block(at).call().await.map_err(failure::contract)?;
    report.check("analyst", listed, format!("{} was listed", result.run.analyst));
    Ok(())
}

async fn budget(app: &App, result: &RunResult, report: &mut Report) -> Outcome {
    let proposal = app.proposal(result.run.proposal_id.0).call().await.map_err(failure::contract)?;
    let spent = Epsilon(proposal.runs.saturating_mul(result.terms.epsilon_per_run.0));
    let budget = result.terms.epsilon_budget;
    let holds = spent <= budget && proposal.runs >= 1;
    let detail = format!("epsilon {spent} of {budget} spent over all runs");
    report.check("budget", holds, detail);
    let code = app.provider().get_code_at(result.app).await.map_err(|e| failure::rpc(&e))?;
    let hash: B256 = keccak256(&code);
    report.skip("contract code", format!("keccak256 {hash}: compare it with the release you trust"));
    Ok(())
}
