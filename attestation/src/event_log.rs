//! The event log that a dstack guest agent returns beside a quote, parsed and replayed.
//!
//! The log is a JSON array of `{imr, event_type, digest, event, event_payload, (version), (preimage)}`
//! with hex values. It comes from the machine under test, so nothing in it counts until the replay
//! of its digests equals the registers of a verified quote. For registers 0 to 2 the digest of an
//! entry is all that is measured and its text proves nothing; for register 3 the digest is computed
//! here from the name and the payload, so that those are measured too.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha384};

use crate::bytes::Register;

/// Longest accepted event log, in bytes of JSON.
pub const MAX_LOG_BYTES: usize = 1 << 20;
/// Most accepted entries.
pub const MAX_EVENTS: usize = 1024;
/// Longest accepted event name, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// Longest accepted payload, in bytes (a GPU attestation event is the largest that dstack emits).
pub const MAX_PAYLOAD_BYTES: usize = 256 << 10;

/// `event_type` of every event that dstack itself extends (into RTMR3).
pub const DSTACK_EVENT_TYPE: u32 = 0x0800_0001;
/// Index of the register that holds dstack's own events.
pub const DSTACK_REGISTER: u8 = 3;

/// Why an event log was not understood. None of its events may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventLogError {
    /// The JSON text exceeds [`MAX_LOG_BYTES`].
    #[error("event log has {bytes} bytes, more than {MAX_LOG_BYTES}")]
    TooLarge {
        /// Length received.
        bytes: usize,
    },
    /// The log has more than [`MAX_EVENTS`] entries.
    #[error("event log has {count} entries, more than {MAX_EVENTS}")]
    TooMany {
        /// Entries received.
        count: usize,
    },
    /// Not a JSON array of events.
    #[error("event log is not the JSON that a guest agent returns: {detail}")]
    Json {
        /// What the JSON parser said.
        detail: String,
    },
    /// A field of an entry is not acceptable.
    #[error("event {index}: {field} {problem}")]
    Field {
        /// Position in the array.
        index: usize,
        /// The JSON field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The stated digest of a dstack event is not the digest of its name and payload.
    #[error("event {index}: digest does not match name and payload")]
    Digest {
        /// Position in the array.
        index: usize,
    },
}

/// How the digest of a dstack event is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventVersion {
    /// SHA-384 of `le32(event_type) ":" name ":" payload`.
    V1,
    /// SHA-384 of the RFC 8785 form of `{"name", "payload" (hex), "type"}`.
    V2,
}

/// One accepted entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    imr: u8,
    event_type: u32,
    digest: Register,
    name: String,
    payload: Vec<u8>,
}

impl Event {
    /// Register the event was extended into, 0 to 3.
    pub fn imr(&self) -> u8 {
        self.imr
    }

    /// TCG event type, or [`DSTACK_EVENT_TYPE`].
    pub fn event_type(&self) -> u32 {
        self.event_type
    }

    /// SHA-384 digest that was extended.
    pub fn digest(&self) -> &Register {
        &self.digest
    }

    /// Event name; measured only in register 3.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Event payload; measured only in register 3.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// The JSON shape of one entry. Unknown keys are ignored: whatever they say is not measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RawEvent {
    pub(crate) imr: u32,
    pub(crate) event_type: u32,
    #[serde(default)]
    pub(crate) digest: String,
    pub(crate) event: String,
    pub(crate) event_payload: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) preimage: Option<String>,
}

/// Parses an event log and checks every digest that can be recomputed.
///
/// Refuses anything over the limits above, a register other than 0 to 3, a dstack event outside
/// register 3, any other event in it, a missing digest in registers 0 to 2, and a digest or
/// preimage in register 3 that is not the one of the name and payload.
pub fn parse(json: &str) -> Result<Vec<Event>, EventLogError> {
    if json.len() > MAX_LOG_BYTES {
        return Err(EventLogError::TooLarge { bytes: json.len() });
    }
    let raw: Vec<RawEvent> =
        serde_json::from_str(json).map_err(|error| EventLogError::Json { detail: error.to_string() })?;
    if raw.len() > MAX_EVENTS {
        return Err(EventLogError::TooMany { count: raw.len() });
    }
    raw.into_iter().enumerate().map(|(index, raw)| accept(index, raw)).collect()
}

