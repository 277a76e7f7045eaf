//! The XML signature of a manifest (W3C XML-DSig): one enveloped reference to the whole document.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use roxmltree::{Document, Node};
use sha2::{Digest as _, Sha384};

use super::RimError;
use super::canonical::canonical;
use super::certificates::verify_chain;
use super::shape::{Signed, XMLDSIG, all_elements, elements};

const C14N11: &str = "http://www.w3.org/2006/12/xml-c14n11";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const ECDSA_SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";
const SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";
/// Signer, its issuer, the family's, root.
const CERTIFICATES: usize = 4;
/// Longest accepted certificate, in bytes.
const MAX_CERTIFICATE_BYTES: usize = 4 << 10;

/// Verifies digest, signature and the signer's chain at `now`.
pub(super) fn verify(
    document: &Document<'_>,
    signed: &Signed<'_, '_>,
    root: &[u8; 32],
    now: u64,
) -> Result<(), RimError> {
    let [info, value, key_info] = children(&signed.signature, ["SignedInfo", "SignatureValue", "KeyInfo"])?;
    let digest = reference(&info)?;
    let content = canonical(&document.root_element(), Some(&signed.signature), false);
    if digest != Sha384::digest(&content)[..] {
        return Err(RimError::Digest);
    }
    let certificates = certificates(&key_info)?;
    let chain = verify_chain(&certificates, CERTIFICATES, MAX_CERTIFICATE_BYTES, root, now)
        .map_err(RimError::Chain)?;
    let signature = base64(&value, "SignatureValue")?;
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, chain.leaf_point())
        .verify(&canonical(&info, None, true), &signature)
        .map_err(|_| RimError::Signature)
}

/// The digest of the only reference, whose form is fixed.
fn reference(info: &Node<'_, '_>) -> Result<Vec<u8>, RimError> {
    let names = ["CanonicalizationMethod", "SignatureMethod", "Reference"];
    let [canonicalization, method, reference] = children(info, names)?;
    algorithm(&canonicalization, C14N11, "CanonicalizationMethod")?;
    algorithm(&method, ECDSA_SHA384, "SignatureMethod")?;
    if reference.attribute("URI") != Some("") || reference.attributes().count() != 1 {
        return Err(RimError::Algorithm { what: "Reference" });
    }
    let [transforms, digest_method, digest] =
        children(&reference, ["Transforms", "DigestMethod", "DigestValue"])?;
    let [enveloped, canonicalization] = children(&transforms, ["Transform", "Transform"])?;
    algorithm(&enveloped, ENVELOPED, "first Transform")?;
    algorithm(&canonicalization, C14N11, "second Transform")?;
    algorithm(&digest_method, SHA384, "DigestMethod")?;
    base64(&digest, "DigestValue")
}

/// The certificates, signer first.
fn certificates(key_info: &Node<'_, '_>) -> Result<Vec<Vec<u8>>, RimError> {
    let [data] = children(key_info, ["X509Data"])?;
    let nodes = all_elements(&data)?;
    if nodes.iter().any(|node| !node.has_tag_name((XMLDSIG, "X509Certificate"))) {
        return Err(RimError::Shape { what: "another element within X509Data" });
    }
    nodes.iter().map(|node| base64(node, "X509Certificate")).collect()
}

/// Exactly the children with these names, in this order.
fn children<'a, 'input, const N: usize>(
    parent: &Node<'a, 'input>,
    names: [&'static str; N],
) -> Result<[Node<'a, 'input>; N], RimError> {
    let found: [Node<'a, 'input>; N] = elements(parent, "another element within Signature")?;
    let fits = found.iter().zip(names).all(|(node, name)| node.has_tag_name((XMLDSIG, name)));
    if fits { Ok(found) } else { Err(RimError::Shape { what: "another element within Signature" }) }
}

/// An empty element with this algorithm and nothing else.
fn algorithm(node: &Node<'_, '_>, wanted: &str, what: &'static str) -> Result<(), RimError> {
    let fits =
        node.attribute("Algorithm") == Some(wanted) && node.attributes().count() == 1 && !node.has_children();
    if fits { Ok(()) } else { Err(RimError::Algorithm { what }) }
}

/// Content of an element that holds base64, in lines.
fn base64(node: &Node<'_, '_>, what: &'static str) -> Result<Vec<u8>, RimError> {
    let text: String = node.children().filter_map(|child| child.text()).collect();
    let digits: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(digits).map_err(|source| RimError::Base64 { what, source })
}
