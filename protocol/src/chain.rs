//! Positions on the chain, as every answer about it names them.

use alloy::primitives::B256;
use serde::{Deserialize, Serialize};

/// One block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Block number.
    pub number: u64,
    /// Block hash.
    pub hash: B256,
    /// Block timestamp, Unix seconds.
    pub timestamp: u64,
}

/// A release decision and the block it holds at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionAt {
    /// Where.
    pub position: Position,
    /// What the facts up to there decide.
    pub decision: crate::decision::Decision,
}

/// Answer of the indexer's `GET /v1/apps/{app}/release-decision`. Two positions count: approvals must have aged to
/// `confirmed`, revocations count at `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseDecisions {
    /// EIP-155 chain id that the indexer follows.
    pub chain_id: u64,
    /// At the newest block that the indexer has.
    pub head: DecisionAt,
    /// At the confirmed depth.
    pub confirmed: DecisionAt,
    /// At the newest mirrored block that the chain calls finalized; `None` where no endpoint tells. For people: no
    /// release depends on it.
    pub finalized: Option<DecisionAt>,
}
