//! `test/vectors/eip712`, made by `script/vectors`: type hashes, struct hashes, digests and signers, as this code has
//! them from the Solidity file.

use std::path::Path;

use alloy::{
    primitives::{Address, B256, Bytes, keccak256},
    sol_types::SolStruct,
};
use cohort_protocol::{abi, eip712, terms::Terms};
use serde_json::Value;

/// A file, or an object in it.
struct Vector(Value);

impl Vector {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test/vectors/eip712");
        let path = folder.join(name).with_extension("json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self(serde_json::from_str(&text).unwrap())
    }

    fn message(&self) -> Self {
        Self(self.0["message"].clone())
    }

    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_else(|| panic!("{field} is there"))
    }

    fn word(&self, field: &str) -> B256 {
        self.text(field).parse().unwrap()
    }

    fn address(&self, field: &str) -> Address {
        self.text(field).parse().unwrap()
    }

    fn bytes(&self, field: &str) -> Bytes {
        self.text(field).parse().unwrap()
    }

    fn number<T: TryFrom<u128>>(&self, field: &str) -> T {
        let number: u128 = self.text(field).parse().unwrap();
        T::try_from(number).unwrap_or_else(|_| panic!("{field} fits"))
    }

    fn terms(&self) -> abi::Terms {
        abi::Terms {
            composeHash: self.word("composeHash"),
            recipeHash: self.word("recipeHash"),
            outputSchemaHash: self.word("outputSchemaHash"),
            epsilonPerRun: self.number("epsilonPerRun"),
            deltaPerRun: self.number("deltaPerRun"),
            epsilonBudget: self.number("epsilonBudget"),
            deltaBudget: self.number("deltaBudget"),
            expiry: self.number("expiry"),
            devices: self.word("devices"),
            systems: self.word("systems"),
            era: self.number("era"),
            round: self.number("round"),
        }
    }
}

/// The file `name` is about `message`, and every value in it is what this code makes.
fn check<T: SolStruct>(name: &str, message: impl FnOnce(&Vector) -> T) {
    let vector = Vector::read(name);
    let message = message(&vector.message());
    assert_eq!(vector.text("primaryType"), T::NAME, "{name}");
    assert_eq!(vector.text("typeString"), T::eip712_encode_type(), "{name}");
    assert_eq!(vector.word("typeHash"), message.eip712_type_hash(), "{name}");
    assert_eq!(vector.word("structHash"), message.eip712_hash_struct(), "{name}");

    let domain = Vector(vector.0["domain"].clone());
    let domain = eip712::app_domain(domain.number("chainId"), domain.address("verifyingContract"));
    assert_eq!(vector.word("domainSeparator"), domain.separator(), "{name}");
    let digest = eip712::digest(&message, &domain);
    assert_eq!(vector.word("digest"), digest, "{name}");

    let signature = vector.bytes("signature");
    assert_eq!(eip712::recover(digest, &signature), Some(vector.address("signer")), "{name}");
    assert_ne!(eip712::recover(keccak256(digest), &signature), Some(vector.address("signer")), "{name}");
}

#[test]
fn typed_data_is_that_of_the_committed_vectors() {
    check("terms", Vector::terms);
    check("terms-extreme", Vector::terms);
    check("approve", |m| abi::Approve {
        owner: m.address("owner"),
        terms: Vector(m.0["terms"].clone()).terms(),
        deadline: m.number("deadline"),
    });
    check("revoke", |m| abi::Revoke {
        owner: m.address("owner"),
        proposalId: m.word("proposalId"),
        deadline: m.number("deadline"),
    });
    check("revoke-all", |m| abi::RevokeAll {
        owner: m.address("owner"),
        era: m.number("era"),
        deadline: m.number("deadline"),
    });
    check("run-request", |m| abi::RunRequest {
        proposalId: m.word("proposalId"),
        participants: m.number("participants"),
        analyst: m.address("analyst"),
        nonce: m.word("nonce"),
        deadline: m.number("deadline"),
    });
    check("agent-certificate", |m| abi::AgentCertificate {
        agent: m.address("agent"),
        composeHash: m.word("composeHash"),
        notAfter: m.number("notAfter"),
    });
    check("receipt", |m| abi::Receipt {
        runId: m.word("runId"),
        outputHash: m.word("outputHash"),
        inputsHash: m.word("inputsHash"),
        evidenceHash: m.word("evidenceHash"),
        epsilon: m.number("epsilon"),
        delta: m.number("delta"),
        privacyProof: m.number("privacyProof"),
        producedAt: m.number("producedAt"),
    });
    check("approve-action", |m| abi::ApproveAction {
        owner: m.address("owner"),
        data: m.bytes("data"),
        salt: m.word("salt"),
        configVersion: m.number("configVersion"),
        deadline: m.number("deadline"),
    });
}

/// The form in JSON names the same proposal.
#[test]
fn terms_in_json_have_the_same_id() {
    for name in ["terms", "terms-extreme"] {
        let vector = Vector::read(name);
        let terms = Terms::from(&vector.message().terms());
        let read: Terms = serde_json::from_value(serde_json::to_value(&terms).unwrap()).unwrap();
        assert_eq!(read.proposal_id().0, vector.word("structHash"), "{name}");
    }
}
