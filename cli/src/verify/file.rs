//! Hashes, signatures and the recipe: arithmetic on the file.

use alloy::sol_types::Eip712Domain;
use cohort_agent::{compute, run::RunResult};
use cohort_protocol::{compose::AppCompose, eip712, json, recipe::Recipe, sign_rpc};

use super::{Name, Report};

pub(super) fn payload(result: &RunResult, report: &mut Report) {
    let hash = json::canonical_hash(&result.payload).ok();
    let detail = format!(
        "SHA-256 of the canonical payload is the receipt's output hash {}",
        result.receipt.output_hash
    );
    report.check(Name::Payload, hash == Some(result.receipt.output_hash), detail);
}

pub(super) fn recipe(result: &RunResult, report: &mut Report) {
    let Some((compose, recipe)) = parse_recipe(result) else {
        report.check(Name::Recipe, false, "the file holds an app-compose with a usable recipe");
        return;
    };
    let terms = &result.terms;
    let detail = format!("SHA-256 of the app-compose bytes is the approved {}", terms.compose_hash);
    report.check(Name::ComposeHash, compose.compose_hash() == terms.compose_hash, detail);
    let same = recipe.recipe_hash() == terms.recipe_hash
        && recipe.output_schema_hash() == terms.output_schema_hash
        && recipe.privacy().epsilon_per_run == terms.epsilon_per_run
        && recipe.privacy().epsilon_budget == terms.epsilon_budget
        && recipe.delta_per_run().0 == terms.delta_per_run
        && recipe.delta_budget().0 == terms.delta_budget;
    report.check(Name::Recipe, same, "recipe, output schema and epsilon in it are the approved ones");
    let fits = compute::guard(&recipe, &result.payload).is_ok();
    report.check(Name::OutputSchema, fits, "the payload is of the registered output type");
    privacy_proof(&recipe, result.evidence.privacy_proof.as_ref(), report);
    let spent =
        result.receipt.epsilon == terms.epsilon_per_run && result.receipt.delta == terms.delta_per_run;
    let detail = format!("the receipt states epsilon {}, as approved per run", result.receipt.epsilon);
    report.check(Name::PrivacyLoss, spent, detail);
}

/// The proof follows from the recipe, so it is made again; what the file records must be just that.
fn privacy_proof(recipe: &Recipe, record: Option<&serde_json::Value>, report: &mut Report) {
    let proof = match compute::prepare::prove(recipe) {
        Ok(None) if record.is_none() => return,
        other => other.ok().flatten(),
    };
    let agrees = proof.zip(record).is_some_and(|(proof, record)| proof.agrees_with(record));
    let detail = "the recipe's SQL is proved anew to keep persons apart, as the file records";
    report.check(Name::PrivacyProof, agrees, detail);
}

fn parse_recipe(result: &RunResult) -> Option<(AppCompose, Recipe)> {
    let compose = AppCompose::parse(result.evidence.app_compose.as_ref()?.as_bytes()).ok()?;
    let recipe = compose.recipe().ok()?;
    Some((compose, recipe))
}

pub(super) fn signatures(result: &RunResult, domain: &Eip712Domain, report: &mut Report) {
    let certificate = &result.certificate;
    let signer = result.receipt.signer(domain);
    let detail = format!("EIP-712 receipt signed by the agent's key {}", certificate.agent);
    report.check(Name::ReceiptSignature, signer == Some(certificate.agent), detail);
    let root = certificate.signer(domain);
    let bound = root == Some(result.binding.kms_root)
        && certificate.compose_hash == result.terms.compose_hash
        && result.receipt.produced_at < certificate.not_after;
    let detail = format!(
        "the KMS root {} certified that key for this contract and compose hash",
        result.binding.kms_root
    );
    report.check(Name::Certificate, bound, detail);
}

pub(super) fn request(result: &RunResult, domain: &Eip712Domain, report: &mut Report) {
    let run = &result.run;
    let same = run.run_id() == result.receipt.run_id && run.proposal_id == result.terms.proposal_id();
    let detail = format!("run {} was asked for under proposal {}", result.receipt.run_id, run.proposal_id);
    report.check(Name::Run, same, detail);
    if is_by_key(result, domain) {
        report.check(Name::RequestSignature, true, format!("by analyst {}", run.analyst));
    } else {
        // The contract checked it when it opened the run; an account that is a contract signs in its own way.
        let why = "valid only if that is a contract account, which the chain tells";
        report.skip(Name::RequestSignature, format!("not by a key of {}: {why}", run.analyst));
    }
    let inputs = sign_rpc::inputs_hash(&result.inputs);
    let counted = result.inputs.len() == run.participants.count_ones() as usize;
    let holds = inputs == result.receipt.inputs_hash && counted;
    let detail = format!(
        "the receipt commits to these {} dataset ids; whose they are, the chain tells",
        result.inputs.len()
    );
    report.check(Name::Inputs, holds, detail);
}

/// Is the request signed by the analyst's own key?
pub(super) fn is_by_key(result: &RunResult, domain: &Eip712Domain) -> bool {
    let digest = eip712::digest(&result.run.abi(), domain);
    eip712::recover(digest, &result.run.signature) == Some(result.run.analyst)
}
