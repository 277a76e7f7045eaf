//! The test vectors of `docs/spec/sealed-dataset.md`: valid files, files with one defect each, and the parts of the
//! format that need no file.
//!
//! Everything follows from fixed seeds, so the committed files can be made again byte for byte.

mod edges;
mod members;
mod parts;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use alloy::primitives::{Address, B256};
use cohort_protocol::{
    hpke::SecretBytes,
    ids::ComposeHash,
    json::{canonical, sha256},
    root::RootKeys,
    sealed::{Column, ContentKind, DataRoot, SealContext, SealParams, dataset_id, wrap_key_from_root},
};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    FixedSeal, archive, layout, params, plaintext, recommitted, set_checksum, tar_entry, tar_header,
};

/// The KMS root secret of all vectors.
pub fn root_secret() -> SecretBytes {
    SecretBytes::new(std::array::from_fn(|i| i as u8))
}

pub fn root_keys(epoch: u32) -> RootKeys {
    RootKeys::derive(&root_secret(), epoch).unwrap()
}

/// What the KMS knows from evidence when the key is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attested {
    pub chain_id: u64,
    pub app: Address,
    pub compose_hash: ComposeHash,
    pub owner: String,
    pub root_epoch: u32,
    pub schema_hash: B256,
}

impl Attested {
    fn of(context: &SealContext) -> Self {
        Self {
            chain_id: context.chain_id,
            app: context.app,
            compose_hash: context.compose_hash,
            owner: context.owner.to_string(),
            root_epoch: context.root_epoch,
            schema_hash: context.schema_hash,
        }
    }

    pub fn context(&self) -> SealContext {
        SealContext {
            chain_id: self.chain_id,
            app: self.app,
            compose_hash: self.compose_hash,
            owner: self.owner.parse().unwrap(),
            root_epoch: self.root_epoch,
            schema_hash: self.schema_hash,
        }
    }
}

/// What a right reader finds in a valid file, with the values on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    pub dataset_id: String,
    pub data_root: String,
    pub plaintext_bytes: u64,
    pub plaintext_sha256: B256,
    /// Absent where no encapsulation gives this `enc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eseed: Option<String>,
    pub info: String,
    pub wrap_key: String,
    pub data_key: String,
    pub chunk_key: String,
}

/// One line of the index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub file: String,
    /// What is wrong, in words; or what is special about a valid file.
    pub about: String,
    /// One of these layers must refuse; absent: the file is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<String>>,
    pub attested: Attested,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
}

/// The index file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Index {
    pub format: String,
    /// Root secret of `docs/spec/kms-root.md`, hex.
    pub root_secret: String,
    pub roots: Vec<parts::Root>,
    pub public_keys: Vec<parts::PublicKeyCase>,
    pub headers: Vec<parts::HeaderCase>,
    pub recovery: Vec<parts::RecordCase>,
    pub reseals: Vec<parts::ResealCase>,
    pub cases: Vec<Case>,
}

/// The bulk of a valid file, taken apart.
struct Parts {
    envelope: Vec<u8>,
    data: Vec<u8>,
    file: Vec<u8>,
    attested: Attested,
    keys: FixedSeal,
    expected: Expected,
}

impl Parts {
    fn seal(seed: &str, plain: &[u8], params: &SealParams) -> Self {
        let keys = FixedSeal::new(seed, params, &params.context().unwrap());
        Self::seal_with(keys, plain, params)
    }

    /// The same data under another envelope: a fresh encapsulation around the data key of `self`.
    fn reseal(&self, seed: &str, plain: &[u8], params: &SealParams) -> Self {
        let fresh = FixedSeal::new(seed, params, &params.context().unwrap());
        let resealed =
            Self::seal_with(FixedSeal { data_key: self.keys.data_key.clone(), ..fresh }, plain, params);
        assert_eq!(resealed.data, self.data);
        resealed
    }

    fn seal_with(keys: FixedSeal, plain: &[u8], params: &SealParams) -> Self {
        let context = params.context().unwrap();
        let (file, summary) = keys.seal(plain, params);
        let at = layout(&file);
        let mut chunk_key = [0; 32];
        Hkdf::<Sha256>::new(Some(b"cohort-sealed-dataset/1"), keys.data_key.expose_secret())
            .expand(b"chunk key", &mut chunk_key)
            .unwrap();
        let expected = Expected {
            dataset_id: summary.dataset_id.to_string(),
            data_root: summary.data_root.to_string(),
            plaintext_bytes: plain.len() as u64,
            plaintext_sha256: sha256(plain),
            eseed: keys.eseed.map(hex::encode),
            info: hex::encode(context.info()),
            wrap_key: hex::encode(keys.wrap_key.expose_secret()),
            data_key: hex::encode(keys.data_key.expose_secret()),
            chunk_key: hex::encode(chunk_key),
        };
        Self {
            envelope: summary.envelope.bytes().to_vec(),
            data: file[at.data.0..at.data.0 + at.data.1].to_vec(),
            attested: Attested::of(&context),
            file,
            keys,
            expected,
        }
    }

