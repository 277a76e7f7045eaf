//! One release request from challenge to answer, wired to clock, chain, indexer and disk.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy::primitives::{Address, B256};
use cohort_attestation::{
    self as attestation, VerifiedTd,
    gpu::{self, GpuPolicy},
};
use cohort_protocol::{
    abi::boot::AppBootInfo,
    eip712,
    hpke::{PublicKey, SecretBytes},
    ids::{ProposalId, RunId},
    json,
    release::{
        Binding, CHALLENGE_SECONDS, CertifyAnswer, Challenge, LeaseAnswer, LeaseRequest, ReceiptAnswer,
        ReceiptQuestion, ReleaseAnswer, ReleaseRequest,
    },
    root::RootAnswer,
    sign_rpc::evidence_hash,
};
use tokio::sync::{Mutex, Semaphore};

use crate::{
    chain::Chain,
    challenge::Challenges,
    claims::Claims,
    collateral::{CollateralCache, family_named},
    decide::{Release, ReleaseInputs, decide},
    denial::{Class, Denial},
    indexer::Indexer,
    keys::KeyError,
    leases::{Held, Leases},
    limits::Peer,
    metrics::States,
    onboard::{self, OnboardAnswer, OnboardRequest},
    own_evidence::OwnEvidence,
    policy::Policy,
    question::{Checked, Question},
    release_log::{LogError, Logged, Outcome, Record, RecordedDataset, ReleaseLog, Released, SignedHead},
    replicas::{Replicas, message::Vote},
    roots::Roots,
    sources::Sources,
};

/// For how long the registry's listing of the roots is remembered, for `GET /v1/root` and for challenges only.
const ROOT_REMEMBERED: Duration = Duration::from_secs(2);

/// A release request with its evidence.
pub type Request = ReleaseRequest<attestation::Evidence>;

/// What the service is made of.
pub struct Parts {
    /// The operator's rules.
    pub policy: Policy,
    /// What evidence must satisfy.
    pub evidence_policy: attestation::Policy,
    /// What evidence of GPUs must satisfy, where a recipe requires them.
    pub gpu_policy: GpuPolicy,
    /// The root's keys.
    pub roots: Roots,
    /// The RPC endpoints.
    pub chain: Chain,
    /// The indexer.
    pub indexer: Indexer,
    /// The release log.
    pub log: ReleaseLog,
    /// What shows where the root's keys are; `None` for a root from a file.
    pub own_evidence: Option<OwnEvidence>,
    /// Collateral for whoever needs some.
    pub collateral: Arc<CollateralCache>,
    /// The other processes with this root, if there are any.
    pub replicas: Option<Arc<Replicas>>,
    /// The root secret, where it may be handed to new replicas.
    pub onboarding: Option<SecretBytes>,
}

/// The key service.
pub struct Kms {
    parts: Parts,
    challenges: Challenges,
    leases: Leases,
    sources: Sources,
    started: Instant,
    /// Verifying evidence costs about a millisecond of CPU: no more at once than there are cores.
    verifiers: Semaphore,
    current_epoch: Mutex<Option<(Instant, Result<u32, Denial>)>>,
}

