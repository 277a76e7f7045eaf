//! What endpoints add to a file: that its block is of the chain, proofs where the file has none, and what owners have
//! revoked since.

use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use cohort_agent::{
    prove::{self, ProveError},
    run::RunResult,
};
use cohort_protocol::{abi::IDstackApp, chain_proof::ChainProof, eip712};

use super::{Name, Report, file};
use crate::failure::{self, Failure, Outcome};

fn provider(url: &reqwest::Url) -> DynProvider {
    ProviderBuilder::new().connect_http(url.clone()).erased()
}

/// Proofs for a file that has none, from the first endpoint that gives them; else the last one's reason.
pub async fn fetch(urls: &[reqwest::Url], result: &RunResult) -> Outcome<ChainProof> {
    let mut why = None;
    for url in urls {
        match prove::chain_proof(&provider(url), result).await {
            Ok(proof) => return Ok(proof),
            Err(error) => why = Some(error),
        }
    }
    let hint = "use an endpoint that keeps the state of the receipt's block and answers eth_getProof";
    Err(match why {
        Some(error @ ProveError::Rpc { .. }) => Failure::unreachable(error, hint),
        Some(error) => Failure::refused(error, hint),
        None => Failure::input("no RPC endpoint is given", "give --rpc-url"),
    })
}

/// Adds one endpoint's lines.
pub async fn check(url: &reqwest::Url, result: &RunResult, report: &mut Report) {
    if let Err(failure) = ask(&provider(url), result, report).await {
        report.check(Name::Chain, false, failure.message);
    }
}

async fn ask(provider: &DynProvider, result: &RunResult, report: &mut Report) -> Outcome {
    let chain_id = provider.get_chain_id().await.map_err(|e| failure::rpc(&e))?;
    let detail = format!("the endpoint serves chain {chain_id}");
    if !report.check(Name::Chain, chain_id == result.chain_id, detail) {
        return Ok(());
    }
    let position = &result.position;
    let block =
        provider.get_block_by_number(position.block_number.into()).await.map_err(|e| failure::rpc(&e))?;
    let hash = block.map(|block| block.header.hash);
    let detail = match hash {
        Some(hash) => format!("the endpoint's block {} is {hash}", position.block_number),
        None => format!("the endpoint has no block {}", position.block_number),
    };
    report.check(Name::Block, hash == Some(position.block_hash), detail);
    let app = IDstackApp::new(result.app, provider);
    let revoked = app.agentRevoked(result.certificate.agent).call().await.map_err(failure::contract)?;
    let detail = format!("no owner has revoked {} since", result.certificate.agent);
    report.check(Name::AgentKey, !revoked, detail);
    if !file::is_by_key(result, &eip712::app_domain(result.chain_id, result.app)) {
        let code = provider.get_code_at(result.run.analyst).await.map_err(|e| failure::rpc(&e))?;
        let detail = "by a contract account: that the contract opened the run shows that it was valid";
        report.check(Name::RequestSignature, !code.is_empty(), detail);
    }
    Ok(())
}