    fn commitment(&self) -> Vec<u8> {
        blake3::hash(&self.data).as_bytes().to_vec()
    }

    /// The envelope with a change, in canonical form.
    fn changed(&self, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut value: Value = serde_json::from_slice(&self.envelope).unwrap();
        change(&mut value);
        canonical(&value).unwrap()
    }

    /// The file with a changed envelope, the rest as it was: `wrapped_key` does not fit any more.
    fn with_envelope(&self, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        self.around(&self.changed(change))
    }

    /// The file with these bytes for an envelope.
    fn around(&self, envelope: &[u8]) -> Vec<u8> {
        archive(envelope, &self.data, &self.commitment())
    }

    /// The data key wrapped over the header of `envelope`, and for whom. `None` where the header is that of `self`, or
    /// where there is none since the text is no JSON object.
    fn rewrapped(&self, envelope: &[u8]) -> Option<(Vec<u8>, Attested)> {
        let header = |text: &[u8]| {
            let mut value: Value = serde_json::from_slice(text).ok()?;
            value.as_object_mut()?.remove("wrapped_key");
            Some((canonical(&value).ok()?, value))
        };
        let (bytes, value) = header(envelope)?;
        if bytes == header(&self.envelope)?.0 {
            return None;
        }
        let hash =
            value["schema_hash"].as_str().filter(|text| text.len() == 66).and_then(|text| text.parse().ok());
        let schema_hash = hash.unwrap_or(self.attested.schema_hash);
        let attested = Attested { schema_hash, ..self.attested.clone() };
        let root = root_keys(attested.root_epoch).sealing;
        let key = wrap_key_from_root(&root, &attested.context(), &self.keys.enc).unwrap();
        Some((wrapped(&key, &self.keys.data_key, &bytes), attested))
    }

    /// The envelope's text with a change.
    fn text(&self, from: &str, to: &str) -> Vec<u8> {
        let text = String::from_utf8(self.envelope.clone()).unwrap();
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    }

    /// The header block at an offset with a change and a right checksum.
    fn with_header(&self, at: usize, change: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
        let mut file = self.file.clone();
        let mut block: [u8; 512] = file[at..at + 512].try_into().unwrap();
        change(&mut block);
        set_checksum(&mut block);
        file[at..at + 512].copy_from_slice(&block);
        file
    }
}

/// `wrapped_key` over any header.
fn wrapped(wrap_key: &SecretBytes, data_key: &SecretBytes, header: &[u8]) -> Vec<u8> {
    let payload = Payload { msg: data_key.expose_secret(), aad: header };
    Aes256Gcm::new(wrap_key.expose_secret().into()).encrypt(&[0; 12].into(), payload).unwrap()
}

