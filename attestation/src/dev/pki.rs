//! Keys, certificates and revocation lists of the development platform.

use std::str::FromStr as _;
use std::time::Duration;

use der::asn1::{ObjectIdentifier, OctetString};
use der::{DateTime, Encode as _, EncodePem as _};
use p256::ecdsa::signature::{Keypair, Signer};
use p256::ecdsa::{DerSignature, Signature, SigningKey};
use sha2::{Digest as _, Sha256, Sha512};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder as _, CertificateBuilder, CrlBuilder, Result as BuilderResult};
use x509_cert::certificate::{Certificate, TbsCertificate};
use x509_cert::crl::{CertificateList, RevokedCert};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, CrlNumber, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{
    DynSignatureAlgorithmIdentifier, EncodePublicKey, SignatureBitStringEncoding, SubjectPublicKeyInfoOwned,
    SubjectPublicKeyInfoRef,
};
use x509_cert::time::{Time, Validity};

use super::DevPlatformError;

/// The certificates' dates are fixed, so that they do not depend on a clock.
const NOT_BEFORE: &str = "2024-01-01T00:00:00Z";
/// The end of those that stand for Intel's and dstack's.
pub(super) const NOT_AFTER: &str = "2049-12-31T23:59:59Z";

pub(super) fn issue_error(what: &'static str) -> impl Fn(x509_cert::builder::Error) -> DevPlatformError {
    move |error| DevPlatformError::Issue { what, detail: error.to_string() }
}

pub(super) fn der_error(what: &'static str) -> impl Fn(der::Error) -> DevPlatformError {
    move |error| DevPlatformError::Issue { what, detail: error.to_string() }
}

/// 32 bytes from the seed for one use.
pub(super) fn derive(seed: &[u8; 32], label: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"cohort development platform v1\0");
    hash.update(label.as_bytes());
    hash.update([0]);
    hash.update(seed);
    hash.finalize().into()
}

/// A P-256 key from the seed.
pub(super) fn signing_key(seed: &[u8; 32], label: &'static str) -> Result<SigningKey, DevPlatformError> {
    SigningKey::from_slice(&derive(seed, label))
        .map_err(|error| DevPlatformError::Issue { what: label, detail: error.to_string() })
}

/// A P-384 key from the seed: the first of the derived strings that is one.
pub(super) fn signing_key_384(
    seed: &[u8; 32],
    label: &str,
) -> Result<p384::ecdsa::SigningKey, DevPlatformError> {
    let base = derive(seed, label);
    (0u8..=255)
        .find_map(|attempt| {
            let wide = Sha512::digest([&base[..], &[attempt]].concat());
            p384::ecdsa::SigningKey::from_slice(wide.get(..48)?).ok()
        })
        .ok_or_else(|| DevPlatformError::Issue { what: "a P-384 key", detail: "no key".to_owned() })
}

/// A key that signs certificates: P-256 for what Intel issues, P-384 for what NVIDIA issues.
pub(super) trait CertifyingKey:
    Clone + DynSignatureAlgorithmIdentifier + Keypair<VerifyingKey: EncodePublicKey> + Signer<Self::Signature>
{
    type Signature: SignatureBitStringEncoding;
}

impl CertifyingKey for SigningKey {
    type Signature = DerSignature;
}

impl CertifyingKey for p384::ecdsa::SigningKey {
    type Signature = p384::ecdsa::DerSignature;
}

/// SubjectPublicKeyInfo of a key.
pub(super) fn spki(key: &impl CertifyingKey) -> Result<SubjectPublicKeyInfoOwned, DevPlatformError> {
    SubjectPublicKeyInfoOwned::from_key(&key.verifying_key())
        .map_err(|error| DevPlatformError::Issue { what: "a public key", detail: error.to_string() })
}

/// ECDSA P-256 with SHA-256, `r || s`.
pub(super) fn sign(key: &SigningKey, message: &[u8]) -> [u8; 64] {
    let signature: Signature = key.sign(message);
    signature.to_bytes().into()
}

/// A certificate with the key it certifies.
#[derive(Clone)]
pub(super) struct Certified<K> {
    pub(super) key: K,
    pub(super) certificate: Certificate,
}

impl<K> Certified<K> {
    pub(super) fn pem(&self) -> Result<String, DevPlatformError> {
        self.certificate.to_pem(der::pem::LineEnding::LF).map_err(der_error("a certificate"))
    }

    pub(super) fn der(&self) -> Result<Vec<u8>, DevPlatformError> {
        self.certificate.to_der().map_err(der_error("a certificate"))
    }
}

/// What to certify.
pub(super) struct Subject<'a> {
    pub(super) what: &'static str,
    pub(super) common_name: &'a str,
    pub(super) not_after: &'static str,
    pub(super) is_ca: bool,
    pub(super) extension: Option<Extension>,
}

