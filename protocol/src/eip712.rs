//! EIP-712 domains and digests of everything that is signed. Type strings are in `IDstackApp.sol` and
//! `docs/spec/typed-data.md`; the structs come from the Solidity file itself.

use alloy::{
    primitives::{Address, B256, Signature},
    sol_types::{Eip712Domain, SolStruct, eip712_domain},
};

/// The domain of one consortium's contract: a signature is good for one chain and one contract.
pub fn app_domain(chain_id: u64, app: Address) -> Eip712Domain {
    eip712_domain! {
        name: "DstackApp",
        version: "1",
        chain_id: chain_id,
        verifying_contract: app,
    }
}

/// The domain of what a KMS root states about itself, under one registry.
pub fn kms_domain(chain_id: u64, registry: Address) -> Eip712Domain {
    eip712_domain! {
        name: "Cohort KMS",
        version: "1",
        chain_id: chain_id,
        verifying_contract: registry,
    }
}

/// The digest that a wallet signs.
pub fn digest<T: SolStruct>(message: &T, domain: &Eip712Domain) -> B256 {
    message.eip712_signing_hash(domain)
}

/// The EOA that signed `digest`, from a 65-byte signature with low s and v 27 or 28; `None` if there is none.
pub fn recover(digest: B256, signature: &[u8]) -> Option<Address> {
    let bytes: &[u8; 65] = signature.try_into().ok()?;
    if !matches!(bytes[64], 27 | 28) {
        return None;
    }
    let signature = Signature::from_raw_array(bytes).ok()?;
    if signature.normalize_s().is_some() {
        return None; // the malleable twin: contracts refuse it as well
    }
    signature.recover_address_from_prehash(&digest).ok()
}
