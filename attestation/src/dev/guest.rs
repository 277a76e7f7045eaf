//! A dstack guest on the development platform: its boot log and its quotes.

use der::Encode as _;
use serde_json::json;
use sha2::{Digest as _, Sha256, Sha384};

use super::keys::AppKeys;
use super::pki::{self, Subject};
use super::{DevGpus, DevPlatform, DevPlatformError, TdMeasurements};
use crate::boot::BootIdentity;
use cohort_protocol::{compose, ids::ComposeHash};

use crate::bytes::{AppId, InstanceId, MrAggregated, MrSystem, OsImageHash, Register};
use crate::dstack::{self, MrConfig};
use crate::event_log::{self, DSTACK_EVENT_TYPE, DSTACK_REGISTER, EventVersion, RawEvent};
use crate::evidence::GuestEvidence;
use crate::gpu::GpuState;

/// Name of the operating system image that development guests claim to boot. Its measurements are
/// hashes of this text: fixed, and those of no real image.
const IMAGE: &str = "cohort development guest image 1";
/// TCG event type EV_EVENT_TAG, for the made-up entries of RTMR0 to RTMR2.
const BOOT_EVENT_TYPE: u32 = 6;

/// One virtual machine that runs one app.
#[derive(Clone)]
pub struct DevGuest {
    platform: DevPlatform,
    app_compose: String,
    identity: BootIdentity,
    measurements: TdMeasurements,
    event_log: String,
    gpus: Option<DevGpus>,
}

impl DevGuest {
    /// Boots `app_compose` as the app `app_id`. The instance id derives from `instance_seed`, as
    /// dstack derives it from a seed on the guest's disk. MR_CONFIG_ID has form V1.
    pub fn new(
        platform: DevPlatform,
        app_id: AppId,
        app_compose: &str,
        instance_seed: &[u8; 32],
    ) -> Result<Self, DevPlatformError> {
        Self::with_gpus(platform, app_id, app_compose, instance_seed, 0)
    }

    /// The same on a machine with this many development GPUs, attested at boot as dstack 0.6 does it.
    pub fn with_gpus(
        platform: DevPlatform,
        app_id: AppId,
        app_compose: &str,
        instance_seed: &[u8; 32],
        gpus: u32,
    ) -> Result<Self, DevPlatformError> {
        let gpus = if gpus == 0 { None } else { Some(DevGpus::of_platform(&platform, gpus)?) };
        let compose_hash = compose::compose_hash(app_compose.as_bytes());
        let raw =
            boot_log(&platform, app_id, compose_hash, instance_id(instance_seed, app_id), gpus.as_ref())?;
        let event_log =
            serde_json::to_string(&raw).map_err(|_| DevPlatformError::Event { name: "event log" })?;
        let events =
            event_log::parse(&event_log).map_err(|_| DevPlatformError::Event { name: "event log" })?;
        let identity =
            BootIdentity::read(&events).map_err(|_| DevPlatformError::Event { name: "event log" })?;
        let mr_config_id = MrConfig::V1.expected(&identity).pop().unwrap_or([0; 48]);
        let measurements = TdMeasurements {
            mrtd: image_digest("mrtd"),
            rtmrs: *event_log::replay(&events).values(),
            mr_config_id,
            td_attributes: TdMeasurements::TD_ATTRIBUTES,
            mr_service_td: [0; 48],
        };
        let app_compose = app_compose.to_owned();
        Ok(Self { platform, app_compose, identity, measurements, event_log, gpus })
    }

    /// The machine it runs on.
    pub fn platform(&self) -> &DevPlatform {
        &self.platform
    }

    /// The machine's GPUs, if it has any.
    pub fn gpus(&self) -> Option<&DevGpus> {
        self.gpus.as_ref()
    }

    /// The app-compose text.
    pub fn app_compose(&self) -> &str {
        &self.app_compose
    }

    /// What the guest measured about itself.
    pub fn identity(&self) -> &BootIdentity {
        &self.identity
    }

    /// The registers of its TD report.
    pub fn measurements(&self) -> &TdMeasurements {
        &self.measurements
    }

    /// The event log as a guest agent returns it.
    pub fn event_log_json(&self) -> &str {
        &self.event_log
    }

    /// dstack `mr_system` of a running guest: the same for every app on this platform.
    pub fn mr_system(&self) -> MrSystem {
        let report = self.measurements.report(&[0; 64]);
        dstack::mr_system(&report, Some(self.identity.key_provider.digest()))
    }

    /// dstack `mr_aggregated` of this guest.
    pub fn mr_aggregated(&self) -> MrAggregated {
        let [.., rtmr3] = self.measurements.rtmrs;
        dstack::mr_aggregated(&self.measurements.report(&[0; 64]), &rtmr3)
    }

    /// Hash of the development image, as in the `os-image-hash` event.
    pub fn os_image_hash() -> OsImageHash {
        OsImageHash(Sha256::digest(IMAGE).into())
    }