/// Certifies `key` by `issuer`, or by itself.
pub(super) fn certify<K: CertifyingKey>(
    subject: Subject<'_>,
    key: K,
    issuer: Option<&Certified<K>>,
) -> Result<Certified<K>, DevPlatformError> {
    let what = subject.what;
    let name = format!("CN={},O=Cohort development,C=ZZ", subject.common_name);
    let name = Name::from_str(&name).map_err(der_error(what))?;
    let issuer_name = issuer.map(|by| by.certificate.tbs_certificate().subject().clone());
    let serial = derive(&Sha256::digest(spki(&key)?.to_der().map_err(der_error(what))?).into(), "serial");
    let profile = Profile {
        issuer: issuer_name.unwrap_or_else(|| name.clone()),
        subject: name,
        is_ca: subject.is_ca,
        extension: subject.extension,
    };
    let serial = SerialNumber::new(serial.get(..16).unwrap_or(&serial)).map_err(der_error(what))?;
    let time = |text: &str| Time::from_str(text).map_err(der_error(what));
    let validity = Validity::new(time(NOT_BEFORE)?, time(subject.not_after)?);
    let signer = issuer.map_or(&key, |by| &by.key);
    let certificate = CertificateBuilder::new(profile, serial, validity, spki(&key)?)
        .and_then(|builder| builder.build::<_, K::Signature>(signer))
        .map_err(issue_error(what))?;
    Ok(Certified { key, certificate })
}

struct Profile {
    issuer: Name,
    subject: Name,
    is_ca: bool,
    extension: Option<Extension>,
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
        let usage = if self.is_ca {
            KeyUsages::KeyCertSign | KeyUsages::CRLSign
        } else {
            KeyUsages::DigitalSignature.into()
        };
        let issuer = AuthorityKeyIdentifier {
            key_identifier: Some(SubjectKeyIdentifier::try_from(issuer_key)?.0),
            ..Default::default()
        };
        let name = tbs.subject();
        let mut extensions = vec![
            issuer.to_extension(name, &[])?,
            SubjectKeyIdentifier::try_from(key)?.to_extension(name, &[])?,
            KeyUsage(usage).to_extension(name, &[])?,
            BasicConstraints { ca: self.is_ca, path_len_constraint: None }.to_extension(name, &[])?,
        ];
        extensions.extend(self.extension.clone());
        Ok(extensions)
    }
}

/// A revocation list of `issuer` (DER) that names `revoked`.
pub(super) fn revocation_list(
    issuer: &Certified<SigningKey>,
    this_update: u64,
    next_update: u64,
    revoked: &[&Certified<SigningKey>],
) -> Result<Vec<u8>, DevPlatformError> {
    const WHAT: &str = "a revocation list";
    let this_update = Time::from(date(this_update)?);
    let next_update = Time::from(date(next_update)?);
    let number = CrlNumber::try_from(1u32).map_err(der_error(WHAT))?;
    let mut builder = CrlBuilder::new_with_this_update(&issuer.certificate, number, this_update)
        .map_err(der_error(WHAT))?
        .with_next_update(Some(next_update));
    if !revoked.is_empty() {
        builder = builder.with_certificates(revoked.iter().map(|revoked| RevokedCert {
            serial_number: revoked.certificate.tbs_certificate().serial_number().clone(),
            revocation_date: this_update,
            crl_entry_extensions: None,
        }));
    }
    let list: CertificateList = builder.build::<_, DerSignature>(&issuer.key).map_err(issue_error(WHAT))?;
    list.to_der().map_err(der_error(WHAT))
}

/// A date of the collateral.
pub(super) fn date(seconds: u64) -> Result<DateTime, DevPlatformError> {
    DateTime::from_unix_duration(Duration::from_secs(seconds)).map_err(|_| DevPlatformError::Date { seconds })
}

/// An extension with ready DER content.
pub(super) fn extension(
    what: &'static str,
    extn_id: ObjectIdentifier,
    content: Vec<u8>,
) -> Result<Extension, DevPlatformError> {
    let extn_value = OctetString::new(content).map_err(der_error(what))?;
    Ok(Extension { extn_id, critical: false, extn_value })
}

/// Joins DER values into a SEQUENCE.
pub(super) fn sequence(what: &'static str, values: &[Vec<u8>]) -> Result<Vec<u8>, DevPlatformError> {
    encode(what, der::Tag::Sequence, &values.concat())
}

/// `SEQUENCE { OID, value }`.
pub(super) fn named(what: &'static str, oid: &str, value: Vec<u8>) -> Result<Vec<u8>, DevPlatformError> {
    let oid = ObjectIdentifier::new(oid)
        .map_err(|error| DevPlatformError::Issue { what, detail: error.to_string() })?;
    sequence(what, &[oid.to_der().map_err(der_error(what))?, value])
}

/// One DER value with this tag.
pub(super) fn encode(what: &'static str, tag: der::Tag, content: &[u8]) -> Result<Vec<u8>, DevPlatformError> {
    der::asn1::AnyRef::new(tag, content).and_then(|any| any.to_der()).map_err(der_error(what))
}
