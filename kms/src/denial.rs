//! Every reason for not releasing a key: a stable code, words, and who must act. Table: `docs/spec/release.md`.

use std::borrow::Cow;

use alloy::primitives::{Address, B256};
use cohort_attestation as attestation;
use cohort_protocol::{
    decision::Decision,
    ids::{ComposeHash, OwnerId, ProposalId, RunId},
    release::Refusal,
    text,
};

use crate::challenge::ChallengeError;

/// Who must act, and with it the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request is no request: 400.
    Malformed,
    /// The rules say no: 403.
    Denied,
    /// The caller asks too much: 429.
    Limited,
    /// Something that the decision needs is down, stale or contradictory: 503. Asking again later may help.
    Unavailable,
    /// A fault of this service: 500.
    Internal,
}

/// Why no key was released.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Not a well-formed release request.
    #[error("{what}")]
    Malformed {
        /// Which part, and what is wrong with it.
        what: String,
    },
    /// The body is longer than it may be.
    #[error("the body is longer than this route takes")]
    TooLarge,
    /// The challenge is no good.
    #[error("{0}")]
    Challenge(ChallengeError),
    /// The binding names another chain.
    #[error("the request is for chain {have}, this KMS serves chain {want}")]
    WrongChain {
        /// In the binding.
        have: u64,
        /// Of this KMS.
        want: u64,
    },
    /// The binding names another KMS.
    #[error("the request is for the KMS root {have}, which is not of this KMS")]
    WrongKms {
        /// In the binding.
        have: Address,
    },
    /// The run's proposal is not that of the terms.
    #[error("the run is for proposal {have}, the terms are proposal {want}")]
    ProposalMismatch {
        /// In the run request.
        have: ProposalId,
        /// Computed from the terms.
        want: ProposalId,
    },
    /// The binding's run is not the one in the request.
    #[error("the binding names run {have}, the request is run {want}")]
    RunMismatch {
        /// In the binding.
        have: RunId,
        /// Computed from the run request.
        want: RunId,
    },
    /// The binding does not commit to the encryption key.
    #[error("the binding does not commit to the encryption key of the request")]
    EncryptionKeyMismatch,
    /// The quote is about something else.
    #[error("the quote's report data does not commit to this request")]
    ReportData,
    /// The evidence is refused.
    #[error("{message}")]
    Evidence {
        /// Code of `cohort-attestation`, under the prefix `evidence_`.
        code: Cow<'static, str>,
        /// Its words, causes included.
        message: String,
        /// Other collateral may help.
        about_collateral: bool,
    },
    /// The CVM runs another app.
    #[error("the CVM is attested as app {attested}, the request is for {wanted}")]
    AppMismatch {
        /// In the quote.
        attested: Address,
        /// In the binding.
        wanted: Address,
    },
    /// The CVM runs another recipe.
    #[error("the CVM is attested as compose hash {attested}, the terms are for {wanted}")]
    ComposeMismatch {
        /// In the quote.
        attested: ComposeHash,
        /// In the terms.
        wanted: ComposeHash,
    },
    /// The terms limit the devices, and this one is not among them.
    #[error("the terms allow certain devices only, and {attested} is not known to be one of them")]
    DeviceNotAllowed {
        /// In the quote.
        attested: B256,
    },
    /// The terms limit the CVM images, and this one is not among them.
    #[error(
        "the terms allow certain CVM images only, and mr_system {attested} is not known to be one of them"
    )]
    SystemNotInTerms {
        /// dstack's mr_system, as attested.
        attested: B256,
    },
    /// An envelope cannot be read.
    #[error("the envelope of {owner} is refused: {reason}")]
    Envelope {
        /// Whose.
        owner: OwnerId,
        /// Why.
        reason: String,
    },
    /// An envelope is sealed for something else.
    #[error("the envelope of {owner} is sealed for another {field}")]
    EnvelopeContext {
        /// Whose, by the request.
        owner: OwnerId,
        /// What differs.
        field: &'static str,
    },
    /// An envelope is sealed to a root that this KMS does not have.
    #[error("the envelope of {owner} is sealed to root epoch {epoch}, which this KMS does not have")]
    EpochUnknown {
        /// Whose.
        owner: OwnerId,
        /// To which.
        epoch: u32,
    },
    /// No contract answers at the app's or the registry's address.
    #[error("no {contract} contract answers at {address} on this chain")]
    ContractMissing {
        /// `DstackApp` or `DstackKms`.
        contract: &'static str,
        /// Where it should be.
        address: Address,
    },
    /// The registry does not list the app.
    #[error("the registry does not list the app {app}")]
    AppNotRegistered {
        /// The app.
        app: Address,
    },
    /// The app pins another root.
    #[error("the app pins the KMS root {pinned}, not {own}")]
    RootNotPinned {
        /// By the app.
        pinned: Address,
        /// In the binding.
        own: Address,
    },
    /// The registry does not list the root with these keys.
    #[error("the registry does not list this KMS's keys for root epoch {epoch}")]
    RootNotRegistered {
        /// Which.
        epoch: u32,
    },
    /// The registry has retired the root.
    #[error("root epoch {epoch} is retired")]
    RootRetired {
        /// Which.
        epoch: u32,
    },
    /// The CVM's system measurement is not allowed.
    #[error("the registry does not allow agents on the system {mr_system}")]
    SystemNotAllowed {
        /// dstack's mr_system.
        mr_system: B256,
    },
    /// The contract denies at the newest block.
    #[error("the contract denies the key of {owner}: {decision}")]
    Chain {
        /// Whose key.
        owner: OwnerId,
        /// Why.
        decision: Decision,
    },
    /// The contract gives a reason that this version does not know.
    #[error("the contract denies the key of {owner} for the unknown reason {number}")]
    DecisionUnknown {
        /// Whose key.
        owner: OwnerId,
        /// The number.
        number: u64,
    },
    /// The newest block allows what the confirmed one does not.
    #[error("allowed at the newest block, but not yet at the confirmed block {block}: {reason}")]
    NotConfirmed {
        /// Number of the confirmed block.
        block: u64,
        /// What that block says.
        reason: Box<Denial>,
    },
    /// The indexer does not answer.
    #[error("the indexer does not answer")]
    IndexerUnreachable,
    /// The indexer follows another chain, or one with other blocks.
    #[error("the indexer follows another chain than the RPC endpoints")]
    IndexerFork,
    /// The indexer's newest block is too old.
    #[error("the indexer's newest block is {age_seconds} seconds off the clock")]
    IndexerStale {
        /// Distance from the clock.
        age_seconds: u64,
    },
    /// The contract allows and the indexer does not.
    #[error("the indexer denies the key of {owner}: {decision}")]
    IndexerDenies {
        /// Whose key.
        owner: OwnerId,
        /// Why.
        decision: Decision,
    },
    /// An RPC endpoint does not answer, or not what was asked.
    #[error("RPC endpoint {endpoint} does not answer: {fault}")]
    RpcUnreachable {
        /// Which, counted from 1 in the order of the configuration.
        endpoint: usize,
        /// In which way; no address, no answer text.
        fault: &'static str,
    },
    /// An RPC endpoint follows another chain.
    #[error("RPC endpoint {endpoint} follows chain {have}, not {want}")]
    RpcWrongChain {
        /// Which, counted from 1.
        endpoint: usize,
        /// Its chain id.
        have: u64,
        /// Of this KMS.
        want: u64,
    },
    /// An RPC endpoint's newest block is too old, or from the future.
    #[error(
        "the newest block of RPC endpoint {endpoint} is {age_seconds} seconds off the clock, more than {limit_seconds}"
    )]
    HeadStale {
        /// Which, counted from 1.
        endpoint: usize,
        /// Distance from the clock.
        age_seconds: u64,
        /// Configured limit.
        limit_seconds: u64,
    },
    /// The RPC endpoints disagree about the confirmed block.
    #[error("the RPC endpoints do not agree on one confirmed block")]
    EndpointsDisagree,
    /// The chain is shorter than the confirmed depth.
    #[error("the chain has fewer than {confirmations} blocks")]
    ChainTooShort {
        /// Configured depth.
        confirmations: u64,
    },
    /// The run's keys went to another agent: a second one would draw the noise anew.
    #[error("the keys of run {run} went to another agent before; one debit yields one result")]
    RunReleased {
        /// The run.
        run: RunId,
    },
    /// This KMS has released no keys for the run.
    #[error("this KMS has released no keys for run {run}")]
    RunNotReleased {
        /// The run.
        run: RunId,
    },
    /// No lease of that run runs here.
    #[error("no lease of run {run} runs at this KMS")]
    LeaseUnknown {
        /// The run.
        run: RunId,
    },
    /// The renewal is not signed by the run's receipt key.
    #[error("the renewal is not signed by the receipt key that got the keys of run {run}")]
    LeaseSignature {
        /// The run.
        run: RunId,
    },
    /// An endpoint does not show the receipt at its newest or its confirmed block.
    #[error("endpoint {endpoint} does not show this receipt of run {run} at the confirmed depth")]
    ReceiptNotSeen {
        /// Which, counted from 1.
        endpoint: usize,
        /// The run.
        run: RunId,
    },
    /// The release log cannot be written.
    #[error("the release log cannot be written")]
    LogUnavailable,
    /// The registry does not list the OS image that the CVM states.
    #[error("the CVM's OS image {os_image_hash} is not allowed by the registry")]
    OsImageNotAllowed {
        /// As its guest image states it; zero: it states none.
        os_image_hash: B256,
    },
    /// The app wants TCB status UpToDate.
    #[error("the app requires TCB status UpToDate, the CVM's platform is {status}")]
    TcbNotUpToDate {
        /// The platform's.
        status: String,
    },
    /// The app lists its devices, and not this one.
    #[error("device {attested} is not on the app's list")]
    DeviceNotListed {
        /// The CVM's.
        attested: B256,
    },
    /// The GPUs were compared with another list of golden values than the registry announces.
    #[error("this KMS's GPU golden values are {own}, the registry announces {announced}")]
    GpuGoldenNotInForce {
        /// `listHash` of this KMS's list.
        own: B256,
        /// `DstackKms.gpuGoldenValues`.
        announced: B256,
    },
    /// Too few replicas answer to know that the run's keys went to no other agent.
    #[error("{have} of the replicas give their vote, {need} are needed")]
    ReplicasUnreachable {
        /// Votes there are.
        have: usize,
        /// A majority.
        need: usize,
    },
    /// This replica has lost its votes and has not learnt those of enough others yet.
    #[error("this replica does not know yet what it voted for")]
    ReplicaNotReady,
    /// A message that only replicas send each other.
    #[error("not a message of a replica of this set")]
    NotAReplica,
    /// This KMS does not hand its root to others.
    #[error("this KMS does not onboard replicas")]
    OnboardingOff,
    /// A machine that asks for the root is not what this KMS's own is.
    #[error("the machine that asks has another {field} than this KMS's own")]
    MachineDiffers {
        /// What differs.
        field: &'static str,
    },
    /// The registry does not allow the machine that asks for the root to be a KMS.
    #[error("the registry does not allow the machine that asks to be a KMS")]
    CandidateNotAllowed,
    /// The registry does not allow the machine that this KMS runs in to be a KMS.
    #[error("the registry does not allow this KMS's own machine")]
    KmsNotAllowed,
    /// This KMS's own evidence does not verify, so that the registry cannot be asked about its machine.
    #[error("this KMS's own evidence does not verify")]
    OwnEvidence,
    /// No collateral of a platform family that is valid now.
    #[error("this KMS has no collateral of the platform family {family}")]
    CollateralUnavailable {
        /// Which.
        family: String,
    },
    /// dstack's guest agent makes no quote of this KMS.
    #[error("dstack's guest agent makes no quote of this KMS")]
    GuestUnavailable,
    /// This address asks too much.
    #[error("this address asks too often")]
    RateLimited,
    /// Too many requests at once.
    #[error("too many requests at once")]
    Busy,
    /// The decision took too long.
    #[error("the decision took longer than {seconds} seconds")]
    Timeout {
        /// The limit.
        seconds: u64,
    },
    /// A fault of this service.
    #[error("internal error")]
    Internal,
}