fn hex_text(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn put(block: &mut [u8; 512], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

struct Builder {
    files: Vec<(Case, Vec<u8>)>,
}

impl Builder {
    fn valid(&mut self, name: &str, about: &str, parts: &Parts) {
        self.push(
            name,
            about,
            None,
            parts.attested.clone(),
            Some(parts.expected.clone()),
            parts.file.clone(),
        );
    }

    fn bad(&mut self, name: &str, about: &str, parts: &Parts, file: Vec<u8>) {
        self.bad_for(name, about, parts.attested.clone(), file);
    }

    /// The layer is the name's first word.
    fn bad_for(&mut self, name: &str, about: &str, attested: Attested, file: Vec<u8>) {
        let layer = name.split('-').next().unwrap();
        self.push(name, about, Some(vec![layer.to_owned()]), attested, None, file);
    }

    /// Two checks fail, and which is made first is free.
    fn bad_at(&mut self, name: &str, about: &str, layers: [&str; 2], parts: &Parts, file: Vec<u8>) {
        let layers = layers.map(str::to_owned).to_vec();
        self.push(name, about, Some(layers), parts.attested.clone(), None, file);
    }

    /// A defect of the envelope alone: a reader that overlooks it finds everything else in order.
    fn bad_envelope(&mut self, name: &str, about: &str, parts: &Parts, envelope: &[u8]) {
        let (mut envelope, mut attested) = (envelope.to_vec(), parts.attested.clone());
        if let Some((key, fitting)) = parts.rewrapped(&envelope) {
            let old: Value = serde_json::from_slice(&parts.envelope).unwrap();
            let text = String::from_utf8(envelope).unwrap();
            envelope = text.replace(old["wrapped_key"].as_str().unwrap(), &hex_text(&key)).into_bytes();
            attested = fitting;
        }
        self.bad_for(&format!("envelope-{name}"), about, attested, parts.around(&envelope));
    }

    fn push(
        &mut self,
        name: &str,
        about: &str,
        layers: Option<Vec<String>>,
        attested: Attested,
        expected: Option<Expected>,
        file: Vec<u8>,
    ) {
        let case = Case { file: format!("{name}.tar"), about: about.into(), layers, attested, expected };
        assert!(self.files.iter().all(|(other, _)| other.file != case.file), "{name} twice");
        self.files.push((case, file));
    }
}

const CSV: &[u8] = b"age,sex\n63,male\n41,female\n";

/// All vectors: index and files.
pub fn all() -> (Index, Vec<(Case, Vec<u8>)>) {
    let roots = [root_keys(0), root_keys(1)];
    let mut params = params(&roots[0].sealing);
    params.root = roots[0].sealing.public_key().clone();
    let mut out = Builder { files: Vec::new() };
    let good = Parts::seal("csv", CSV, &params);
    out.valid("valid-csv", "26 bytes, one chunk, rows and schema told", &good);
    add_valid(&mut out, &params, &roots[1]);
    add_tar(&mut out, &good);
    add_envelope(&mut out, &good);
    add_content(&mut out, &params);
    add_commitment(&mut out, &good);
    add_wrap(&mut out, &good, &params);
    let resealed = add_resealed(&mut out, &good, &params);
    add_chunk(&mut out, &params);
    edges::add(&mut out, &good, &params);
    members::add(&mut out, &good);
    let index = Index {
        format: "cohort-sealed-dataset/1".into(),
        root_secret: hex::encode(root_secret().expose_secret()),
        roots: [0, 1, u32::MAX].map(parts::root).into(),
        public_keys: parts::public_keys(),
        headers: parts::headers(),
        recovery: parts::records(&good.keys.data_key),
        reseals: vec![parts::reseal(&good, &resealed)],
        cases: out.files.iter().map(|(case, _)| case.clone()).collect(),
    };
    (index, out.files)
}

fn add_valid(out: &mut Builder, params: &SealParams, epoch_1: &RootKeys) {
    let bare = SealParams { kind: ContentKind::Bytes, rows: None, schema: None, ..params.clone() };
    let mut seal = |name: &str, about: &str, plain: &[u8], params: &SealParams| {
        out.valid(name, about, &Parts::seal(name, plain, params));
    };
    seal("valid-empty", "no plaintext: one chunk that is a tag", b"", &bare);
    seal("valid-metadata-withheld", "neither rows nor schema: schema_hash is zero", CSV, &bare);
    seal("valid-one-full-chunk", "4096 bytes: the last chunk is full", &plaintext(4096), &bare);
    seal("valid-three-chunks", "8193 bytes: two full chunks and one byte", &plaintext(8193), &bare);
    seal("valid-no-padding", "496 bytes: data ends on a tar block", &plaintext(496), &bare);
    seal(
        "valid-chunk-of-8-kib",
        "chunk_bytes 8192",
        &plaintext(8193),
        &SealParams { chunk_bytes: 8192, ..bare.clone() },
    );
    let columns = ["é", "e\u{301}", "quote\"backslash\\", "\u{1f3e5}", "age"];
    let schema = columns.map(|name| Column { name: name.into(), type_name: "list<utf8>".into() });
    seal(
        "valid-column-names",
        "names that JSON must escape or carry as UTF-8",
        b"PAR1PAR1",
        &SealParams { kind: ContentKind::Parquet, schema: Some(schema.into()), ..params.clone() },
    );
    seal(
        "valid-empty-schema",
        "a schema without columns is not a withheld one",
        b"",
        &SealParams { schema: Some(vec![]), rows: Some(0), ..params.clone() },
    );
    seal(
        "valid-largest-integers",
        "chain id and rows 2^53 - 1",
        b"x",
        &SealParams { chain_id: (1 << 53) - 1, rows: Some((1 << 53) - 1), ..bare.clone() },
    );
    seal(
        "valid-root-epoch-1",
        "sealed to the root of epoch 1",
        CSV,
        &SealParams { root_epoch: 1, root: epoch_1.sealing.public_key().clone(), ..params.clone() },
    );
}

fn add_tar(out: &mut Builder, good: &Parts) {
    let at = layout(&good.file);
    let envelope = tar_entry("envelope.json", &good.envelope, b'0');
    let data = tar_entry("data", &good.data, b'0');
    let commitment = tar_entry("commitment", &good.commitment(), b'0');
    let end = vec![0; 1024];
    let extra = tar_entry("notes", b"hello", b'0');
    let mut list = |name: &str, about: &str, entries: &[&Vec<u8>]| {
        out.bad(name, about, good, entries.iter().flat_map(|part| part.iter().copied()).collect());
    };
    list("tar-order-swapped", "data stands before envelope.json", &[&data, &envelope, &commitment, &end]);
    list("tar-extra-first", "a foreign entry comes first", &[&extra, &envelope, &data, &commitment, &end]);
    list("tar-extra-last", "a foreign entry follows", &[&envelope, &data, &commitment, &extra, &end]);
    list("tar-data-twice", "a second data entry", &[&envelope, &data, &data, &commitment, &end]);
    list("tar-envelope-twice", "a second envelope", &[&envelope, &envelope, &data, &commitment, &end]);
    list("tar-commitment-missing", "only two entries", &[&envelope, &data, &end]);
    list("tar-no-end", "the two zero blocks are missing", &[&envelope, &data, &commitment]);
    list("tar-one-end-block", "one zero block at the end", &[&envelope, &data, &commitment, &vec![0; 512]]);
    list("tar-trailing-byte", "one byte after the end", &[&envelope, &data, &commitment, &end, &vec![0]]);
    list(
        "tar-trailing-zeros",
        "padded to tar's usual 10 KiB records",
        &[&envelope, &data, &commitment, &vec![0; 10240]],
    );
    let pax = tar_entry("data", b"12 path=../x", b'x');
    list(
        "tar-pax-header",
        "an extended header renames an entry",
        &[&envelope, &pax, &data, &commitment, &end],
    );
    let long = tar_entry("././@LongLink", b"../../data", b'L');
    list("tar-gnu-long-name", "a GNU long name entry", &[&envelope, &long, &data, &commitment, &end]);
    list("tar-empty", "an archive without entries", &[&end]);
    let named = |name: &str| tar_entry(name, &good.data, b'0');
    list("tar-path-traversal", "data is called ../data", &[&envelope, &named("../data"), &commitment, &end]);
    list("tar-path-absolute", "data is called /data", &[&envelope, &named("/data"), &commitment, &end]);
    list("tar-path-dot", "data is called ./data", &[&envelope, &named("./data"), &commitment, &end]);
    let short = tar_entry("commitment", &good.commitment()[..31], b'0');
    list("tar-commitment-short", "a commitment of 31 bytes", &[&envelope, &data, &short, &end]);
    let long = tar_entry("commitment", &[&good.commitment()[..], &[0]].concat(), b'0');
    list("tar-commitment-long", "a commitment of 33 bytes", &[&envelope, &data, &long, &end]);

    let mut header = |name: &str, about: &str, change: &dyn Fn(&mut [u8; 512])| {
        out.bad(name, about, good, good.with_header(at.data_header, change));
    };
    header("tar-symbolic-link", "data is a symbolic link", &|block| {
        put(block, 156, b"2");
        put(block, 157, b"/etc/passwd");
    });
    header("tar-hard-link", "data is a hard link", &|block| put(block, 156, b"1"));
    header("tar-directory", "data is a directory", &|block| put(block, 156, b"5"));
    header("tar-old-type", "the type of pre-POSIX archives", &|block| put(block, 156, b"\0"));
    header("tar-mode-other", "mode 0755", &|block| put(block, 100, b"0000755"));
    header("tar-owner-other", "user id 1000", &|block| put(block, 108, b"0001750"));
    header("tar-time-set", "a modification time", &|block| put(block, 136, b"14000000000"));
    header("tar-user-name", "a user name", &|block| put(block, 265, b"root"));
    header("tar-prefix", "a path prefix", &|block| put(block, 345, b"tmp"));
    header("tar-group-other", "group id 1000", &|block| put(block, 116, b"0001750"));
    header("tar-link-name", "a regular file with a link's target", &|block| put(block, 157, b"x"));
    header("tar-group-name", "a group name", &|block| put(block, 297, b"root"));
    header("tar-device-major", "a major device number", &|block| put(block, 329, b"0000001"));
    header("tar-device-minor", "a minor device number", &|block| put(block, 337, b"0000001"));
    header("tar-header-tail", "the last byte of a header", &|block| put(block, 511, b"x"));
    header("tar-size-space", "a size that ends in a space", &|block| put(block, 135, b" "));
    header("tar-magic-gnu", "the GNU magic", &|block| put(block, 257, b"ustar  \0"));
    header("tar-name-tail", "bytes behind the end of the name", &|block| put(block, 5, b"x"));
    header("tar-size-base-256", "a small size in base-256 form", &|block| {
        put(block, 124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, good.data.len() as u8]);
    });
    header("tar-size-spaces", "a size padded with spaces", &|block| {
        put(block, 124, format!("{:11o} ", good.data.len()).as_bytes());
    });
    let mut change = |name: &str, about: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = good.file.clone();
        change(&mut file);
        out.bad(name, about, good, file);
    };
    change("tar-checksum-wrong", "a header checksum that is off by one", &|file| {
        file[at.data_header + 148 + 5] ^= 1;
    });
    change("tar-checksum-space-first", "a checksum that ends in a space and a zero byte", &|file| {
        file[at.data_header + 154..at.data_header + 156].copy_from_slice(b" \0");
    });
    change("tar-checksum-seven-digits", "a checksum of seven digits", &|file| {
        let six = file[at.data_header + 148..at.data_header + 154].to_vec();
        let seven = [b"0", &six[..], b"\0"].concat();
        file[at.data_header + 148..at.data_header + 156].copy_from_slice(&seven);
    });
    change("tar-envelope-padding-not-zero", "a byte in the padding of envelope.json", &|file| {
        assert!(!at.envelope.1.is_multiple_of(512));
        file[at.data_header - 1] = 1;
    });
    change("tar-commitment-padding-not-zero", "a byte in the padding of commitment", &|file| {
        file[at.end - 1] = 1;
    });
    change("tar-end-first-block", "a byte in the first of the two zero blocks", &|file| file[at.end] = 1);
    change("tar-end-second-block", "a byte in the second of the two zero blocks", &|file| {
        file[at.end + 1023] = 1;
    });
    change("tar-padding-not-zero", "a byte in the padding of data", &|file| {
        file[at.data.0 + at.data.1] = 1;
    });
    change("tar-cut-in-envelope", "the file ends within envelope.json", &|file| file.truncate(600));
    change("tar-cut-in-data", "the file ends within data", &|file| file.truncate(at.data.0 + 10));
    change("tar-cut-in-commitment", "the file ends within commitment", &|file| {
        file.truncate(at.commitment + 31);
    });
    change("tar-no-bytes", "an empty file", &|file| file.clear());
    let gid = |block: &mut [u8; 512]| put(block, 116, b"0001750");
    out.bad("tar-envelope-group-other", "group id 1000 of envelope.json", good, good.with_header(0, gid));
    let file = good.with_header(at.commitment_header, gid);
    out.bad("tar-commitment-group-other", "group id 1000 of commitment", good, file);
    let largest = |block: &mut [u8; 512]| put(block, 124, &[&[0x80, 0, 0, 0][..], &[0xff; 8]].concat());
    let file = good.with_header(0, largest);
    out.bad("tar-envelope-size-overflow", "an envelope.json of 2^64 - 1 bytes is announced", good, file);
    let file = good.with_header(at.data_header, largest);
    out.bad_at("tar-size-overflow", "data of 2^64 - 1 bytes is announced", ["tar", "content"], good, file);
}

