//! The interface as OpenAPI 3.1: `docs/openapi/kms.json`. The types here are documentation of the JSON; the code reads
//! and writes those of `cohort-protocol`, and a test holds real answers against this.

#![allow(dead_code)] // read by the macros

use utoipa::{OpenApi, ToSchema};

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Interface::openapi();
    // They would be the names of Rust modules.
    for item in document.paths.paths.values_mut() {
        item.get.iter_mut().chain(&mut item.post).for_each(|operation| operation.tags = None);
    }
    document
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cohort KMS",
        version = "1",
        description = "Hands a dataset's key to an attested CVM, exactly while the chain allows it. Prose, the order of \
                       checks and every code: docs/spec/release.md and docs/spec/kms-root.md.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        crate::http::root,
        crate::http::challenge,
        crate::http::collateral,
        crate::http::release,
        crate::http::certify,
        crate::http::onboard,
        crate::http::replica_vote,
        crate::http::replica_votes,
        crate::http::lease,
        crate::http::receipt,
        crate::http::log,
        crate::http::log_head,
        crate::http::ready,
        crate::http::health,
        crate::http::metrics_text,
    ),
    components(schemas(
        Hash,
        Address,
        Hex,
        Digits,
        RootAnswer,
        RootStatement,
        KmsEvidence,
        Challenge,
        ReleaseRequest,
        Terms,
        RunRequest,
        Binding,
        DatasetRequest,
        Evidence,
        GpuEvidence,
        ReleaseAnswer,
        CertifyAnswer,
        OnboardRequest,
        OnboardAnswer,
        Vote,
        VoteRequest,
        VoteAnswer,
        VotesRequest,
        VotesAnswer,
        Certificate,
        LeaseRequest,
        LeaseAnswer,
        ReceiptQuestion,
        ReceiptAnswer,
        LogPage,
        LogLine,
        LogEntry,
        LogRecord,
        LogDataset,
        LogHead,
        SignedHead,
        Position,
        Refusal,
    ))
)]
struct Interface;

/// 32 bytes.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^0x[0-9a-f]{64}$")]
pub(crate) struct Hash(String);

/// An account or contract: 20 bytes, either case.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^0x[0-9a-fA-F]{40}$")]
pub(crate) struct Address(String);

/// Bytes.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^0x([0-9a-f]{2})*$")]
pub(crate) struct Hex(String);

/// Bytes without `0x`.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^([0-9a-f]{2})*$")]
pub(crate) struct Digits(String);

/// `docs/spec/kms-root.md`.
#[derive(ToSchema)]
pub(crate) struct RootAnswer {
    statement: RootStatement,
    /// Absent if the root is from a file.
    evidence: Option<KmsEvidence>,
}

/// Signed by the root: what to seal to.
#[derive(ToSchema)]
pub(crate) struct RootStatement {
    chain_id: u64,
    registry: Address,
    epoch: u32,
    root: Address,
    /// X-Wing public key, 1216 bytes.
    sealing_key: Hex,
    /// EIP-712 `KmsRoot`, 65 bytes.
    signature: Hex,
}

/// A quote of the KMS's own machine about the statement.
#[derive(ToSchema)]
pub(crate) struct KmsEvidence {
    quote: Digits,
    event_log: String,
    app_compose: String,
    /// dcap-qvl's `QuoteCollateralV3`.
    #[schema(value_type = Object)]
    collateral: Option<serde_json::Value>,
}

/// Good for one request.
#[derive(ToSchema)]
pub(crate) struct Challenge {
    challenge: Hash,
    /// Unix seconds.
    expires_at: u64,
    kms_root: Address,
}

/// `docs/spec/release.md`, "Request".
#[derive(ToSchema)]
pub(crate) struct ReleaseRequest {
    terms: Terms,
    run: RunRequest,
    binding: Binding,
    /// X-Wing public key, 1216 bytes.
    encryption_key: Hex,
    #[schema(min_items = 1, max_items = 64)]
    datasets: Vec<DatasetRequest>,
    evidence: Evidence,
}