impl From<ChallengeError> for Denial {
    fn from(error: ChallengeError) -> Self {
        Self::Challenge(error)
    }
}

impl From<attestation::Refusal> for Denial {
    fn from(refusal: attestation::Refusal) -> Self {
        let code = refusal.code();
        let code =
            if code.starts_with("evidence_") { code.into() } else { format!("evidence_{code}").into() };
        Self::Evidence { code, message: chain_of(&refusal), about_collateral: refusal.is_about_collateral() }
    }
}

impl From<attestation::KmsRefusal> for Denial {
    fn from(refusal: attestation::KmsRefusal) -> Self {
        match refusal {
            attestation::KmsRefusal::Evidence(refusal) => refusal.into(),
            other => Self::Evidence {
                code: format!("evidence_{}", other.code()).into(),
                message: chain_of(&other),
                about_collateral: matches!(other, attestation::KmsRefusal::CollateralMissing),
            },
        }
    }
}

impl From<attestation::gpu::GpuRefusal> for Denial {
    fn from(refusal: attestation::gpu::GpuRefusal) -> Self {
        let code = format!("evidence_{}", refusal.code()).into();
        Self::Evidence { code, message: chain_of(&refusal), about_collateral: false }
    }
}

fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

impl Denial {
    /// Stable, snake_case.
    pub fn code(&self) -> &str {
        match self {
            Self::Malformed { .. } | Self::TooLarge => "malformed",
            Self::Challenge(ChallengeError::Unknown) => "challenge_unknown",
            Self::Challenge(ChallengeError::Expired) => "challenge_expired",
            Self::Challenge(ChallengeError::Used) => "challenge_used",
            Self::Challenge(ChallengeError::Busy) | Self::Busy => "busy",
            Self::WrongChain { .. } => "wrong_chain",
            Self::WrongKms { .. } => "wrong_kms",
            Self::ProposalMismatch { .. } => "proposal_mismatch",
            Self::RunMismatch { .. } => "run_mismatch",
            Self::EncryptionKeyMismatch => "encryption_key_mismatch",
            Self::ReportData => "report_data_mismatch",
            Self::Evidence { code, .. } => code,
            Self::AppMismatch { .. } => "app_mismatch",
            Self::ComposeMismatch { .. } => Decision::ComposeMismatch.code(),
            Self::DeviceNotAllowed { .. } => "device_not_allowed",
            Self::SystemNotInTerms { .. } => "system_not_in_terms",
            Self::Envelope { .. } => "envelope_malformed",
            Self::EnvelopeContext { .. } => "envelope_context",
            Self::EpochUnknown { .. } => "epoch_unknown",
            Self::ContractMissing { .. } => "contract_missing",
            Self::AppNotRegistered { .. } => "app_not_registered",
            Self::RootNotPinned { .. } => "root_not_pinned",
            Self::RootNotRegistered { .. } => "root_not_registered",
            Self::RootRetired { .. } => "root_retired",
            Self::SystemNotAllowed { .. } => "system_not_allowed",
            Self::Chain { decision, .. } => decision.code(),
            Self::DecisionUnknown { .. } => "decision_unknown",
            Self::NotConfirmed { .. } => "not_confirmed",
            Self::IndexerUnreachable => "indexer_unreachable",
            Self::IndexerFork => "indexer_fork",
            Self::IndexerStale { .. } => "indexer_stale",
            Self::IndexerDenies { .. } => "indexer_denies",
            Self::RpcUnreachable { .. } => "rpc_unreachable",
            Self::RpcWrongChain { .. } => "rpc_wrong_chain",
            Self::HeadStale { .. } => "head_stale",
            Self::EndpointsDisagree => "endpoints_disagree",
            Self::ChainTooShort { .. } => "chain_too_short",
            Self::RunReleased { .. } => "run_released",
            Self::RunNotReleased { .. } => "run_not_released",
            Self::ReceiptNotSeen { .. } => "receipt_not_seen",
            Self::LeaseUnknown { .. } => "lease_unknown",
            Self::LeaseSignature { .. } => "lease_signature",
            Self::LogUnavailable => "log_unavailable",
            Self::CollateralUnavailable { .. } => "collateral_unavailable",
            Self::GuestUnavailable => "guest_unavailable",
            Self::RateLimited => "rate_limited",
            Self::OsImageNotAllowed { .. } => "os_image_not_allowed",
            Self::TcbNotUpToDate { .. } => "tcb_not_up_to_date",
            Self::DeviceNotListed { .. } => "device_not_listed",
            Self::GpuGoldenNotInForce { .. } => "gpu_golden_not_in_force",
            Self::ReplicasUnreachable { .. } => "replicas_unreachable",
            Self::ReplicaNotReady => "replica_not_ready",
            Self::NotAReplica => "not_a_replica",
            Self::OnboardingOff => "onboarding_off",
            Self::MachineDiffers { .. } => "machine_differs",
            Self::CandidateNotAllowed => "candidate_not_allowed",
            Self::KmsNotAllowed => "kms_not_allowed",
            Self::OwnEvidence => "own_evidence_refused",
            Self::Timeout { .. } => "timeout",
            Self::Internal => "internal",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Malformed { .. } | Self::TooLarge => Class::Malformed,
            Self::Challenge(ChallengeError::Busy)
            | Self::IndexerUnreachable
            | Self::IndexerFork
            | Self::IndexerStale { .. }
            | Self::RpcUnreachable { .. }
            | Self::RpcWrongChain { .. }
            | Self::HeadStale { .. }
            | Self::EndpointsDisagree
            | Self::ChainTooShort { .. }
            | Self::LogUnavailable
            | Self::CollateralUnavailable { .. }
            | Self::GuestUnavailable
            | Self::OwnEvidence
            | Self::ReplicasUnreachable { .. }
            | Self::ReplicaNotReady
            | Self::Busy
            | Self::Timeout { .. } => Class::Unavailable,
            Self::RateLimited => Class::Limited,
            Self::Internal => Class::Internal,
            _ => Class::Denied,
        }
    }