fn add_envelope(out: &mut Builder, good: &Parts) {
    let mut text = |name: &str, about: &str, from: &str, to: &str| {
        out.bad_envelope(name, about, good, &good.text(from, to));
    };
    text("space", "a space after a colon", "\"chain_id\":", "\"chain_id\": ");
    text("newline", "a newline at the end", "\"}", "\"}\n");
    text("escaped", "a character escaped without need", "hospital-A", "hospital\\u002dA");
    text("number-form", "an integer with a fraction", ":31337", ":31337.0");
    text("number-exponent", "an integer with an exponent", ":31337", ":31337e0");
    text("key-twice", "a key twice", "\"kdf\"", "\"kdf\":\"HKDF-SHA256\",\"kdf\"");
    text("upper-case-hex", "hex digits in upper case", "0x4f4f", "0x4F4F");
    text("no-0x", "hex without 0x", "\"0x4f4f", "\"4f4f");
    text("not-json", "not JSON", "{", "");
    text("bom", "a byte order mark", "{", "\u{feff}{");
    let key_order = String::from_utf8(good.envelope.clone()).unwrap();
    let key_order = key_order.replacen("{\"aead\":\"AES-256-GCM\",", "{", 1);
    let key_order = key_order.replacen("\"chain_id\"", "\"aead\":\"AES-256-GCM\",\"chain_id\"", 1);
    out.bad_envelope("key-order", "aead stands behind app", good, key_order.as_bytes());
    let mut latin = good.envelope.clone();
    let place = latin.windows(10).position(|part| part == b"hospital-A").unwrap();
    latin[place] = 0xe9;
    out.bad_envelope("not-utf8", "a byte that is not UTF-8", good, &latin);

    let mut value = |name: &str, about: &str, change: &dyn Fn(&mut Value)| {
        out.bad_envelope(name, about, good, &good.changed(change));
    };
    let drop = |value: &mut Value, key: &str| {
        value.as_object_mut().unwrap().remove(key);
    };
    value("unknown-field", "a field that the format does not have", &|v| v["note"] = json!("x"));
    value("unknown-content-field", "the same within content", &|v| v["content"]["note"] = json!(1));
    value("owner-missing", "no owner", &|v| drop(v, "owner"));
    value("wrapped-key-missing", "no wrapped key", &|v| drop(v, "wrapped_key"));
    value("rows-null", "null in place of an absent field", &|v| v["content"]["rows"] = Value::Null);
    value("format-2", "another version", &|v| v["format"] = json!("cohort-sealed-dataset/2"));
    value("kem-other", "another KEM", &|v| v["kem"] = json!("DHKEM-X25519"));
    value("kdf-other", "another KDF", &|v| v["kdf"] = json!("HKDF-SHA512"));
    value("aead-other", "another AEAD", &|v| v["aead"] = json!("AES-128-GCM"));
    value("kind-other", "an unknown kind", &|v| v["content"]["kind"] = json!("zip"));
    let cut = |v: &mut Value, key: &str| {
        let text = v[key].as_str().unwrap();
        v[key] = json!(text[..text.len() - 2]);
    };
    value("enc-short", "an encapsulated key of 1119 bytes", &|v| cut(v, "enc"));
    value("wrapped-key-short", "a wrapped key of 47 bytes", &|v| cut(v, "wrapped_key"));
    value("app-short", "an address of 19 bytes", &|v| cut(v, "app"));
    value("chunk-odd", "chunk_bytes is no power of two", &|v| v["chunk_bytes"] = json!(12288));
    value("chunk-small", "chunk_bytes 2048", &|v| v["chunk_bytes"] = json!(2048));
    value("chunk-large", "chunk_bytes 2^25", &|v| v["chunk_bytes"] = json!(1 << 25));
    value("chunk-zero", "chunk_bytes 0", &|v| v["chunk_bytes"] = json!(0));
    value("bytes-large", "content.bytes 2^40 + 1", &|v| {
        v["content"]["bytes"] = json!((1u64 << 40) + 1);
    });
    value("bytes-negative", "content.bytes -1", &|v| v["content"]["bytes"] = json!(-1));
    value("chain-id-text", "chain_id as text", &|v| v["chain_id"] = json!("31337"));
    value("epoch-large", "root_epoch 2^32", &|v| v["root_epoch"] = json!(1u64 << 32));
    value("owner-space", "an owner with a space", &|v| v["owner"] = json!("hospital A"));
    value("owner-long", "an owner of 32 characters", &|v| v["owner"] = json!("a".repeat(32)));
    value("owner-empty", "an empty owner", &|v| v["owner"] = json!(""));
    value("schema-hash-wrong", "schema_hash of another schema", &|v| {
        v["schema_hash"] = json!(format!("0x{}", "11".repeat(32)));
    });
    value("schema-hash-kept", "the schema is gone, its hash is not", &|v| {
        drop(&mut v["content"], "schema");
    });
    // Defects within the schema come with its right hash, so that only the defect is one.
    let schema = |v: &mut Value, schema: Value| {
        v["schema_hash"] = json!(sha256(&canonical(&schema).unwrap()).to_string());
        v["content"]["schema"] = schema;
    };
    value("column-control", "a control character in a column name", &|v| {
        schema(v, json!([{ "name": "a\u{1b}[2J", "type": "utf8" }]));
    });
    value("column-long", "a column name of 129 bytes", &|v| {
        schema(v, json!([{ "name": "a".repeat(129), "type": "utf8" }]));
    });
    value("column-empty", "an empty column name", &|v| {
        schema(v, json!([{ "name": "", "type": "utf8" }]));
    });
    value("column-type-unicode", "a type that is not ASCII", &|v| {
        schema(v, json!([{ "name": "a", "type": "é" }]));
    });
    value("column-extra", "a third field in a column", &|v| {
        schema(v, json!([{ "name": "a", "type": "utf8", "unit": "mg" }]));
    });
    value("columns-many", "4097 columns", &|v| {
        schema(v, Value::Array(vec![json!({ "name": "a", "type": "b" }); 4097]));
    });
    let large = serde_json::to_string(&((1u64 << 53) + 1)).unwrap();
    let envelope = good.text(":31337", &format!(":{large}"));
    out.bad_envelope("chain-id-large", "chain_id 2^53 + 1", good, &envelope);
}

