//! P-384 certificates of development GPUs and of the signers of their manifests.

use std::str::FromStr as _;

use der::asn1::{ObjectIdentifier, OctetString};
use der::{Encode as _, EncodePem as _};
use p384::ecdsa::{DerSignature, SigningKey};
use sha2::{Digest as _, Sha256, Sha512};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder as _, CertificateBuilder, Result as BuilderResult};
use x509_cert::certificate::{Certificate, TbsCertificate};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

use super::super::pki::{der_error, derive, encode, issue_error, sequence};
use super::DevPlatformError;

/// As NVIDIA's device certificates, these do not end.
const NOT_BEFORE: &str = "2024-01-01T00:00:00Z";
const NOT_AFTER: &str = "9999-12-31T23:59:59Z";
const WHAT: &str = "a GPU certificate";
const DICE_EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");

/// A certificate with the key it certifies.
#[derive(Clone)]
pub(super) struct Certified {
    pub(super) key: SigningKey,
    certificate: Certificate,
}

impl Certified {
    pub(super) fn pem(&self) -> Result<String, DevPlatformError> {
        self.certificate.to_pem(der::pem::LineEnding::LF).map_err(der_error(WHAT))
    }

    pub(super) fn der(&self) -> Result<Vec<u8>, DevPlatformError> {
        self.certificate.to_der().map_err(der_error(WHAT))
    }
}

pub(super) fn root(seed: &[u8; 32], name: &str) -> Result<Certified, DevPlatformError> {
    certify(seed, name, Kind::Authority, None)
}

pub(super) fn authority(
    seed: &[u8; 32],
    name: &str,
    issuer: &Certified,
) -> Result<Certified, DevPlatformError> {
    certify(seed, name, Kind::Authority, Some(issuer))
}

/// Signs documents; has no extension.
pub(super) fn signer(seed: &[u8; 32], name: &str, issuer: &Certified) -> Result<Certified, DevPlatformError> {
    certify(seed, name, Kind::Signer(None), Some(issuer))
}

/// Signs reports of firmware with this id on the device that `issuer` is.
pub(super) fn leaf(
    seed: &[u8; 32],
    name: &str,
    issuer: &Certified,
    firmware_id: &[u8; 48],
) -> Result<Certified, DevPlatformError> {
    let device = spki(&issuer.key)?.to_der().map_err(der_error(WHAT))?;
    let digest = OctetString::new(firmware_id.as_slice()).and_then(|octets| octets.to_der());
    let firmware = [SHA384.to_der().map_err(der_error(WHAT))?, digest.map_err(der_error(WHAT))?];
    let version = encode(WHAT, der::Tag::Integer, &[1])?;
    let content = sequence(WHAT, &[version, device, sequence(WHAT, &firmware)?])?;
    let extn_value = OctetString::new(content).map_err(der_error(WHAT))?;
    let extension = Extension { extn_id: DICE_EXTENSION, critical: false, extn_value };
    certify(seed, name, Kind::Signer(Some(extension)), Some(issuer))
}

enum Kind {
    Authority,
    Signer(Option<Extension>),
}

fn certify(
    seed: &[u8; 32],
    common_name: &str,
    kind: Kind,
    issuer: Option<&Certified>,
) -> Result<Certified, DevPlatformError> {
    let key = signing_key(seed, common_name)?;
    let name = Name::from_str(&format!("CN={common_name},O=Cohort development,C=ZZ"));
    let name = name.map_err(der_error(WHAT))?;
    let issuer_name = issuer.map(|by| by.certificate.tbs_certificate().subject().clone());
    let serial = Sha256::digest(spki(&key)?.to_der().map_err(der_error(WHAT))?);
    let profile = Profile { issuer: issuer_name.unwrap_or_else(|| name.clone()), subject: name, kind };
    // Positive and without a leading zero.
    let serial: Vec<u8> = [0x40].iter().chain(serial.iter().take(15)).copied().collect();
    let serial = SerialNumber::new(&serial).map_err(der_error(WHAT))?;
    let time = |text: &str| Time::from_str(text).map_err(der_error(WHAT));
    let validity = Validity::new(time(NOT_BEFORE)?, time(NOT_AFTER)?);
    let signing = issuer.map_or(&key, |by| &by.key);
    let certificate = CertificateBuilder::new(profile, serial, validity, spki(&key)?)
        .and_then(|builder| builder.build::<_, DerSignature>(signing))
        .map_err(issue_error(WHAT))?;
    Ok(Certified { key, certificate })
}

/// A P-384 key from the seed: the first of the derived strings that is one.
fn signing_key(seed: &[u8; 32], name: &str) -> Result<SigningKey, DevPlatformError> {
    let base = derive(seed, &format!("gpu/{name}"));
    (0u8..=255)
        .find_map(|attempt| {
            let wide = Sha512::digest([&base[..], &[attempt]].concat());
            SigningKey::from_slice(wide.get(..48)?).ok()
        })
        .ok_or_else(|| DevPlatformError::Issue { what: WHAT, detail: "no key".to_owned() })
}

fn spki(key: &SigningKey) -> Result<SubjectPublicKeyInfoOwned, DevPlatformError> {
    SubjectPublicKeyInfoOwned::from_key(key.verifying_key())
        .map_err(|error| DevPlatformError::Issue { what: WHAT, detail: error.to_string() })
}

struct Profile {
    issuer: Name,
    subject: Name,
    kind: Kind,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        issuer_key: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> BuilderResult<Vec<Extension>> {
        let issuer = AuthorityKeyIdentifier {
            key_identifier: Some(SubjectKeyIdentifier::try_from(issuer_key)?.0),
            ..Default::default()
        };
        let name = tbs.subject();
        let mut extensions = vec![
            issuer.to_extension(name, &[])?,
            SubjectKeyIdentifier::try_from(key)?.to_extension(name, &[])?,
        ];
        match &self.kind {
            Kind::Authority => {
                let usage = KeyUsages::KeyCertSign | KeyUsages::CRLSign;
                extensions.push(KeyUsage(usage).to_extension(name, &[])?);
                let constraints = BasicConstraints { ca: true, path_len_constraint: None };
                extensions.push(constraints.to_extension(name, &[])?);
            }
            Kind::Signer(more) => {
                extensions.push(KeyUsage(KeyUsages::DigitalSignature.into()).to_extension(name, &[])?);
                extensions.extend(more.clone());
            }
        }
        Ok(extensions)
    }
}