impl Kms {
    /// A service with no open challenges.
    pub fn new(parts: Parts) -> Result<Self, getrandom::Error> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let leases = Leases::new(Duration::from_secs(parts.policy.lease_seconds));
        let sources = Sources::new(parts.indexer.clone(), parts.chain.clone());
        Ok(Self {
            parts,
            leases,
            sources,
            challenges: Challenges::new()?,
            started: Instant::now(),
            verifiers: Semaphore::new(cores),
            current_epoch: Mutex::new(None),
        })
    }

    /// The release log.
    pub fn log(&self) -> &ReleaseLog {
        &self.parts.log
    }

    /// Statement of the root to seal to, the latest epoch that this KMS has keys for and that the registry lists
    /// and has not retired, with the evidence of the virtual machine that holds them.
    pub async fn root(&self) -> Result<RootAnswer<attestation::KmsEvidence>, Denial> {
        let epoch = self.current_epoch().await?;
        let keys = self.parts.roots.epoch(epoch).ok_or(Denial::Internal)?;
        let Policy { chain_id, registry, .. } = self.parts.policy;
        let statement = keys.statement(chain_id, registry).map_err(|_| Denial::Internal)?;
        let evidence = match &self.parts.own_evidence {
            Some(own) => Some(own.of(&statement).await?),
            None => None,
        };
        Ok(RootAnswer { statement, evidence })
    }

    /// A fresh challenge.
    pub async fn challenge(&self) -> Result<Challenge, Denial> {
        let epoch = self.current_epoch().await?;
        let kms_root = self.parts.roots.epoch(epoch).ok_or(Denial::Internal)?.address();
        let challenge = self.challenges.issue(self.started.elapsed()).map_err(|_| Denial::Internal)?;
        Ok(Challenge { challenge, expires_at: unix_now()? + CHALLENGE_SECONDS, kms_root })
    }

    /// Is everything there that a release needs? The reason if not.
    pub async fn ready(&self) -> Result<(), Denial> {
        let Parts { log, replicas, .. } = &self.parts;
        let votes_are_kept = replicas.as_ref().is_none_or(|replicas| replicas.is_writable());
        if !log.is_writable() || !votes_are_kept {
            return Err(Denial::LogUnavailable);
        }
        if replicas.as_ref().is_some_and(|replicas| !replicas.is_ready()) {
            return Err(Denial::ReplicaNotReady);
        }
        self.current_epoch().await?;
        if !self.parts.indexer.is_up().await {
            return Err(Denial::IndexerUnreachable);
        }
        Ok(())
    }

    /// What `/metrics` tells besides counts.
    pub async fn states(&self) -> States {
        let now = self.started.elapsed();
        States {
            is_ready: self.ready().await.is_ok(),
            log_entries: self.parts.log.head().entries,
            leases: self.leases.count(now),
            challenges: self.challenges.remembered(now),
        }
    }

    /// Decides on a request and, if allowed, hands out its keys.
    ///
    /// Order: the challenge is consumed, whatever follows; the request is checked; the evidence is verified; indexer
    /// and then chain are asked; the decision is logged; only then are keys derived.
    pub async fn release(self: &Arc<Self>, request: Request) -> Result<ReleaseAnswer, Denial> {
        let (release, logged) = self.permit(request).await?;
        self.parts.roots.answer(&release, &logged).map_err(|error| no_answer(&error))
    }

    /// Certifies the receipt key, for a request that [`Self::release`] would answer with keys: the same checks, the same
    /// entry in the log, and no keys.
    pub async fn certify(self: &Arc<Self>, request: Request) -> Result<CertifyAnswer, Denial> {
        let (release, logged) = self.permit(request).await?;
        self.parts.roots.certify(&release, &logged).map_err(|error| no_answer(&error))
    }

    /// Everything that comes before keys or certificate.
    async fn permit(self: &Arc<Self>, request: Request) -> Result<(Release, Logged), Denial> {
        let challenge = self.challenges.take(request.binding.challenge, self.started.elapsed())?;
        let (checked, evidence) = Checked::new(request, &challenge, &self.parts.policy)?;
        let checked = Arc::new(checked);
        let (claims, evidence_hash) = self.verify(&checked, evidence).await?;
        // From here on a genuine CVM asks: every outcome goes into the log.
        let question = checked.attest(&claims, &self.parts.policy).map(Arc::new);
        let mut outcome = match &question {
            Ok(question) => self.decide(question).await,
            Err(denial) => Err(denial.clone()),
        };
        if outcome.is_ok()
            && let Err(denial) = self.elect(checked.binding()).await
        {
            outcome = Err(denial);
        }
        let record_of = |outcome| record(&checked, &claims, evidence_hash, outcome);
        let entry = record_of(&outcome);
        let logged = match self.append(entry.clone()).await {
            Err(denial @ Denial::RunReleased { .. }) => {
                let denied = Err(denial);
                self.append(record_of(&denied)).await?;
                return Err(denied.err().unwrap_or(Denial::Internal));
            }
            logged => logged?,
        };
        let (release, question) = (outcome?, question?);
        let held = Held { question, record: entry };
        self.leases.start(checked.binding().run_id, held, self.started.elapsed());
        Ok((release, logged))
    }

    /// Has a majority of the replicas vote for this receipt key, unless the run's keys went to it from here before.
    async fn elect(&self, binding: &Binding) -> Result<(), Denial> {
        let Some(replicas) = &self.parts.replicas else { return Ok(()) };
        let Binding { app, kms_root, receipt_key, run_id, challenge, .. } = *binding;
        if self.parts.log.released(run_id) == Some(Released { app, kms_root, receipt_key }) {
            return Ok(());
        }
        replicas.elect(Vote { run_id, app, kms_root, receipt_key }, challenge).await
    }

    /// To whom the keys of a run went, from here or, as this replica voted, from another one.
    fn released(&self, run: RunId) -> Option<Released> {
        self.parts.log.released(run).or_else(|| {
            let Vote { app, kms_root, receipt_key, .. } = self.parts.replicas.as_ref()?.vote(run)?;
            Some(Released { app, kms_root, receipt_key })
        })
    }

    /// Learns from the other replicas what this one voted for, where its votes are lost.
    pub async fn recover_votes(&self) {
        if let Some(replicas) = &self.parts.replicas {
            replicas.recover().await;
        }
    }

    /// The other replicas, as they ask.
    pub fn replicas(&self) -> Result<&Replicas, Denial> {
        self.parts.replicas.as_deref().ok_or(Denial::NotAReplica)
    }

    /// Hands the root to a new replica: a machine that is what this KMS's own is, attested for this challenge and key,
    /// and allowed by the registry at every endpoint. It is logged as a release of the root.
    pub async fn onboard(
        self: &Arc<Self>,
        request: OnboardRequest,
        peer: Option<Peer>,
    ) -> Result<OnboardAnswer, Denial> {
        let Parts { policy, chain, onboarding, own_evidence, evidence_policy, .. } = &self.parts;
        let (secret, own) = onboarding.as_ref().zip(own_evidence.as_ref()).ok_or(Denial::OnboardingOff)?;
        let OnboardRequest { challenge, encryption_key, mut evidence } = request;
        let challenge = self.challenges.take(challenge, self.started.elapsed())?.value();
        let key = PublicKey::from_bytes(&encryption_key)
            .map_err(|error| Denial::Malformed { what: format!("encryption_key: {error}") })?;
        let (now, epoch) = (unix_now()?, self.current_epoch().await?);
        let kms_root = self.parts.roots.epoch(epoch).ok_or(Denial::Internal)?.address();
        let data =
            onboard::report_data((policy.chain_id, policy.registry), kms_root, challenge, &encryption_key);
        if evidence.collateral.is_none() {
            evidence.collateral = own.collateral(&evidence.quote, now, peer).await;
        }
        let permit = self.verifiers.acquire().await.map_err(|_| Denial::Internal)?;
        let evidence_policy = evidence_policy.clone();
        let (td, evidence_hash) = blocking(move || {
            let td = evidence.verify(&data, &evidence_policy, now)?;
            Ok::<_, Denial>((td, json::canonical_hash(&evidence).map_err(|_| Denial::Internal)?))
        })
        .await??;
        drop(permit);
        let candidate = td.boot_info();
        let own = self.own_machine(kms_root).await?.ok_or(Denial::OwnEvidence)?;
        onboard::same_machine(&own, &candidate)?;
        for (index, allowed) in chain.kms_allowed(&candidate).await.into_iter().enumerate() {
            let (endpoint, fault) = (index + 1, "no proper answer");
            match allowed.map_err(|_| Denial::RpcUnreachable { endpoint, fault })? {
                [Some(true), Some(true)] => (),
                _ => return Err(Denial::CandidateNotAllowed),
            }
        }
        self.append(root_record(policy.chain_id, kms_root, challenge, &encryption_key, &td, evidence_hash))
            .await?;
        onboard::seal(secret, &key, &data).map_err(|_| Denial::Internal)
    }

    /// Lets a run go on if everything still allows it: the whole decision again, but for the quote. A denial ends the
    /// lease and goes into the log; that a run goes on does not, since nothing is handed out.
    pub async fn renew(&self, request: &LeaseRequest) -> Result<LeaseAnswer, Denial> {
        let run = request.run_id;
        let asked = self.started.elapsed();
        let held = self.leases.of(run, asked).ok_or(Denial::LeaseUnknown { run })?;
        let Held { question, mut record } = held;
        let domain = eip712::app_domain(record.chain_id, record.app);
        if request.signer(&domain) != Some(record.receipt_key) {
            return Err(Denial::LeaseSignature { run });
        }
        match self.decide(&question).await {
            Ok(_) => {
                self.leases.extend(run, asked);
                let root = self.parts.roots.address(record.kms_root).ok_or(Denial::Internal)?;
                LeaseAnswer::issue(&root.signer, &domain, request, self.leases.seconds())
                    .map_err(|_| Denial::Internal)
            }
            Err(denial) => {
                if denial.class() == Class::Denied {
                    self.leases.end(run);
                }
                deny(&mut record, &denial);
                self.append(record).await?;
                Err(denial)
            }
        }
    }

    /// Signs that every endpoint shows this receipt of a run, at its newest and at its confirmed block. The agent
    /// reveals nothing without it: the endpoints that it is given itself are its host's.
    pub async fn receipt(&self, question: &ReceiptQuestion) -> Result<ReceiptAnswer, Denial> {
        let run = question.run_id;
        let released = self.released(run).ok_or(Denial::RunNotReleased { run })?;
        let Policy { chain_id, max_head_age_seconds, .. } = self.parts.policy;
        let views = self.parts.chain.receipts(released.app, run).await;
        for (index, view) in views.iter().enumerate() {
            let endpoint = index + 1;
            let fault = "no proper answer";
            let view = view.as_ref().map_err(|_| Denial::RpcUnreachable { endpoint, fault })?;
            if view.chain_id != chain_id {
                return Err(Denial::RpcWrongChain { endpoint, have: view.chain_id, want: chain_id });
            }
            let age_seconds = unix_now()?.abs_diff(view.newest.timestamp);
            if age_seconds > max_head_age_seconds {
                return Err(Denial::HeadStale { endpoint, age_seconds, limit_seconds: max_head_age_seconds });
            }
            if question.digest.is_zero() || view.digests != [question.digest; 2] {
                return Err(Denial::ReceiptNotSeen { endpoint, run });
            }
        }
        let root = self.parts.roots.address(released.kms_root).ok_or(Denial::Internal)?;
        let domain = eip712::app_domain(chain_id, released.app);
        ReceiptAnswer::issue(&root.signer, &domain, question).map_err(|_| Denial::Internal)
    }

    /// Collateral of a platform family, valid now: for agents, whose evidence must bring its own. It is signed by Intel.
    pub async fn collateral(
        &self,
        fmspc: &str,
        ca: &str,
        peer: Option<Peer>,
    ) -> Result<attestation::Collateral, Denial> {
        let family = family_named(fmspc, ca).ok_or_else(|| Denial::Malformed {
            what: "a family is an FMSPC of 12 hex digits, and platform or processor".to_owned(),
        })?;
        self.parts.collateral.of(family, unix_now()?, peer).await.map_err(|error| {
            tracing::warn!(target: "kms", error = &error as &dyn std::error::Error, "no collateral");
            Denial::CollateralUnavailable { family: family.to_string() }
        })
    }

    /// Where the release log ends, signed by the current root.
    pub async fn log_head(&self) -> Result<SignedHead, Denial> {
        let Parts { policy, roots, log, .. } = &self.parts;
        let root = roots.epoch(self.current_epoch().await?).ok_or(Denial::Internal)?;
        SignedHead::issue(&root.signer, policy.chain_id, policy.registry, log.head(), unix_now()?)
            .map_err(|_| Denial::Internal)
    }

    async fn verify(
        self: &Arc<Self>,
        checked: &Arc<Checked>,
        evidence: attestation::Evidence,
    ) -> Result<(Claims, B256), Denial> {
        let _permit = self.verifiers.acquire().await.map_err(|_| Denial::Internal)?;
        let (kms, checked, now) = (self.clone(), checked.clone(), unix_now()?);
        let is_long = !evidence.gpu.is_empty();
        let work = move || {
            let policy = &kms.parts.evidence_policy;
            let td = attestation::verify(&evidence, policy, &checked.report_data(), now)?;
            let binding = checked.binding();
            let committed = binding.gpu_evidence_hash.map(|hash| hash.0);
            let nonce = binding.gpu_nonce();
            let gpus = gpu::appraise_evidence(&evidence, &td, committed, &nonce, &kms.parts.gpu_policy, now)?;
            let hash = evidence_hash(binding, &evidence).map_err(|_| Denial::Internal)?;
            let golden = kms.parts.gpu_policy.golden().filter(|_| !gpus.is_empty());
            let golden = golden.map(gpu::GoldenValues::hash).transpose().map_err(|_| Denial::Internal)?;
            Ok((Claims::new(&td, &gpus, golden), hash))
        };
        // Without GPUs it is over sooner than another thread would have begun it.
        if is_long { blocking(work).await? } else { work() }
    }

    async fn decide(&self, question: &Arc<Question>) -> Result<Release, Denial> {
        let own_machine = self.own_machine(question.kms_root()).await?;
        let views = self.sources.views(question.clone(), own_machine).await;
        decide(&ReleaseInputs { question, views: &views, policy: &self.parts.policy, now: unix_now()? })
    }

    /// The machine that this KMS runs in, where its policy is to ask about it.
    async fn own_machine(&self, root: Address) -> Result<Option<AppBootInfo>, Denial> {
        let Parts { policy, roots, own_evidence, .. } = &self.parts;
        if !policy.self_authorisation {
            return Ok(None);
        }
        let own = own_evidence.as_ref().ok_or(Denial::OwnEvidence)?;
        let keys = roots.address(root).ok_or(Denial::Internal)?;
        let statement = keys.statement(policy.chain_id, policy.registry).map_err(|_| Denial::Internal)?;
        own.machine(&statement).await.map(Some)
    }

    async fn append(&self, record: Record) -> Result<Logged, Denial> {
        self.parts.log.append(unix_now()?, record).await.map_err(|error| {
            if let LogError::ReleasedToAnother(run) = error {
                return Denial::RunReleased { run };
            }
            tracing::error!(target: "kms", error = &error as &dyn std::error::Error, "release log failed");
            Denial::LogUnavailable
        })
    }

    /// The latest usable epoch by all endpoints' newest blocks. The answer is remembered for a moment, a denial as
    /// well: anonymous callers cannot make this service ask the chain more often.
    async fn current_epoch(&self) -> Result<u32, Denial> {
        let mut remembered = self.current_epoch.lock().await;
        if let Some((at, answer)) = &*remembered
            && at.elapsed() < ROOT_REMEMBERED
        {
            return answer.clone();
        }
        let answer = self.ask_current_epoch().await;
        *remembered = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn ask_current_epoch(&self) -> Result<u32, Denial> {
        let own = &self.parts.policy.roots;
        let epochs: Vec<u32> = own.iter().map(|root| root.epoch).collect();
        let mut usable = epochs.clone();
        for (index, listings) in self.parts.chain.roots(&epochs).await.into_iter().enumerate() {
            let endpoint = index + 1;
            let listings =
                listings.map_err(|_| Denial::RpcUnreachable { endpoint, fault: "no proper answer" })?;
            let is_listed = |epoch: &u32| {
                let listing = listings.get(epoch).filter(|listing| !listing.retired);
                let own = own.iter().find(|root| root.epoch == *epoch);
                listing.zip(own).is_some_and(|(listing, own)| {
                    (listing.address, listing.sealing_key_hash) == (own.address, own.sealing_key_hash)
                })
            };
            usable.retain(is_listed);
        }
        let latest = epochs.iter().max().copied().unwrap_or_default();
        usable.into_iter().max().ok_or(Denial::RootNotRegistered { epoch: latest })
    }
}

