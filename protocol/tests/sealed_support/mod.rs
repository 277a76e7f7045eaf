//! Shared by the sealed-dataset tests and the vector generator: a root, parameters, fixed randomness, small helpers.
#![allow(dead_code, missing_docs, unreachable_pub)] // each user takes a part of it

pub mod vectors;

use std::{convert::Infallible, ops::ControlFlow};

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    hpke::{KeyPair, SecretBytes},
    ids::ComposeHash,
    json::sha256,
    sealed::{
        Column, ContentKind, SealContext, SealParams, SealSecrets, SealedError, SealedSummary, WRAP_LABEL,
        insecure_seal_with, seal, wrap_key_from_root,
    },
};
use hpke::{
    Deserializable as _, OpModeS, Serializable as _,
    aead::ExportOnlyAead,
    kdf::HkdfSha256,
    kem::XWing,
    rand_core::{TryCryptoRng, TryRng},
    setup_sender_with_rng,
};

/// SHA-256 in counter mode over a seed: the same bytes on every machine.
pub struct FixedRng {
    seed: [u8; 32],
    counter: u64,
}

impl FixedRng {
    pub fn new(seed: &str) -> Self {
        Self { seed: sha256(seed.as_bytes()).0, counter: 0 }
    }
}

impl TryRng for FixedRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for part in dst.chunks_mut(32) {
            let mut input = self.seed.to_vec();
            input.extend_from_slice(&self.counter.to_be_bytes());
            self.counter += 1;
            part.copy_from_slice(&sha256(&input)[..part.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for FixedRng {}

pub fn root() -> KeyPair {
    KeyPair::derive(&SecretBytes::new([7; 32]))
}

pub fn params(root: &KeyPair) -> SealParams {
    SealParams {
        chain_id: 31337,
        app: Address::repeat_byte(0x4f),
        compose_hash: ComposeHash(B256::repeat_byte(0xa4)),
        owner: "hospital-A".parse().unwrap(),
        root_epoch: 0,
        root: root.public_key().clone(),
        kind: ContentKind::Csv,
        rows: Some(2),
        schema: Some(vec![
            Column { name: "age".into(), type_name: "int64".into() },
            Column { name: "sex".into(), type_name: "utf8".into() },
        ]),
        chunk_bytes: 4096,
    }
}

/// Bytes that do not repeat within a chunk or between chunks.
pub fn plaintext(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    FixedRng::new("plaintext").try_fill_bytes(&mut bytes).unwrap();
    bytes
}

pub fn go_on(_done: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub fn seal_bytes(plain: &[u8], params: &SealParams) -> Result<(Vec<u8>, SealedSummary), SealedError> {
    let mut file = Vec::new();
    let summary = seal(&mut &plain[..], plain.len() as u64, &mut file, params, &mut go_on)?;
    Ok((file, summary))
}

/// Seals with keys that follow from `seed` alone. Also gives the data key's secrets to whoever builds defects.
pub struct FixedSeal {
    /// The randomness of the encapsulation; `None` where `enc` was changed afterwards.
    pub eseed: Option<[u8; 64]>,
    pub enc: Vec<u8>,
    pub wrap_key: SecretBytes,
    pub data_key: SecretBytes,
}

impl FixedSeal {
    pub fn new(seed: &str, params: &SealParams, context: &SealContext) -> Self {
        let mut eseed = [0; 64];
        FixedRng::new(seed).try_fill_bytes(&mut eseed).unwrap();
        let mut rng = FixedRng::new(seed);
        let key = <XWing as hpke::Kem>::PublicKey::from_bytes(params.root.as_bytes()).unwrap();
        let (enc, ctx) = setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, XWing>(
            &OpModeS::Base,
            &key,
            &context.info(),
            &mut rng,
        )
        .unwrap();
        let mut wrap_key = [0; 32];
        ctx.export(WRAP_LABEL, &mut wrap_key).unwrap();
        let mut data_key = [0; 32];
        rng.try_fill_bytes(&mut data_key).unwrap();
        Self {
            eseed: Some(eseed),
            enc: enc.to_bytes().to_vec(),
            wrap_key: SecretBytes::new(wrap_key),
            data_key: SecretBytes::new(data_key),
        }
    }

    pub fn seal(&self, plain: &[u8], params: &SealParams) -> (Vec<u8>, SealedSummary) {
        let secrets =
            SealSecrets::insecure_fixed(self.enc.clone(), self.wrap_key.clone(), self.data_key.clone());
        let mut file = Vec::new();
        let summary =
            insecure_seal_with(&mut &plain[..], plain.len() as u64, &mut file, params, &secrets, &mut go_on)
                .unwrap();
        (file, summary)
    }
}

/// The wrap key as the KMS derives it for this context.
pub fn kms_key(root: &KeyPair, context: &SealContext, enc: &[u8]) -> SecretBytes {
    wrap_key_from_root(root, context, enc).unwrap()
}

/// Offsets of a sealed file's parts, found the way any tar reader finds them.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    pub envelope: (usize, usize),
    pub data_header: usize,
    pub data: (usize, usize),
    pub commitment_header: usize,
    pub commitment: usize,
    pub end: usize,
}

pub fn layout(file: &[u8]) -> Layout {
    let size = |at: usize| {
        usize::from_str_radix(std::str::from_utf8(&file[at + 124..at + 135]).unwrap(), 8).unwrap()
    };
    let up = |n: usize| n.div_ceil(512) * 512;
    let envelope_size = size(0);
    let data_header = 512 + up(envelope_size);
    let data_size = size(data_header);
    let commitment_header = data_header + 512 + up(data_size);
    Layout {
        envelope: (512, envelope_size),
        data_header,
        data: (data_header + 512, data_size),
        commitment_header,
        commitment: commitment_header + 512,
        end: commitment_header + 1024,
    }
}

/// A tar header in the format's own form, for entries that a test forges.
pub fn tar_header(name: &str, size: usize, kind: u8) -> [u8; 512] {
    let mut block = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\x000000000\x000000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(329, b"0000000\x000000000\0");
    set_checksum(&mut block);
    block
}

pub fn set_checksum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// One entry with its padding.
pub fn tar_entry(name: &str, content: &[u8], kind: u8) -> Vec<u8> {
    let mut out = tar_header(name, content.len(), kind).to_vec();
    out.extend_from_slice(content);
    out.resize(out.len().div_ceil(512) * 512, 0);
    out
}

/// A whole archive in the format's own form around any three contents.
pub fn archive(envelope: &[u8], data: &[u8], commitment: &[u8]) -> Vec<u8> {
    let mut out = tar_entry("envelope.json", envelope, b'0');
    out.extend(tar_entry("data", data, b'0'));
    out.extend(tar_entry("commitment", commitment, b'0'));
    out.extend([0; 1024]);
    out
}

/// The archive with a commitment that fits the data.
pub fn recommitted(envelope: &[u8], data: &[u8]) -> Vec<u8> {
    archive(envelope, data, blake3::hash(data).as_bytes())
}
