//! Reads the chain through the KMS's own RPC endpoints. It collects and does not judge: [`crate::decide`] does.
//!
//! Every `eth_call` names its block by hash (EIP-1898, `requireCanonical`), so that all answers of a view are about
//! one block, and a block that a reorganisation removes in between gives an error instead of another answer.

mod exchange;
mod plan;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use alloy::{
    primitives::{Address, B256, Bytes, U64},
    providers::RootProvider,
    rpc::client::RpcClient,
    sol_types::SolCall,
};
use cohort_protocol::{
    abi::{IDstackApp, boot::AppBootInfo},
    chain::Position,
    ids::RunId,
};
use serde_json::json;

use crate::{
    question::Question,
    views::{EndpointFault, EndpointView, RootListing},
};
use exchange::{Answer, call_all, decode, head, listings, root_call};
use plan::Plan;

/// What each endpoint said, in the order of the configuration.
pub type EndpointViews = Vec<Result<EndpointView, EndpointFault>>;

/// The RPC endpoints, asked all at once.
#[derive(Debug, Clone)]
pub struct Chain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoints: Vec<RootProvider>,
    registry: Address,
    confirmations: u64,
    timeout: Duration,
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What is asked.
    pub question: &'a Question,
    /// The block number that the indexer calls confirmed, if it answered.
    pub indexer_block: Option<u64>,
    /// The machine that this KMS runs in, if that is to be asked about.
    pub own_machine: Option<&'a AppBootInfo>,
}

/// One endpoint's view of a run's receipt.
#[derive(Debug, Clone, Copy)]
pub struct ReceiptView {
    /// EIP-155.
    pub chain_id: u64,
    /// The newest block.
    pub newest: Position,
    /// Digest of the receipt at the newest and at the confirmed block; zero: none.
    pub digests: [B256; 2],
}

impl Chain {
    /// Endpoints in the order of the configuration; `confirmations` blocks lie between the newest and the confirmed
    /// block; `timeout` limits everything that one endpoint is asked in one exchange.
    pub fn new(
        urls: Vec<reqwest::Url>,
        registry: Address,
        confirmations: u64,
        timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        let http = crate::client::client(timeout)?;
        let connect = |url| RootProvider::new(RpcClient::builder().http_with_client(http.clone(), url));
        let endpoints = urls.into_iter().map(connect).collect();
        Ok(Self(Arc::new(Inner { endpoints, registry, confirmations, timeout })))
    }

    /// How many endpoints there are.
    pub fn endpoints(&self) -> usize {
        self.0.endpoints.len()
    }

    /// All endpoints' views for each of several questions about one app, from one exchange.
    pub async fn read(&self, asked: impl Iterator<Item = Asked<'_>>) -> Vec<EndpointViews> {
        let plans = asked.map(|asked| Plan::of(&asked, self.0.registry)).collect();
        self.0.views(plans).await
    }

    /// The registry's listing of root epochs at each endpoint's newest block.
    pub async fn roots(&self, epochs: &[u32]) -> Vec<Result<BTreeMap<u32, RootListing>, EndpointFault>> {
        let registry = self.0.registry;
        self.0
            .each(|provider| {
                let epochs = epochs.to_vec();
                async move {
                    let calls: Vec<_> = epochs.iter().map(|epoch| root_call(registry, *epoch)).collect();
                    let answers = call_all(&provider, &calls, json!("latest")).await?;
                    listings(&epochs, &answers.iter().collect::<Vec<_>>())
                }
            })
            .await
    }

    /// Whether the registry lets this machine be a KMS, at each endpoint's newest and at its confirmed block. `None`
    /// where no registry answers.
    pub async fn kms_allowed(&self, machine: &AppBootInfo) -> Vec<Result<[Option<bool>; 2], EndpointFault>> {
        let (registry, confirmations) = (self.0.registry, self.0.confirmations);
        let call = plan::kms_allowed_call(registry, machine);
        self.0
            .each(|provider| {
                let call = call.clone();
                async move {
                    let (_, at) = newest_and_confirmed(&provider, confirmations).await?;
                    let mut allowed = [None; 2];
                    for (slot, at) in allowed.iter_mut().zip(at) {
                        let answers = call_all(&provider, std::slice::from_ref(&call), at).await?;
                        *slot = plan::is_kms_allowed(answers.first())?;
                    }
                    Ok(allowed)
                }
            })
            .await
    }

