//! Vectors of the parts that need no whole file: key pairs, tar headers, recovery records, a head.

use hpke::{Kem as _, Serializable as _, kem::XWing};

use super::*;

/// A root's key pair of one epoch with the values on the way, hex.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Root {
    pub epoch: u32,
    pub ikm: String,
    pub sk: String,
    pub public_key: String,
    pub root_key_id: B256,
}

/// A public key, and whether one may seal to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublicKeyCase {
    pub about: String,
    pub public_key: String,
    pub accepted: bool,
}

/// 512 bytes, and the size that they announce as the header of `data`; without a size they are to be refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeaderCase {
    pub about: String,
    pub header: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// The text of a recovery record, and whether it is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordCase {
    pub about: String,
    pub record: String,
    pub accepted: bool,
}

/// Two files around the same data: the first bytes of `new` are the head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResealCase {
    pub old: String,
    pub record: String,
    pub new: String,
    pub head_bytes: usize,
    pub old_data_offset: usize,
}

pub(super) fn root(epoch: u32) -> Root {
    let mut ikm = [0; 32];
    let info = [&b"sealing"[..], &epoch.to_be_bytes()].concat();
    Hkdf::<Sha256>::new(Some(b"cohort-kms-root/1"), root_secret().expose_secret())
        .expand(&info, &mut ikm)
        .unwrap();
    let (sk, public) = XWing::derive_keypair(&ikm);
    let public = public.to_bytes().to_vec();
    assert_eq!(public, root_keys(epoch).sealing.public_key().as_bytes());
    Root {
        epoch,
        ikm: hex::encode(ikm),
        sk: hex::encode(sk.to_bytes()),
        root_key_id: sha256(&public),
        public_key: hex::encode(public),
    }
}

pub(super) fn public_keys() -> Vec<PublicKeyCase> {
    let good = root_keys(0).sealing.public_key().as_bytes().to_vec();
    let mut cases = Vec::new();
    let mut case = |about: &str, accepted, public_key: &[u8]| {
        cases.push(PublicKeyCase { about: about.into(), public_key: hex::encode(public_key), accepted });
    };
    let with_point = |point: [u8; 32]| [&good[..1184], &point].concat();
    // Little-endian: p = 2^255 - 19.
    let near_p = |low: u8, high: u8| {
        let mut point = [0xff; 32];
        (point[0], point[31]) = (low, high);
        point
    };
    let small = |value: u8, high: u8| {
        let mut point = [0; 32];
        (point[0], point[31]) = (value, high);
        point
    };
    let order_8 = |hex: &str| <[u8; 32]>::try_from(hex::decode(hex).unwrap()).unwrap();
    case("epoch 0's", true, &good);
    case("its pk_X with the bit that X25519 ignores", true, &{
        let mut key = good.clone();
        key[1215] ^= 0x80;
        key
    });
    case("pk_X = p + 9, the base point not reduced", true, &with_point(near_p(0xf6, 0x7f)));
    case("pk_X = 0", false, &with_point([0; 32]));
    case("pk_X = 0 with the ignored bit", false, &with_point(small(0, 0x80)));
    case("pk_X = 1", false, &with_point(small(1, 0)));
    case("pk_X = p - 1", false, &with_point(near_p(0xec, 0x7f)));
    case("pk_X = p", false, &with_point(near_p(0xed, 0x7f)));
    case("pk_X = p + 1", false, &with_point(near_p(0xee, 0x7f)));
    for point in [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ] {
        case("pk_X of order 8", false, &with_point(order_8(point)));
    }
    let mut first = good.clone();
    first[0] = 0x01;
    first[1] = first[1] & 0xf0 | 0x0d;
    case("ek_M whose first coefficient is 3329", false, &first);
    let mut last = good.clone();
    last[1150] = last[1150] & 0x0f | 0x10;
    last[1151] = 0xd0;
    case("ek_M whose last coefficient is 3329", false, &last);
    case("1215 bytes", false, &good[..1215]);
    case("1217 bytes", false, &[&good[..], &[0]].concat());
    cases
}

