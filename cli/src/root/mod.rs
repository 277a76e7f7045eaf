//! The KMS root that an owner seals to: verified against chain and evidence once, remembered afterwards. Spec:
//! `docs/spec/kms-root.md`, "What a sealer remembers".

mod known;
mod machine;
mod record;

use cohort_attestation::KmsEvidence;
use cohort_protocol::{hpke::PublicKey, root::RootAnswer};

use crate::{
    chain::App,
    config::Settings,
    failure::{Failure, Outcome},
    http::Service,
};

pub use known::KnownRoots;
pub use machine::{EvidenceArgs, Trust, verify_machine};
pub use record::{Machine, PlatformName, VerifiedRoot};

/// What a KMS stated, with the key to seal to; chain and registry agree with it.
pub struct Stated {
    /// Statement and evidence.
    pub answer: RootAnswer<KmsEvidence>,
    /// The sealing key in it.
    pub key: PublicKey,
}

/// Asks the KMS for its root and checks it against contract and registry.
pub async fn stated(settings: &Settings, app: &App) -> Outcome<Stated> {
    let service = Service::new("the KMS", settings.kms_url()?)?;
    let answer: RootAnswer<KmsEvidence> = service.get("v1/root").await?.ready("the KMS")?;
    let key = app.authenticate_root(settings.registry()?, &answer.statement).await?;
    Ok(Stated { answer, key })
}

/// The root to seal to: the remembered one, or one that is verified in full now and remembered.
pub async fn to_seal_to(settings: &Settings, app: &App, trust: &Trust) -> Outcome<(VerifiedRoot, PublicKey)> {
    let known = KnownRoots::of(settings)?;
    let stated = stated(settings, app).await?;
    let statement = &stated.answer.statement;
    if let Some(record) = known.find(statement.chain_id, statement.registry)? {
        return if record.same_root(statement) {
            Ok((record, stated.key))
        } else {
            Err(changed(&record, statement))
        };
    }
    let verified = verify_machine(app, &stated.answer, trust).await?;
    if let Some(failed) = verified.report.first_failure() {
        return Err(Failure::refused(
            format!("this KMS cannot be trusted with data: {}: {}", failed.name, failed.detail),
            "see all of it: cohort kms verify",
        ));
    }
    known.remember(&verified.record)?;
    eprintln!(
        "note: first use of KMS root {} (epoch {}, {}): verified, and remembered in {}",
        statement.root,
        statement.epoch,
        verified.record.platform.in_words(),
        known.path().display()
    );
    Ok((verified.record, stated.key))
}

/// The refusal of a root that is not the remembered one.
pub fn changed(known: &VerifiedRoot, now: &cohort_protocol::root::RootStatement) -> Failure {
    let was = &known.statement;
    Failure::refused(
        format!(
            "the KMS root changed: registry {} on chain {} had root {}, epoch {}, key {} when it was verified on {}; \
             now it has root {}, epoch {}, key {}",
            was.registry,
            was.chain_id,
            was.root,
            was.epoch,
            was.key_id(),
            known.day(),
            now.root,
            now.epoch,
            now.key_id()
        ),
        "ask the consortium whether it rotated its root; if it did: cohort kms verify --accept-change",
    )
}
