//! The DICE extension by which the leaf certificate names the firmware that holds its key.

use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Decode as _, Reader as _, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::certificates::is_p384;

/// TCG DICE: the extension of Hopper's leaf certificates.
pub(crate) const DICE_EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");

/// What the extension says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DiceIdentity {
    /// Public key point of the device that certified the firmware.
    pub(crate) device_point: Vec<u8>,
    /// SHA-384 of the firmware.
    pub(crate) firmware_id: [u8; 48],
}

/// `SEQUENCE { INTEGER 1, SubjectPublicKeyInfo, SEQUENCE { OID sha384, OCTET STRING (48) } }` and nothing
/// after it; `None` for anything else.
pub(crate) fn parse(extension: &[u8]) -> Option<DiceIdentity> {
    let mut reader = SliceReader::new(extension).ok()?;
    let (version, key, algorithm, digest) = reader
        .sequence::<_, _, der::Error>(|outer| {
            let version = u8::decode(outer)?;
            let key = SubjectPublicKeyInfoOwned::decode(outer)?;
            let (algorithm, digest) = outer.sequence::<_, _, der::Error>(|inner| {
                let algorithm = ObjectIdentifier::decode(inner)?;
                let digest = <&OctetStringRef>::decode(inner)?;
                Ok((algorithm, digest.as_bytes().to_vec()))
            })?;
            Ok((version, key, algorithm, digest))
        })
        .ok()?;
    reader.finish().ok()?;
    if version != 1 || algorithm != SHA384 || !is_p384(&key) {
        return None;
    }
    let device_point = key.subject_public_key.as_bytes()?.to_vec();
    Some(DiceIdentity { device_point, firmware_id: digest.try_into().ok()? })
}