fn accept(index: usize, raw: RawEvent) -> Result<Event, EventLogError> {
    let field = |field, problem| EventLogError::Field { index, field, problem };
    let imr = u8::try_from(raw.imr)
        .ok()
        .filter(|imr| *imr <= DSTACK_REGISTER)
        .ok_or_else(|| field("imr", "is not 0, 1, 2 or 3"))?;
    if (imr == DSTACK_REGISTER) != (raw.event_type == DSTACK_EVENT_TYPE) {
        return Err(field("event_type", "does not belong in this register"));
    }
    if raw.event.len() > MAX_NAME_BYTES {
        return Err(field("event", "is too long"));
    }
    if raw.event_payload.len() > 2 * MAX_PAYLOAD_BYTES {
        return Err(field("event_payload", "is too long"));
    }
    let payload = hex::decode(&raw.event_payload).map_err(|_| field("event_payload", "is not hex"))?;
    let stated = match raw.digest.as_str() {
        "" => None,
        text => Some(register(text).ok_or_else(|| field("digest", "is not 48 bytes of hex"))?),
    };
    let digest = if imr == DSTACK_REGISTER {
        dstack_digest(index, &raw, &payload, stated)?
    } else {
        stated.ok_or_else(|| field("digest", "is missing"))?
    };
    Ok(Event { imr, event_type: raw.event_type, digest, name: raw.event, payload })
}

fn register(text: &str) -> Option<Register> {
    let mut bytes = [0u8; 48];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(Register(bytes))
}

/// The digest of a register 3 event, computed from its content; `stated` must agree where given
/// (dstack strips it from the copies it embeds in certificates).
fn dstack_digest(
    index: usize,
    raw: &RawEvent,
    payload: &[u8],
    stated: Option<Register>,
) -> Result<Register, EventLogError> {
    let field = |field, problem| EventLogError::Field { index, field, problem };
    let version = match raw.version {
        None | Some(1) => EventVersion::V1,
        Some(2) => EventVersion::V2,
        Some(_) => return Err(field("version", "is not 1 or 2")),
    };
    let preimage =
        preimage(version, &raw.event, payload).map_err(|_| field("event", "has no canonical form"))?;
    if let Some(given) = &raw.preimage {
        let given = hex::decode(given).map_err(|_| field("preimage", "is not hex"))?;
        if given != preimage {
            return Err(field("preimage", "is not the one of name and payload"));
        }
    }
    let digest = Register(Sha384::digest(&preimage).into());
    match stated {
        Some(stated) if stated != digest => Err(EventLogError::Digest { index }),
        _ => Ok(digest),
    }
}

/// The bytes whose SHA-384 is extended into RTMR3 for a dstack event.
pub(crate) fn preimage(
    version: EventVersion,
    name: &str,
    payload: &[u8],
) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Canonical<'a> {
        name: &'a str,
        payload: String,
        r#type: u32,
    }
    match version {
        EventVersion::V1 => {
            let event_type = DSTACK_EVENT_TYPE.to_le_bytes();
            Ok([&event_type[..], b":", name.as_bytes(), b":", payload].concat())
        }
        EventVersion::V2 => serde_json_canonicalizer::to_vec(&Canonical {
            name,
            payload: hex::encode(payload),
            r#type: DSTACK_EVENT_TYPE,
        }),
    }
}

/// Run-time registers as an event log produces them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtmrs {
    values: [Register; 4],
    events: [usize; 4],
}

impl Rtmrs {
    /// RTMR0 to RTMR3.
    pub fn values(&self) -> &[Register; 4] {
        &self.values
    }

    /// How many events the log has for each register. A log without events for a register says
    /// nothing about it.
    pub fn event_counts(&self) -> &[usize; 4] {
        &self.events
    }
}

/// Extends every event's digest into its register, from zero: `r = SHA-384(r || digest)`.
pub fn replay(events: &[Event]) -> Rtmrs {
    let mut rtmrs = Rtmrs { values: [Register::ZERO; 4], events: [0; 4] };
    for event in events {
        let index = usize::from(event.imr);
        if let (Some(value), Some(count)) = (rtmrs.values.get_mut(index), rtmrs.events.get_mut(index)) {
            *value = extend(value, &event.digest);
            *count += 1;
        }
    }
    rtmrs
}