    /// The keys that dstack's KMS would have given this app.
    pub fn app_keys(&self) -> Result<AppKeys, DevPlatformError> {
        AppKeys::of_platform(&self.platform, self.identity.app_id)
    }

    /// A quote over `report_data`.
    pub fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, DevPlatformError> {
        self.platform.quote(&self.measurements, report_data)
    }

    /// Quote, event log and app-compose text over `report_data`.
    pub fn evidence(&self, report_data: &[u8; 64]) -> Result<GuestEvidence, DevPlatformError> {
        Ok(GuestEvidence {
            quote: self.quote(report_data)?,
            event_log: self.event_log.clone(),
            app_compose: Some(self.app_compose.clone()),
            gpu: Vec::new(),
        })
    }

    /// PEM of a self-signed certificate of the app, as a guest agent's `Info` has one.
    pub fn app_certificate_pem(&self) -> Result<String, DevPlatformError> {
        let subject = Subject {
            what: "the app certificate",
            common_name: "Cohort development guest",
            not_after: pki::NOT_AFTER,
            is_ca: false,
            extension: None,
        };
        let seed = pki::derive(self.platform.seed(), &self.identity.app_id.to_string());
        pki::certify(subject, pki::signing_key(&seed, "app certificate")?, None)?.pem()
    }
}

fn image_digest(part: &str) -> Register {
    Register(Sha384::digest(format!("{IMAGE}/{part}")).into())
}

fn instance_id(seed: &[u8; 32], app_id: AppId) -> InstanceId {
    let mut hash = Sha256::new();
    hash.update(seed);
    hash.update(app_id.as_bytes());
    let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _]: [u8; 32] = hash.finalize().into();
    InstanceId(bytes)
}

/// The boot of a dstack 0.5 guest that got its keys from a KMS.
fn boot_log(
    platform: &DevPlatform,
    app_id: AppId,
    compose_hash: ComposeHash,
    instance_id: InstanceId,
    gpus: Option<&DevGpus>,
) -> Result<Vec<RawEvent>, DevPlatformError> {
    let kms_ca = pki::spki(&pki::signing_key(platform.seed(), "dstack kms ca")?)?;
    let kms_ca = kms_ca.to_der().map_err(pki::der_error("the KMS root CA key"))?;
    let key_provider = json!({ "name": "kms", "id": hex::encode(kms_ca) }).to_string();
    let mut log: Vec<RawEvent> = ["rtmr0", "rtmr1", "rtmr2"].into_iter().zip(0..).map(image_event).collect();
    for (name, payload) in [
        ("system-preparing", Vec::new()),
        ("app-id", app_id.0.to_vec()),
        ("compose-hash", compose_hash.0.to_vec()),
    ] {
        log.push(dstack_event(name, &payload)?);
    }
    if let Some(gpus) = gpus {
        for (name, payload) in gpu_events(gpus)? {
            log.push(dstack_event(name, &payload)?);
        }
    }
    for (name, payload) in [
        ("instance-id", instance_id.0.to_vec()),
        ("boot-mr-done", Vec::new()),
        ("os-image-hash", DevGuest::os_image_hash().0.to_vec()),
        ("key-provider", key_provider.into_bytes()),
        ("storage-fs", b"ext4".to_vec()),
        ("system-ready", Vec::new()),
    ] {
        log.push(dstack_event(name, &payload)?);
    }
    Ok(log)
}

/// What dstack 0.6 measures about GPUs: the hash of the empty policy, and the state that it found.
fn gpu_events(gpus: &DevGpus) -> Result<[(&'static str, Vec<u8>); 2], DevPlatformError> {
    const NAME: &str = "gpu-attestation";
    let devices = u32::try_from(gpus.count()).map_err(|_| DevPlatformError::Event { name: NAME })?;
    let state = GpuState::attested(devices, &gpus.collected(&[0; 32])?);
    let state = serde_json::to_vec(&state).map_err(|_| DevPlatformError::Event { name: NAME })?;
    Ok([("gpu-policy-hash", Sha256::digest(b"{}").to_vec()), (NAME, state)])
}

fn image_event((part, imr): (&str, u32)) -> RawEvent {
    RawEvent {
        imr,
        event_type: BOOT_EVENT_TYPE,
        digest: image_digest(part).to_string(),
        event: String::new(),
        event_payload: hex::encode(format!("{IMAGE}/{part}")),
        version: None,
        preimage: None,
    }
}

fn dstack_event(name: &'static str, payload: &[u8]) -> Result<RawEvent, DevPlatformError> {
    let preimage =
        event_log::preimage(EventVersion::V1, name, payload).map_err(|_| DevPlatformError::Event { name })?;
    Ok(RawEvent {
        imr: u32::from(DSTACK_REGISTER),
        event_type: DSTACK_EVENT_TYPE,
        digest: hex::encode(Sha384::digest(preimage)),
        event: name.to_owned(),
        event_payload: hex::encode(payload),
        version: None,
        preimage: None,
    })
}
