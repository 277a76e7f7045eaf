//! The request's own consistency and its match with the evidence: everything that can be decided without asking
//! anybody. The steps are types, so that none can be left out: [`Checked`], then [`Question`].

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    hpke::PublicKey,
    ids::{DatasetId, OwnerId, ProposalId, RunId},
    json::sha256,
    release::{Binding, DatasetRequest, ReleaseRequest},
    sealed::{self, DataRoot, Envelope, SealContext},
    terms::Terms,
};

use crate::{challenge::UsedChallenge, claims::Claims, denial::Denial, policy::Policy};

/// Most datasets in one request: owners have at most 64 indexes on chain.
pub const DATASETS_MAX: usize = 64;

/// One dataset whose key is asked for, with what its envelope claims.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Whose, by the request; equal to the envelope's.
    pub owner: OwnerId,
    /// Commitment to envelope and ciphertext.
    pub dataset_id: DatasetId,
    claimed: SealContext,
    root_key_id: B256,
    enc: Vec<u8>,
}

/// A request that is consistent in itself and made for this KMS with a fresh challenge; nothing is attested yet.
#[derive(Debug)]
pub struct Checked {
    terms: Terms,
    proposal_id: ProposalId,
    run_id: RunId,
    binding: Binding,
    binding_epoch: u32,
    encryption_key: PublicKey,
    datasets: Vec<Dataset>,
}

impl Checked {
    /// Checks what needs no evidence: it costs microseconds, so that garbage is turned away before signatures are
    /// verified. Takes the request apart and returns its evidence beside.
    pub fn new<E>(
        request: ReleaseRequest<E>,
        challenge: &UsedChallenge,
        policy: &Policy,
    ) -> Result<(Self, E), Denial> {
        let ReleaseRequest { terms, run, binding, encryption_key, datasets, evidence } = request;
        if binding.challenge != challenge.value() {
            return Err(Denial::Internal); // the caller consumed another challenge than the binding's
        }
        if binding.chain_id != policy.chain_id {
            return Err(Denial::WrongChain { have: binding.chain_id, want: policy.chain_id });
        }
        let wrong_kms = Denial::WrongKms { have: binding.kms_root };
        let binding_epoch = policy.epoch_of(binding.kms_root).ok_or(wrong_kms)?;
        let (proposal_id, run_id) = (terms.proposal_id(), run.run_id());
        if run.proposal_id != proposal_id {
            return Err(Denial::ProposalMismatch { have: run.proposal_id, want: proposal_id });
        }
        if binding.run_id != run_id {
            return Err(Denial::RunMismatch { have: binding.run_id, want: run_id });
        }
        if binding.encryption_key_hash != sha256(&encryption_key) {
            return Err(Denial::EncryptionKeyMismatch);
        }
        let encryption_key = PublicKey::from_bytes(&encryption_key)
            .map_err(|error| Denial::Malformed { what: format!("encryption_key: {error}") })?;
        let datasets = check_datasets(&datasets)?;
        let checked = Self { terms, proposal_id, run_id, binding, binding_epoch, encryption_key, datasets };
        Ok((checked, evidence))
    }

    /// What the quote must be about.
    pub fn report_data(&self) -> [u8; 64] {
        self.binding.report_data()
    }

    /// What the request is about, for the release log.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The proposal.
    pub fn proposal_id(&self) -> ProposalId {
        self.proposal_id
    }

    /// The datasets asked for, in the order of the request.
    pub fn datasets(&self) -> &[Dataset] {
        &self.datasets
    }

    /// Compares the request with what the evidence proves.
    pub fn attest(&self, claims: &Claims, policy: &Policy) -> Result<Question, Denial> {
        if claims.report_data != self.report_data() {
            return Err(Denial::ReportData);
        }
        if claims.app != self.binding.app {
            return Err(Denial::AppMismatch { attested: claims.app, wanted: self.binding.app });
        }
        if claims.compose_hash != self.terms.compose_hash {
            let (attested, wanted) = (claims.compose_hash, self.terms.compose_hash);
            return Err(Denial::ComposeMismatch { attested, wanted });
        }
        if !policy.allows_device(self.terms.devices, claims.device_id) {
            return Err(Denial::DeviceNotAllowed { attested: claims.device_id });
        }
        if !policy.allows_system(self.terms.systems, claims.mr_system) {
            return Err(Denial::SystemNotInTerms { attested: claims.mr_system });
        }
        let items =
            self.datasets.iter().map(|dataset| item(dataset, claims, policy)).collect::<Result<_, _>>()?;
        Ok(Question {
            app: claims.app,
            claims: claims.clone(),
            proposal_id: self.proposal_id,
            run_id: self.run_id,
            binding: self.binding.clone(),
            binding_epoch: self.binding_epoch,
            encryption_key: self.encryption_key.clone(),
            items,
        })
    }
}