/// Unix seconds. A clock before 1970 is a fault that stops everything.
pub(crate) fn unix_now() -> Result<u64, Denial> {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).map_err(|_| Denial::Internal)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Denial> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Denial::Internal)
}

fn no_answer(error: &KeyError) -> Denial {
    tracing::error!(target: "kms", error = error as &dyn std::error::Error, "no answer");
    Denial::Internal
}

/// That the root itself went to a new replica. It is about no run: the challenge stands for one.
fn root_record(
    chain_id: u64,
    kms_root: Address,
    challenge: B256,
    encryption_key: &[u8],
    td: &VerifiedTd,
    evidence_hash: B256,
) -> Record {
    let machine = td.boot_info();
    Record {
        outcome: Outcome::Released,
        code: "onboarded".to_owned(),
        reason: None,
        chain_id,
        app: machine.appId,
        kms_root,
        challenge,
        proposal_id: ProposalId(B256::ZERO),
        run_id: RunId(challenge),
        compose_hash: td.compose_hash(),
        receipt_key: Address::ZERO,
        encryption_key_hash: json::sha256(encryption_key),
        evidence_hash,
        platform: td.platform().as_str().to_owned(),
        tcb_status: td.tcb_status().to_string(),
        device_id: machine.deviceId,
        instance_id: td.instance_id().map(|_| machine.instanceId),
        mr_system: machine.mrSystem,
        mr_aggregated: machine.mrAggregated,
        datasets: Vec::new(),
        heads: Vec::new(),
        confirmed: None,
        not_after: None,
    }
}

