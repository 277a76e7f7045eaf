//! An owner's signature on its way to a relayer: `cohort-approval/1` and `cohort-revocation/1` (docs/spec/typed-data.md).

use std::path::Path;

use alloy::primitives::{Address, Bytes};
use cohort_protocol::{ids::ProposalId, terms::Terms};
use serde::{Deserialize, Serialize};

use super::word::Word;
use crate::{
    chain::App,
    failure::{Failure, Outcome},
    files,
};

/// One file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "format")]
enum Form {
    #[serde(rename = "cohort-approval/1")]
    Approval(Approval),
    #[serde(rename = "cohort-revocation/1")]
    Revocation(Revocation),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approval {
    chain_id: u64,
    app: Address,
    terms: Box<Terms>,
    owner: Address,
    deadline: u64,
    signature: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    chain_id: u64,
    app: Address,
    stops: Stops,
    owner: Address,
    deadline: u64,
    signature: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stops {
    ProposalId(ProposalId),
    Era(u32),
}

/// A word with its signature.
#[derive(Debug)]
pub(super) struct Signed {
    /// EIP-155 chain id.
    pub(super) chain_id: u64,
    /// The consortium's contract.
    pub(super) app: Address,
    /// What is signed.
    pub(super) word: Word,
    /// The owner's account, or its revocation key.
    pub(super) owner: Address,
    /// Unix seconds until which it may be submitted.
    pub(super) deadline: u64,
    /// 65 bytes of a key, or what the owner's contract takes.
    pub(super) signature: Bytes,
}

impl Signed {
    /// Writes the file; refuses to overwrite.
    pub(super) fn write(self, path: &Path) -> Outcome {
        files::write_json(path, &Form::from(self))
    }

    /// Reads a file, which must be for this chain and contract.
    pub(super) fn read(path: &Path, app: &App) -> Outcome<Self> {
        let signed = Self::from(files::read_json::<Form>(
            path,
            "a signature of cohort approve or revoke --sign-only",
        )?);
        if signed.chain_id != app.chain_id || signed.app != app.address() {
            return Err(Failure::input(
                format!(
                    "{} is for chain {} and contract {}, not for chain {} and {}",
                    path.display(),
                    signed.chain_id,
                    signed.app,
                    app.chain_id,
                    app.address()
                ),
                "a signature is good for one chain and one contract",
            ));
        }
        Ok(signed)
    }
}

impl From<Form> for Signed {
    fn from(form: Form) -> Self {
        match form {
            Form::Approval(Approval { chain_id, app, terms, owner, deadline, signature }) => {
                Self { chain_id, app, word: Word::Approve(terms), owner, deadline, signature }
            }
            Form::Revocation(Revocation { chain_id, app, stops, owner, deadline, signature }) => {
                let word = match stops {
                    Stops::ProposalId(id) => Word::Revoke(id),
                    Stops::Era(era) => Word::RevokeAll { era },
                };
                Self { chain_id, app, word, owner, deadline, signature }
            }
        }
    }
}

impl From<Signed> for Form {
    fn from(signed: Signed) -> Self {
        let Signed { chain_id, app, word, owner, deadline, signature } = signed;
        let stops = match word {
            Word::Approve(terms) => {
                return Self::Approval(Approval { chain_id, app, terms, owner, deadline, signature });
            }
            Word::Revoke(id) => Stops::ProposalId(id),
            Word::RevokeAll { era } => Stops::Era(era),
        };
        Self::Revocation(Revocation { chain_id, app, stops, owner, deadline, signature })
    }
}
