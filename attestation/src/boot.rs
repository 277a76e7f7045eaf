//! What a dstack guest measured about itself while booting: the grammar of its RTMR3 events.
//!
//! dstack emits its boot events once and in order, and `system-ready` closes them. An application
//! may append events afterwards (dstack 0.5), under any name; so a name counts only before the
//! boundary, only once, and a boot event's name after it is refused.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use cohort_protocol::ids::ComposeHash;

use crate::bytes::{AppId, InstanceId, OsImageHash, Register};
use crate::event_log::{DSTACK_REGISTER, Event, extend};
use crate::gpu::GpuState;

const BOUNDARY: &str = "system-ready";

/// Why the events of RTMR3 are not those of one dstack boot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// A required event is not there before the boundary.
    #[error("boot event {name:?} is missing")]
    Missing {
        /// Event name.
        name: &'static str,
    },
    /// An event that dstack emits once is there twice.
    #[error("boot event {name:?} appears more than once")]
    Duplicate {
        /// Event name.
        name: &'static str,
    },
    /// The identity events are not in dstack's order.
    #[error("boot event {name:?} is out of order")]
    OutOfOrder {
        /// Event name.
        name: &'static str,
    },
    /// An event with the name of a boot event follows `system-ready`.
    #[error("boot event {name:?} appears after system-ready")]
    AfterBoundary {
        /// Event name.
        name: &'static str,
    },
    /// A boot event's payload has the wrong length.
    #[error("boot event {name:?} has a payload of {bytes} bytes")]
    Length {
        /// Event name.
        name: &'static str,
        /// Length received.
        bytes: usize,
    },
    /// A name with `:` before the boundary: its digest would also be that of another name.
    #[error("a boot event's name contains ':'")]
    AmbiguousName,
    /// The `key-provider` payload is not `{"name", "id"}`.
    #[error("boot event \"key-provider\" does not name a key provider")]
    KeyProvider,
}

/// Payload lengths that a boot event may have.
#[derive(Clone, Copy)]
enum Payload {
    Empty,
    Bytes(usize),
    BytesOrEmpty(usize),
    Any,
}

impl Payload {
    fn admits(self, bytes: usize) -> bool {
        match self {
            Self::Empty => bytes == 0,
            Self::Bytes(n) => bytes == n,
            Self::BytesOrEmpty(n) => bytes == 0 || bytes == n,
            Self::Any => true,
        }
    }
}

/// One of dstack's boot events. `place` orders the ones that every boot has.
struct Rule {
    name: &'static str,
    payload: Payload,
    place: Option<usize>,
    once: bool,
}

const fn rule(name: &'static str, payload: Payload, place: Option<usize>) -> Rule {
    Rule { name, payload, place, once: true }
}

/// dstack's boot events (0.5 to 0.6). `Some(place)` marks the required ones.
const RULES: [Rule; 13] = [
    rule("system-preparing", Payload::Empty, None),
    rule("app-id", Payload::Bytes(20), Some(0)),
    rule("compose-hash", Payload::Bytes(32), Some(1)),
    // One per init script.
    Rule { name: "init-script-hash", payload: Payload::Bytes(32), place: None, once: false },
    rule("gpu-policy-hash", Payload::Bytes(32), None),
    rule("gpu-attestation", Payload::Any, None),
    // Empty when the app asks for no instance id.
    rule("instance-id", Payload::BytesOrEmpty(20), Some(2)),
    rule("boot-mr-done", Payload::Empty, Some(3)),
    rule("mr-kms", Payload::Bytes(32), None),
    rule("os-image-hash", Payload::Bytes(32), None),
    rule("key-provider", Payload::Any, Some(4)),
    rule("storage-fs", Payload::Any, None),
    rule(BOUNDARY, Payload::Empty, Some(5)),
];

/// Where a guest says its app keys come from: the `key-provider` boot event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyProvider {
    name: String,
    id: String,
    #[serde(skip)]
    digest: [u8; 32],
}

impl KeyProvider {
    /// `kms`, `local-sgx`, `tpm` or `none`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hex of the provider's identity: for `kms` the SubjectPublicKeyInfo of the KMS root CA.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// dstack's `mr_key_provider`: SHA-256 of the event payload.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    fn parse(payload: &[u8]) -> Result<Self, BootError> {
        #[derive(Deserialize)]
        struct Info {
            name: String,
            id: String,
        }
        let info: Info = serde_json::from_slice(payload).map_err(|_| BootError::KeyProvider)?;
        let digest = Sha256::digest(payload).into();
        Ok(Self { name: info.name, id: info.id, digest })
    }
}

