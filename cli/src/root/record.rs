//! One verified root: what is remembered, and what `cohort kms verify --out` writes.

use std::path::Path;

use alloy::primitives::{Address, B256};
use chrono::DateTime;
use cohort_attestation::{Platform, VerifiedKms};
use cohort_protocol::{hpke::PublicKey, ids::ComposeHash, root::RootStatement};
use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, Outcome},
    files,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Format {
    #[serde(rename = "cohort-verified-root/1")]
    V1,
}

/// What signed the evidence of the KMS's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformName {
    /// A TDX machine under Intel's root.
    Intel,
    /// The development platform: no hardware.
    Development,
    /// No evidence was asked for.
    None,
}

impl PlatformName {
    /// For people.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Intel => "in an Intel TDX machine",
            Self::Development => "on a development platform, NOT INTEL",
            Self::None => "WITHOUT evidence of its machine",
        }
    }
}

impl From<Platform> for PlatformName {
    fn from(platform: Platform) -> Self {
        match platform {
            Platform::Intel => Self::Intel,
            Platform::Development => Self::Development,
        }
    }
}

/// The machine that held the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The dstack app that the KMS runs as: its rules decide who may have the root.
    pub app_id: Address,
    /// The KMS's own app-compose file.
    pub compose_hash: ComposeHash,
    /// dstack `mr_aggregated`.
    pub mr_aggregated: B256,
    /// dstack device id.
    pub device_id: B256,
    /// What the guest image says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_image_hash: Option<B256>,
}

impl Machine {
    /// Of verified evidence.
    pub fn of(kms: &VerifiedKms) -> Self {
        Self {
            app_id: kms.app_id().0.into(),
            compose_hash: kms.td().compose_hash(),
            mr_aggregated: kms.mr_aggregated().0.into(),
            device_id: kms.device_id().0.into(),
            os_image_hash: kms.os_image_hash().map(|hash| hash.0.into()),
        }
    }
}

/// A root that was verified, with what it was verified against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifiedRoot {
    format: Format,
    /// What the KMS stated.
    pub statement: RootStatement,
    /// The contract that pinned the root.
    pub app: Address,
    /// What signed the evidence.
    pub platform: PlatformName,
    /// What the evidence showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// Unix seconds.
    pub verified_at: u64,
}

impl VerifiedRoot {
    /// Of what was just verified.
    pub fn new(
        statement: RootStatement,
        app: Address,
        platform: PlatformName,
        machine: Option<Machine>,
        verified_at: u64,
    ) -> Self {
        Self { format: Format::V1, statement, app, platform, machine, verified_at }
    }

    /// Reads a file of `cohort kms verify --out`.
    pub fn read(path: &Path) -> Outcome<Self> {
        files::read_json(path, "a verified root of cohort kms verify --out")
    }

    /// Is it the same root, of the same epoch, with the same sealing key?
    pub fn same_root(&self, other: &RootStatement) -> bool {
        let was = &self.statement;
        (was.chain_id, was.registry, was.epoch, was.root, &was.sealing_key)
            == (other.chain_id, other.registry, other.epoch, other.root, &other.sealing_key)
    }

    /// The key to seal to, if the record is of this registry and contract; its own signature is checked again.
    pub fn key_for(&self, registry: Address, app: Address) -> Outcome<PublicKey> {
        let hint = "save it again where there is a network: cohort kms verify --out FILE";
        let key = self.statement.verify().map_err(|error| Failure::refused(error, hint))?;
        let statement = &self.statement;
        if (statement.registry, self.app) != (registry, app) {
            return Err(Failure::refused(
                format!(
                    "the saved root is of registry {} and contract {}, this study's are {registry} and {app}",
                    statement.registry, self.app
                ),
                hint,
            ));
        }
        Ok(key)
    }

    /// The day of verification in UTC.
    pub fn day(&self) -> String {
        let seconds = i64::try_from(self.verified_at).unwrap_or_default();
        DateTime::from_timestamp(seconds, 0).map_or_else(String::new, |at| at.format("%Y-%m-%d").to_string())
    }
}
