//! The edges of the format: the largest and smallest values that it has, and the first ones beyond them.

use super::*;

pub(super) fn add(out: &mut Builder, good: &Parts, params: &SealParams) {
    add_sizes(out, params);
    add_texts(out, params);
    add_root_key_id(out, good);
    add_envelope_size(out, good, params);
    add_integers(out, good);
    add_json(out, good);
    add_columns(out, good);
    add_points(out, good, params);
}

/// Plaintexts around the border of one chunk and of two.
fn add_sizes(out: &mut Builder, params: &SealParams) {
    let bare = SealParams { kind: ContentKind::Bytes, rows: None, schema: None, ..params.clone() };
    for length in [1, 4095, 4097, 8191, 8192] {
        let name = format!("valid-{length}-bytes");
        let about = format!("{length} bytes in chunks of 4096");
        out.valid(&name, &about, &Parts::seal(&name, &plaintext(length), &bare));
    }
    let mut seal = |name: &str, about: &str, plain: &[u8], params: &SealParams| {
        out.valid(name, about, &Parts::seal(name, plain, params));
    };
    seal("valid-258-chunks", "258 chunks: an index of two bytes", &plaintext(257 * 4096 + 1), &bare);
    let largest = SealParams { chunk_bytes: 1 << 24, ..bare.clone() };
    seal("valid-largest-chunk-bytes", "chunk_bytes 16 777 216", CSV, &largest);
    let arrow = SealParams { kind: ContentKind::Arrow, ..bare.clone() };
    seal("valid-arrow", "kind arrow", b"ARROW1", &arrow);
    let column = |name: &str| Column { name: name.into(), type_name: "a".into() };
    let most = SealParams { schema: Some(vec![column("a"); 4096]), ..params.clone() };
    seal("valid-4096-columns", "4096 columns, all of one name", CSV, &most);
    let marks =
        ["a", "a", "\u{202e}cba", "e\u{301}", "\u{e9}", "\u{fdd0}\u{e000}\u{fffe}\u{ffff}"].map(column);
    let marks = SealParams { rows: Some(2), schema: Some(marks.into()), ..bare.clone() };
    seal("valid-bytes-with-schema", "rows and any names with kind bytes", CSV, &marks);
    // The empty plaintext is a chunk as well: its tag counts.
    let empty = Parts::seal("valid-empty", b"", &bare);
    let mut data = empty.data.clone();
    data[0] ^= 1;
    let file = recommitted(&empty.envelope, &data);
    out.bad("chunk-empty-tag-flipped", "no plaintext, and one bit of its tag", &empty, file);
    let full = Parts::seal("border", &plaintext(8192), &bare);
    let data = [&full.data[4112..], &full.data[4112..]].concat();
    let file = recommitted(&full.envelope, &data);
    out.bad("chunk-final-twice", "the final chunk also in the place of the first", &full, file);
}

fn add_texts(out: &mut Builder, params: &SealParams) {
    let column = |name: &str, kind: &str| Column { name: name.into(), type_name: kind.into() };
    let texts = SealParams {
        owner: "Z9._-abcdefghijklmnopqrstuvwxyz".parse().unwrap(),
        schema: Some(vec![
            column(&"€".repeat(42), &"~".repeat(256)),
            column(&"a".repeat(128), " "),
            column("\u{a0}", "a"),
            column(" ", "a"),
            column("\u{2028}\u{feff}\u{10ffff}", "\"\\"),
        ]),
        ..params.clone()
    };
    let about =
        "31 characters of owner, names of 126 and 128 bytes, types of 256 and 1 bytes, U+2028 as it is";
    out.valid("valid-longest-texts", about, &Parts::seal("texts", CSV, &texts));
    let least = SealParams { chain_id: 0, rows: Some(0), owner: "-".parse().unwrap(), ..params.clone() };
    out.valid(
        "valid-smallest-values",
        "chain id 0, 0 rows, an owner of one character",
        &Parts::seal("least", CSV, &least),
    );
    let last = root_keys(u32::MAX);
    let last = SealParams { root_epoch: u32::MAX, root: last.sealing.public_key().clone(), ..params.clone() };
    out.valid("valid-root-epoch-largest", "root epoch 2^32 - 1", &Parts::seal("last epoch", CSV, &last));
}

/// `params` with a schema that makes the envelope exactly `bytes` long: the last columns' types take what is left.
fn params_of_size(params: &SealParams, bytes: usize) -> SealParams {
    let column = |index| Column { name: format!("column-{index:04}"), type_name: "t".repeat(230) };
    let with_schema = |schema: Vec<Column>| SealParams { schema: Some(schema), ..params.clone() };
    let empty = envelope_by_hand(&with_schema(vec![])).len();
    let each = canonical(&column(0)).unwrap().len() + 1;
    // The first column has no comma before it.
    let columns = (bytes + 1 - empty) / each;
    let mut left = bytes + 1 - empty - columns * each;
    let mut schema: Vec<_> = (0..columns).map(column).collect();
    for column in schema.iter_mut().rev() {
        let more = left.min(26);
        column.type_name.push_str(&"t".repeat(more));
        left -= more;
    }
    with_schema(schema)
}

