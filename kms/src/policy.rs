//! What the operator configures about decisions.

use alloy::primitives::{Address, B256};
use cohort_protocol::terms::id_list_hash;

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
    /// Must the registry also allow the machine that this KMS runs in?
    pub self_authorisation: bool,
    /// How many blocks lie between the newest and the confirmed block.
    pub confirmations: u64,
    /// How far the newest block's timestamp may be off the clock, in seconds.
    pub max_head_age_seconds: u64,
    /// How long a certificate is good, in seconds.
    pub certificate_seconds: u64,
    /// How long released keys may be used before the agent must have asked again, in seconds.
    pub lease_seconds: u64,
    /// Known lists of device ids, each ascending: what `Terms.devices` may be the hash of.
    pub device_lists: Vec<Vec<B256>>,
    /// Known lists of `mr_system` values, each ascending: what `Terms.systems` may be the hash of.
    pub system_lists: Vec<Vec<B256>>,
}

impl Policy {
    /// The epoch whose signing key has this address.
    pub fn epoch_of(&self, address: Address) -> Option<u32> {
        self.roots.iter().find(|root| root.address == address).map(|root| root.epoch)
    }

    /// May `device` run terms with this `devices` field?
    pub fn allows_device(&self, devices: B256, device: B256) -> bool {
        names(&self.device_lists, devices, device)
    }

    /// May a CVM with this `mr_system` run terms with this `systems` field? The registry must list it besides.
    pub fn allows_system(&self, systems: B256, mr_system: B256) -> bool {
        names(&self.system_lists, systems, mr_system)
    }
}

/// Does `field` of the terms name `id`? Zero means any. A list of one id is known without being configured. Anything
/// unknown is a no.
fn names(known: &[Vec<B256>], field: B256, id: B256) -> bool {
    let names = |list: &[B256]| list.contains(&id) && id_list_hash(list) == Some(field);
    field.is_zero() || names(&[id]) || known.iter().any(|list| names(list))
}
