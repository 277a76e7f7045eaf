//! Which contracts are asked what for one question, and what the answers say.

use alloy::{
    primitives::{Address, Bytes, U256},
    sol_types::SolCall as _,
};
use cohort_protocol::{
    abi::{
        IDstackApp, IDstackKms,
        boot::{AppBootInfo, isKmsAllowedCall},
    },
    chain::Position,
};

use super::{
    Asked,
    exchange::{Answer, Call, decode, listings, root_call},
};
use crate::views::{EndpointFault, PositionView};

/// Calls of every plan that come before those of its epochs.
const FIXED: usize = 8;

/// What to read for one question.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The block number that the indexer calls confirmed, if it answered.
    pub(super) indexer_block: Option<u64>,
    epochs: Vec<u32>,
    decisions: usize,
    calls: Vec<Call>,
}

impl Plan {
    pub(super) fn of(asked: &Asked<'_>, registry: Address) -> Self {
        let Asked { question, indexer_block, own_machine } = *asked;
        let (claims, epochs) = (&question.claims, question.epochs());
        let of_registry = |data: Vec<u8>| (registry, Bytes::from(data));
        let of_app = |data: Vec<u8>| (question.app, Bytes::from(data));
        let decision = |item: &crate::question::Item| IDstackApp::releaseDecisionCall {
            proposalId: question.proposal_id.0,
            composeHash: claims.compose_hash.0,
            ownerId: item.owner().word(),
            datasetId: item.dataset_id.0,
            runId: question.run_id.0,
        };
        let fixed: [Call; FIXED] = [
            of_app(IDstackApp::kmsRootCall {}.abi_encode()),
            of_app(IDstackApp::requireTcbUpToDateCall {}.abi_encode()),
            of_app(IDstackApp::allowAnyDeviceCall {}.abi_encode()),
            of_app(IDstackApp::allowedDeviceIdsCall { deviceId: claims.device_id }.abi_encode()),
            of_registry(IDstackKms::registeredAppsCall { appId: question.app }.abi_encode()),
            of_registry(IDstackKms::allowedAgentSystemsCall { mrSystem: claims.mr_system }.abi_encode()),
            of_registry(IDstackKms::allowedOsImagesCall { osImageHash: claims.os_image_hash }.abi_encode()),
            of_registry(IDstackKms::gpuGoldenValuesCall {}.abi_encode()),
        ];
        let mut calls = Vec::from(fixed);
        calls.extend(epochs.iter().map(|epoch| root_call(registry, *epoch)));
        calls.extend(question.items.iter().map(|item| of_app(decision(item).abi_encode())));
        calls.extend(own_machine.map(|machine| kms_allowed_call(registry, machine)));
        Self { indexer_block, epochs, decisions: question.items.len(), calls }
    }

    pub(super) fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// What the answers to [`Self::calls`], in their order, say about a block.
    pub(super) fn position(
        &self,
        block: Position,
        answers: &[&Answer<Option<Bytes>>],
    ) -> Result<PositionView, EndpointFault> {
        let [kms_root, tcb, any_device, device, registered, system, image, golden, rest @ ..] = answers
        else {
            return Err(EndpointFault::Malformed);
        };
        let (roots, rest) = rest.split_at_checked(self.epochs.len()).ok_or(EndpointFault::Malformed)?;
        let (decisions, own) = rest.split_at_checked(self.decisions).ok_or(EndpointFault::Malformed)?;
        let golden = decode::<IDstackKms::gpuGoldenValuesCall>(golden)?;
        Ok(PositionView {
            block,
            tcb_must_be_up_to_date: decode::<IDstackApp::requireTcbUpToDateCall>(tcb)?,
            any_device: decode::<IDstackApp::allowAnyDeviceCall>(any_device)?,
            device_listed: decode::<IDstackApp::allowedDeviceIdsCall>(device)?,
            os_image_allowed: decode::<IDstackKms::allowedOsImagesCall>(image)?,
            gpu_golden_values: golden,
            kms_allowed: is_kms_allowed(own.first().copied())?,
            kms_root: decode::<IDstackApp::kmsRootCall>(kms_root)?,
            app_registered: decode::<IDstackKms::registeredAppsCall>(registered)?,
            system_allowed: decode::<IDstackKms::allowedAgentSystemsCall>(system)?,
            roots: listings(&self.epochs, roots)?,
            decisions: decisions.iter().map(|answer| word(answer)).collect::<Result<_, _>>()?,
        })
    }
}

/// `DstackKms.isKmsAllowed` of a machine.
pub(super) fn kms_allowed_call(registry: Address, machine: &AppBootInfo) -> Call {
    (registry, Bytes::from(isKmsAllowedCall { bootInfo: machine.clone() }.abi_encode()))
}

/// Its answer; `None` where it was not asked, or no contract answered.
pub(super) fn is_kms_allowed(answer: Option<&Answer<Option<Bytes>>>) -> Result<Option<bool>, EndpointFault> {
    let decoded = answer.map(decode::<isKmsAllowedCall>).transpose()?.flatten();
    Ok(decoded.map(|answer| answer.isAllowed))
}

/// A number in one word; a larger one than fits becomes the largest, which no decision has.
fn word(answer: &Answer<Option<Bytes>>) -> Result<Option<u64>, EndpointFault> {
    let Some(bytes) = answer.as_ref().map_err(|fault| *fault)? else { return Ok(None) };
    let word: [u8; 32] = bytes.as_ref().try_into().map_err(|_| EndpointFault::Malformed)?;
    Ok(Some(U256::from_be_bytes(word).saturating_to()))
}