/// A right envelope of any size, which the writer would refuse to make.
fn envelope_by_hand(params: &SealParams) -> Vec<u8> {
    let keys = FixedSeal::new("large", params, &params.context().unwrap());
    let small = SealParams { schema: None, ..params.clone() };
    let parts = Parts::seal_with(keys, CSV, &small);
    let schema = serde_json::to_value(params.schema.as_ref().unwrap()).unwrap();
    let mut header: Value = serde_json::from_slice(&parts.envelope).unwrap();
    header["schema_hash"] = json!(sha256(&canonical(&schema).unwrap()).to_string());
    header["content"]["schema"] = schema;
    header.as_object_mut().unwrap().remove("wrapped_key");
    let key = wrapped(&parts.keys.wrap_key, &parts.keys.data_key, &canonical(&header).unwrap());
    header["wrapped_key"] = json!(hex_text(&key));
    canonical(&header).unwrap()
}

/// A claim that no check of this format compares: the KMS does, before it derives.
fn add_root_key_id(out: &mut Builder, good: &Parts) {
    let claim = |v: &mut Value| v["root_key_id"] = json!(hex_text(&[0x11; 32]));
    let (key, _) = good.rewrapped(&good.changed(claim)).unwrap();
    let envelope = good.changed(|v| {
        claim(v);
        v["wrapped_key"] = json!(hex_text(&key));
    });
    let id = dataset_id(&envelope, DataRoot(*blake3::hash(&good.data).as_bytes()));
    let expected = Expected { dataset_id: id.to_string(), ..good.expected.clone() };
    let about = "root_key_id of another key: a reader opens it, a KMS refuses";
    let name = "valid-root-key-id-other";
    out.push(name, about, None, good.attested.clone(), Some(expected), good.around(&envelope));
}

fn add_envelope_size(out: &mut Builder, good: &Parts, params: &SealParams) {
    let largest = params_of_size(params, 1 << 20);
    out.valid(
        "valid-largest-envelope",
        "envelope.json of exactly 1 MiB",
        &Parts::seal("large", CSV, &largest),
    );
    let mut over = largest;
    over.schema.as_mut().unwrap().last_mut().unwrap().name.push('x');
    let envelope = envelope_by_hand(&over);
    assert_eq!(envelope.len(), (1 << 20) + 1);
    let data = Parts::seal("large", CSV, &SealParams { schema: None, ..params.clone() }).data;
    let attested = Attested::of(&over.context().unwrap());
    let file = recommitted(&envelope, &data);
    out.bad_for("tar-envelope-too-large", "a right envelope of 1 MiB and a byte", attested, file);
    out.bad_envelope("no-bytes", "an empty envelope.json", good, b"");
}