/// What owners approved.
#[derive(ToSchema)]
pub(crate) struct Terms {
    compose_hash: Hash,
    recipe_hash: Hash,
    output_schema_hash: Hash,
    /// A decimal number as text.
    epsilon_per_run: String,
    /// A decimal number as text.
    delta_per_run: String,
    /// A decimal number as text.
    epsilon_budget: String,
    /// A decimal number as text.
    delta_budget: String,
    /// Unix seconds.
    expiry: u64,
    devices: Hash,
    systems: Hash,
    era: u32,
    round: u32,
}

/// What the analyst signed.
#[derive(ToSchema)]
pub(crate) struct RunRequest {
    proposal_id: Hash,
    /// Bits of the owners' indexes.
    participants: String,
    analyst: Address,
    nonce: Hash,
    /// Unix seconds.
    deadline: u64,
    signature: Hex,
}

/// What the quote's report data commits to.
#[derive(ToSchema)]
pub(crate) struct Binding {
    chain_id: u64,
    app: Address,
    kms_root: Address,
    challenge: Hash,
    run_id: Hash,
    encryption_key_hash: Hash,
    receipt_key: Address,
    /// If there is GPU evidence.
    gpu_evidence_hash: Option<Hash>,
}

/// One dataset whose key is asked for.
#[derive(ToSchema)]
pub(crate) struct DatasetRequest {
    owner: String,
    /// The exact text of `envelope.json`.
    envelope: String,
    data_root: Hash,
}

/// `docs/spec/attestation.md`.
#[derive(ToSchema)]
pub(crate) struct Evidence {
    quote: Digits,
    event_log: String,
    app_compose: Option<String>,
    /// Where the recipe requires GPUs.
    gpu: Option<Vec<GpuEvidence>>,
    /// Where the recipe has SQL: `docs/spec/recipe.md`, "The proof". The KMS does not read it.
    #[schema(value_type = Object, required = false)]
    privacy_proof: Option<serde_json::Value>,
    /// dcap-qvl's `QuoteCollateralV3`.
    #[schema(value_type = Object)]
    collateral: serde_json::Value,
}

/// `docs/spec/gpu-evidence.md`.
#[derive(ToSchema)]
pub(crate) struct GpuEvidence {
    architecture: String,
    report: Digits,
    certificates: Vec<Digits>,
}

/// A certificate of the receipt key.
#[derive(ToSchema)]
pub(crate) struct CertifyAnswer {
    certificate: Certificate,
    /// `intel` or `development`.
    platform: String,
    log_index: u64,
}

/// A new replica asks for the root: `docs/spec/replicas.md`.
#[derive(ToSchema)]
pub(crate) struct OnboardRequest {
    challenge: Hash,
    /// X-Wing public key.
    encryption_key: Hex,
    evidence: KmsEvidence,
}

/// The root secret, encrypted to it.
#[derive(ToSchema)]
pub(crate) struct OnboardAnswer {
    enc: Hex,
    ciphertext: Hex,
}

/// For whom a run's keys are.
#[derive(ToSchema)]
pub(crate) struct Vote {
    run_id: Hash,
    app: Address,
    kms_root: Address,
    receipt_key: Address,
}

/// A replica asks another for its vote.
#[derive(ToSchema)]
pub(crate) struct VoteRequest {
    set: Hash,
    from: String,
    challenge: Hash,
    vote: Vote,
    mac: Hash,
}

/// Its vote.
#[derive(ToSchema)]
pub(crate) struct VoteAnswer {
    granted: bool,
    mac: Hash,
}

/// A replica that has lost its votes asks another for its own.
#[derive(ToSchema)]
pub(crate) struct VotesRequest {
    set: Hash,
    from: String,
    nonce: Hash,
    after: Option<Hash>,
    mac: Hash,
}

/// Up to 1,024 of them.
#[derive(ToSchema)]
pub(crate) struct VotesAnswer {
    votes: Vec<Vote>,
    mac: Hash,
}

