//! A proposal's terms and a run request as people and JSON see them, and their EIP-712 identities.
//!
//! In JSON: identifiers as `0x` hex, epsilon as a decimal string, delta as a decimal string in units of 1e-18,
//! times as Unix seconds.

use alloy::{
    primitives::{Address, B256, Bytes, keccak256},
    sol_types::SolStruct,
};
use serde::{Deserialize, Serialize};

use crate::{
    abi,
    ids::{ComposeHash, OutputSchemaHash, ProposalId, RecipeHash, RunId},
    loss::Epsilon,
};

/// What one approval covers, whole (`Terms` in `IDstackApp.sol`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Measured hash of the app-compose file.
    pub compose_hash: ComposeHash,
    /// Hash of the recipe inside it.
    pub recipe_hash: RecipeHash,
    /// Hash of the schema that outputs must satisfy.
    pub output_schema_hash: OutputSchemaHash,
    /// Privacy loss that each run debits.
    pub epsilon_per_run: Epsilon,
    /// Failure probability that each run debits, unit 1e-18.
    #[serde(with = "decimal")]
    pub delta_per_run: u64,
    /// Privacy loss of all runs together.
    pub epsilon_budget: Epsilon,
    /// Failure probability of all runs together, unit 1e-18.
    #[serde(with = "decimal")]
    pub delta_budget: u64,
    /// Unix seconds at which the proposal stops being live.
    pub expiry: u64,
    /// keccak256 of the ascending device ids that may run it; zero: any.
    pub devices: B256,
    /// keccak256 of the ascending `mr_system` values of the CVM images that may run it; zero: any that the registry lists.
    pub systems: B256,
    /// The app's era that these terms are for.
    pub era: u32,
    /// Tells otherwise equal terms apart.
    pub round: u32,
}

impl Terms {
    /// The ABI form.
    pub fn abi(&self) -> abi::Terms {
        abi::Terms {
            composeHash: self.compose_hash.0,
            recipeHash: self.recipe_hash.0,
            outputSchemaHash: self.output_schema_hash.0,
            epsilonPerRun: self.epsilon_per_run.0,
            deltaPerRun: self.delta_per_run,
            epsilonBudget: self.epsilon_budget.0,
            deltaBudget: self.delta_budget,
            expiry: self.expiry,
            devices: self.devices,
            systems: self.systems,
            era: self.era,
            round: self.round,
        }
    }

    /// EIP-712 struct hash: the proposal's identity.
    pub fn proposal_id(&self) -> ProposalId {
        ProposalId(self.abi().eip712_hash_struct())
    }
}

impl From<&abi::Terms> for Terms {
    fn from(terms: &abi::Terms) -> Self {
        Self {
            compose_hash: terms.composeHash.into(),
            recipe_hash: terms.recipeHash.into(),
            output_schema_hash: terms.outputSchemaHash.into(),
            epsilon_per_run: Epsilon(terms.epsilonPerRun),
            delta_per_run: terms.deltaPerRun,
            epsilon_budget: Epsilon(terms.epsilonBudget),
            delta_budget: terms.deltaBudget,
            expiry: terms.expiry,
            devices: terms.devices,
            systems: terms.systems,
            era: terms.era,
            round: terms.round,
        }
    }
}

/// The `devices` or `systems` field of terms for a list of ids: keccak256 of the ids, 32 bytes each, concatenated.
/// `None` unless the list names something and ascends strictly.
pub fn id_list_hash(list: &[B256]) -> Option<B256> {
    let ascends = list.iter().zip(list.iter().skip(1)).all(|(a, b)| a < b);
    (ascends && !list.is_empty()).then(|| keccak256(list.iter().flat_map(|id| id.0).collect::<Vec<u8>>()))
}

/// A run that an analyst asks for (`RunRequest` in `IDstackApp.sol`), with the analyst's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRunRequest {
    /// The proposal it runs under.
    pub proposal_id: ProposalId,
    /// Bit i set: the owner with index i takes part.
    #[serde(with = "decimal")]
    pub participants: u128,
    /// The listed analyst.
    pub analyst: Address,
    /// Tells runs apart.
    pub nonce: B256,
    /// Unix seconds after which the run may no longer be opened.
    pub deadline: u64,
    /// EIP-712 signature by the analyst: 65 bytes, or whatever an EIP-1271 account takes.
    pub signature: Bytes,
}

impl SignedRunRequest {
    /// The ABI form, without the signature.
    pub fn abi(&self) -> abi::RunRequest {
        abi::RunRequest {
            proposalId: self.proposal_id.0,
            participants: self.participants,
            analyst: self.analyst,
            nonce: self.nonce,
            deadline: self.deadline,
        }
    }

    /// EIP-712 struct hash: the run's identity.
    pub fn run_id(&self) -> RunId {
        RunId(self.abi().eip712_hash_struct())
    }
}

/// Integers as decimal strings: JavaScript loses numbers above 2^53.
pub(crate) mod decimal {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<T: Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        let text = String::deserialize(d)?;
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let canonical = plain && (text.len() == 1 || !text.starts_with('0'));
        let value = if canonical { text.parse().ok() } else { None };
        value.ok_or_else(|| D::Error::custom("must be a decimal integer as a string"))
    }
}
