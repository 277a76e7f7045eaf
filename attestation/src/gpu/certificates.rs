//! Chains of ECDSA P-384 certificates up to a pinned root: the rules that NVIDIA's device and RIM
//! chains both follow.
//!
//! Signatures are verified over the received bytes: encoding a parsed certificate again changes some
//! of NVIDIA's, which write early dates as GeneralizedTime.

use der::asn1::ObjectIdentifier;
use der::{Decode as _, Encode as _, Reader as _, SliceReader};
use ring::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, KeyUsage, SubjectKeyIdentifier};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
/// An uncompressed point: `04`, x, y.
const POINT_BYTES: usize = 97;

/// A certificate that cannot be read or is of a kind that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Longer than the limit.
    #[error("it has {bytes} bytes")]
    TooLarge {
        /// Length received.
        bytes: usize,
    },
    /// Not DER of an X.509 v3 certificate.
    #[error("it is not an X.509 v3 certificate: {0}")]
    Encoding(String),
    /// Its key is not ECDSA P-384.
    #[error("its key is not ECDSA P-384")]
    Key,
    /// Signed by another algorithm.
    #[error("it is not signed by ECDSA with SHA-384")]
    Algorithm,
    /// An extension is there twice.
    #[error("extension {0} is there twice")]
    DuplicateExtension(ObjectIdentifier),
    /// A critical extension that is not known here.
    #[error("the critical extension {0} is not known")]
    CriticalExtension(ObjectIdentifier),
    /// An extension does not decode.
    #[error("extension {0} is malformed")]
    Extension(ObjectIdentifier),
}

/// Why certificates are no chain up to the trusted root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Another number of certificates.
    #[error("there are {have} certificates, not {want}")]
    Length {
        /// Number received.
        have: usize,
        /// Number required.
        want: usize,
    },
    /// A certificate's form.
    #[error("certificate {index} is refused")]
    Certificate {
        /// Position, the leaf is 0.
        index: usize,
        /// Why.
        #[source]
        source: CertificateError,
    },
    /// The last one is not the trusted root.
    #[error("the chain ends at {found:?}, which is not the trusted root")]
    Root {
        /// Its subject.
        found: String,
    },
    /// Issued under another name or key than the next one's.
    #[error("certificate {index} is not issued by the next one")]
    Issuer {
        /// Position.
        index: usize,
    },
    /// Its constraints or key usage do not permit what it is used for.
    #[error("certificate {index} may not be used in this place")]
    Usage {
        /// Position.
        index: usize,
    },
    /// Its signature does not verify.
    #[error("the signature of certificate {index} does not verify")]
    Signature {
        /// Position.
        index: usize,
    },
    /// `now` is outside its validity.
    #[error("certificate {index} is valid from {from} to {until}, and now is {now} (Unix seconds)")]
    Validity {
        /// Position.
        index: usize,
        /// First second.
        from: u64,
        /// Last second.
        until: u64,
        /// Time of verification.
        now: u64,
    },
}

/// A verified chain; only [`verify_chain`] makes one.
#[derive(Debug)]
pub(crate) struct Chain {
    leaf: Parsed,
    issuer: Parsed,
}

impl Chain {
    /// Public key point of the leaf.
    pub(crate) fn leaf_point(&self) -> &[u8] {
        self.leaf.point()
    }

    /// Public key point of the certificate that signed the leaf.
    pub(crate) fn issuer_point(&self) -> &[u8] {
        self.issuer.point()
    }

    /// Common name of that certificate's subject; empty if it has none.
    pub(crate) fn issuer_name(&self) -> String {
        let name = self.issuer.certificate.tbs_certificate().subject().common_name();
        name.ok().flatten().map(|name| name.value().into_owned()).unwrap_or_default()
    }

    /// Content of an extension of the leaf.
    pub(crate) fn leaf_extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        self.leaf.extension(oid).map(|extension| extension.extn_value.as_bytes())
    }
}

