//! The one form of a manifest that is accepted: which element stands where.

use roxmltree::{Document, Node, NodeType};

use super::RimError;

pub(super) const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
pub(super) const XMLDSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// Nodes on the way from one to the document, itself counted: those of the signature's transforms need seven. Canonical
/// form is made by recursion.
const MAX_DEPTH: usize = 8;

/// The parts of a manifest.
pub(super) struct Signed<'a, 'input> {
    pub(super) root: Node<'a, 'input>,
    pub(super) meta: Node<'a, 'input>,
    pub(super) payload: Node<'a, 'input>,
    pub(super) signature: Node<'a, 'input>,
}

impl<'a, 'input> Signed<'a, 'input> {
    /// `SoftwareIdentity` of `Entity`, `Meta`, `Payload` and, last, `Signature`: each once, so that what is
    /// read is what is signed, and nothing signed lies beside what is read.
    pub(super) fn read(document: &'a Document<'input>) -> Result<Self, RimError> {
        for node in document.descendants() {
            let plain = matches!(node.node_type(), NodeType::Root | NodeType::Element | NodeType::Text);
            if !plain {
                return Err(RimError::Shape { what: "comment or processing instruction" });
            }
            if node.attributes().any(|attribute| attribute.namespace() == Some(XML)) {
                return Err(RimError::Shape { what: "xml: attribute" });
            }
            if node.ancestors().nth(MAX_DEPTH).is_some() {
                return Err(RimError::Shape { what: "elements within elements, too deep" });
            }
        }
        let root = document.root_element();
        if !root.has_tag_name((SWID, "SoftwareIdentity")) {
            return Err(RimError::Shape { what: "the root is not SoftwareIdentity" });
        }
        let [entity, meta, payload, signature] = elements(&root, "SoftwareIdentity")?;
        let expected = [
            (entity, (SWID, "Entity")),
            (meta, (SWID, "Meta")),
            (payload, (SWID, "Payload")),
            (signature, (XMLDSIG, "Signature")),
        ];
        if expected.iter().any(|(node, name)| !node.has_tag_name(*name)) {
            return Err(RimError::Shape { what: "not Entity, Meta, Payload, Signature in this order" });
        }
        Ok(Self { root, meta, payload, signature })
    }
}

/// Exactly N child elements, with nothing but white space between.
pub(super) fn elements<'a, 'input, const N: usize>(
    parent: &Node<'a, 'input>,
    what: &'static str,
) -> Result<[Node<'a, 'input>; N], RimError> {
    all_elements(parent)?.try_into().map_err(|_| RimError::Shape { what })
}

/// All child elements, with nothing but white space between.
pub(super) fn all_elements<'a, 'input>(parent: &Node<'a, 'input>) -> Result<Vec<Node<'a, 'input>>, RimError> {
    let is_text = |node: &Node<'_, '_>| node.text().is_some_and(|text| !text.trim().is_empty());
    if parent.children().any(|node| node.is_text() && is_text(&node)) {
        return Err(RimError::Shape { what: "text between elements" });
    }
    Ok(parent.children().filter(Node::is_element).collect())
}