pub(super) fn headers() -> Vec<HeaderCase> {
    let mut cases = Vec::new();
    let mut case = |about: &str, size, field: &[u8; 12]| {
        let mut block = tar_header("data", 0, b'0');
        put(&mut block, 124, field);
        set_checksum(&mut block);
        cases.push(HeaderCase { about: about.into(), header: hex::encode(block), size });
    };
    let base_256 =
        |size: u64| <[u8; 12]>::try_from([&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat()).unwrap();
    case("0", Some(0), b"00000000000\0");
    case("2^33 - 1, the largest of eleven digits", Some((1 << 33) - 1), b"77777777777\0");
    case("2^33, the smallest in base-256", Some(1 << 33), &base_256(1 << 33));
    let most = (1 << 40) + (1 << 32);
    case("2^40 + 2^32: 2^40 bytes in chunks of 4096", Some(most), &base_256(most));
    case("2^33 - 1 in base-256", None, &base_256((1 << 33) - 1));
    case("2^33 in twelve digits", None, b"100000000000");
    case("2^33 in base-256 and a bit above its eight bytes", None, &{
        let mut field = base_256(1 << 33);
        field[3] = 1;
        field
    });
    case("2^33 in base-256 with the sign bits set", None, &{
        let mut field = base_256(1 << 33);
        field[..4].fill(0xff);
        field
    });
    case("0 in ten digits", None, b"0000000000\0\0");
    cases
}

fn key_commitment(data_key: &SecretBytes) -> String {
    let mut commitment = [0; 32];
    Hkdf::<Sha256>::new(Some(b"cohort-sealed-dataset/1"), data_key.expose_secret())
        .expand(b"key commitment", &mut commitment)
        .unwrap();
    hex_text(&commitment)
}

fn record(data_key: &SecretBytes) -> String {
    let (key, commitment) = (hex_text(data_key.expose_secret()), key_commitment(data_key));
    format!(r#"{{"data_key":"{key}","format":"cohort-recovery/1","key_commitment":"{commitment}"}}"#)
}

pub(super) fn records(data_key: &SecretBytes) -> Vec<RecordCase> {
    let (key, commitment) = (hex_text(data_key.expose_secret()), key_commitment(data_key));
    let good = record(data_key);
    let mut cases = Vec::new();
    let mut case = |about: &str, accepted, record: String| {
        assert_eq!(record == good, cases.is_empty(), "{about}");
        cases.push(RecordCase { about: about.into(), record, accepted });
    };
    let swap = |from: &str, to: &str| good.replacen(from, to, 1);
    let padded = |bytes: usize| format!("{good}{}", " ".repeat(bytes - good.len()));
    case("as it is written", true, good.clone());
    let other = format!(
        "\n{{\n\t\"key_commitment\" : \"{commitment}\",\r\n \"format\": \"cohort-recovery/1\", \"data_key\": \"{key}\"}}\n"
    );
    case("white space, another order", true, other);
    case("a character of a value written as an escape", true, swap("recovery/1", "recovery\\u002f1"));
    case("4096 bytes", true, padded(4096));
    case("4097 bytes", false, padded(4097));
    case("the values alone in an array", false, format!(r#"["{key}","cohort-recovery/1","{commitment}"]"#));
    let numbers = |hex: &str| json!(hex::decode(&hex[2..]).unwrap()).to_string();
    case("data_key as an array of numbers", false, swap(&format!("\"{key}\""), &numbers(&key)));
    case(
        "key_commitment as an array of numbers",
        false,
        swap(&format!("\"{commitment}\""), &numbers(&commitment)),
    );
    case("data_key without 0x", false, swap(&key, &key[2..]));
    case("key_commitment without 0x", false, swap(&commitment, &commitment[2..]));
    case("data_key in upper case", false, swap(&key, &format!("0x{}", key[2..].to_uppercase())));
    case(
        "key_commitment in upper case",
        false,
        swap(&commitment, &format!("0x{}", commitment[2..].to_uppercase())),
    );
    case("0X", false, swap(&key, &key.replacen("0x", "0X", 1)));
    case("data_key a byte short", false, swap(&key, &key[..64]));
    case("data_key a byte long", false, swap(&key, &format!("{key}00")));
    case("another version", false, swap("recovery/1", "recovery/2"));
    case("another member", false, swap("{", r#"{"owner":"hospital-A","#));
    case("no key_commitment", false, swap(&format!(r#","key_commitment":"{commitment}""#), ""));
    case("no format", false, swap(r#""format":"cohort-recovery/1","#, ""));
    case("no data_key", false, swap(&format!(r#""data_key":"{key}","#), ""));
    case("data_key twice", false, swap("{", &format!(r#"{{"data_key":"{key}","#)));
    case(
        "key_commitment of another key",
        false,
        swap(&commitment, &key_commitment(&SecretBytes::new([9; 32]))),
    );
    let last = if commitment.ends_with('0') { "1" } else { "0" };
    case(
        "the last digit of key_commitment",
        false,
        swap(&commitment, &format!("{}{last}", &commitment[..65])),
    );
    case("a byte order mark", false, format!("\u{feff}{good}"));
    case("a second value behind it", false, format!("{good}{{}}"));
    case("null", false, "null".into());
    case("no bytes", false, String::new());
    cases
}

pub(super) fn reseal(old: &Parts, new: &Parts) -> ResealCase {
    ResealCase {
        old: "valid-csv.tar".into(),
        record: record(&old.keys.data_key),
        new: "valid-resealed.tar".into(),
        head_bytes: layout(&new.file).data_header,
        old_data_offset: layout(&old.file).data_header,
    }
}