fn add_integers(out: &mut Builder, good: &Parts) {
    let mut text = |name: &str, about: &str, from: &str, to: &str| {
        out.bad_envelope(name, about, good, &good.text(from, to));
    };
    text("number-minus-zero", "-0", "\"root_epoch\":0", "\"root_epoch\":-0");
    text("number-zero-fraction", "0.0", "\"root_epoch\":0", "\"root_epoch\":0.0");
    text("number-one-fraction", "1.0 where 1 would be right", "\"root_epoch\":0", "\"root_epoch\":1.0");
    text("number-1e3", "1e3 where 1000 would be right", "\"rows\":2", "\"rows\":1e3");
    text("number-leading-zero", "a leading zero", ":31337", ":031337");
    text("number-plus", "a plus sign", ":31337", ":+31337");
    text("number-hex", "a hexadecimal number", ":31337", ":0x7a69");
    text("number-infinite", "a number beyond all doubles", ":31337", ":1e999");
    text("number-nan", "NaN, which JSON does not have", ":31337", ":NaN");
    text("number-of-400-digits", "a number of 400 digits", ":31337", &format!(":{}", "9".repeat(400)));
    text("number-rounded", "2^53 and a fraction that rounds to an integer", ":31337", ":9007199254740992.1");
    let mut value = |name: &str, about: &str, change: &dyn Fn(&mut Value)| {
        out.bad_envelope(name, about, good, &good.changed(change));
    };
    value("rows-negative", "content.rows -1", &|v| v["content"]["rows"] = json!(-1));
    value("rows-large", "content.rows 2^53", &|v| v["content"]["rows"] = json!(1u64 << 53));
    value("chain-id-2-53", "chain_id 2^53", &|v| v["chain_id"] = json!(1u64 << 53));
    value("chain-id-true", "true as an integer", &|v| v["chain_id"] = json!(true));
    value("rows-true", "true as the number of rows", &|v| v["content"]["rows"] = json!(true));
    value("epoch-negative", "root_epoch -1", &|v| v["root_epoch"] = json!(-1));
    value("chain-id-negative", "chain_id -1", &|v| v["chain_id"] = json!(-1));
    value("chain-id-null", "null as chain_id", &|v| v["chain_id"] = Value::Null);
    value("chain-id-fraction", "chain_id 0.5", &|v| v["chain_id"] = json!(0.5));
    value("epoch-null", "null as root_epoch", &|v| v["root_epoch"] = Value::Null);
    value("epoch-true", "true as root_epoch", &|v| v["root_epoch"] = json!(true));
    value("epoch-text", "root_epoch as text", &|v| v["root_epoch"] = json!("0"));
    value("epoch-fraction", "root_epoch 0.5", &|v| v["root_epoch"] = json!(0.5));
    value("chunk-null", "null as chunk_bytes", &|v| v["chunk_bytes"] = Value::Null);
    value("chunk-true", "true as chunk_bytes", &|v| v["chunk_bytes"] = json!(true));
    value("chunk-fraction", "chunk_bytes 4096.5", &|v| v["chunk_bytes"] = json!(4096.5));
    value("bytes-null", "null as content.bytes", &|v| v["content"]["bytes"] = Value::Null);
    value("bytes-true", "true as content.bytes", &|v| v["content"]["bytes"] = json!(true));
    value("bytes-text", "content.bytes as text", &|v| v["content"]["bytes"] = json!("26"));
    value("bytes-fraction", "content.bytes 26.5", &|v| v["content"]["bytes"] = json!(26.5));
    value("rows-text", "content.rows as text", &|v| v["content"]["rows"] = json!("2"));
    value("rows-fraction", "content.rows 2.5", &|v| v["content"]["rows"] = json!(2.5));
    value("chunk-text", "chunk_bytes as text", &|v| v["chunk_bytes"] = json!("4096"));
}

fn add_json(out: &mut Builder, good: &Parts) {
    let mut text = |name: &str, about: &str, from: &str, to: &str| {
        out.bad_envelope(name, about, good, &good.text(from, to));
    };
    text("escaped-key", "a member's name written with an escape", "\"kdf\"", "\"kd\\u0066\"");
    text(
        "key-twice-escaped",
        "a key twice, once escaped",
        "\"kdf\"",
        "\"kd\\u0066\":\"HKDF-SHA256\",\"kdf\"",
    );
    text(
        "key-twice-other-value",
        "a key twice, the first time with another value",
        "\"owner\"",
        "\"owner\":\"hospital-B\",\"owner\"",
    );
    text("content-key-twice", "a key of content twice", "\"rows\":2", "\"rows\":2,\"rows\":2");
    text(
        "column-key-twice",
        "a column's name twice",
        "\"name\":\"age\"",
        "\"name\":\"age\",\"name\":\"age\"",
    );
    text("slash-escaped", "a slash escaped, which RFC 8785 does not", "dataset/1", "dataset\\/1");
    text("tab", "a tab before a value", "\"chain_id\":", "\"chain_id\":\t");
    text("trailing-comma", "a comma before the end", "\"}", "\",}");
    text("comment", "a comment", "{\"aead\"", "{/**/\"aead\"");
    text("two-values", "a second value after the first", "{\"aead\"", "{}{\"aead\"");
    text("control-unescaped", "a line feed that is not escaped in a string", "\"age\"", "\"a\nge\"");
    let deep = |levels: usize| format!("\"owner\":{}{}", "[".repeat(levels), "]".repeat(levels));
    text("nested-200", "200 arrays in one another", "\"owner\":\"hospital-A\"", &deep(200));
    text("nested-100000", "100 000 arrays in one another", "\"owner\":\"hospital-A\"", &deep(100_000));
    let mut whole = |name: &str, about: &str, text: &[u8]| {
        out.bad_envelope(name, about, good, text);
    };
    whole("is-null", "null in place of the object", b"null");
    whole("is-array", "an array in place of the object", b"[]");
    whole("is-empty-object", "an object without members", b"{}");
    let utf_16: Vec<u8> = good.envelope.iter().flat_map(|byte| [*byte, 0]).collect();
    whole("utf-16", "UTF-16", &utf_16);
    // With the hash that a reader would find who takes the name as it stands.
    let mut name = |name: &str, about: &str, bytes: &[u8]| {
        let schema = [b"[{\"name\":\"", bytes, b"\",\"type\":\"utf8\"}]"].concat();
        let hash = sha256(&schema).to_string();
        let text = String::from_utf8(good.envelope.clone()).unwrap();
        let (before, after) = text.split_once("\"schema\":[").unwrap();
        let after = after.split_once(']').unwrap().1.replace(&good.attested.schema_hash.to_string(), &hash);
        let envelope = [before.as_bytes(), b"\"schema\":", &schema, after.as_bytes()].concat();
        out.bad_envelope(name, about, good, &envelope);
    };
    name("surrogate-alone", "half of a surrogate pair as an escape", b"\\ud800");
    name("surrogates-swapped", "a surrogate pair in the wrong order", b"\\udc00\\ud800");
    name("surrogate-utf-8", "a surrogate encoded as if it were UTF-8", b"\xed\xa0\x80");
    name("overlong-utf-8", "an overlong form in UTF-8", b"\xc1\xa1");
    name("escape-upper-case", "a needless escape with upper-case digits", b"\\u00E9");
}

