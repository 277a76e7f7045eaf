//! Certificates of development GPUs and of the signers of their manifests.

use der::Encode as _;
use der::asn1::{ObjectIdentifier, OctetString};
use p384::ecdsa::SigningKey;
use x509_cert::ext::Extension;

use super::super::pki::{self, Subject, der_error, encode, sequence};
use super::DevPlatformError;
use crate::gpu::DICE_EXTENSION;

/// As NVIDIA's device certificates, these do not end.
const NOT_AFTER: &str = "9999-12-31T23:59:59Z";
const WHAT: &str = "a GPU certificate";
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");

pub(super) type Certified = pki::Certified<SigningKey>;

pub(super) fn root(seed: &[u8; 32], name: &str) -> Result<Certified, DevPlatformError> {
    certify(seed, name, true, None, None)
}

pub(super) fn authority(
    seed: &[u8; 32],
    name: &str,
    issuer: &Certified,
) -> Result<Certified, DevPlatformError> {
    certify(seed, name, true, None, Some(issuer))
}

/// Signs documents; says nothing about firmware.
pub(super) fn signer(seed: &[u8; 32], name: &str, issuer: &Certified) -> Result<Certified, DevPlatformError> {
    certify(seed, name, false, None, Some(issuer))
}

/// Signs reports of firmware with this id on the device that `issuer` is.
pub(super) fn leaf(
    seed: &[u8; 32],
    name: &str,
    issuer: &Certified,
    firmware_id: &[u8; 48],
) -> Result<Certified, DevPlatformError> {
    let device = pki::spki(&issuer.key)?.to_der().map_err(der_error(WHAT))?;
    let digest = OctetString::new(firmware_id.as_slice()).and_then(|octets| octets.to_der());
    let firmware = [SHA384.to_der().map_err(der_error(WHAT))?, digest.map_err(der_error(WHAT))?];
    let version = encode(WHAT, der::Tag::Integer, &[1])?;
    let content = sequence(WHAT, &[version, device, sequence(WHAT, &firmware)?])?;
    let extension = pki::extension(WHAT, DICE_EXTENSION, content)?;
    certify(seed, name, false, Some(extension), Some(issuer))
}

fn certify(
    seed: &[u8; 32],
    common_name: &str,
    is_ca: bool,
    extension: Option<Extension>,
    issuer: Option<&Certified>,
) -> Result<Certified, DevPlatformError> {
    let key = pki::signing_key_384(seed, &format!("gpu/{common_name}"))?;
    pki::certify(Subject { what: WHAT, common_name, not_after: NOT_AFTER, is_ca, extension }, key, issuer)
}
