//! What indexer and RPC endpoints answered, as data for the decision.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use cohort_protocol::chain::{Position, ReleaseDecisions};

/// What an RPC endpoint said about one block. `None` wherever no contract gave an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionView {
    /// Which block.
    pub block: Position,
    /// `DstackApp.releaseDecision` for each item of the question, in order; the raw number.
    pub decisions: Vec<Option<u64>>,
    /// `DstackApp.kmsRoot`.
    pub kms_root: Option<Address>,
    /// `DstackKms.registeredApps(app)`.
    pub app_registered: Option<bool>,
    /// `DstackKms.allowedAgentSystems(mr_system)`.
    pub system_allowed: Option<bool>,
    /// `DstackKms.allowedOsImages(os_image_hash)`.
    pub os_image_allowed: Option<bool>,
    /// `DstackKms.gpuGoldenValues`: `listHash` of the list in force; zero where none is announced.
    pub gpu_golden_values: Option<B256>,
    /// `DstackApp.requireTcbUpToDate`.
    pub tcb_must_be_up_to_date: Option<bool>,
    /// `DstackApp.allowAnyDevice`.
    pub any_device: Option<bool>,
    /// `DstackApp.allowedDeviceIds(device_id)`.
    pub device_listed: Option<bool>,
    /// `DstackKms.isKmsAllowed` of the machine that this KMS runs in; `None` also where it was not asked.
    pub kms_allowed: Option<bool>,
    /// `DstackKms.root(epoch)` for each epoch of the question; absent where the registry knows none.
    pub roots: BTreeMap<u32, RootListing>,
}

/// A root as the registry lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootListing {
    /// Address of the signing key.
    pub address: Address,
    /// keccak256 of the sealing key.
    pub sealing_key_hash: B256,
    /// Retired: it opens nothing any more.
    pub retired: bool,
}

/// One RPC endpoint's view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    /// `eth_chainId`.
    pub chain_id: u64,
    /// At its newest block.
    pub head: PositionView,
    /// At the confirmed block: the same number at all endpoints.
    pub confirmed: PositionView,
    /// Hash of its block at the number that the indexer calls confirmed; `None` if it has no such block.
    pub indexer_block: Option<B256>,
}

/// Why an RPC endpoint has no view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointFault {
    /// No answer within the time limit.
    Silent,
    /// An answer that is none: an error, or something malformed.
    Malformed,
    /// Its chain is shorter than the confirmed depth.
    TooShort,
}

/// The indexer gave no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexerFault;

/// All answers to one question.
#[derive(Debug, Clone)]
pub struct Views {
    /// The indexer's, for each item of the question in order.
    pub indexer: Vec<Result<ReleaseDecisions, IndexerFault>>,
    /// One for each configured RPC endpoint.
    pub endpoints: Vec<Result<EndpointView, EndpointFault>>,
}
