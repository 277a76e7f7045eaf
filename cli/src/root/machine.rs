//! The KMS's machine: its quote, and what the registry says about such a machine.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use alloy::{
    network::TransactionBuilder,
    primitives::{Address, Bytes},
    providers::{DynProvider, Provider},
    rpc::types::TransactionRequest,
    sol_types::SolCall,
};
use clap::Args;
use cohort_attestation::{Collateral, KmsEvidence, KmsRefusal, VerifiedKms, kms};
use cohort_protocol::{
    abi::{
        IDstackKms,
        boot::{AppBootInfo, isKmsAllowedCall},
    },
    root::RootAnswer,
};

use super::{Machine, PlatformName, VerifiedRoot};
use crate::{
    chain::App,
    failure::{self, Failure, Outcome},
    files,
    policy::PolicyArgs,
    report::Report,
};

/// Which evidence of the KMS's machine is taken.
#[derive(Debug, Clone, Default, Args)]
pub struct EvidenceArgs {
    /// Take a KMS that shows no evidence of its machine: then nothing shows where its keys are.
    #[arg(long)]
    insecure_no_evidence: bool,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// What evidence is judged by.
#[derive(Debug, Default)]
pub struct Trust {
    args: EvidenceArgs,
    collateral: Option<PathBuf>,
}

impl Trust {
    /// With collateral of one's own, or the KMS's.
    pub fn new(args: EvidenceArgs, collateral: Option<PathBuf>) -> Self {
        Self { args, collateral }
    }

    fn collateral(&self) -> Outcome<Option<Collateral>> {
        self.collateral.as_deref().map(|path| files::read_json(path, "DCAP collateral")).transpose()
    }
}

/// What came out, line by line, and the record to keep if nothing failed.
pub struct Verified {
    /// Every check, and what was not checked.
    pub report: Report<&'static str>,
    /// To remember.
    pub record: VerifiedRoot,
}

/// Checks the evidence of a KMS whose statement holds on chain already.
pub async fn verify_machine(app: &App, answer: &RootAnswer<KmsEvidence>, trust: &Trust) -> Outcome<Verified> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let statement = &answer.statement;
    let mut report = Report::default();
    let root =
        format!("{}, epoch {}, signs sealing key {}", statement.root, statement.epoch, statement.key_id());
    report.check("statement", true, root);
    report.check("contract", true, format!("{} pins this root", app.address()));
    report.check("registry", true, format!("{} lists it, not retired", statement.registry));
    let (platform, machine) = match &answer.evidence {
        None => (PlatformName::None, no_evidence(trust, &mut report)?),
        Some(evidence) => {
            let kms = kms::verify(
                statement,
                evidence,
                trust.collateral()?.as_ref(),
                &trust.args.policy.policy("the KMS's")?,
                now,
            )
            .map_err(refused)?;
            machine_lines(app, statement.registry, &kms, &mut report).await?;
            (kms.td().platform().into(), Some(Machine::of(&kms)))
        }
    };
    report.skip("endpoints", "one RPC endpoint was asked; it could lie about the contract and the registry");
    let record = VerifiedRoot::new(statement.clone(), app.address(), platform, machine, now);
    Ok(Verified { report, record })
}

fn no_evidence(trust: &Trust, report: &mut Report<&'static str>) -> Outcome<Option<Machine>> {
    if !trust.args.insecure_no_evidence {
        return Err(Failure::refused(
            "the KMS shows no evidence of its machine: its root may lie in a file anywhere (evidence_missing)",
            "ask its operator to run it in a confidential VM; cohort kms verify --insecure-no-evidence takes it as it is",
        ));
    }
    report.skip(
        "quote",
        "the KMS shows none, and --insecure-no-evidence takes it: nothing shows where its keys are",
    );
    Ok(None)
}

fn refused(refusal: KmsRefusal) -> Failure {
    let hint = match &refusal {
        KmsRefusal::CollateralMissing => {
            "fetch it for the quote's platform, and: cohort kms verify --collateral FILE"
        }
        _ => "do not seal to this KMS; tell the consortium",
    };
    Failure::refused(format!("{} ({})", files::chain_text(&refusal), refusal.code()), hint)
}

/// What the quote shows, what the registry lists of it, and what neither can tell.
async fn machine_lines(
    app: &App,
    registry: Address,
    kms: &VerifiedKms,
    report: &mut Report<&'static str>,
) -> Outcome {
    let (td, boot) = (kms.td(), kms.td().boot_info());
    let tcb = format!("verified to the {} root, TCB {}", td.platform().as_str(), td.tcb_status());
    report.check("quote", true, tcb);
    report.check(
        "quote binding",
        true,
        "its report data names this chain, registry, epoch, root and sealing key",
    );
    let listed = IDstackKms::new(registry, app.contract.provider());
    let mr = listed.kmsAllowedAggregatedMrs(boot.mrAggregated).call().await.map_err(failure::contract)?;
    report.check("measurement", mr, format!("the registry lists mr_aggregated {}", kms.mr_aggregated()));
    let device = listed.kmsAllowedDeviceIds(boot.deviceId).call().await.map_err(failure::contract)?;
    report.check("device", device, format!("the registry lists device {}", kms.device_id()));
    match kms.os_image_hash() {
        Some(hash) => {
            let image = listed.allowedOsImages(boot.osImageHash).call().await.map_err(failure::contract)?;
            report.check(
                "OS image",
                image,
                format!("the registry lists {hash}, which the guest image says it is"),
            );
        }
        None => report.skip("OS image", "the guest image does not say which it is"),
    }
    let (allowed, reason) = kms_allowed(app.contract.provider(), registry, &boot).await?;
    let words =
        if allowed { "it may run as a KMS".into() } else { format!("it may not run as a KMS: {reason}") };
    report.check("boot rule", allowed, format!("isKmsAllowed of the registry: {words}"));
    report.skip(
        "KMS code",
        format!("what compose hash {} does: compare it with a release that you trust", td.compose_hash()),
    );
    report.skip(
        "root secret",
        format!("who may boot under app id {}, and so has the same root: read that contract", kms.app_id()),
    );
    Ok(())
}

async fn kms_allowed(
    provider: &DynProvider,
    registry: Address,
    boot: &AppBootInfo,
) -> Outcome<(bool, String)> {
    let call = isKmsAllowedCall { bootInfo: boot.clone() };
    let request = TransactionRequest::default().with_to(registry).with_input(Bytes::from(call.abi_encode()));
    let answer = provider.call(request).await.map_err(|e| failure::rpc(&e))?;
    let decoded = isKmsAllowedCall::abi_decode_returns(&answer).map_err(|e| failure::rpc(&e))?;
    Ok((decoded.isAllowed, decoded.reason))
}
