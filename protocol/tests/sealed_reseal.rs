//! A new recipe for data that is sealed already: the new envelope opens for it alone, the old one as before.

mod sealed_support;

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    hpke::{KeyPair, SecretBytes},
    ids::ComposeHash,
    sealed::{
        DataKey, Recovery, ResealPart, ResealTarget, Resealed, SealContext, SealParams, SealedError, check,
        open, read_header, reseal, seal_with_key,
    },
};
use sealed_support::{go_on, kms_key, layout, params, plaintext, recommitted, root};

const LENGTH: usize = 3 * 4096 + 5;

struct Old {
    file: Vec<u8>,
    context: SealContext,
    recovery: Recovery,
}

fn old() -> Old {
    let params = params(&root());
    let data_key = DataKey::fresh().unwrap();
    let recovery = Recovery::of(&data_key);
    let mut file = Vec::new();
    let plain = plaintext(LENGTH);
    seal_with_key(&mut &plain[..], LENGTH as u64, &mut file, &params, data_key, &mut go_on).unwrap();
    Old { file, context: params.context().unwrap(), recovery }
}

fn target(root: &KeyPair) -> ResealTarget {
    let SealParams { chain_id, app, owner, root_epoch, .. } = params(root);
    let compose_hash = ComposeHash(B256::repeat_byte(0xb7));
    ResealTarget { chain_id, app, compose_hash, owner, root_epoch, root: root.public_key().clone() }
}

fn resealed(old: &Old, part: ResealPart) -> (Vec<u8>, Resealed) {
    let mut file = Vec::new();
    let target = target(&root());
    let done =
        reseal(&mut &old.file[..], &old.recovery, &target, &mut file, part, &mut go_on).expect("it reseals");
    (file, done)
}

#[test]
fn each_envelope_opens_for_its_own_recipe_only() {
    let old = old();
    let (new, done) = resealed(&old, ResealPart::Whole);
    assert_eq!(check(&mut &new[..]).unwrap().dataset_id, done.summary.dataset_id);
    assert_eq!(done.summary.file_bytes, new.len() as u64);
    assert_ne!(done.summary.dataset_id, check(&mut &old.file[..]).unwrap().dataset_id);

    let root = root();
    let new_context = SealContext { compose_hash: target(&root).compose_hash, ..old.context.clone() };
    let enc = |file: &[u8]| read_header(&mut &file[..]).unwrap().enc().to_vec();
    let opens = |context: &SealContext, enc: &[u8], file: &[u8]| {
        open(&mut &file[..], &kms_key(&root, context, enc), 1 << 20).map(|(plain, _)| plain.to_vec())
    };
    assert_eq!(opens(&old.context, &enc(&old.file), &old.file).unwrap(), plaintext(LENGTH));
    assert_eq!(opens(&new_context, &enc(&new), &new).unwrap(), plaintext(LENGTH));
    // Whatever a KMS that keeps to its rule derives for one recipe, from either encapsulated key, opens no envelope
    // of the other.
    for enc in [enc(&old.file), enc(&new)] {
        assert_eq!(opens(&old.context, &enc, &new).unwrap_err().layer(), "wrap");
        assert_eq!(opens(&new_context, &enc, &old.file).unwrap_err().layer(), "wrap");
    }
}

#[test]
fn the_ciphertext_stays_and_the_head_alone_completes_it() {
    let old = old();
    let (whole, _) = resealed(&old, ResealPart::Whole);
    let (was, is) = (layout(&old.file), layout(&whole));
    let tail = |file: &[u8], at: usize| file[at..].to_vec();
    assert_eq!(tail(&old.file, was.data_header), tail(&whole, is.data_header));

    let (head, done) = resealed(&old, ResealPart::Head);
    assert_eq!(done.old_data_offset, was.data_header as u64);
    assert!(head.len() < 8192);
    let joined = [head, tail(&old.file, was.data_header)].concat();
    let checked = check(&mut &joined[..]).unwrap();
    assert_eq!(checked.dataset_id, done.summary.dataset_id);
    let context = checked.envelope.context();
    let key = kms_key(&root(), &context, checked.envelope.enc());
    assert_eq!(*open(&mut &joined[..], &key, 1 << 20).unwrap().0, plaintext(LENGTH));
}

