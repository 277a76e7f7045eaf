//! The PCK certificate's SGX extension: what Intel would certify about the machine.

use der::asn1::ObjectIdentifier;
use x509_cert::ext::Extension;

use super::platform::{CPU_SVN, FMSPC, PCE_ID, PCE_SVN};
use super::{DevPlatformError, pki};

const SGX_EXTENSION: &str = "1.2.840.113741.1.13.1";

/// Flags of the PCK certificate. The default has them all set, as on real TDX servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PckFlags {
    /// Packages may be added.
    pub dynamic_platform: bool,
    /// The registration service holds the platform root keys.
    pub cached_keys: bool,
    /// Simultaneous multithreading.
    pub smt: bool,
}

impl Default for PckFlags {
    fn default() -> Self {
        Self { dynamic_platform: true, cached_keys: true, smt: true }
    }
}

/// The SGX extension of a PCK certificate (Intel, "SGX PCK Certificate and Certificate Revocation
/// List Profile Specification"): PPID, TCB, PCE id, FMSPC, SGX type, platform instance, flags.
pub(super) fn sgx_extension(
    ppid: &[u8; 16],
    instance: &[u8; 16],
    flags: PckFlags,
) -> Result<Extension, DevPlatformError> {
    const WHAT: &str = "the SGX extension";
    let octets = |bytes: &[u8]| pki::encode(WHAT, der::Tag::OctetString, bytes);
    let integer = |value: u8| pki::encode(WHAT, der::Tag::Integer, &[value]);
    let boolean = |value: bool| pki::encode(WHAT, der::Tag::Boolean, if value { &[0xFF] } else { &[0x00] });
    let named = |arc: &str, value| pki::named(WHAT, &format!("{SGX_EXTENSION}.{arc}"), value);
    let mut tcb = (1u8..)
        .zip(CPU_SVN)
        .map(|(n, svn)| named(&format!("2.{n}"), integer(svn)?))
        .collect::<Result<Vec<_>, _>>()?;
    tcb.push(named("2.17", integer(PCE_SVN)?)?);
    tcb.push(named("2.18", octets(&CPU_SVN)?)?);
    let configuration = [
        named("7.1", boolean(flags.dynamic_platform)?)?,
        named("7.2", boolean(flags.cached_keys)?)?,
        named("7.3", boolean(flags.smt)?)?,
    ];
    let content = pki::sequence(
        WHAT,
        &[
            named("1", octets(ppid)?)?,
            named("2", pki::sequence(WHAT, &tcb)?)?,
            named("3", octets(&PCE_ID)?)?,
            named("4", octets(&FMSPC)?)?,
            // 1: Scalable, the type of server platforms.
            named("5", pki::encode(WHAT, der::Tag::Enumerated, &[1])?)?,
            named("6", octets(instance)?)?,
            named("7", pki::sequence(WHAT, &configuration)?)?,
        ],
    )?;
    let oid = ObjectIdentifier::new(SGX_EXTENSION)
        .map_err(|error| DevPlatformError::Issue { what: WHAT, detail: error.to_string() })?;
    pki::extension(WHAT, oid, content)
}