/// SHA-256 of a certificate, by which roots are pinned.
pub(crate) fn fingerprint(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

/// Verifies `certificates` (DER, leaf first) up to the root with this fingerprint, at `now`.
pub(crate) fn verify_chain<D: AsRef<[u8]>>(
    certificates: &[D],
    length: usize,
    max_bytes: usize,
    root: &[u8; 32],
    now: u64,
) -> Result<Chain, ChainError> {
    if certificates.len() != length {
        return Err(ChainError::Length { have: certificates.len(), want: length });
    }
    let parse = |(index, der): (usize, &D)| {
        Parsed::new(der.as_ref(), max_bytes).map_err(|source| ChainError::Certificate { index, source })
    };
    let chain: Vec<Parsed> = certificates.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    let last = certificates.last().map(AsRef::as_ref).unwrap_or_default();
    if fingerprint(last) != *root {
        let subject = chain.last().map(|root| root.certificate.tbs_certificate().subject().to_string());
        return Err(ChainError::Root { found: subject.unwrap_or_default() });
    }
    for (index, certificate) in chain.iter().enumerate() {
        certificate.check_usage(index)?;
        certificate.check_validity(index, now)?;
    }
    let links = || chain.iter().zip(chain.iter().skip(1)).enumerate();
    for (index, (certificate, issuer)) in links() {
        certificate.check_issuer(index, issuer)?;
    }
    for (index, (certificate, issuer)) in links() {
        certificate.check_signature(index, issuer)?;
    }
    let mut chain = chain.into_iter();
    let (leaf, issuer) = (chain.next(), chain.next());
    let too_short = ChainError::Length { have: certificates.len(), want: length };
    leaf.zip(issuer).map(|(leaf, issuer)| Chain { leaf, issuer }).ok_or(too_short)
}

/// A certificate of an accepted kind, with the bytes that were signed.
#[derive(Debug)]
struct Parsed {
    certificate: Certificate,
    tbs: Vec<u8>,
}

impl Parsed {
    fn new(der: &[u8], max_bytes: usize) -> Result<Self, CertificateError> {
        if der.len() > max_bytes {
            return Err(CertificateError::TooLarge { bytes: der.len() });
        }
        let encoding = |error: der::Error| CertificateError::Encoding(error.to_string());
        let certificate = Certificate::from_der(der).map_err(encoding)?;
        let tbs = signed_part(der).map_err(encoding)?.to_vec();
        let parsed = Self { certificate, tbs };
        parsed.check_kind()?;
        Ok(parsed)
    }

    fn check_kind(&self) -> Result<(), CertificateError> {
        let tbs = self.certificate.tbs_certificate();
        if tbs.version() != Version::V3 {
            return Err(CertificateError::Encoding("not version 3".to_owned()));
        }
        if !is_p384(tbs.subject_public_key_info()) {
            return Err(CertificateError::Key);
        }
        let algorithm = self.certificate.signature_algorithm();
        if algorithm != tbs.signature()
            || algorithm.oid != ECDSA_WITH_SHA384
            || algorithm.parameters.is_some()
        {
            return Err(CertificateError::Algorithm);
        }
        for (index, extension) in self.extensions().iter().enumerate() {
            let oid = extension.extn_id;
            if self.extensions().iter().take(index).any(|other| other.extn_id == oid) {
                return Err(CertificateError::DuplicateExtension(oid));
            }
            if extension.critical && oid != BASIC_CONSTRAINTS && oid != KEY_USAGE {
                return Err(CertificateError::CriticalExtension(oid));
            }
        }
        Ok(())
    }

    fn extensions(&self) -> &[Extension] {
        self.certificate.tbs_certificate().extensions().map_or(&[], Vec::as_slice)
    }

    fn extension(&self, oid: ObjectIdentifier) -> Option<&Extension> {
        self.extensions().iter().find(|extension| extension.extn_id == oid)
    }

    fn decode<'a, T: der::Decode<'a>>(
        &'a self,
        index: usize,
        oid: ObjectIdentifier,
    ) -> Result<Option<T>, ChainError> {
        let malformed = || ChainError::Certificate { index, source: CertificateError::Extension(oid) };
        self.extension(oid)
            .map(|extension| T::from_der(extension.extn_value.as_bytes()).map_err(|_| malformed()))
            .transpose()
    }

    fn point(&self) -> &[u8] {
        self.certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
    }

    /// The leaf signs messages, all others sign certificates; `index` is also the number of
    /// certificates below, of which the leaf does not count towards a path length.
    fn check_usage(&self, index: usize) -> Result<(), ChainError> {
        let refused = ChainError::Usage { index };
        let constraints: Option<BasicConstraints> = self.decode(index, BASIC_CONSTRAINTS)?;
        let usage: KeyUsage = self.decode(index, KEY_USAGE)?.ok_or(refused.clone())?;
        let is_fit = if index == 0 {
            usage.digital_signature() && !constraints.is_some_and(|constraints| constraints.ca)
        } else {
            let is_critical = self.extension(BASIC_CONSTRAINTS).is_some_and(|found| found.critical);
            let fits = |limit: u8| index <= usize::from(limit) + 1;
            usage.key_cert_sign()
                && is_critical
                && constraints.is_some_and(|found| found.ca && found.path_len_constraint.is_none_or(fits))
        };
        if is_fit { Ok(()) } else { Err(refused) }
    }

    fn check_validity(&self, index: usize, now: u64) -> Result<(), ChainError> {
        let validity = self.certificate.tbs_certificate().validity();
        let from = validity.not_before.to_unix_duration().as_secs();
        let until = validity.not_after.to_unix_duration().as_secs();
        if (from..=until).contains(&now) {
            return Ok(());
        }
        Err(ChainError::Validity { index, from, until, now })
    }

    fn check_issuer(&self, index: usize, issuer: &Self) -> Result<(), ChainError> {
        let refused = ChainError::Issuer { index };
        let (own, above) = (self.certificate.tbs_certificate(), issuer.certificate.tbs_certificate());
        let names = own.issuer().to_der().ok().zip(above.subject().to_der().ok());
        if names.is_none_or(|(own, above)| own != above) {
            return Err(refused);
        }
        let authority: AuthorityKeyIdentifier =
            self.decode(index, AUTHORITY_KEY_ID)?.ok_or(refused.clone())?;
        let subject: SubjectKeyIdentifier =
            issuer.decode(index + 1, SUBJECT_KEY_ID)?.ok_or(refused.clone())?;
        if authority.key_identifier.as_ref() != Some(&subject.0) {
            return Err(refused);
        }
        Ok(())
    }

    fn check_signature(&self, index: usize, issuer: &Self) -> Result<(), ChainError> {
        let signature = self.certificate.signature().as_bytes().unwrap_or_default();
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, issuer.point())
            .verify(&self.tbs, signature)
            .map_err(|_| ChainError::Signature { index })
    }
}

/// Whether a key is ECDSA P-384 on the named curve, as an uncompressed point.
pub(crate) fn is_p384(key: &SubjectPublicKeyInfoOwned) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    let point = key.subject_public_key.as_bytes().unwrap_or_default();
    key.algorithm.oid == EC_PUBLIC_KEY
        && curve == Some(SECP384R1)
        && point.len() == POINT_BYTES
        && point.first() == Some(&0x04)
}

/// The bytes of `tbsCertificate`, as received.
fn signed_part(der: &[u8]) -> Result<&[u8], der::Error> {
    let mut outer = SliceReader::new(der)?;
    let header = der::Header::decode(&mut outer)?;
    header.tag().assert_eq(der::Tag::Sequence)?;
    outer.tlv_bytes()
}
