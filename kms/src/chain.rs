//! Reads the chain through the KMS's own RPC endpoints. It collects and does not judge: [`crate::decide`] does.
//!
//! Every `eth_call` names its block by hash (EIP-1898, `requireCanonical`), so that all answers of a view are about
//! one block, and a block that a reorganisation removes in between gives an error instead of another answer.

use std::{collections::BTreeMap, time::Duration};

use alloy::{
    primitives::{Address, B256, Bytes, U64, U256},
    providers::{Provider as _, RootProvider},
    rpc::client::{BatchRequest, RpcClient},
    sol_types::SolCall,
    transports::{RpcError, TransportError},
};
use cohort_protocol::{
    abi::{
        IDstackApp, IDstackKms,
        boot::{AppBootInfo, isKmsAllowedCall},
    },
    chain::Position,
    ids::RunId,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    question::Question,
    views::{EndpointFault, EndpointView, PositionView, RootListing},
};

/// The RPC endpoints, asked all at once.
#[derive(Debug, Clone)]
pub struct Chain {
    endpoints: Vec<RootProvider>,
    registry: Address,
    timeout: Duration,
}

/// What to read for one question.
#[derive(Debug, Clone)]
struct Plan {
    registry: Address,
    app: Address,
    mr_system: B256,
    device_id: B256,
    os_image_hash: B256,
    own_machine: Option<AppBootInfo>,
    epochs: Vec<u32>,
    decisions: Vec<Bytes>,
}

impl Plan {
    fn of(question: &Question, registry: Address, own_machine: Option<&AppBootInfo>) -> Self {
        let decision = |item: &crate::question::Item| {
            let call = IDstackApp::releaseDecisionCall {
                proposalId: question.proposal_id.0,
                composeHash: question.claims.compose_hash.0,
                ownerId: item.owner().word(),
                datasetId: item.dataset_id.0,
                runId: question.run_id.0,
            };
            Bytes::from(call.abi_encode())
        };
        Self {
            registry,
            app: question.app,
            mr_system: question.claims.mr_system,
            device_id: question.claims.device_id,
            os_image_hash: question.claims.os_image_hash,
            own_machine: own_machine.cloned(),
            epochs: question.epochs(),
            decisions: question.items.iter().map(decision).collect(),
        }
    }
}

impl Chain {
    /// Endpoints in the order of the configuration; `timeout` limits everything that one of them is asked for one
    /// question.
    pub fn new(
        urls: Vec<reqwest::Url>,
        registry: Address,
        timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let connect = |url| RootProvider::new(RpcClient::builder().http_with_client(http.clone(), url));
        Ok(Self { endpoints: urls.into_iter().map(connect).collect(), registry, timeout })
    }

    /// All endpoints' views for a question. `indexer_block` is the block number that the indexer calls confirmed;
    /// `own_machine` the one that this KMS runs in, if that is to be asked about.
    pub async fn read(
        &self,
        question: &Question,
        confirmations: u64,
        indexer_block: Option<u64>,
        own_machine: Option<&AppBootInfo>,
    ) -> Vec<Result<EndpointView, EndpointFault>> {
        let heads = self.each(|provider| async move { head(&provider).await }).await;
        let lowest = heads.iter().flatten().map(|(_, block)| block.number).min();
        let depth = lowest.and_then(|number| number.checked_sub(confirmations));
        let plan = Plan::of(question, self.registry, own_machine);
        let mut reached = heads.into_iter().map(|head| head.map(|_| ()));
        self.each(|provider| {
            let reached = reached.next().unwrap_or(Err(EndpointFault::Silent));
            let plan = plan.clone();
            async move {
                reached?;
                let confirmed = depth.ok_or(EndpointFault::TooShort)?;
                view(&provider, confirmed, indexer_block, &plan).await
            }
        })
        .await
    }

    /// The registry's listing of root epochs at each endpoint's newest block.
    pub async fn roots(&self, epochs: &[u32]) -> Vec<Result<BTreeMap<u32, RootListing>, EndpointFault>> {
        let registry = self.registry;
        self.each(|provider| {
            let epochs = epochs.to_vec();
            async move {
                let calls = epochs.iter().map(|epoch| root_call(registry, *epoch)).collect();
                let answers = call_all(&provider, calls, json!("latest")).await?;
                listings(&epochs, &answers)
            }
        })
        .await
    }

