//! The registry: KMS roots by epoch, allowed images and measurements.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256, Bytes};
use serde::Serialize;
use utoipa::ToSchema;

use super::app::put;
use crate::{
    event::RegistryEvent,
    schema as s,
    store::{By, Kinds, Select, Snapshot, Stamp, StoreError},
};

const KINDS: &[&str] = &[
    "kms_info_set",
    "gateway_app_id_set",
    "root_registered",
    "root_retired",
    "os_image_hash_added",
    "os_image_hash_removed",
    "kms_aggregated_mr_added",
    "kms_aggregated_mr_removed",
    "kms_device_added",
    "kms_device_removed",
    "agent_system_added",
    "agent_system_removed",
    "gpu_golden_values_set",
    "ownership_transferred",
];

/// A KMS root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Root {
    /// Counts up from 0; the latest that is not retired is the one to seal to.
    pub epoch: u32,
    /// Address of the root's signing key.
    #[schema(value_type = s::Address)]
    pub root: Address,
    /// X-Wing public key that owners seal to.
    #[schema(value_type = s::HexBytes)]
    pub sealing_key: Bytes,
    /// When and where.
    pub registered: Stamp,
    /// When it ceased to open anything.
    pub retired: Option<Stamp>,
}

/// The registry as of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Registry)]
pub struct RegistryState {
    /// Who administers it.
    #[schema(value_type = Option<s::Address>)]
    pub owner: Option<Address>,
    /// dstack's KMS public key, if set.
    #[schema(value_type = Option<s::HexBytes>)]
    pub k256_pubkey: Option<Bytes>,
    /// dstack's gateway app, if set.
    pub gateway_app_id: Option<String>,
    /// Ascending by epoch.
    #[serde(serialize_with = "values")]
    #[schema(value_type = Vec<Root>)]
    pub roots: BTreeMap<u32, Root>,
    /// mrSystem of CVMs whose agents may get keys.
    #[schema(value_type = Vec<s::Hash>)]
    pub agent_systems: BTreeSet<B256>,
    /// Allowed OS images.
    #[schema(value_type = Vec<s::Hash>)]
    pub os_images: BTreeSet<B256>,
    /// Allowed measurements of the KMS itself.
    #[schema(value_type = Vec<s::Hash>)]
    pub kms_aggregated_mrs: BTreeSet<B256>,
    /// Devices that the KMS itself may run on.
    #[schema(value_type = Vec<s::Hash>)]
    pub kms_devices: BTreeSet<B256>,
    /// SHA-256 of the list of GPU golden values, if one is set.
    #[schema(value_type = Option<s::Hash>)]
    pub gpu_golden_values: Option<B256>,
}

fn values<S: serde::Serializer>(map: &BTreeMap<u32, Root>, s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(map.values())
}

impl RegistryState {
    /// The registry as of a block.
    pub async fn load(snapshot: &mut Snapshot, registry: Address, at: u64) -> Result<Self, StoreError> {
        let select = Select::new(registry, By::Contract, Kinds::Any(KINDS), at);
        let mut state = Self::default();
        for row in snapshot.events::<RegistryEvent>(select).await? {
            state.apply(row.stamp, row.event);
        }
        Ok(state)
    }

    fn apply(&mut self, stamp: Stamp, event: RegistryEvent) {
        match event {
            RegistryEvent::OwnershipTransferred { new_owner, .. } => self.owner = Some(new_owner),
            RegistryEvent::KmsInfoSet { k256_pubkey } => self.k256_pubkey = Some(k256_pubkey),
            RegistryEvent::GatewayAppIdSet { gateway_app_id } => self.gateway_app_id = Some(gateway_app_id),
            RegistryEvent::RootRegistered { epoch, root, sealing_key } => {
                self.roots.insert(epoch, Root { epoch, root, sealing_key, registered: stamp, retired: None });
            }
            RegistryEvent::RootRetired { epoch } => {
                if let Some(root) = self.roots.get_mut(&epoch) {
                    root.retired = root.retired.or(Some(stamp));
                }
            }
            RegistryEvent::OsImageHashAdded { os_image_hash } => {
                put(&mut self.os_images, os_image_hash, true)
            }
            RegistryEvent::OsImageHashRemoved { os_image_hash } => {
                put(&mut self.os_images, os_image_hash, false)
            }
            RegistryEvent::KmsAggregatedMrAdded { mr_aggregated } => {
                put(&mut self.kms_aggregated_mrs, mr_aggregated, true);
            }
            RegistryEvent::KmsAggregatedMrRemoved { mr_aggregated } => {
                put(&mut self.kms_aggregated_mrs, mr_aggregated, false);
            }
            RegistryEvent::KmsDeviceAdded { device_id } => put(&mut self.kms_devices, device_id, true),
            RegistryEvent::KmsDeviceRemoved { device_id } => put(&mut self.kms_devices, device_id, false),
            RegistryEvent::AgentSystemAdded { mr_system } => put(&mut self.agent_systems, mr_system, true),
            RegistryEvent::AgentSystemRemoved { mr_system } => put(&mut self.agent_systems, mr_system, false),
            RegistryEvent::GpuGoldenValuesSet { list_hash } => {
                self.gpu_golden_values = (!list_hash.is_zero()).then_some(list_hash);
            }
            RegistryEvent::AppRegistered { .. }
            | RegistryEvent::OwnershipTransferStarted { .. }
            | RegistryEvent::PolicyChanged { .. } => {}
        }
    }
}
