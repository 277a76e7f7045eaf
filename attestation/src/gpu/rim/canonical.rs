//! Canonical XML 1.1 (without comments) of documents that have no DTD, no comment, no processing
//! instruction and no `xml:` attribute, which the caller has made sure of.

use std::collections::BTreeMap;

use roxmltree::{Attribute, Node};

/// Canonical form of the element `apex` without the element `without`. `inherits` says whether namespaces
/// declared above it are written at it, as for a part of a document.
pub(super) fn canonical(apex: &Node<'_, '_>, without: Option<&Node<'_, '_>>, inherits: bool) -> Vec<u8> {
    let mut out = String::new();
    let above = if inherits { BTreeMap::new() } else { parent_scope(apex) };
    element(apex, without, &above, &mut out);
    out.into_bytes()
}

/// Prefix (empty: the default) to namespace.
type Scope<'a> = BTreeMap<&'a str, &'a str>;

fn scope<'a>(node: &Node<'a, '_>) -> Scope<'a> {
    let named = node.namespaces().map(|namespace| (namespace.name().unwrap_or_default(), namespace.uri()));
    // The prefix `xml` is never declared, and a default of nothing is none.
    named.filter(|(prefix, uri)| *prefix != "xml" && !(prefix.is_empty() && uri.is_empty())).collect()
}

fn parent_scope<'a>(node: &Node<'a, '_>) -> Scope<'a> {
    node.parent_element().map(|parent| scope(&parent)).unwrap_or_default()
}

fn element<'a>(node: &Node<'a, '_>, without: Option<&Node<'_, '_>>, above: &Scope<'a>, out: &mut String) {
    let own = scope(node);
    let name = qualified_name(node);
    out.push('<');
    out.push_str(name);
    for (prefix, uri) in own.iter().filter(|(prefix, uri)| above.get(*prefix) != Some(uri)) {
        let attribute = if prefix.is_empty() { "xmlns".to_owned() } else { format!("xmlns:{prefix}") };
        push_attribute(&attribute, uri, out);
    }
    // A default namespace that is taken back.
    if above.contains_key("") && !own.contains_key("") {
        push_attribute("xmlns", "", out);
    }
    let mut attributes: Vec<_> = node.attributes().collect();
    attributes.sort_by_key(|attribute| (attribute.namespace().unwrap_or_default(), attribute.name()));
    for attribute in attributes {
        push_attribute(attribute_name(node, &attribute), attribute.value(), out);
    }
    out.push('>');
    for child in node.children().filter(|child| without.is_none_or(|without| without.id() != child.id())) {
        if child.is_element() {
            element(&child, without, &own, out);
        } else {
            push_text(child.text().unwrap_or_default(), out);
        }
    }
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// The name as written: the parser keeps namespaces, canonical XML keeps prefixes.
fn qualified_name<'a>(node: &Node<'a, '_>) -> &'a str {
    let text = node.document().input_text();
    let written = text.get(node.range()).unwrap_or_default().trim_start_matches('<');
    let end = written.find(|c: char| c.is_ascii_whitespace() || matches!(c, '>' | '/'));
    written.get(..end.unwrap_or(written.len())).unwrap_or_default()
}

fn attribute_name<'a>(node: &Node<'a, '_>, attribute: &Attribute<'a, '_>) -> &'a str {
    node.document().input_text().get(attribute.range_qname()).unwrap_or_default()
}

fn push_attribute(name: &str, value: &str, out: &mut String) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push_str("&#x9;"),
            '\n' => out.push_str("&#xA;"),
            '\r' => out.push_str("&#xD;"),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn push_text(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#xD;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxmltree::Document;

    fn whole(xml: &str) -> String {
        let document = Document::parse(xml).unwrap();
        String::from_utf8(canonical(&document.root_element(), None, false)).unwrap()
    }

    /// After the examples of the W3C recommendation.
    #[test]
    fn start_and_end_tags() {
        let xml = r#"<doc>
   <e1   />
   <e3   name = "elem3"   id="elem3"   />
   <e5 a:attr="out" b:attr="sorted" attr2="all" attr="I'm"
      xmlns:b="http://www.ietf.org"
      xmlns:a="http://www.w3.org"
      xmlns="http://example.org"/>
   <e6 xmlns="" xmlns:a="http://www.w3.org">
      <e7 xmlns="http://www.ietf.org">
         <e8 xmlns="" xmlns:a="http://www.w3.org"/>
      </e7>
   </e6>
</doc>"#;
        let canonical = r#"<doc>
   <e1></e1>
   <e3 id="elem3" name="elem3"></e3>
   <e5 xmlns="http://example.org" xmlns:a="http://www.w3.org" xmlns:b="http://www.ietf.org" attr="I'm" attr2="all" b:attr="sorted" a:attr="out"></e5>
   <e6 xmlns:a="http://www.w3.org">
      <e7 xmlns="http://www.ietf.org">
         <e8 xmlns=""></e8>
      </e7>
   </e6>
</doc>"#;
        assert_eq!(whole(xml), canonical);
    }

    #[test]
    fn characters() {
        let xml = "<doc><text>First&#x0d;&#10;Second</text><value>&#x32;</value>\
                   <compute><![CDATA[value>\"0\" && value<\"10\"]]></compute>\
                   <norm attr=' &apos;   &#x20;&#13;&#xa;&#9;   &apos; '/></doc>";
        let canonical = "<doc><text>First&#xD;\nSecond</text><value>2</value>\
                         <compute>value&gt;\"0\" &amp;&amp; value&lt;\"10\"</compute>\
                         <norm attr=\" '    &#xD;&#xA;&#x9;   ' \"></norm></doc>";
        assert_eq!(whole(xml), canonical);
    }

    #[test]
    fn a_part_has_the_namespaces_in_scope() {
        let document = Document::parse(r#"<a xmlns="urn:d" xmlns:p="urn:p" x="1"><p:b/><c/></a>"#).unwrap();
        let root = document.root_element();
        let part = root.first_element_child().unwrap();
        let text = String::from_utf8(canonical(&part, None, true)).unwrap();
        assert_eq!(text, r#"<p:b xmlns="urn:d" xmlns:p="urn:p"></p:b>"#);
        let rest = String::from_utf8(canonical(&root, Some(&part), false)).unwrap();
        assert_eq!(rest, r#"<a xmlns="urn:d" xmlns:p="urn:p" x="1"><c></c></a>"#);
    }
}