/// The identity a dstack guest measured before `system-ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootIdentity {
    /// App id.
    pub app_id: AppId,
    /// Compose hash.
    pub compose_hash: ComposeHash,
    /// Instance id, unless the app asks for none.
    pub instance_id: Option<InstanceId>,
    /// Operating system image, when the guest got its keys from a dstack KMS.
    pub os_image_hash: Option<OsImageHash>,
    /// Key provider.
    pub key_provider: KeyProvider,
    /// Hashes of the app's init scripts, in their order.
    pub init_script_hashes: Vec<[u8; 32]>,
    /// Hash of the app's policy for GPUs (dstack 0.6).
    pub gpu_policy_hash: Option<[u8; 32]>,
    /// The `gpu-attestation` event, if it is there in a form that is known.
    pub gpu_state: Option<GpuState>,
    /// RTMR3 after `boot-mr-done`: its value when dstack's own KMS released the app keys.
    pub boot_rtmr3: Register,
}

impl BootIdentity {
    /// Reads the identity from a parsed log, in which register 3 must follow the grammar above.
    ///
    /// The result is only as true as the log: compare its replay with a verified quote.
    pub fn read(events: &[Event]) -> Result<Self, BootError> {
        let mut reader = Reader::default();
        for event in events.iter().filter(|event| event.imr() == DSTACK_REGISTER) {
            reader.take(event)?;
        }
        reader.finish()
    }
}

