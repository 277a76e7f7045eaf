//! Reference manifests of development GPUs: the XML that NVIDIA publishes for its own, signed alike.
//!
//! The text is written in canonical form from the start, so that what is hashed is what is written.

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};
use sha2::{Digest as _, Sha384};

use super::measurement;
use crate::gpu::BLOCKS;

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const SHA384: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
const RIM: &str =
    "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/";
const C14N: &str = "http://www.w3.org/2006/12/xml-c14n11";
const XMLDSIG: &str = "http://www.w3.org/2000/09/xmldsig#";

/// A signed manifest that lists the measurements of `blocks`.
pub(super) fn manifest(
    key: &SigningKey,
    chain: &[Vec<u8>],
    version: &str,
    blocks: RangeInclusive<usize>,
) -> String {
    let before = content(version, blocks);
    let after = "</SoftwareIdentity>";
    let digest = STANDARD.encode(Sha384::digest(format!("{before}{after}")));
    let body = signed_info(&digest);
    // Canonical form of a part of a document: with the namespaces that are in scope there.
    let in_scope = format!(
        r#"<ds:SignedInfo xmlns="{SWID}" xmlns:ds="{XMLDSIG}" xmlns:ns0="{SWID}" xmlns:ns2="{SHA384}">"#
    );
    let signature: Signature = key.sign(format!("{in_scope}{body}</ds:SignedInfo>").as_bytes());
    let signature = STANDARD.encode(signature.to_bytes());
    let certificate =
        |der: &Vec<u8>| format!("<ds:X509Certificate>{}</ds:X509Certificate>", STANDARD.encode(der));
    let certificates: String = chain.iter().map(certificate).collect();
    format!(
        "{before}<ds:Signature xmlns:ds=\"{XMLDSIG}\"><ds:SignedInfo>{body}</ds:SignedInfo>\
         <ds:SignatureValue>{signature}</ds:SignatureValue><ds:KeyInfo><ds:X509Data>{certificates}\
         </ds:X509Data></ds:KeyInfo></ds:Signature>{after}"
    )
}

/// Everything before the signature.
fn content(version: &str, blocks: RangeInclusive<usize>) -> String {
    let tag_id = hex::encode(Sha384::digest(version));
    let resources: String = (1..=BLOCKS).map(|block| resource(block, blocks.contains(&block))).collect();
    format!(
        "<SoftwareIdentity xmlns=\"{SWID}\" xmlns:ns0=\"{SWID}\" xmlns:ns2=\"{SHA384}\" corpus=\"false\" \
         name=\"GH100\" patch=\"false\" supplemental=\"false\" tagId=\"{tag_id}\" tagVersion=\"0\" \
         version=\"1.0\">\n    \
         <ns0:Entity name=\"Cohort development\" role=\"softwareCreator tagCreator\"></ns0:Entity>\n    \
         <ns0:Meta xmlns:ns1=\"{RIM}\" PayloadType=\"direct\" colloquialVersion=\"{version}\" \
         edition=\"GPU\" product=\"GH100\" revision=\"r1\" ns1:BindingSpec=\"RIMIM\" \
         ns1:PlatformModel=\"GH100\"></ns0:Meta>\n    \
         <ns0:Payload>\n{resources}    </ns0:Payload>\n"
    )
}

fn resource(block: usize, active: bool) -> String {
    let (index, active) = (block - 1, if active { "True" } else { "False" });
    let hash = hex::encode(measurement(block));
    format!(
        "        <ns0:Resource active=\"{active}\" alternatives=\"1\" index=\"{index}\" \
         name=\"Measurement_{index}\" size=\"48\" type=\"Measurement\" ns2:Hash0=\"{hash}\"></ns0:Resource>\n"
    )
}

/// Content of `SignedInfo`.
fn signed_info(digest: &str) -> String {
    let empty = |name: &str, algorithm: &str| format!("<ds:{name} Algorithm=\"{algorithm}\"></ds:{name}>");
    let canonical = empty("CanonicalizationMethod", C14N);
    let method = empty("SignatureMethod", "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384");
    let enveloped = empty("Transform", "http://www.w3.org/2000/09/xmldsig#enveloped-signature");
    let transform = empty("Transform", C14N);
    let hash = empty("DigestMethod", "http://www.w3.org/2001/04/xmldsig-more#sha384");
    format!(
        "{canonical}{method}<ds:Reference URI=\"\"><ds:Transforms>{enveloped}{transform}</ds:Transforms>\
         {hash}<ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>"
    )
}
