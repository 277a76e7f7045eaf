//! What an owner can sign, and the contract's calls that carry it.

use alloy::{
    dyn_abi::{Resolver, TypedData},
    primitives::{Address, B256, Bytes, Signature},
    sol_types::{Eip712Domain, SolCall, SolStruct},
};
use cohort_protocol::{
    abi::{
        self,
        IDstackApp::{
            approveBySigCall, approveCall, revokeAllBySigCall, revokeAllCall, revokeBySigCall, revokeCall,
        },
    },
    ids::ProposalId,
    terms::Terms,
};
use serde_json::{Value, json};

use crate::{
    failure::{Failure, Outcome},
    key::Account,
};

/// One word of one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// Approves these terms.
    Approve(Box<Terms>),
    /// Stops one proposal for good.
    Revoke(ProposalId),
    /// Stops every proposal of this era.
    RevokeAll { era: u32 },
}

/// Runs `$body` with `$message` bound to the EIP-712 message of the word; the three have different types.
macro_rules! with_message {
    ($word:expr, $owner:expr, $deadline:expr, |$message:ident| $body:expr) => {
        match $word {
            Word::Approve(terms) => {
                let $message = abi::Approve { owner: $owner, terms: terms.abi(), deadline: $deadline };
                $body
            }
            Word::Revoke(id) => {
                let $message = abi::Revoke { owner: $owner, proposalId: id.0, deadline: $deadline };
                $body
            }
            Word::RevokeAll { era } => {
                let $message = abi::RevokeAll { owner: $owner, era: *era, deadline: $deadline };
                $body
            }
        }
    };
}

impl Word {
    /// What it does, for messages.
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Approve(_) => "approve",
            Self::Revoke(_) | Self::RevokeAll { .. } => "revoke",
        }
    }

    /// What it is about.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Approve(terms) => format!("proposal {}", terms.proposal_id()),
            Self::Revoke(id) => format!("proposal {id}"),
            Self::RevokeAll { era } => format!("all proposals of era {era}"),
        }
    }

    /// The proposal, where it is about one.
    pub(super) fn proposal(&self) -> Option<ProposalId> {
        match self {
            Self::Approve(terms) => Some(terms.proposal_id()),
            Self::Revoke(id) => Some(*id),
            Self::RevokeAll { .. } => None,
        }
    }

    /// The call that the owner's account itself makes.
    pub(super) fn call(&self) -> Bytes {
        match self {
            Self::Approve(terms) => approveCall { terms: terms.abi() }.abi_encode(),
            Self::Revoke(id) => revokeCall { proposalId: id.0 }.abi_encode(),
            Self::RevokeAll { .. } => revokeAllCall {}.abi_encode(),
        }
        .into()
    }

    /// The call that anybody makes with the owner's signature.
    pub(super) fn call_by_signature(&self, owner: Address, deadline: u64, signature: Bytes) -> Bytes {
        match self {
            Self::Approve(terms) => {
                let approvals = vec![abi::SignedApproval { owner, deadline, signature }];
                approveBySigCall { terms: terms.abi(), approvals }.abi_encode()
            }
            Self::Revoke(id) => revokeBySigCall { owner, proposalId: id.0, deadline, signature }.abi_encode(),
            Self::RevokeAll { era } => {
                revokeAllBySigCall { owner, era: *era, deadline, signature }.abi_encode()
            }
        }
        .into()
    }

    /// The 32 bytes that are signed.
    pub(super) fn digest(&self, owner: Address, deadline: u64, domain: &Eip712Domain) -> B256 {
        with_message!(self, owner, deadline, |message| message.eip712_signing_hash(domain))
    }

    /// Signs it.
    pub(super) async fn sign(
        &self,
        account: &Account,
        owner: Address,
        deadline: u64,
        domain: &Eip712Domain,
    ) -> Outcome<Signature> {
        with_message!(self, owner, deadline, |message| account.sign(&message, domain).await)
    }

    /// What `eth_signTypedData_v4` and signers without a network take. Integers are decimal texts.
    pub(super) fn typed_data(&self, owner: Address, deadline: u64, domain: &Eip712Domain) -> Outcome<Value> {
        let resolver = match self {
            Self::Approve(_) => Resolver::from_struct::<abi::Approve>(),
            Self::Revoke(_) => Resolver::from_struct::<abi::Revoke>(),
            Self::RevokeAll { .. } => Resolver::from_struct::<abi::RevokeAll>(),
        };
        let typed = TypedData {
            domain: domain.clone(),
            resolver,
            primary_type: self.primary_type().to_owned(),
            message: self.message(owner, deadline),
        };
        // What is exported must hash to what the contract checks, whoever wrote the JSON above.
        if signing_hash(&typed).ok() != Some(self.digest(owner, deadline, domain)) {
            return Err(Failure::input(
                "the typed data does not hash to what the contract checks",
                "report this",
            ));
        }
        let mut document = serde_json::to_value(&typed).map_err(|e| Failure::input(e, "report this"))?;
        if let Some(types) = document.get_mut("types").and_then(Value::as_object_mut) {
            let member = |name: &str, kind: &str| json!({ "name": name, "type": kind });
            types.insert(
                "EIP712Domain".to_owned(),
                json!([
                    member("name", "string"),
                    member("version", "string"),
                    member("chainId", "uint256"),
                    member("verifyingContract", "address"),
                ]),
            );
        }
        Ok(document)
    }

    fn primary_type(&self) -> &'static str {
        match self {
            Self::Approve(_) => abi::Approve::NAME,
            Self::Revoke(_) => abi::Revoke::NAME,
            Self::RevokeAll { .. } => abi::RevokeAll::NAME,
        }
    }

    fn message(&self, owner: Address, deadline: u64) -> Value {
        let deadline = deadline.to_string();
        match self {
            Self::Approve(terms) => {
                json!({ "owner": owner, "terms": terms_message(terms), "deadline": deadline })
            }
            Self::Revoke(id) => json!({ "owner": owner, "proposalId": id.0, "deadline": deadline }),
            Self::RevokeAll { era } => {
                json!({ "owner": owner, "era": era.to_string(), "deadline": deadline })
            }
        }
    }
}

fn terms_message(terms: &Terms) -> Value {
    json!({
        "composeHash": terms.compose_hash.0,
        "recipeHash": terms.recipe_hash.0,
        "outputSchemaHash": terms.output_schema_hash.0,
        "epsilonPerRun": terms.epsilon_per_run.0.to_string(),
        "deltaPerRun": terms.delta_per_run.to_string(),
        "epsilonBudget": terms.epsilon_budget.0.to_string(),
        "deltaBudget": terms.delta_budget.to_string(),
        "expiry": terms.expiry.to_string(),
        "devices": terms.devices,
        "systems": terms.systems,
        "era": terms.era.to_string(),
        "round": terms.round.to_string(),
    })
}

/// The digest of a typed-data document, whatever it says.
pub(super) fn signing_hash(typed: &TypedData) -> Result<B256, alloy::dyn_abi::Error> {
    typed.eip712_signing_hash()
}