/// Each with the hash that its schema has, so that only the defect is one.
fn add_columns(out: &mut Builder, good: &Parts) {
    let mut column = |name: &str, about: &str, column: Value| {
        let envelope = good.changed(|v| {
            let schema = json!([column]);
            v["schema_hash"] = json!(sha256(&canonical(&schema).unwrap()).to_string());
            v["content"]["schema"] = schema;
        });
        out.bad_envelope(&format!("column-{name}"), about, good, &envelope);
    };
    let typed = |kind: &str| json!({ "name": "a", "type": kind });
    let named = |name: &str| json!({ "name": name, "type": "utf8" });
    column("control-c1", "U+0085, a control character of C1, in a column name", named("a\u{85}"));
    column("control-c1-last", "U+009F in a column name", named("\u{9f}"));
    column("delete", "U+007F in a column name", named("a\u{7f}"));
    column("control-last", "U+001F in a column name", named("a\u{1f}"));
    column("control-nul", "U+0000 in a column name", named("a\0"));
    column("long-utf-8", "43 characters of 3 bytes in a column name: 129 bytes", named(&"€".repeat(43)));
    column("type-empty", "a type of 0 bytes", typed(""));
    column("type-long", "a type of 257 bytes", typed(&"t".repeat(257)));
    column("type-control", "a line feed in a type", typed("utf8\n"));
    column("type-tab", "a tab in a type", typed("utf8\t"));
    column("type-delete", "U+007F in a type", typed("utf8\u{7f}"));
    column("name-missing", "a column without name", json!({ "type": "utf8" }));
    column("type-missing", "a column without type", json!({ "name": "a" }));
    column("name-number", "a number as a column name", json!({ "name": 1, "type": "utf8" }));
    column("text", "text in place of a column", json!("a"));
    column("null", "null in place of a column", Value::Null);
}

/// Points and ciphertexts that some libraries refuse and X-Wing takes as they are.
fn add_points(out: &mut Builder, good: &Parts, params: &SealParams) {
    let enc = |name: &str, about: &str, change: &dyn Fn(&mut [u8])| {
        let mut enc = good.keys.enc.clone();
        change(&mut enc);
        let file = good.with_envelope(|v| v["enc"] = json!(hex_text(&enc)));
        (name.to_owned(), about.to_owned(), file)
    };
    let wrong = [
        enc("wrap-enc-low-order", "a point of low order in place of enc's", &|enc| enc[1088..].fill(0)),
        enc("wrap-enc-high-bit", "the bit of enc's point that X25519 ignores", &|enc| enc[1119] ^= 0x80),
        enc("wrap-enc-lattice-changed", "one bit of enc's ML-KEM part", &|enc| enc[0] ^= 1),
        enc("wrap-enc-lattice-zero", "an ML-KEM part of zero bytes", &|enc| enc[..1088].fill(0)),
    ];
    for (name, about, file) in wrong {
        out.bad(&name, &about, good, file);
    }
    // Whoever seals can choose such a point. The secret is still ML-KEM's; a reader must come to the same key.
    let context = params.context().unwrap();
    let root = root_keys(params.root_epoch).sealing;
    for (name, point, about) in [
        ("valid-enc-point-zero", [0; 32], "enc's point is 0, of low order: X25519 gives 32 zero bytes"),
        ("valid-enc-point-not-reduced", not_reduced(), "enc's point is p + 9 with the ignored bit set"),
    ] {
        let mut keys = FixedSeal { eseed: None, ..FixedSeal::new(name, params, &context) };
        keys.enc[1088..].copy_from_slice(&point);
        keys.wrap_key = wrap_key_from_root(&root, &context, &keys.enc).unwrap();
        out.valid(name, about, &Parts::seal_with(keys, CSV, params));
    }
}

/// 2^255 - 19 + 9 and bit 255: RFC 7748 masks the bit and takes the rest modulo p, which gives the base point.
fn not_reduced() -> [u8; 32] {
    let mut point = [0xff; 32];
    point[0] = 0xf6;
    point
}