/// Keys, encrypted to the agent, and a certificate of its receipt key.
#[derive(ToSchema)]
pub(crate) struct ReleaseAnswer {
    enc: Hex,
    ciphertext: Hex,
    certificate: Certificate,
    /// `intel` or `development`.
    platform: String,
    log_index: u64,
}

/// EIP-712 `AgentCertificate`.
#[derive(ToSchema)]
pub(crate) struct Certificate {
    agent: Address,
    compose_hash: Hash,
    /// Unix seconds.
    not_after: u64,
    signature: Hex,
}

/// May this run go on?
#[derive(ToSchema)]
pub(crate) struct LeaseRequest {
    run_id: Hash,
    nonce: Hash,
    /// EIP-712 `LeaseRenewal` by the receipt key.
    signature: Hex,
}

/// Yes, for so long from when it was asked.
#[derive(ToSchema)]
pub(crate) struct LeaseAnswer {
    seconds: u64,
    /// EIP-712 `Lease` by the root.
    signature: Hex,
}

/// Does the KMS see this receipt?
#[derive(ToSchema)]
pub(crate) struct ReceiptQuestion {
    run_id: Hash,
    digest: Hash,
}

/// Yes, at the confirmed depth of every endpoint.
#[derive(ToSchema)]
pub(crate) struct ReceiptAnswer {
    /// EIP-712 `ReceiptSeen` by the root.
    signature: Hex,
}

/// Up to 256 entries, or 128 KiB of them.
#[derive(ToSchema)]
pub(crate) struct LogPage {
    entries: Vec<LogLine>,
    head: LogHead,
}

/// One line of the log's file.
#[derive(ToSchema)]
pub(crate) struct LogLine {
    entry: LogEntry,
    /// SHA-256 of the entry's RFC 8785 bytes.
    hash: Hash,
}

/// A record in its place.
#[derive(ToSchema)]
pub(crate) struct LogEntry {
    index: u64,
    previous: Hash,
    record: LogRecord,
    /// Unix seconds.
    time: u64,
}

/// What was decided, about what.
#[derive(ToSchema)]
pub(crate) struct LogRecord {
    /// `released` or `denied`.
    outcome: String,
    /// `allow`, or the code of the denial.
    code: String,
    reason: Option<String>,
    chain_id: u64,
    app: Address,
    kms_root: Address,
    challenge: Hash,
    proposal_id: Hash,
    run_id: Hash,
    compose_hash: Hash,
    receipt_key: Address,
    encryption_key_hash: Hash,
    evidence_hash: Hash,
    platform: String,
    tcb_status: String,
    device_id: Hash,
    instance_id: Option<Address>,
    mr_system: Hash,
    mr_aggregated: Hash,
    datasets: Vec<LogDataset>,
    heads: Option<Vec<Position>>,
    confirmed: Option<Position>,
    not_after: Option<u64>,
}

/// One dataset of a request.
#[derive(ToSchema)]
pub(crate) struct LogDataset {
    owner: String,
    dataset_id: Hash,
}

/// A block.
#[derive(ToSchema)]
pub(crate) struct Position {
    number: u64,
    hash: Hash,
    /// Unix seconds.
    timestamp: u64,
}

/// Where the log ends.
#[derive(ToSchema)]
pub(crate) struct LogHead {
    entries: u64,
    hash: Hash,
}

/// The same, signed.
#[derive(ToSchema)]
pub(crate) struct SignedHead {
    chain_id: u64,
    registry: Address,
    root: Address,
    head: LogHead,
    /// Unix seconds.
    time: u64,
    /// EIP-712 `LogHead` by the root.
    signature: Hex,
}

/// Every refusal: 400, 403, 413, 429, 500, 503.
#[derive(ToSchema)]
pub(crate) struct Refusal {
    /// Stable; `docs/spec/release.md` has the list.
    code: String,
    message: String,
    hint: Option<String>,
}
