//! The release log of a KMS: its entries, their hash chain, and signed heads. Spec: `docs/spec/release.md`.
//!
//! Pure: who writes it is `cohort-kms`; who checks a copy needs nothing but this.

use alloy::{
    primitives::{Address, B256, Bytes},
    signers::{SignerSync, local::PrivateKeySigner},
};
use serde::{Deserialize, Serialize};

use crate::{
    chain::Position,
    eip712,
    ids::{ComposeHash, DatasetId, OwnerId, ProposalId, RunId},
    json,
};

/// Longest line in bytes, its line feed included: 64 datasets take about 15,000.
pub const LINE_BYTES_MAX: u64 = 1 << 16;

/// Whether keys went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The keys of all datasets of the record.
    Released,
    /// None.
    Denied,
}

/// One dataset of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedDataset {
    /// Whose.
    pub owner: OwnerId,
    /// Which.
    pub dataset_id: DatasetId,
}

/// What was decided, about what. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The decision.
    pub outcome: Outcome,
    /// `allow`, or the code of the denial.
    pub code: String,
    /// The denial in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The consortium's contract.
    pub app: Address,
    /// The KMS root that answers.
    pub kms_root: Address,
    /// The challenge that the request consumed.
    pub challenge: B256,
    /// The proposal.
    pub proposal_id: ProposalId,
    /// The run.
    pub run_id: RunId,
    /// What the CVM is attested as.
    pub compose_hash: ComposeHash,
    /// The agent's receipt key.
    pub receipt_key: Address,
    /// SHA-256 of the agent's encryption key.
    pub encryption_key_hash: B256,
    /// The hash that the agent's receipt commits to (`docs/spec/sign-rpc.md`).
    pub evidence_hash: B256,
    /// `intel` or `development`.
    pub platform: String,
    /// TCB status of the platform.
    pub tcb_status: String,
    /// dstack device id.
    pub device_id: B256,
    /// dstack instance id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<Address>,
    /// dstack mr_system.
    pub mr_system: B256,
    /// dstack mr_aggregated.
    pub mr_aggregated: B256,
    /// In the order of the request.
    pub datasets: Vec<RecordedDataset>,
    /// Newest block of each RPC endpoint; releases only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<Position>,
    /// The confirmed block; releases only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Position>,
    /// End of the certificate, Unix seconds; releases only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
}

/// A record in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Counted from 0 without gaps.
    pub index: u64,
    /// Hash of the entry before; [`genesis`] for the first.
    pub previous: B256,
    /// What was decided.
    pub record: Record,
    /// Unix seconds by the KMS's clock.
    pub time: u64,
}

/// An entry and its hash: one line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The entry.
    pub entry: Entry,
    /// SHA-256 of the entry's RFC 8785 bytes, and so of all entries before it.
    pub hash: B256,
}

/// What the first entry names as the hash before it: SHA-256 of `cohort-release-log/1`.
pub fn genesis() -> B256 {
    json::sha256(b"cohort-release-log/1")
}

/// A verified log's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of entries.
    pub entries: u64,
    /// Hash of the last one, or [`genesis`].
    pub hash: B256,
}

impl Head {
    /// Of a log without entries.
    pub fn empty() -> Self {
        Self { entries: 0, hash: genesis() }
    }

    /// Checks the next line, without its line break, and moves on.
    ///
    /// # Errors
    /// What does not verify.
    pub fn accept(&mut self, bytes: &[u8]) -> Result<Line, &'static str> {
        let line: Line = serde_json::from_slice(bytes).map_err(|_| "it is no entry")?;
        if json::canonical(&line).ok().as_deref() != Some(bytes) {
            return Err("it is not in canonical form");
        }
        if line.entry.index != self.entries {
            return Err("its index is not the next one");
        }
        if line.entry.previous != self.hash {
            return Err("it does not name the hash of the entry before");
        }
        if json::canonical_hash(&line.entry).ok() != Some(line.hash) {
            return Err("its hash is another one");
        }
        *self = Self { entries: self.entries + 1, hash: line.hash };
        Ok(line)
    }
}

/// A part of a log, as `GET /v1/log` gives it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Entries in order.
    pub entries: Vec<Line>,
    /// The log's end at that time.
    pub head: Head,
}

alloy::sol! {
    /// EIP-712: where a KMS's release log ended at a time.
    #[derive(Debug)]
    struct LogHead {
        uint64 entries;
        bytes32 hash;
        uint64 time;
    }
}

/// Where the release log ended, signed by the KMS root: keep it, and later logs must go on from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The `DstackKms` that lists the root.
    pub registry: Address,
    /// The root that signs.
    pub root: Address,
    /// The end.
    pub head: Head,
    /// Unix seconds by the KMS's clock.
    pub time: u64,
    /// EIP-712 `LogHead(uint64 entries,bytes32 hash,uint64 time)` under the KMS's domain: 65 bytes.
    pub signature: Bytes,
}

impl SignedHead {
    /// Signs a head.
    pub fn issue(
        root: &PrivateKeySigner,
        chain_id: u64,
        registry: Address,
        head: Head,
        time: u64,
    ) -> Result<Self, alloy::signers::Error> {
        let mut signed =
            Self { chain_id, registry, root: root.address(), head, time, signature: Bytes::new() };
        signed.signature = root.sign_hash_sync(&signed.digest())?.as_bytes().to_vec().into();
        Ok(signed)
    }

    /// Is it signed by the root that it names? Whether that root is the right one is for the caller.
    pub fn is_signed(&self) -> bool {
        eip712::recover(self.digest(), &self.signature) == Some(self.root)
    }

    fn digest(&self) -> B256 {
        let Head { entries, hash } = self.head;
        let message = LogHead { entries, hash, time: self.time };
        eip712::digest(&message, &eip712::kms_domain(self.chain_id, self.registry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_head_holds_for_its_log_chain_registry_time_and_root_only() {
        let root = PrivateKeySigner::random();
        let head = Head { entries: 7, hash: B256::repeat_byte(1) };
        let good = SignedHead::issue(&root, 31337, Address::repeat_byte(2), head, 9).unwrap();
        assert!(good.is_signed());
        for bad in [
            SignedHead { chain_id: 1, ..good.clone() },
            SignedHead { registry: Address::ZERO, ..good.clone() },
            SignedHead { root: Address::ZERO, ..good.clone() },
            SignedHead { head: Head { entries: 8, ..head }, ..good.clone() },
            SignedHead { head: Head { hash: B256::ZERO, ..head }, ..good.clone() },
            SignedHead { time: 8, ..good.clone() },
        ] {
            assert!(!bad.is_signed(), "{bad:?}");
        }
    }
}