    /// After how many seconds the same may be asked again, where it may succeed without anybody's doing.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Challenge(ChallengeError::Busy) | Self::Busy => Some(1),
            Self::RateLimited => Some(2),
            _ if self.class() == Class::Unavailable => Some(5),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Malformed { .. } | Self::TooLarge => "send the body that docs/spec/release.md describes",
            Self::Challenge(ChallengeError::Busy) | Self::Busy => "wait a second and ask again",
            Self::Challenge(_) => {
                "ask POST /v1/challenge of this KMS and send the release request within a minute"
            }
            Self::WrongChain { .. } => "ask a KMS of that chain",
            Self::WrongKms { .. } => "ask the KMS whose root the app pins: DstackApp.kmsRoot()",
            Self::ProposalMismatch { .. } | Self::RunMismatch { .. } => {
                "send the terms, the run request and the binding of one run"
            }
            Self::EncryptionKeyMismatch | Self::ReportData => {
                "take a fresh quote over the binding of this request"
            }
            Self::Evidence { about_collateral: true, .. } => "fetch current collateral and ask again",
            Self::Evidence { .. } => "fix the CVM or its platform; the evidence says what it is",
            Self::AppMismatch { .. } | Self::ComposeMismatch { .. } => {
                "run exactly the approved app-compose file under the app's own id"
            }
            Self::DeviceNotAllowed { .. } => {
                "run on a device that the terms list, or have owners approve this one"
            }
            Self::SystemNotInTerms { .. } => {
                "run a CVM image that the terms list, or have owners approve terms with this one: cohort terms --system"
            }
            Self::Envelope { .. } | Self::EnvelopeContext { .. } => {
                "use the file that this owner sealed for this app and recipe: cohort inspect"
            }
            Self::EpochUnknown { .. } | Self::RootNotRegistered { .. } => {
                "the KMS operator registers the root: DstackKms.registerRoot"
            }
            Self::RootRetired { .. } => "owners seal to the current root: cohort seal",
            Self::RootNotPinned { .. } => {
                "ask the KMS that the app pins, or owners change it: DstackApp.setKmsRoot"
            }
            Self::ContractMissing { .. } => "check chain id, app and registry addresses",
            Self::AppNotRegistered { .. } => "register the app: DstackKms.registerApp",
            Self::SystemNotAllowed { .. } => "the registry's owner allows it: DstackKms.addAgentSystem",
            Self::Chain { decision, .. } | Self::IndexerDenies { decision, .. } => decision.hint(),
            Self::DecisionUnknown { .. } => "update the KMS",
            Self::NotConfirmed { .. } => "approvals must age: wait for more blocks and ask again",
            Self::IndexerUnreachable | Self::IndexerStale { .. } => {
                "the KMS operator looks after the indexer"
            }
            Self::IndexerFork => "the KMS operator points indexer and RPC endpoints at one chain",
            Self::RpcUnreachable { .. } | Self::RpcWrongChain { .. } | Self::HeadStale { .. } => {
                "the KMS operator looks after the RPC endpoints"
            }
            Self::EndpointsDisagree => "wait until the chain has settled and ask again",
            Self::ChainTooShort { .. } => "wait for more blocks and ask again",
            Self::RunReleased { .. } => "open another run",
            Self::RunNotReleased { .. } => "ask for the run's keys first",
            Self::ReceiptNotSeen { .. } => "post the receipt, wait until it has aged, and ask again",
            Self::LeaseUnknown { .. } => "ask for the run's keys again, with a fresh quote",
            Self::LeaseSignature { .. } => "sign with the receipt key of the release",
            Self::LogUnavailable => "the KMS operator frees disk space and starts the KMS again",
            Self::CollateralUnavailable { .. } => {
                "give the agent a file of it, or the KMS operator one or a PCCS: --collateral-file, --pccs-url"
            }
            Self::GuestUnavailable => "the KMS operator looks after dstack's guest agent and its socket",
            Self::OsImageNotAllowed { .. } => "the registry's owner allows it: DstackKms.addOsImageHash",
            Self::TcbNotUpToDate { .. } => {
                "bring the platform up to date, or owners decide: DstackApp.setRequireTcbUpToDate"
            }
            Self::DeviceNotListed { .. } => "run on a listed device, or owners list it: DstackApp.addDevice",
            Self::ReplicasUnreachable { .. } | Self::ReplicaNotReady => {
                "the KMS operator starts the other replicas; ask again"
            }
            Self::NotAReplica => "the KMS operator gives all replicas one root, registry and list of names",
            Self::OnboardingOff => {
                "the KMS operator starts it with --serve-onboarding, from dstack's guest agent"
            }
            Self::MachineDiffers { .. } => "run exactly this KMS's image, app and app-compose file",
            Self::CandidateNotAllowed => {
                "the registry's owner allows it: DstackKms.addKmsAggregatedMr, addKmsDevice, addOsImageHash"
            }
            Self::GpuGoldenNotInForce { .. } => {
                "give the KMS the announced list, or the registry's owner announces this one: DstackKms.setGpuGoldenValues"
            }
            Self::KmsNotAllowed => {
                "the registry's owner allows it: DstackKms.addKmsAggregatedMr, addKmsDevice, addOsImageHash"
            }
            Self::OwnEvidence => "the KMS operator gives it current collateral; its log says what is wrong",
            Self::RateLimited => "wait some seconds; ask for one run at a time",
            Self::Timeout { .. } => "ask again; if it stays, the KMS operator looks after its dependencies",
            Self::Internal => "the KMS operator reads the service's own log",
        }
    }

    /// The body that goes to the caller.
    pub fn refusal(&self) -> Refusal {
        let message = text::line(self);
        Refusal { code: self.code().to_owned(), message, hint: Some(self.hint().to_owned()) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One of each, without evidence refusals (their codes are those of `cohort-attestation`) and contract
    /// decisions (theirs are those of `cohort-protocol`).
    pub(crate) fn one_of_each() -> Vec<Denial> {
        let owner: OwnerId = "hospital-A".parse().unwrap();
        let owner = || owner.clone();
        let (address, word) = (Address::ZERO, B256::ZERO);
        let decision = Decision::NoQuorum;
        vec![
            Denial::Malformed { what: String::new() },
            Denial::Challenge(ChallengeError::Unknown),
            Denial::Challenge(ChallengeError::Expired),
            Denial::Challenge(ChallengeError::Used),
            Denial::Challenge(ChallengeError::Busy),
            Denial::WrongChain { have: 1, want: 2 },
            Denial::WrongKms { have: address },
            Denial::ProposalMismatch { have: ProposalId(word), want: ProposalId(word) },
            Denial::RunMismatch { have: RunId(word), want: RunId(word) },
            Denial::EncryptionKeyMismatch,
            Denial::ReportData,
            Denial::AppMismatch { attested: address, wanted: address },
            Denial::ComposeMismatch { attested: ComposeHash(word), wanted: ComposeHash(word) },
            Denial::DeviceNotAllowed { attested: word },
            Denial::SystemNotInTerms { attested: word },
            Denial::Envelope { owner: owner(), reason: String::new() },
            Denial::EnvelopeContext { owner: owner(), field: "app" },
            Denial::EpochUnknown { owner: owner(), epoch: 0 },
            Denial::ContractMissing { contract: "DstackApp", address },
            Denial::AppNotRegistered { app: address },
            Denial::RootNotPinned { pinned: address, own: address },
            Denial::RootNotRegistered { epoch: 0 },
            Denial::RootRetired { epoch: 0 },
            Denial::SystemNotAllowed { mr_system: word },
            Denial::Chain { owner: owner(), decision },
            Denial::DecisionUnknown { owner: owner(), number: 99 },
            Denial::NotConfirmed { block: 1, reason: Box::new(Denial::Internal) },
            Denial::IndexerUnreachable,
            Denial::IndexerFork,
            Denial::IndexerStale { age_seconds: 1 },
            Denial::IndexerDenies { owner: owner(), decision },
            Denial::RpcUnreachable { endpoint: 1, fault: "" },
            Denial::RpcWrongChain { endpoint: 1, have: 1, want: 2 },
            Denial::HeadStale { endpoint: 1, age_seconds: 2, limit_seconds: 1 },
            Denial::EndpointsDisagree,
            Denial::ChainTooShort { confirmations: 1 },
            Denial::RunReleased { run: RunId(word) },
            Denial::RunNotReleased { run: RunId(word) },
            Denial::ReceiptNotSeen { endpoint: 1, run: RunId(word) },
            Denial::LeaseUnknown { run: RunId(word) },
            Denial::LeaseSignature { run: RunId(word) },
            Denial::LogUnavailable,
            Denial::RateLimited,
            Denial::CollateralUnavailable { family: String::new() },
            Denial::GuestUnavailable,
            Denial::OsImageNotAllowed { os_image_hash: word },
            Denial::TcbNotUpToDate { status: String::new() },
            Denial::DeviceNotListed { attested: word },
            Denial::GpuGoldenNotInForce { own: word, announced: word },
            Denial::ReplicasUnreachable { have: 1, need: 2 },
            Denial::ReplicaNotReady,
            Denial::NotAReplica,
            Denial::OnboardingOff,
            Denial::MachineDiffers { field: "app id" },
            Denial::CandidateNotAllowed,
            Denial::KmsNotAllowed,
            Denial::OwnEvidence,
            Denial::Busy,
            Denial::Timeout { seconds: 1 },
            Denial::Internal,
        ]
    }

    #[test]
    fn evidence_codes_carry_the_prefix_once() {
        let code = |refusal: attestation::Refusal| Denial::from(refusal).code().to_owned();
        assert_eq!(code(attestation::Refusal::TdDebug), "evidence_td_debug");
        let large = attestation::Refusal::TooLarge { part: "quote", bytes: 2, limit: 1 };
        assert_eq!(code(large), "evidence_too_large");
        assert_eq!(code(attestation::Refusal::ReportDataMismatch), "evidence_report_data_mismatch");
    }
}
