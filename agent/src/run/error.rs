//! Why a run ends without a result, with a stable code for the API.

use cohort_guest::GuestError;
use cohort_protocol::release::Refusal;

use crate::{
    chain::ChainError, compute, fetch::FetchError, kms::KmsError, resume::ResumeError, store::StoreError,
};

/// Why a run did not yield a result. Texts never hold anything from a row (R15).
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The request does not fit this agent.
    #[error("{}", .0.message)]
    Request(Refusal),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The KMS.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The guest agent.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// A sealed file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data cannot be computed on.
    #[error(transparent)]
    Compute(#[from] compute::ComputeError),
    /// The output may not leave.
    #[error(transparent)]
    Guard(#[from] compute::GuardError),
    /// A signed result cannot be kept.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// A sealed file cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Randomness, signing or encoding failed.
    #[error("internal: {0}")]
    Internal(&'static str),
}

impl RunError {
    /// The stable code and words for the API. Internals stay in the log.
    pub fn refusal(&self) -> Refusal {
        let (code, hint) = match self {
            Self::Request(refusal) => return refusal.clone(),
            Self::Chain(ChainError::Refused(reverted)) => return reverted.0.clone(),
            Self::Kms(KmsError::Refused(refusal)) => return refusal.clone(),
            Self::Chain(ChainError::GasLow { .. }) => {
                ("gas_low", "send some of the chain's currency to the agent's gas account")
            }
            Self::Fetch(_) => {
                ("dataset_unreachable", "check the address and that the file is published there")
            }
            Self::Resume(_) => ("state_unwritable", "give the agent a folder that it may write: --state"),
            Self::Chain(ChainError::OwnerUnknown(_)) => {
                ("not_an_owner", "check the owner's name against the contract's list")
            }
            Self::Chain(ChainError::ProposalUnknown(_)) => {
                ("proposal_unknown", "owners approve first: cohort approve")
            }
            Self::Chain(_) => ("chain_unavailable", "try again when the RPC endpoints answer and agree"),
            Self::Kms(KmsError::Unreachable(_)) => ("kms_unreachable", "try again when the KMS answers"),
            Self::Guest(_) => {
                ("guest_agent_unavailable", "check the socket that dstack mounts into the container")
            }
            Self::Store(_) => ("dataset_unusable", "the owner seals and publishes the file again"),
            Self::Compute(error) => (
                error.code(),
                match error {
                    compute::ComputeError::InputTooLarge { .. } => {
                        "seal less, or give prepare more seconds in another recipe"
                    }
                    compute::ComputeError::Noise | compute::ComputeError::Loss => "see the agent's log",
                    compute::ComputeError::Sandbox | compute::ComputeError::Script => {
                        "the operator checks the image: Python with cohort-sdk, the script, a kernel with Landlock"
                    }
                    _ => "the owner checks the sealed file against the recipe's schema",
                },
            ),
            Self::Guard(_) => ("output_refused", "the recipe's output does not fit its registered schema"),
            Self::Internal(_) => ("internal", "see the agent's log"),
        };
        Refusal { code: code.to_owned(), message: self.to_string(), hint: Some(hint.to_owned()) }
    }
}

/// A request that cannot be served, with what to do about it.
pub(super) fn request(code: &str, message: String, hint: &str) -> RunError {
    RunError::Request(Refusal { code: code.to_owned(), message, hint: Some(hint.to_owned()) })
}
