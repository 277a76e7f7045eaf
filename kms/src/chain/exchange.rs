//! JSON-RPC with one endpoint.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use alloy::{
    primitives::{Address, B256, Bytes, U64},
    providers::{Provider as _, RootProvider},
    rpc::client::BatchRequest,
    sol_types::SolCall,
    transports::{RpcError, TransportError},
};
use cohort_protocol::{abi::IDstackKms, chain::Position};
use serde::Deserialize;
use serde_json::{Value, json};

use super::plan::Plan;
use crate::views::{EndpointFault, EndpointView, RootListing};

/// A contract and the call's data.
pub(super) type Call = (Address, Bytes);

/// What came of one call, or of one plan: others of the same exchange may have fared better.
pub(super) type Answer<T> = Result<T, EndpointFault>;

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

/// How `eth_call` names a block.
pub(super) fn at(block: Position) -> Value {
    json!({ "blockHash": block.hash, "requireCanonical": true })
}

/// Chain id and newest block.
pub(super) async fn head(provider: &RootProvider) -> Result<(u64, Position), EndpointFault> {
    let mut batch = BatchRequest::new(provider.client());
    let chain_id = batch.add_call::<_, U64>("eth_chainId", &json!([])).map_err(fault)?;
    let block = batch
        .add_call::<_, Option<RawBlock>>("eth_getBlockByNumber", &json!(["latest", false]))
        .map_err(fault)?;
    batch.send().await.map_err(fault)?;
    let block = block.await.map_err(fault)?.ok_or(EndpointFault::Malformed)?;
    Ok((chain_id.await.map_err(fault)?.to(), block.into()))
}

/// The blocks of these numbers that there are.
async fn blocks(
    provider: &RootProvider,
    numbers: BTreeSet<u64>,
) -> Result<BTreeMap<u64, Position>, EndpointFault> {
    let mut batch = BatchRequest::new(provider.client());
    let mut waiters = Vec::with_capacity(numbers.len());
    for number in numbers {
        let params = json!([U64::from(number), false]);
        let waiter = batch.add_call::<_, Option<RawBlock>>("eth_getBlockByNumber", &params).map_err(fault)?;
        waiters.push((number, waiter));
    }
    batch.send().await.map_err(fault)?;
    let mut blocks = BTreeMap::new();
    for (number, waiter) in waiters {
        let Some(block) = waiter.await.map_err(fault)? else { continue };
        let block = Position::from(block);
        if block.number != number {
            return Err(EndpointFault::Malformed);
        }
        blocks.insert(number, block);
    }
    Ok(blocks)
}

/// The calls of several plans, each different one once.
#[derive(Default)]
struct Calls {
    all: Vec<Call>,
    /// For each plan, where its calls are in `all`.
    of_plans: Vec<Vec<usize>>,
}

impl Calls {
    fn of(plans: &[Plan]) -> Self {
        let (mut calls, mut known) = (Self::default(), HashMap::new());
        for plan in plans {
            let mut places = Vec::with_capacity(plan.calls().len());
            for call in plan.calls() {
                places.push(*known.entry(call).or_insert_with(|| {
                    calls.all.push(call.clone());
                    calls.all.len() - 1
                }));
            }
            calls.of_plans.push(places);
        }
        calls
    }
}

/// One view for each plan. The confirmed block first and the newest one last, read anew: what a revocation can race is
/// then one batch of calls, not the whole exchange.
pub(super) async fn views(
    provider: &RootProvider,
    confirmed: u64,
    plans: &[Plan],
) -> Result<Vec<Answer<EndpointView>>, EndpointFault> {
    let numbers = plans.iter().filter_map(|plan| plan.indexer_block).chain([confirmed]).collect();
    let blocks = blocks(provider, numbers).await?;
    let deep = *blocks.get(&confirmed).ok_or(EndpointFault::Malformed)?;
    let calls = Calls::of(plans);
    let confirmed_answers = call_all(provider, &calls.all, at(deep)).await?;
    let (chain_id, newest) = head(provider).await?;
    let newest_answers = call_all(provider, &calls.all, at(newest)).await?;
    let view = |(plan, places): (&Plan, &Vec<usize>)| {
        let of = |answers| pick(answers, places);
        Ok(EndpointView {
            chain_id,
            head: plan.position(newest, &of(&newest_answers)?)?,
            confirmed: plan.position(deep, &of(&confirmed_answers)?)?,
            indexer_block: blocks.get(&plan.indexer_block.unwrap_or(confirmed)).map(|block| block.hash),
        })
    };
    Ok(plans.iter().zip(&calls.of_plans).map(view).collect())
}

fn pick<'a, T>(answers: &'a [T], places: &[usize]) -> Result<Vec<&'a T>, EndpointFault> {
    places.iter().map(|place| answers.get(*place).ok_or(EndpointFault::Malformed)).collect()
}

/// `DstackKms.root` of an epoch.
pub(super) fn root_call(registry: Address, epoch: u32) -> Call {
    (registry, Bytes::from(IDstackKms::rootCall { epoch }.abi_encode()))
}

/// One batch of `eth_call`s at a block. `None`: a revert, or no contract at that address. What is wrong with one
/// answer is told of that one.
pub(super) async fn call_all(
    provider: &RootProvider,
    calls: &[Call],
    at: Value,
) -> Result<Vec<Answer<Option<Bytes>>>, EndpointFault> {
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
            Ok(bytes) => Ok((!bytes.is_empty()).then_some(bytes)),
            Err(RpcError::ErrorResp(error)) if error.code == 3 || error.as_revert_data().is_some() => {
                Ok(None)
            }
            Err(error) => Err(fault(error)),
        });
    }
    Ok(answers)
}

pub(super) fn decode<C: SolCall>(answer: &Answer<Option<Bytes>>) -> Result<Option<C::Return>, EndpointFault> {
    let bytes = answer.as_ref().map_err(|fault| *fault)?;
    let decoded = bytes.as_ref().map(|bytes| C::abi_decode_returns_validate(bytes));
    decoded.transpose().map_err(|_| EndpointFault::Malformed)
}

/// The registry's listings of these epochs, from one answer each.
pub(super) fn listings(
    epochs: &[u32],
    answers: &[&Answer<Option<Bytes>>],
) -> Result<BTreeMap<u32, RootListing>, EndpointFault> {
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