    /// What each endpoint holds as the receipt of a run, at its newest block and `confirmations` below it.
    pub async fn receipts(
        &self,
        app: Address,
        run: RunId,
        confirmations: u64,
    ) -> Vec<Result<ReceiptView, EndpointFault>> {
        self.each(|provider| async move {
            let (chain_id, newest) = head(&provider).await?;
            let depth = newest.number.checked_sub(confirmations).ok_or(EndpointFault::TooShort)?;
            let call = Bytes::from(IDstackApp::runCall { runId: run.0 }.abi_encode());
            let mut digests = [B256::ZERO; 2];
            let newest_at = json!({ "blockHash": newest.hash, "requireCanonical": true });
            for (digest, at) in digests.iter_mut().zip([newest_at, json!(U64::from(depth))]) {
                let answers = call_all(&provider, vec![(app, call.clone())], at).await?;
                let [answer] = answers.as_slice() else { return Err(EndpointFault::Malformed) };
                *digest = decode::<IDstackApp::runCall>(answer)?.ok_or(EndpointFault::Malformed)?.digest;
            }
            Ok(ReceiptView { chain_id, newest, digests })
        })
        .await
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

#[derive(Debug, Deserialize)]
struct RawBlock {
    number: U64,
    hash: B256,
    timestamp: U64,
}

impl From<RawBlock> for Position {
    fn from(block: RawBlock) -> Self {
        Self { number: block.number.to(), hash: block.hash, timestamp: block.timestamp.to() }
    }
}

fn fault(error: TransportError) -> EndpointFault {
    match error {
        RpcError::Transport(_) => EndpointFault::Silent,
        _ => EndpointFault::Malformed,
    }
}

async fn head(provider: &RootProvider) -> Result<(u64, Position), EndpointFault> {
    let mut batch = BatchRequest::new(provider.client());
    let chain_id = batch.add_call::<_, U64>("eth_chainId", &json!([])).map_err(fault)?;
    let block = batch
        .add_call::<_, Option<RawBlock>>("eth_getBlockByNumber", &json!(["latest", false]))
        .map_err(fault)?;
    batch.send().await.map_err(fault)?;
    let block = block.await.map_err(fault)?.ok_or(EndpointFault::Malformed)?;
    Ok((chain_id.await.map_err(fault)?.to(), block.into()))
}

/// The confirmed block first and the newest one last, read anew: what a revocation can race is then one batch of
/// calls, not the whole exchange.
async fn view(
    provider: &RootProvider,
    confirmed: u64,
    indexer_block: Option<u64>,
    plan: &Plan,
) -> Result<EndpointView, EndpointFault> {
    let block = |number: u64| json!([U64::from(number), false]);
    let mut batch = BatchRequest::new(provider.client());
    let method = "eth_getBlockByNumber";
    let deep = batch.add_call::<_, Option<RawBlock>>(method, &block(confirmed)).map_err(fault)?;
    let number = indexer_block.unwrap_or(confirmed);
    let indexed = batch.add_call::<_, Option<RawBlock>>(method, &block(number)).map_err(fault)?;
    batch.send().await.map_err(fault)?;
    let deep: Position = deep.await.map_err(fault)?.ok_or(EndpointFault::Malformed)?.into();
    let indexed: Option<Position> = indexed.await.map_err(fault)?.map(Position::from);
    if deep.number != confirmed || indexed.is_some_and(|block| block.number != number) {
        return Err(EndpointFault::Malformed);
    }
    let confirmed = position(provider, deep, plan).await?;
    let (chain_id, newest) = head(provider).await?;
    let head = position(provider, newest, plan).await?;
    Ok(EndpointView { chain_id, head, confirmed, indexer_block: indexed.map(|block| block.hash) })
}

async fn position(
    provider: &RootProvider,
    block: Position,
    plan: &Plan,
) -> Result<PositionView, EndpointFault> {
    let registry = |data: Vec<u8>| (plan.registry, Bytes::from(data));
    let app = |data: Vec<u8>| (plan.app, Bytes::from(data));
    let mut calls = vec![
        app(IDstackApp::kmsRootCall {}.abi_encode()),
        app(IDstackApp::requireTcbUpToDateCall {}.abi_encode()),
        app(IDstackApp::allowAnyDeviceCall {}.abi_encode()),
        app(IDstackApp::allowedDeviceIdsCall { deviceId: plan.device_id }.abi_encode()),
        registry(IDstackKms::registeredAppsCall { appId: plan.app }.abi_encode()),
        registry(IDstackKms::allowedAgentSystemsCall { mrSystem: plan.mr_system }.abi_encode()),
        registry(IDstackKms::allowedOsImagesCall { osImageHash: plan.os_image_hash }.abi_encode()),
    ];
    calls.extend(plan.epochs.iter().map(|epoch| root_call(plan.registry, *epoch)));
    calls.extend(plan.decisions.iter().map(|data| (plan.app, data.clone())));
    if let Some(machine) = &plan.own_machine {
        calls.push(registry(isKmsAllowedCall { bootInfo: machine.clone() }.abi_encode()));
    }
    let at = json!({ "blockHash": block.hash, "requireCanonical": true });
    let answers = call_all(provider, calls, at).await?;
    let [kms_root, tcb, any_device, device, registered, system, image, rest @ ..] = answers.as_slice() else {
        return Err(EndpointFault::Malformed);
    };
    let (roots, rest) = rest.split_at_checked(plan.epochs.len()).ok_or(EndpointFault::Malformed)?;
    let (decisions, own) = rest.split_at_checked(plan.decisions.len()).ok_or(EndpointFault::Malformed)?;
    let kms_allowed = own.first().map(decode::<isKmsAllowedCall>).transpose()?.flatten();
    Ok(PositionView {
        block,
        tcb_must_be_up_to_date: decode::<IDstackApp::requireTcbUpToDateCall>(tcb)?,
        any_device: decode::<IDstackApp::allowAnyDeviceCall>(any_device)?,
        device_listed: decode::<IDstackApp::allowedDeviceIdsCall>(device)?,
        os_image_allowed: decode::<IDstackKms::allowedOsImagesCall>(image)?,
        kms_allowed: kms_allowed.map(|answer| answer.isAllowed),
        kms_root: decode::<IDstackApp::kmsRootCall>(kms_root)?,
        app_registered: decode::<IDstackKms::registeredAppsCall>(registered)?,
        system_allowed: decode::<IDstackKms::allowedAgentSystemsCall>(system)?,
        roots: listings(&plan.epochs, roots)?,
        decisions: decisions.iter().map(word).collect::<Result<_, _>>()?,
    })
}

fn root_call(registry: Address, epoch: u32) -> (Address, Bytes) {
    (registry, Bytes::from(IDstackKms::rootCall { epoch }.abi_encode()))
}

/// One batch of `eth_call`s at a block. `None`: a revert, or no contract at that address.
async fn call_all(
    provider: &RootProvider,
    calls: Vec<(Address, Bytes)>,
    at: Value,
) -> Result<Vec<Option<Bytes>>, EndpointFault> {
    let mut batch = BatchRequest::new(provider.client());
    let mut waiters = Vec::with_capacity(calls.len());
    for (to, data) in calls {
        let params = json!([{ "to": to, "data": data }, at]);
        waiters.push(batch.add_call::<_, Bytes>("eth_call", &params).map_err(fault)?);
    }
    batch.send().await.map_err(fault)?;
    let mut answers = Vec::with_capacity(waiters.len());
    for waiter in waiters {
        answers.push(match waiter.await {
            Ok(bytes) => (!bytes.is_empty()).then_some(bytes),
            Err(RpcError::ErrorResp(error)) if error.code == 3 || error.as_revert_data().is_some() => None,
            Err(error) => return Err(fault(error)),
        });
    }
    Ok(answers)
}

fn decode<C: SolCall>(answer: &Option<Bytes>) -> Result<Option<C::Return>, EndpointFault> {
    let decoded = answer.as_ref().map(|bytes| C::abi_decode_returns_validate(bytes));
    decoded.transpose().map_err(|_| EndpointFault::Malformed)
}

/// A number in one word; a larger one than fits becomes the largest, which no decision has.
fn word(answer: &Option<Bytes>) -> Result<Option<u64>, EndpointFault> {
    let Some(bytes) = answer else { return Ok(None) };
    let word: [u8; 32] = bytes.as_ref().try_into().map_err(|_| EndpointFault::Malformed)?;
    Ok(Some(U256::from_be_bytes(word).saturating_to()))
}

fn listings(epochs: &[u32], answers: &[Option<Bytes>]) -> Result<BTreeMap<u32, RootListing>, EndpointFault> {
    let mut listings = BTreeMap::new();
    for (epoch, answer) in epochs.iter().zip(answers) {
        if let Some(root) = decode::<IDstackKms::rootCall>(answer)? {
            let listing = RootListing {
                address: root.rootAddress,
                sealing_key_hash: root.sealingKeyHash,
                retired: root.retired,
            };
            listings.insert(*epoch, listing);
        }
    }
    Ok(listings)
}
