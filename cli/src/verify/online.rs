//! What endpoints add to a file: that its block is of the chain, proofs where the file has none, and what owners have
//! revoked since.

use alloy::{
    eips::BlockId,
    primitives::{Address, Bytes, FixedBytes},
    providers::{DynProvider, Provider},
    sol,
};
use cohort_agent::{
    prove::{self, ProveError},
    run::RunResult,
};
use cohort_attestation::VerifiedTd;
use cohort_protocol::{abi::IDstackApp, chain_proof::ChainProof, decision::Decision, eip712};

use super::{Name, Report, file, image_slots};
use crate::{
    chain::{endpoint_name, reader},
    failure::{self, Failure, Outcome},
};

sol! {
    /// EIP-1271.
    #[sol(rpc)]
    interface IERC1271 {
        function isValidSignature(bytes32 hash, bytes signature) external view returns (bytes4);
    }
}

/// What a contract account answers where it takes a signature: the selector of the question.
const IS_VALID: FixedBytes<4> = FixedBytes([0x16, 0x26, 0xba, 0x7e]);

/// Proofs for a file that has none, from the first endpoint that gives them; else the last one's reason.
pub async fn fetch(urls: &[reqwest::Url], result: &RunResult) -> Outcome<ChainProof> {
    let mut why = None;
    for url in urls {
        match prove::chain_proof(&reader(url)?, result).await {
            Ok(proof) => return Ok(proof),
            Err(error) => why = Some(error),
        }
    }
    Err(no_proofs(why))
}

/// Adds what `registry` lists to proofs that do not tell.
pub async fn fetch_registry(
    urls: &[reqwest::Url],
    proof: &mut ChainProof,
    registry: Address,
    td: &VerifiedTd,
) -> Outcome {
    let header = proof.header().map_err(|e| no_proofs(Some(e.into())))?;
    let mut why = None;
    for url in urls {
        match prove::registry_proof(&reader(url)?, &header, registry, &image_slots(td)).await {
            Ok(listed) => {
                proof.registry = Some(listed);
                return Ok(());
            }
            Err(error) => why = Some(error),
        }
    }
    Err(no_proofs(why))
}

fn no_proofs(why: Option<ProveError>) -> Failure {
    let hint = "use an endpoint that keeps the state of the receipt's block and answers eth_getProof";
    match why {
        Some(error @ ProveError::Rpc { .. }) => Failure::unreachable(error, hint),
        Some(error) => Failure::refused(error, hint),
        None => Failure::input("no RPC endpoint is given", "give --rpc-url"),
    }
}

/// Adds one endpoint's lines. One that does not answer has said nothing: that is for the caller to tell.
pub async fn check(url: &reqwest::Url, result: &RunResult, report: &mut Report) -> Outcome {
    ask(&reader(url)?, &endpoint_name(url), result, report).await
}

async fn ask(provider: &DynProvider, name: &str, result: &RunResult, report: &mut Report) -> Outcome {
    let chain_id = provider.get_chain_id().await.map_err(|e| failure::rpc(&e))?;
    let detail = format!("{name} serves chain {chain_id}");
    if !report.check(Name::Chain, chain_id == result.chain_id, detail) {
        return Ok(());
    }
    let position = &result.position;
    let block =
        provider.get_block_by_number(position.block_number.into()).await.map_err(|e| failure::rpc(&e))?;
    let hash = block.map(|block| block.header.hash);
    let detail = match hash {
        Some(hash) => format!("block {} of {name} is {hash}", position.block_number),
        None => format!("{name} has no block {}", position.block_number),
    };
    report.check(Name::Block, hash == Some(position.block_hash), detail);
    let app = IDstackApp::new(result.app, provider);
    let revoked = app.agentRevoked(result.certificate.agent).call().await.map_err(failure::contract)?;
    let decision = app.proposalDecision(result.run.proposal_id.0).call().await.map_err(failure::contract)?;
    let by_now = Decision::try_from(decision as u8).map_or("of an unknown state", Decision::code);
    // What was released before a revocation stays released: told, and no failure.
    let detail = format!(
        "{name}: no owner has revoked {} since; the proposal is by now: {by_now}",
        result.certificate.agent
    );
    report.check(Name::AgentKey, !revoked, detail);
    contract_account(provider, name, result, report).await
}

/// A request that no key has signed: the analyst must be a contract account that takes the signature (EIP-1271), as of
/// the receipt's block, or as of now where the endpoint does not keep that state.
async fn contract_account(
    provider: &DynProvider,
    name: &str,
    result: &RunResult,
    report: &mut Report,
) -> Outcome {
    let domain = eip712::app_domain(result.chain_id, result.app);
    if file::is_by_key(result, &domain) {
        return Ok(());
    }
    let analyst = result.run.analyst;
    let code = provider.get_code_at(analyst).await.map_err(|e| failure::rpc(&e))?;
    if code.is_empty() {
        let detail = format!("{name}: not by {analyst}, which is no contract account");
        report.check(Name::RequestSignature, false, detail);
        return Ok(());
    }
    let account = IERC1271::new(analyst, provider);
    let signature: Bytes = result.run.signature.clone();
    let question = account.isValidSignature(eip712::digest(&result.run.abi(), &domain), signature);
    let then = question.clone().block(BlockId::hash(result.position.block_hash)).call().await;
    let answer = match then {
        Err(error) if error.as_revert_data().is_none() => question.call().await,
        answer => answer,
    };
    let taken = match answer {
        Ok(answer) => answer == IS_VALID,
        // A revert is a no; an endpoint that does not answer is none.
        Err(error) if error.as_revert_data().is_some() => false,
        Err(error) => return Err(failure::contract(error)),
    };
    let detail = format!("{name}: the contract account {analyst} takes this signature (EIP-1271)");
    report.check(Name::RequestSignature, taken, detail);
    Ok(())
}