    /// What each endpoint holds as the receipt of a run, at its newest block and at its confirmed one.
    pub async fn receipts(&self, app: Address, run: RunId) -> Vec<Result<ReceiptView, EndpointFault>> {
        let confirmations = self.0.confirmations;
        let call = (app, Bytes::from(IDstackApp::runCall { runId: run.0 }.abi_encode()));
        self.0
            .each(|provider| {
                let call = call.clone();
                async move {
                    let ((chain_id, newest), at) = newest_and_confirmed(&provider, confirmations).await?;
                    let mut digests = [B256::ZERO; 2];
                    for (digest, at) in digests.iter_mut().zip(at) {
                        let answers = call_all(&provider, std::slice::from_ref(&call), at).await?;
                        let run = answers.first().ok_or(EndpointFault::Malformed)?;
                        let run = decode::<IDstackApp::runCall>(run)?.ok_or(EndpointFault::Malformed)?;
                        *digest = run.digest;
                    }
                    Ok(ReceiptView { chain_id, newest, digests })
                }
            })
            .await
    }
}

/// Chain id and newest block, and how `eth_call` names this block and the confirmed one.
async fn newest_and_confirmed(
    provider: &RootProvider,
    confirmations: u64,
) -> Result<((u64, Position), [serde_json::Value; 2]), EndpointFault> {
    let (chain_id, newest) = head(provider).await?;
    let depth = newest.number.checked_sub(confirmations).ok_or(EndpointFault::TooShort)?;
    Ok(((chain_id, newest), [exchange::at(newest), json!(U64::from(depth))]))
}

impl Inner {
    /// One exchange with every endpoint for several plans about one app. One list of views for each plan.
    async fn views(&self, plans: Vec<Plan>) -> Vec<EndpointViews> {
        let heads = self.each(|provider| async move { head(&provider).await }).await;
        let lowest = heads.iter().flatten().map(|(_, block)| block.number).min();
        let depth = lowest.and_then(|number| number.checked_sub(self.confirmations));
        let plans: Arc<[Plan]> = plans.into();
        let mut reached = heads.into_iter().map(|head| head.map(|_| ()));
        let endpoints = self
            .each(|provider| {
                let reached = reached.next().unwrap_or(Err(EndpointFault::Silent));
                let plans = plans.clone();
                async move {
                    reached?;
                    let confirmed = depth.ok_or(EndpointFault::TooShort)?;
                    exchange::views(&provider, confirmed, &plans).await
                }
            })
            .await;
        let of_plan = |index: usize| {
            let view = |endpoint: &Result<Vec<Answer<EndpointView>>, EndpointFault>| match endpoint {
                Ok(views) => views.get(index).cloned().unwrap_or(Err(EndpointFault::Malformed)),
                Err(fault) => Err(*fault),
            };
            endpoints.iter().map(view).collect()
        };
        (0..plans.len()).map(of_plan).collect()
    }

    /// Runs one task an endpoint, all at once, each under the time limit; answers in the endpoints' order.
    async fn each<T, F>(&self, mut ask: impl FnMut(RootProvider) -> F) -> Vec<Result<T, EndpointFault>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, EndpointFault>> + Send + 'static,
    {
        let limit = self.timeout;
        let spawn =
            |provider: &RootProvider| tokio::spawn(tokio::time::timeout(limit, ask(provider.clone())));
        let tasks: Vec<_> = self.endpoints.iter().map(spawn).collect();
        let mut answers = Vec::with_capacity(tasks.len());
        for task in tasks {
            answers.push(match task.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_elapsed)) => Err(EndpointFault::Silent),
                Err(_panicked) => Err(EndpointFault::Malformed),
            });
        }
        answers
    }
}
