//! What the operator configures about decisions.

use alloy::primitives::{Address, B256, keccak256};

use crate::roots::RootIdentity;

/// Largest chain id: integers above 2^53 - 1 are not exact in JSON.
pub const CHAIN_ID_MAX: u64 = (1 << 53) - 1;

/// The rules of this KMS beside those on chain.
#[derive(Debug, Clone)]
pub struct Policy {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The `DstackKms` contract.
    pub registry: Address,
    /// The root epochs that this KMS has keys for.
    pub roots: Vec<RootIdentity>,
    /// How many blocks lie between the newest and the confirmed block.
    pub confirmations: u64,
    /// How far the newest block's timestamp may be off the clock, in seconds.
    pub max_head_age_seconds: u64,
    /// How long a certificate is good, in seconds.
    pub certificate_seconds: u64,
    /// Known lists of device ids, each ascending: what `Terms.devices` may be the hash of.
    pub device_lists: Vec<Vec<B256>>,
}

impl Policy {
    /// The epoch whose signing key has this address.
    pub fn epoch_of(&self, address: Address) -> Option<u32> {
        self.roots.iter().find(|root| root.address == address).map(|root| root.epoch)
    }

    /// May `device` run terms with this `devices` field? Zero means any. A list of one device is known without
    /// being configured. Anything unknown is a no.
    pub fn allows_device(&self, devices: B256, device: B256) -> bool {
        let names = |list: &[B256]| list.contains(&device) && devices_hash(list) == Some(devices);
        devices.is_zero() || names(&[device]) || self.device_lists.iter().any(|list| names(list))
    }
}

/// The `devices` field of terms for a list of device ids: keccak256 of the ids, 32 bytes each, concatenated. `None`
/// unless they ascend strictly.
pub fn devices_hash(list: &[B256]) -> Option<B256> {
    let ascends = list.iter().zip(list.iter().skip(1)).all(|(a, b)| a < b);
    ascends.then(|| keccak256(list.iter().flat_map(|id| id.0).collect::<Vec<u8>>()))
}