/// One step of a TDX run-time register.
pub(crate) fn extend(register: &Register, digest: &Register) -> Register {
    let mut hash = Sha384::new();
    hash.update(register.as_bytes());
    hash.update(digest.as_bytes());
    Register(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str, payload: &[u8], extra: &str) -> String {
        format!(
            r#"[{{"imr":3,"event_type":134217729,"event":"{name}","event_payload":"{}"{extra}}}]"#,
            hex::encode(payload)
        )
    }

    fn problem(json: &str) -> String {
        parse(json).unwrap_err().to_string()
    }

    /// Digest of the empty `system-ready` event, as in every recorded dstack log.
    #[test]
    fn v1_digest_is_dstacks() {
        let events = parse(&entry("system-ready", b"", "")).unwrap();
        assert!(events[0].digest().to_string().starts_with("1a76b2a80a0b"));
    }

    #[test]
    fn v2_preimage_is_canonical_json() {
        let bytes = preimage(EventVersion::V2, "a\"b", &[0xAB]).unwrap();
        assert_eq!(bytes, br#"{"name":"a\"b","payload":"ab","type":134217729}"#);
    }

    #[test]
    fn v2_events_need_their_own_preimage() {
        let right = hex::encode(preimage(EventVersion::V2, "x", &[1]).unwrap());
        let wrong = hex::encode(preimage(EventVersion::V1, "x", &[1]).unwrap());
        let json = |p: &str| entry("x", &[1], &format!(r#","version":2,"preimage":"{p}""#));
        assert_eq!(parse(&json(&right)).unwrap().len(), 1);
        assert!(problem(&json(&wrong)).contains("preimage is not the one"));
    }

    #[test]
    fn fields_are_checked() {
        let digest = format!(r#","digest":"{}""#, "00".repeat(48));
        assert_eq!(parse(&entry("x", b"", &digest)), Err(EventLogError::Digest { index: 0 }));
        assert!(problem(&entry("x", b"", r#","version":3"#)).contains("version is not 1 or 2"));
        assert!(problem(&entry(&"x".repeat(257), b"", "")).contains("event is too long"));
        assert!(problem(&entry("x", b"", r#","digest":"ab""#)).contains("digest is not 48"));
        let other = r#"[{"imr":0,"event_type":4,"event":"","event_payload":""}]"#;
        assert!(problem(other).contains("digest is missing"));
        let other = r#"[{"imr":4,"event_type":4,"event":"","event_payload":""}]"#;
        assert!(problem(other).contains("imr is not 0, 1, 2 or 3"));
        let other = r#"[{"imr":3,"event_type":4,"event":"","event_payload":""}]"#;
        assert!(problem(other).contains("event_type does not belong"));
        let other = r#"[{"imr":0,"event_type":134217729,"event":"","event_payload":""}]"#;
        assert!(problem(other).contains("event_type does not belong"));
        assert!(problem("{}").contains("not the JSON"));
        assert!(problem(&" ".repeat(MAX_LOG_BYTES + 1)).contains("more than"));
        let one = r#"{"imr":0,"event_type":4,"event":"","event_payload":""}"#;
        let many = format!("[{}]", vec![one; MAX_EVENTS + 1].join(","));
        assert!(problem(&many).contains("1025 entries"));
    }

    proptest! {
        #[test]
        fn parser_never_panics_on_text(text in ".{0,400}") {
            let _ = parse(&text);
        }

        #[test]
        fn parser_never_panics_on_events(
            imr in any::<u32>(),
            kind in prop_oneof![Just(DSTACK_EVENT_TYPE), any::<u32>()],
            digest in "[0-9a-g]{0,100}",
            name in ".{0,20}",
            payload in "[0-9a-fx]{0,40}",
            version in proptest::option::of(0u32..4),
            preimage in proptest::option::of("[0-9a-f]{0,40}"),
        ) {
            let raw = RawEvent {
                imr: imr % 6, event_type: kind, digest, event: name,
                event_payload: payload, version, preimage,
            };
            let json = serde_json::to_string(&[raw]).unwrap();
            if let Ok(events) = parse(&json) {
                let rtmrs = replay(&events);
                prop_assert_eq!(rtmrs.event_counts().iter().sum::<usize>(), 1);
            }
        }

        #[test]
        fn accepted_dstack_events_replay_to_their_digest(name in "[a-z-]{1,20}", payload: Vec<u8>) {
            let events = parse(&entry(&name, &payload, "")).unwrap();
            prop_assert_eq!(events[0].payload(), &payload[..]);
            let expected = extend(&Register::ZERO, events[0].digest());
            prop_assert_eq!(replay(&events).values()[3], expected);
        }
    }
}