fn add_content(out: &mut Builder, params: &SealParams) {
    // Same keys, so envelope and data fit but for the length.
    let keys = |length| Parts::seal("content", &plaintext(length), params);
    let (short, long) = (keys(100), keys(101));
    let file = recommitted(&long.envelope, &short.data);
    out.bad("content-shorter", "data is a byte shorter than content.bytes says", &long, file);
    let file = recommitted(&short.envelope, &long.data);
    out.bad("content-longer", "data is a byte longer than content.bytes says", &short, file);
    let (full, over) = (keys(4096), keys(4097));
    let mut data = over.data[..4112].to_vec();
    data.extend([0; 16]);
    let file = recommitted(&full.envelope, &data);
    out.bad("content-empty-last-chunk", "a full chunk is followed by an empty last one", &full, file);
    let file = recommitted(&full.envelope, b"");
    out.bad("content-no-data", "an empty data entry", &full, file);
    let three = keys(8193);
    let mut size = |name: &str, about: &str, size: usize| {
        let change = |block: &mut [u8; 512]| put(block, 124, format!("{size:011o}").as_bytes());
        let file = three.with_header(layout(&three.file).data_header, change);
        out.bad_at(name, about, ["content", "tar"], &three, file);
    };
    size("content-header-larger", "only the size in data's header: 512 more", three.data.len() + 512);
    size("content-header-smaller", "only the size in data's header: 1 less", three.data.len() - 1);
    let file = three.with_envelope(|v| v["content"]["bytes"] = json!(4096));
    out.bad_at(
        "content-bytes-changed",
        "content.bytes of three chunks was changed",
        ["content", "wrap"],
        &three,
        file,
    );
}

