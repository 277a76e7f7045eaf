//! Each member of the envelope on its own: missing, of another length, in another spelling, of another JSON type.

use super::*;

/// Members whose value is hex.
const HEX: [&str; 7] =
    ["app", "compose_hash", "enc", "key_commitment", "root_key_id", "schema_hash", "wrapped_key"];

pub(super) fn add(out: &mut Builder, good: &Parts) {
    add_missing(out, good);
    add_hex(out, good);
    add_others(out, good);
}

fn text(v: &Value, member: &str) -> String {
    v[member].as_str().unwrap().to_owned()
}

fn add_missing(out: &mut Builder, good: &Parts) {
    let envelope: Value = serde_json::from_slice(&good.envelope).unwrap();
    // These two are among the other envelope vectors.
    let others = |member: &&String| !["owner", "wrapped_key"].contains(&member.as_str());
    for member in envelope.as_object().unwrap().keys().filter(others) {
        let without = good.changed(|v| {
            v.as_object_mut().unwrap().remove(member);
        });
        out.bad_envelope(
            &format!("{}-missing", member.replace('_', "-")),
            &format!("no {member}"),
            good,
            &without,
        );
    }
    for member in ["bytes", "kind"] {
        let without = good.changed(|v| {
            v["content"].as_object_mut().unwrap().remove(member);
        });
        out.bad_envelope(&format!("{member}-missing"), &format!("no content.{member}"), good, &without);
    }
}

fn add_hex(out: &mut Builder, good: &Parts) {
    for member in HEX {
        let mut value = |name: &str, about: &str, change: &dyn Fn(&str) -> Value| {
            let changed = good.changed(|v| v[member] = change(&text(v, member)));
            let name = format!("{}-{name}", member.replace('_', "-"));
            out.bad_envelope(&name, &format!("{member}: {about}"), good, &changed);
        };
        value("long", "a byte more", &|hex| json!(format!("{hex}00")));
        value("capital-x", "0X in place of 0x", &|hex| json!(hex.replacen("0x", "0X", 1)));
        value("not-hex", "a digit that is none", &|hex| json!(format!("{}g", &hex[..hex.len() - 1])));
        value("number", "a number", &|_| json!(1));
        // The vectors upper-case-hex and app-short are those of app.
        if member != "app" {
            value("upper-case", "digits in upper case", &|hex| {
                let upper = format!("0x{}", hex[2..].to_uppercase());
                assert_ne!(upper, hex);
                json!(upper)
            });
        }
        if !["app", "enc", "wrapped_key"].contains(&member) {
            value("short", "a byte less", &|hex| json!(hex[..hex.len() - 2]));
        }
    }
}

fn add_others(out: &mut Builder, good: &Parts) {
    let mut value = |name: &str, about: &str, change: &dyn Fn(&mut Value)| {
        out.bad_envelope(name, about, good, &good.changed(change));
    };
    value("owner-slash", "an owner with a slash", &|v| v["owner"] = json!("hospital/A"));
    value("owner-punctuation", "an owner with a mark that is not allowed", &|v| {
        v["owner"] = json!("hospital!A")
    });
    value("owner-letter", "an owner with a letter beyond ASCII", &|v| v["owner"] = json!("h\u{f4}pital-A"));
    value("owner-line-feed", "an owner with a line feed at the end", &|v| v["owner"] = json!("hospital-A\n"));
    value("owner-number", "a number as the owner", &|v| v["owner"] = json!(7));
    value("kind-upper-case", "a kind in upper case", &|v| v["content"]["kind"] = json!("CSV"));
    value("kind-terminal", "a kind that a terminal acts on: no message may carry it as it is", &|v| {
        v["content"]["kind"] = json!("\u{1b}[2J\nok: intact\u{202e}");
    });
    let schema = |v: &mut Value, schema: Value, hash: B256| {
        v["content"]["schema"] = schema;
        v["schema_hash"] = json!(hash.to_string());
    };
    value("schema-null", "null as the schema, with the hash of none", &|v| {
        schema(v, Value::Null, B256::ZERO)
    });
    value("schema-object", "an object as the schema", &|v| schema(v, json!({}), sha256(b"{}")));
    value("content-null", "null as content", &|v| v["content"] = Value::Null);
    value("content-array", "an array as content", &|v| v["content"] = json!([]));
}