fn check_datasets(requests: &[DatasetRequest]) -> Result<Vec<Dataset>, Denial> {
    if requests.is_empty() || requests.len() > DATASETS_MAX {
        return Err(Denial::Malformed { what: format!("datasets: 1 to {DATASETS_MAX} are needed") });
    }
    let datasets = requests.iter().map(check_dataset).collect::<Result<Vec<_>, _>>()?;
    let mut ids: Vec<_> = datasets.iter().map(|dataset| dataset.dataset_id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != datasets.len() {
        return Err(Denial::Malformed { what: "datasets: one is there twice".to_owned() });
    }
    Ok(datasets)
}

fn check_dataset(request: &DatasetRequest) -> Result<Dataset, Denial> {
    let bytes = request.envelope.as_bytes();
    let refused = |error: sealed::SealedError| Denial::Envelope {
        owner: request.owner.clone(),
        reason: error.to_string(),
    };
    let envelope = Envelope::parse(bytes).map_err(refused)?;
    Ok(Dataset {
        owner: request.owner.clone(),
        dataset_id: sealed::dataset_id(bytes, DataRoot(request.data_root.0)),
        claimed: envelope.context(),
        root_key_id: envelope.root_key_id(),
        enc: envelope.enc().to_vec(),
    })
}

/// Builds the context from attested and configured facts (R14), and compares the envelope's claims with it. The
/// epoch and the schema hash are the envelope's own: they choose among this KMS's keys and add to the context.
fn item(dataset: &Dataset, claims: &Claims, policy: &Policy) -> Result<Item, Denial> {
    let claimed = &dataset.claimed;
    let context = SealContext {
        chain_id: policy.chain_id,
        app: claims.app,
        compose_hash: claims.compose_hash,
        owner: dataset.owner.clone(),
        root_epoch: claimed.root_epoch,
        schema_hash: claimed.schema_hash,
    };
    let differs = [
        ("chain", claimed.chain_id != context.chain_id),
        ("app", claimed.app != context.app),
        ("compose hash", claimed.compose_hash != context.compose_hash),
        ("owner", claimed.owner != context.owner),
    ];
    let owner = || dataset.owner.clone();
    if let Some((field, _)) = differs.into_iter().find(|(_, differs)| *differs) {
        return Err(Denial::EnvelopeContext { owner: owner(), field });
    }
    let root = policy.roots.iter().find(|root| root.epoch == context.root_epoch);
    let root = root.ok_or_else(|| Denial::EpochUnknown { owner: owner(), epoch: context.root_epoch })?;
    if dataset.root_key_id != root.key_id {
        return Err(Denial::EnvelopeContext { owner: owner(), field: "KMS root" });
    }
    Ok(Item { dataset_id: dataset.dataset_id, context, enc: dataset.enc.clone() })
}

/// One key in question.
#[derive(Debug, Clone)]
pub struct Item {
    pub(crate) dataset_id: DatasetId,
    pub(crate) context: SealContext,
    pub(crate) enc: Vec<u8>,
}

impl Item {
    /// Whose.
    pub fn owner(&self) -> &OwnerId {
        &self.context.owner
    }

    /// Which dataset.
    pub fn dataset_id(&self) -> DatasetId {
        self.dataset_id
    }
}

/// An attested request: what is left to ask is whether the chain allows it.
#[derive(Debug, Clone)]
pub struct Question {
    pub(crate) app: Address,
    pub(crate) claims: Claims,
    pub(crate) proposal_id: ProposalId,
    pub(crate) run_id: RunId,
    pub(crate) binding: Binding,
    pub(crate) binding_epoch: u32,
    pub(crate) encryption_key: PublicKey,
    pub(crate) items: Vec<Item>,
}

impl Question {
    /// The root that the request is to, and that certifies the agent.
    pub fn kms_root(&self) -> Address {
        self.binding.kms_root
    }

    /// The root epochs that it involves: the one that signs the certificate and those that datasets are sealed to.
    /// Ascending, each once.
    pub fn epochs(&self) -> Vec<u32> {
        let mut epochs: Vec<u32> = self.items.iter().map(|item| item.context.root_epoch).collect();
        epochs.push(self.binding_epoch);
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    }
}