fn add_commitment(out: &mut Builder, good: &Parts) {
    let mut file = |name: &str, about: &str, commitment: &[u8]| {
        out.bad(name, about, good, archive(&good.envelope, &good.data, commitment));
    };
    let mut flipped = good.commitment();
    flipped[0] ^= 1;
    file("commitment-bit-flipped", "the first byte of the commitment", &flipped);
    let mut last = good.commitment();
    last[31] ^= 1;
    file("commitment-last-byte", "the last byte of the commitment", &last);
    file("commitment-zero", "32 zero bytes", &[0; 32]);
    file("commitment-of-plaintext", "the hash of the plaintext", blake3::hash(CSV).as_bytes());
    file("commitment-sha256", "another hash function", sha256(&good.data).as_slice());
    let mut data = good.data.clone();
    data[3] ^= 1;
    let file = archive(&good.envelope, &data, &good.commitment());
    let about = "one bit of data, and the commitment is that of the data before";
    out.bad_at("commitment-data-bit-flipped", about, ["commitment", "chunk"], good, file);
}

/// Name, words, how the asking CVM differs, how the envelope is made to fit it.
type Fact<'a> = (&'a str, &'a str, &'a dyn Fn(&mut Attested), &'a dyn Fn(&mut Value));

fn add_wrap(out: &mut Builder, good: &Parts, params: &SealParams) {
    let attested = |change: &dyn Fn(&mut Attested)| {
        let mut attested = good.attested.clone();
        change(&mut attested);
        attested
    };
    let other = format!("0x{}", "11".repeat(32));
    let other_hash: B256 = other.parse().unwrap();
    let facts: [Fact; 5] = [
        ("owner", "the owner", &|a| a.owner = "hospital-B".into(), &|v| v["owner"] = json!("hospital-B")),
        ("app", "the app", &|a| a.app = Address::repeat_byte(0x50), &|v| {
            v["app"] = json!(format!("0x{}", "50".repeat(20)));
        }),
        ("compose-hash", "the compose hash", &|a| a.compose_hash = ComposeHash(other_hash), &|v| {
            v["compose_hash"] = json!(format!("0x{}", "11".repeat(32)));
        }),
        ("chain-id", "the chain id", &|a| a.chain_id = 1, &|v| v["chain_id"] = json!(1)),
        ("root-epoch", "the root epoch", &|a| a.root_epoch = 1, &|v| v["root_epoch"] = json!(1)),
    ];
    for (name, words, fact, field) in facts {
        let asked = attested(fact);
        let about = format!("{words} of the CVM that asks is another");
        out.bad_for(&format!("wrap-other-{name}"), &about, asked.clone(), good.file.clone());
        let about = format!("{words} in the envelope was changed to that of the CVM that asks");
        out.bad_for(&format!("wrap-changed-{name}"), &about, asked, good.with_envelope(field));
    }
    let schema = json!([{ "name": "age", "type": "int64" }]);
    let hash = sha256(&canonical(&schema).unwrap());
    let file = good.with_envelope(|v| {
        v["schema_hash"] = json!(hash.to_string());
        v["content"]["schema"] = schema;
    });
    let asked = attested(&|a| a.schema_hash = hash);
    out.bad_for("wrap-changed-schema", "schema and schema_hash were changed together", asked, file);

    let mut value = |name: &str, about: &str, change: &dyn Fn(&mut Value)| {
        out.bad(name, about, good, good.with_envelope(change));
    };
    let flip = |v: &mut Value, key: &str| {
        let mut text = v[key].as_str().unwrap().to_owned();
        let last = if text.pop() == Some('0') { '1' } else { '0' };
        text.push(last);
        v[key] = json!(text);
    };
    value("wrap-rows-changed", "the number of rows was changed", &|v| v["content"]["rows"] = json!(3));
    value("wrap-rows-removed", "the number of rows was removed", &|v| {
        v["content"].as_object_mut().unwrap().remove("rows");
    });
    value("wrap-kind-changed", "the kind was changed", &|v| v["content"]["kind"] = json!("bytes"));
    value("wrap-chunk-bytes-changed", "chunk_bytes was changed", &|v| v["chunk_bytes"] = json!(8192));
    value("wrap-enc-changed", "the encapsulated key was changed", &|v| flip(v, "enc"));
    value("wrap-wrapped-key-changed", "the wrapped key was changed", &|v| flip(v, "wrapped_key"));
    value("wrap-key-commitment-changed", "key_commitment was changed", &|v| flip(v, "key_commitment"));
    value("wrap-root-key-id-changed", "root_key_id was changed", &|v| flip(v, "root_key_id"));

    let b =
        Parts::seal("csv of B", CSV, &SealParams { owner: "hospital-B".parse().unwrap(), ..params.clone() });
    let from_b: Value = serde_json::from_slice(&b.envelope).unwrap();
    let file = good.with_envelope(|v| {
        v["enc"] = from_b["enc"].clone();
        v["wrapped_key"] = from_b["wrapped_key"].clone();
        v["key_commitment"] = from_b["key_commitment"].clone();
    });
    out.bad("wrap-keys-of-other-owner", "enc, wrapped key and commitment of hospital-B's file", good, file);
    let stranger = SealParams { root: super::root().public_key().clone(), ..params.clone() };
    let stranger = Parts::seal("stranger", CSV, &stranger);
    out.bad("wrap-other-root", "sealed to a key that is not the KMS root", &stranger, stranger.file.clone());

    // Both decrypt, and only the comparison with key_commitment shows that it commits to another key.
    let mut other = |name: &str, about: &str, data_key: &SecretBytes, change: &dyn Fn(&mut Value)| {
        let mut header: Value = serde_json::from_slice(&good.envelope).unwrap();
        change(&mut header);
        header.as_object_mut().unwrap().remove("wrapped_key");
        let key = wrapped(&good.keys.wrap_key, data_key, &canonical(&header).unwrap());
        header["wrapped_key"] = json!(hex_text(&key));
        out.bad(name, about, good, good.around(&canonical(&header).unwrap()));
    };
    let about = "a data key that key_commitment does not commit to";
    other("wrap-other-data-key", about, &SecretBytes::new([9; 32]), &|_| {});
    let about = "the last byte of key_commitment, and the data key wrapped over it";
    other("wrap-key-commitment-last-byte", about, &good.keys.data_key, &|v| flip(v, "key_commitment"));
}