/// The same request, denied later: what its release said of the chain is gone.
fn deny(record: &mut Record, denial: &Denial) {
    record.outcome = Outcome::Denied;
    record.code = denial.code().to_owned();
    record.reason = Some(denial.to_string());
    record.heads.clear();
    (record.confirmed, record.not_after) = (None, None);
}

fn record(
    checked: &Checked,
    claims: &Claims,
    evidence_hash: B256,
    outcome: &Result<Release, Denial>,
) -> Record {
    let binding = checked.binding();
    let release = outcome.as_ref().ok();
    let denial = outcome.as_ref().err();
    Record {
        outcome: if release.is_some() { Outcome::Released } else { Outcome::Denied },
        code: denial.map_or("allow", Denial::code).to_owned(),
        reason: denial.map(ToString::to_string),
        chain_id: binding.chain_id,
        app: binding.app,
        kms_root: binding.kms_root,
        challenge: binding.challenge,
        proposal_id: checked.proposal_id(),
        run_id: binding.run_id,
        compose_hash: claims.compose_hash,
        receipt_key: binding.receipt_key,
        encryption_key_hash: binding.encryption_key_hash,
        evidence_hash,
        platform: claims.platform.as_str().to_owned(),
        tcb_status: claims.tcb_status.to_string(),
        device_id: claims.device_id,
        instance_id: claims.instance_id,
        mr_system: claims.mr_system,
        mr_aggregated: claims.mr_aggregated,
        datasets: checked
            .datasets()
            .iter()
            .map(|dataset| RecordedDataset { owner: dataset.owner.clone(), dataset_id: dataset.dataset_id })
            .collect(),
        heads: release.map(|release| release.heads().to_vec()).unwrap_or_default(),
        confirmed: release.map(Release::confirmed),
        not_after: release.map(Release::not_after),
    }
}
