//! SPDM reports of development GPUs.

use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};
use sha2::{Digest as _, Sha256};

use super::{DRIVER_VERSION, ReportOptions, VBIOS_BYTES, firmware_id, measurement};
use crate::gpu::{BLOCKS, Mode};

/// Request, response and signature by `key`.
pub(super) fn report(key: &SigningKey, options: &ReportOptions) -> Vec<u8> {
    let mut out = vec![0x11, 0xE0, 0x01, 0xFF];
    out.extend(options.nonce);
    out.push(0);
    out.extend([0x11, 0x60, 0x00, 0x00, 64, 0xC0, 0x0D, 0x00]);
    for (block, number) in (1..=BLOCKS).zip(1u8..) {
        out.extend([number, 0x01, 51, 0, 0x01, 48, 0]);
        let mut value = measurement(block);
        if options.tampered_block == Some(number) {
            value = [0xBA; 48];
        }
        out.extend(value);
    }
    // Deterministic, unlike a device's: the same request gives the same report.
    out.extend(Sha256::digest([b"responder's nonce", &options.nonce[..]].concat()));
    let opaque = opaque(options);
    out.extend(u16::try_from(opaque.len()).unwrap_or_default().to_le_bytes());
    out.extend(opaque);
    let signature: Signature = key.sign(&out);
    out.extend(signature.to_bytes());
    out
}

fn opaque(options: &ReportOptions) -> Vec<u8> {
    let mut firmware = firmware_id();
    if options.other_firmware {
        firmware = [0xBA; 48];
    }
    let (protected_pcie, flag) = match options.mode {
        Mode::Single => (0x55, 0u16),
        Mode::Multiple => (0x55, 1),
        Mode::ProtectedPcie => (0xAA, 2),
    };
    let driver = [DRIVER_VERSION.as_bytes(), &[0]].concat();
    let mut out = Vec::new();
    for (field, value) in [
        (6u16, &VBIOS_BYTES[..]),
        (15, b"000\0"),
        (17, b"DEV0\0"),
        (18, b"0000\0"),
        (3, &driver),
        (11, &[0xAA]),
        (20, &firmware),
        (21, &[protected_pcie]),
        (36, &flag.to_le_bytes()),
    ] {
        out.extend(field.to_le_bytes());
        out.extend(u16::try_from(value.len()).unwrap_or_default().to_le_bytes());
        out.extend(value);
    }
    out
}
