//! Contract errors as people and JSON see them: one table for agent, CLI and KMS.

use alloy::{contract::Error as ContractError, sol_types::SolInterface};

use crate::{
    abi::IDstackApp::IDstackAppErrors as Errors, decision::Decision, ids::ProposalId, loss::Epsilon,
    release::Refusal,
};

/// The contract's own error inside an RPC error, if there is one.
pub fn decode(error: &ContractError) -> Option<Refusal> {
    let data = error.as_revert_data()?;
    match Errors::abi_decode(&data) {
        Ok(known) => Some(refusal(&known)),
        Err(_) => Some(Refusal {
            code: "contract_reverted".to_owned(),
            message: format!("the contract refused with unknown data {data}"),
            hint: Some("check that the address is a DstackApp of this version".to_owned()),
        }),
    }
}

/// A stable code and words for each contract error.
pub fn refusal(error: &Errors) -> Refusal {
    let (code, message, hint) = describe(error);
    Refusal { code: code.to_owned(), message, hint: Some(hint.to_owned()) }
}

fn describe(error: &Errors) -> (&'static str, String, &'static str) {
    match error {
        Errors::DstackApp_ProposalNotLive(e) => {
            let decision = Decision::try_from(e.decision as u8).unwrap_or(Decision::ProposalUnknown);
            let id = ProposalId(e.proposalId);
            (decision.code(), format!("proposal {id} is not live: {decision}"), decision.hint())
        }
        Errors::DstackApp_OwnerNotApproved(e) => (
            "owner_not_approved",
            format!(
                "owner with index {} has not approved proposal {}",
                e.ownerIndex,
                ProposalId(e.proposalId)
            ),
            Decision::OwnerNotApproved.hint(),
        ),
        Errors::DstackApp_BudgetExhausted(e) => (
            "budget_exhausted",
            format!(
                "the privacy budget is used up: epsilon {} left, {} wanted",
                Epsilon(e.epsilonLeft),
                Epsilon(e.epsilonWanted)
            ),
            "owners approve new terms with a budget of their own",
        ),
        Errors::DstackApp_OwnerCapExceeded(e) => (
            "owner_cap_exceeded",
            format!(
                "owner with index {} has epsilon {} of its lifetime cap left, the terms commit {}",
                e.ownerIndex,
                Epsilon(e.epsilonLeft),
                Epsilon(e.epsilonWanted)
            ),
            "only that owner can raise its cap",
        ),
        Errors::DstackApp_DeadlinePassed(e) => (
            "deadline_passed",
            format!("the signature was good until {}, the chain's time is {}", e.deadline, e.nowSeconds),
            "sign again with a later deadline",
        ),
        Errors::DstackApp_BadSignature(e) => (
            "bad_signature",
            format!("the signature is not by {} over these terms", e.signer),
            "sign exactly these terms, for this chain and contract",
        ),
        Errors::DstackApp_NotAnAnalyst(e) => (
            "not_an_analyst",
            format!("{} is not a listed analyst", e.analyst),
            "the owners' quorum lists analysts",
        ),
        Errors::DstackApp_NotAnOwner(e) => {
            ("not_an_owner", format!("{} is no owner's account", e.caller), Decision::NotAnOwner.hint())
        }
        Errors::DstackApp_WrongEra(e) => (
            "wrong_era",
            format!("the terms are for era {}, the contract is in era {}", e.have, e.want),
            "make the terms afresh: cohort terms",
        ),
        Errors::DstackApp_RunExists(_) => {
            ("run_exists", "a run with this request is open already".to_owned(), "use another nonce")
        }
        Errors::DstackApp_RunUnknown(_) => (
            "run_unknown",
            "no such run, or the request is for other terms".to_owned(),
            Decision::RunUnknown.hint(),
        ),
        Errors::DstackApp_ReceiptExists(_) => {
            ("receipt_exists", "the run has this receipt already".to_owned(), "nothing to do")
        }
        Errors::DstackApp_CertificateRefused(e) => (
            "certificate_refused",
            format!("the certificate of agent key {} has ended, was revoked, or is for other code", e.agent),
            "the agent asks the KMS for a new certificate",
        ),
        Errors::DstackApp_DatasetRefused(e) => (
            "dataset_refused",
            format!("dataset {} is registered already, or replaces one that is not the owner's", e.datasetId),
            "register each sealed file once",
        ),
        Errors::DstackApp_InvalidField(e) => (
            "invalid_field",
            format!("field {} has a value that is never valid", e.field),
            "correct the field",
        ),
        Errors::DstackApp_OnlySelf(_) => {
            ("only_self", "only an executed quorum action may do this".to_owned(), "use approveAction")
        }
        Errors::DstackApp_LossMismatch(e) => (
            "loss_mismatch",
            format!("the receipt states a loss of {}, the run debited {}", e.have, e.want),
            "the agent must state what the run debited",
        ),
        Errors::DstackApp_ActionNotReady(_) => (
            "action_not_ready",
            "the governance action is unknown, not ripe, vetoed or done".to_owned(),
            "wait for quorum and delay",
        ),
    }
}

/// An error text without endpoint addresses, which may carry credentials.
pub fn without_urls(text: &str) -> String {
    text.split_whitespace()
        .map(|word| if word.contains("://") { "<endpoint>" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;
    use crate::abi;

    #[test]
    fn the_contracts_reason_is_the_code() {
        let error = Errors::DstackApp_ProposalNotLive(abi::IDstackApp::DstackApp_ProposalNotLive {
            proposalId: B256::ZERO,
            decision: abi::Decision::NoQuorum,
        });
        assert_eq!(refusal(&error).code, "no_quorum");
    }

    #[test]
    fn endpoints_do_not_reach_people() {
        assert_eq!(without_urls("error for http://user:pass@rpc/ (down)"), "error for <endpoint> (down)");
    }
}