#[derive(Default)]
struct Reader<'a> {
    found: [Option<&'a Event>; RULES.len()],
    init_script_hashes: Vec<[u8; 32]>,
    place: usize,
    ready: bool,
    rtmr3: Option<Register>,
    boot_rtmr3: Option<Register>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, event: &'a Event) -> Result<(), BootError> {
        let rtmr3 = extend(&self.rtmr3.unwrap_or(Register::ZERO), event.digest());
        self.rtmr3 = Some(rtmr3);
        // A v1 digest does not mark where the name ends, so a log can move the split to any ':'.
        // The shortest name is the only one that cannot hide a boot event.
        let head = event.name().split(':').next().unwrap_or_default();
        let rule = RULES.iter().enumerate().find(|(_, rule)| rule.name == head);
        if self.ready {
            return match rule {
                Some((_, rule)) => Err(BootError::AfterBoundary { name: rule.name }),
                None => Ok(()),
            };
        }
        if event.name().contains(':') {
            return Err(BootError::AmbiguousName);
        }
        // Names that this list does not know are the measured image's own business.
        let Some((index, rule)) = rule else {
            return Ok(());
        };
        self.place(index, rule, event)?;
        match rule.name {
            "init-script-hash" => self.init_script_hashes.extend(<[u8; 32]>::try_from(event.payload())),
            "boot-mr-done" => self.boot_rtmr3 = Some(rtmr3),
            BOUNDARY => self.ready = true,
            _ => {}
        }
        Ok(())
    }

    fn place(&mut self, index: usize, rule: &Rule, event: &'a Event) -> Result<(), BootError> {
        let name = rule.name;
        let bytes = event.payload().len();
        if !rule.payload.admits(bytes) {
            return Err(BootError::Length { name, bytes });
        }
        if let Some(slot) = self.found.get_mut(index) {
            if rule.once && slot.is_some() {
                return Err(BootError::Duplicate { name });
            }
            *slot = Some(event);
        }
        if let Some(place) = rule.place {
            if place < self.place {
                return Err(BootError::OutOfOrder { name });
            }
            self.place = place + 1;
        }
        Ok(())
    }

    fn payload(&self, name: &'static str) -> Option<&'a [u8]> {
        let index = RULES.iter().position(|rule| rule.name == name)?;
        self.found.get(index).copied().flatten().map(Event::payload)
    }

    fn finish(self) -> Result<BootIdentity, BootError> {
        for rule in RULES.iter().filter(|rule| rule.place.is_some()) {
            self.payload(rule.name).ok_or(BootError::Missing { name: rule.name })?;
        }
        let missing = |name| BootError::Missing { name };
        let bytes = |name| self.payload(name).unwrap_or_default();
        Ok(BootIdentity {
            app_id: AppId::from_slice(bytes("app-id")).ok_or(missing("app-id"))?,
            compose_hash: ComposeHash::from_slice(bytes("compose-hash")).ok_or(missing("compose-hash"))?,
            instance_id: InstanceId::from_slice(bytes("instance-id")),
            os_image_hash: OsImageHash::from_slice(bytes("os-image-hash")),
            key_provider: KeyProvider::parse(bytes("key-provider"))?,
            gpu_policy_hash: self.payload("gpu-policy-hash").and_then(|hash| hash.try_into().ok()),
            gpu_state: self.payload("gpu-attestation").and_then(GpuState::parse),
            init_script_hashes: self.init_script_hashes,
            boot_rtmr3: self.boot_rtmr3.ok_or(missing("boot-mr-done"))?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::event_log::{DSTACK_EVENT_TYPE, RawEvent, parse};

    const PROVIDER: &[u8] = br#"{"name":"kms","id":"3059"}"#;

    fn boot() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("system-preparing", vec![]),
            ("app-id", vec![1; 20]),
            ("compose-hash", vec![2; 32]),
            ("instance-id", vec![3; 20]),
            ("boot-mr-done", vec![]),
            ("os-image-hash", vec![4; 32]),
            ("key-provider", PROVIDER.to_vec()),
            ("storage-fs", b"zfs".to_vec()),
            ("system-ready", vec![]),
        ]
    }

    fn read(events: &[(&str, Vec<u8>)]) -> Result<BootIdentity, BootError> {
        let raw: Vec<_> = events
            .iter()
            .map(|(name, payload)| RawEvent {
                imr: 3,
                event_type: DSTACK_EVENT_TYPE,
                digest: String::new(),
                event: (*name).to_owned(),
                event_payload: hex::encode(payload),
                version: None,
                preimage: None,
            })
            .collect();
        BootIdentity::read(&parse(&serde_json::to_string(&raw).unwrap()).unwrap())
    }

    /// A boot of this app, with `more` events after its compose hash.
    pub(crate) fn identity(
        app_id: [u8; 20],
        compose_hash: [u8; 32],
        instance_id: &[u8],
        key_provider: &[u8],
        more: &[(&'static str, Vec<u8>)],
    ) -> BootIdentity {
        let mut events = boot();
        events[1].1 = app_id.to_vec();
        events[2].1 = compose_hash.to_vec();
        events[3].1 = instance_id.to_vec();
        events[6].1 = key_provider.to_vec();
        events.splice(3..3, more.iter().cloned());
        read(&events).unwrap()
    }

    #[test]
    fn reads_one_boot() {
        let mut events = boot();
        events.push(("my-app-event", vec![9]));
        let identity = read(&events).unwrap();
        assert_eq!(identity.app_id, AppId([1; 20]));
        assert_eq!(identity.compose_hash, ComposeHash([2; 32].into()));
        assert_eq!(identity.instance_id, Some(InstanceId([3; 20])));
        assert_eq!(identity.os_image_hash, Some(OsImageHash([4; 32])));
        assert_eq!(identity.key_provider.name(), "kms");
        assert_eq!(identity.key_provider.digest()[..], Sha256::digest(PROVIDER)[..]);
    }

    #[test]
    fn an_empty_instance_id_is_none() {
        let mut events = boot();
        events[3].1.clear();
        assert_eq!(read(&events).unwrap().instance_id, None);
    }

    #[test]
    fn every_required_event_is_required() {
        for (name, _) in boot() {
            let left: Vec<_> = boot().into_iter().filter(|event| event.0 != name).collect();
            let optional = ["system-preparing", "os-image-hash", "storage-fs"].contains(&name);
            assert_eq!(read(&left).is_ok(), optional, "{name}");
        }
    }

    #[test]
    fn no_boot_event_comes_twice() {
        for (at, event) in boot().into_iter().enumerate() {
            let mut events = boot();
            events.insert(at, event.clone());
            let refused = read(&events).unwrap_err();
            let name = refused.to_string();
            assert!(name.contains(event.0), "{name}");
        }
    }

    #[test]
    fn no_boot_event_follows_the_boundary() {
        for event in boot() {
            let mut events = boot();
            let name = event.0;
            events.push(event);
            assert_eq!(read(&events), Err(BootError::AfterBoundary { name }));
        }
    }

    /// The same digest as `app-id`, but another name: `app-id` would go unseen.
    #[test]
    fn a_moved_colon_does_not_hide_a_boot_event() {
        let mut events = boot();
        events.insert(1, ("app-id:x", vec![1; 18]));
        assert_eq!(read(&events), Err(BootError::AmbiguousName));
        let mut events = boot();
        events.push(("app-id:x", vec![1; 18]));
        assert_eq!(read(&events), Err(BootError::AfterBoundary { name: "app-id" }));
    }

    #[test]
    fn identity_events_keep_their_order() {
        let mut events = boot();
        events.swap(1, 2);
        assert_eq!(read(&events), Err(BootError::OutOfOrder { name: "app-id" }));
    }

    #[test]
    fn payload_lengths_are_exact() {
        let mut events = boot();
        events[1].1.push(0);
        assert_eq!(read(&events), Err(BootError::Length { name: "app-id", bytes: 21 }));
        let mut events = boot();
        events[6].1 = b"kms".to_vec();
        assert_eq!(read(&events), Err(BootError::KeyProvider));
    }
}