#[test]
fn encapsulation_wrap_and_header_are_new_each_time() {
    let old = old();
    let (first, _) = resealed(&old, ResealPart::Head);
    let (second, _) = resealed(&old, ResealPart::Head);
    let envelopes: Vec<_> =
        [&old.file, &first, &second].map(|file| read_header(&mut &file[..]).unwrap()).into_iter().collect();
    for (i, a) in envelopes.iter().enumerate() {
        for b in &envelopes[i + 1..] {
            assert_ne!(a.enc(), b.enc());
            assert_eq!(a.key_commitment(), b.key_commitment(), "the data key is the same, and this shows it");
        }
    }
}

#[test]
fn another_root_contract_chain_and_owner_can_be_the_target() {
    let old = old();
    let other = KeyPair::derive(&SecretBytes::new([8; 32]));
    let target = ResealTarget {
        chain_id: 1,
        app: Address::repeat_byte(9),
        owner: "hospital-A2".parse().unwrap(),
        root_epoch: 4,
        ..target(&other)
    };
    let mut file = Vec::new();
    reseal(&mut &old.file[..], &old.recovery, &target, &mut file, ResealPart::Whole, &mut go_on).unwrap();
    let envelope = read_header(&mut &file[..]).unwrap();
    let context = envelope.context();
    assert_eq!((context.chain_id, context.root_epoch), (1, 4));
    let key = kms_key(&other, &context, envelope.enc());
    assert!(open(&mut &file[..], &key, 1 << 20).is_ok());
    let key = kms_key(&root(), &context, envelope.enc());
    assert!(open(&mut &file[..], &key, 1 << 20).is_err());
}

#[test]
fn a_record_is_read_back_and_every_defect_is_refused() {
    let old = old();
    let json = old.recovery.to_json().unwrap();
    let read = Recovery::parse(&json).unwrap();
    let mut file = Vec::new();
    reseal(&mut &old.file[..], &read, &target(&root()), &mut file, ResealPart::Head, &mut go_on).unwrap();
    for at in 0..json.len() {
        let mut changed = json.to_vec();
        changed[at] ^= 1;
        let error = Recovery::parse(&changed).err().unwrap_or_else(|| panic!("byte {at} does not count"));
        assert_eq!(error.layer(), "recovery");
        // No word of it quotes the record.
        assert!(error.to_string().len() < 100, "{error}");
    }
    assert!(Recovery::parse(&json[..json.len() - 1]).is_err());
    assert!(Recovery::parse(&vec![b' '; 5000]).is_err());
    assert!(!format!("{read:?}").contains(&String::from_utf8_lossy(&json)[14..30]));
}

#[test]
fn the_record_of_another_file_and_damaged_files_are_refused() {
    let (one, two) = (old(), old());
    let attempt = |file: &[u8], recovery: &Recovery, part: ResealPart| {
        let mut out = Vec::new();
        reseal(&mut &file[..], recovery, &target(&root()), &mut out, part, &mut go_on).map(|_| out)
    };
    for part in [ResealPart::Whole, ResealPart::Head] {
        let error = attempt(&one.file, &two.recovery, part).unwrap_err();
        assert!(matches!(error, SealedError::Recovery(_)), "{error}");

        let parts = layout(&one.file);
        let mut flipped = one.file.clone();
        flipped[parts.data.0 + 5000] ^= 1;
        assert_eq!(attempt(&flipped, &one.recovery, part).unwrap_err().layer(), "chunk");
        // An attacker who repairs the commitment does not get an envelope around the altered data either.
        let envelope = &one.file[512..512 + parts.envelope.1];
        let data = &flipped[parts.data.0..parts.data.0 + parts.data.1];
        let error = attempt(&recommitted(envelope, data), &one.recovery, part).unwrap_err();
        assert_eq!(error.layer(), "chunk");
        let mut wrong = one.file.clone();
        wrong[parts.commitment] ^= 1;
        assert_eq!(attempt(&wrong, &one.recovery, part).unwrap_err().layer(), "commitment");
        let cut = &one.file[..one.file.len() - 1];
        assert_eq!(attempt(cut, &one.recovery, part).unwrap_err().layer(), "tar");
    }
}