fn add_resealed(out: &mut Builder, good: &Parts, params: &SealParams) -> Parts {
    let second = SealParams { compose_hash: ComposeHash(B256::repeat_byte(0xb7)), ..params.clone() };
    let new = good.reseal("resealed", CSV, &second);
    out.valid("valid-resealed", "valid-csv's data under an envelope for another recipe", &new);
    out.bad_for(
        "wrap-resealed-for-old-recipe",
        "resealed for another recipe, asked for by the first",
        good.attested.clone(),
        new.file.clone(),
    );
    out.bad_for(
        "wrap-resealed-for-new-recipe",
        "the first envelope, asked for by the recipe that it was resealed for",
        new.attested.clone(),
        good.file.clone(),
    );
    let old: Value = serde_json::from_slice(&good.envelope).unwrap();
    let grafted = new.with_envelope(|v| {
        v["enc"] = old["enc"].clone();
        v["wrapped_key"] = old["wrapped_key"].clone();
    });
    out.bad(
        "wrap-resealed-old-keys",
        "enc and wrapped key of the first envelope, same data key",
        &new,
        grafted,
    );
    new
}

fn add_chunk(out: &mut Builder, params: &SealParams) {
    const SEALED: usize = 4096 + 16;
    let sealed = |seed: &str, length| Parts::seal(seed, &plaintext(length), params);
    let three = sealed("chunks", 8193);
    let twelve = sealed("chunks", 12288);
    let mut data = |name: &str, about: &str, parts: &Parts, data: &[u8]| {
        out.bad(name, about, parts, recommitted(&parts.envelope, data));
    };
    let mut flipped = three.data.clone();
    flipped[SEALED + 7] ^= 0x10;
    data("chunk-bit-flipped", "one bit of the second chunk", &three, &flipped);
    let mut tag = three.data.clone();
    *tag.last_mut().unwrap() ^= 1;
    data("chunk-tag-flipped", "one bit of the last tag", &three, &tag);
    let (a, rest) = three.data.split_at(SEALED);
    let (b, c) = rest.split_at(SEALED);
    data("chunk-reordered", "first and second chunk exchanged", &three, &[b, a, c].concat());
    data("chunk-duplicated", "the first chunk also in the place of the second", &three, &[a, a, c].concat());
    let stranger = sealed("other chunks", 8193);
    let foreign = &stranger.data[SEALED..2 * SEALED];
    data("chunk-spliced", "the second chunk of another file", &three, &[a, foreign, c].concat());
    // The envelopes of shorter files with the same keys: only the chunks can show what is missing.
    let two = sealed("chunks", 8192);
    data(
        "chunk-end-missing",
        "the last chunk is missing: its predecessor has no final flag",
        &two,
        &[a, b].concat(),
    );
    data("chunk-beginning-missing", "the first chunk is missing", &two, &twelve.data[SEALED..]);
    let one = sealed("chunks", 4096);
    data(
        "chunk-middle-final",
        "a final chunk stands before another one",
        &two,
        &[&one.data, &twelve.data[2 * SEALED..]].concat(),
    );
}
