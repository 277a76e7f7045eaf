//! The decision: attested question, answers of indexer and chain, policy and time in; a [`Release`] or the reason
//! against it out. Pure. Nothing but [`decide`] can make a [`Release`], and the keys take nothing else.
//!
//! Order, which is also the priority of the reasons: what any fresh endpoint denies at its newest block; endpoints
//! that are down, stale or at odds; what any endpoint denies at the confirmed block; the indexer.

use alloy::primitives::Address;
use cohort_attestation::{Platform, TcbStatus};
use cohort_protocol::{
    chain::{Position, ReleaseDecisions},
    decision::Decision,
    hpke::PublicKey,
    ids::ComposeHash,
    release::Binding,
};

use crate::{
    claims::Claims,
    denial::Denial,
    policy::Policy,
    question::{Item, Question},
    views::{EndpointFault, EndpointView, IndexerFault, PositionView, Views},
};

/// Everything that the last step of the decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseInputs<'a> {
    /// The attested request.
    pub question: &'a Question,
    /// What indexer and chain answered.
    pub views: &'a Views,
    /// The operator's rules.
    pub policy: &'a Policy,
    /// Unix seconds.
    pub now: u64,
}

/// The permission to derive and hand out exactly these keys, once. Only [`decide`] makes one.
#[derive(Debug)]
pub struct Release {
    pub(crate) binding: Binding,
    pub(crate) encryption_key: PublicKey,
    pub(crate) items: Vec<Item>,
    pub(crate) compose_hash: ComposeHash,
    pub(crate) platform: Platform,
    pub(crate) not_after: u64,
    pub(crate) lease_seconds: u64,
    pub(crate) heads: Vec<Position>,
    pub(crate) confirmed: Position,
}

impl Release {
    /// Unix seconds at which the certificate ends.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// The newest block of each endpoint.
    pub fn heads(&self) -> &[Position] {
        &self.heads
    }

    /// The confirmed block.
    pub fn confirmed(&self) -> Position {
        self.confirmed
    }

    /// The root that signs the certificate.
    pub(crate) fn root(&self) -> Address {
        self.binding.kms_root
    }
}

/// Decides.
pub fn decide(inputs: &ReleaseInputs<'_>) -> Result<Release, Denial> {
    let ReleaseInputs { question, views, policy, now } = *inputs;
    let endpoints = &views.endpoints;
    for (index, endpoint) in endpoints.iter().enumerate() {
        if let Ok(view) = sound(index + 1, endpoint, policy, now) {
            allow_at(&view.head, question, policy)?;
        }
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        sound(index + 1, endpoint, policy, now)?;
    }
    let sound: Vec<&EndpointView> = endpoints.iter().flatten().collect();
    let confirmed = one_confirmed_block(&sound, policy)?;
    for view in &sound {
        allow_at(&view.confirmed, question, policy)
            .map_err(|reason| Denial::NotConfirmed { block: confirmed.number, reason: Box::new(reason) })?;
    }
    indexer_allows(question, views, &sound, policy, now)?;
    Ok(Release {
        binding: question.binding.clone(),
        encryption_key: question.encryption_key.clone(),
        items: question.items.clone(),
        compose_hash: question.claims.compose_hash,
        platform: question.claims.platform,
        not_after: now.saturating_add(policy.certificate_seconds),
        lease_seconds: policy.lease_seconds,
        heads: sound.iter().map(|view| view.head.block).collect(),
        confirmed,
    })
}

type Endpoint = Result<EndpointView, EndpointFault>;

/// Is this endpoint up, on the right chain, and fresh by the clock?
fn sound<'a>(
    endpoint: usize,
    view: &'a Endpoint,
    policy: &Policy,
    now: u64,
) -> Result<&'a EndpointView, Denial> {
    let view = view.as_ref().map_err(|fault| match fault {
        EndpointFault::Silent => Denial::RpcUnreachable { endpoint, fault: "no answer in time" },
        EndpointFault::Malformed => {
            Denial::RpcUnreachable { endpoint, fault: "an error or no proper answer" }
        }
        EndpointFault::TooShort => Denial::ChainTooShort { confirmations: policy.confirmations },
    })?;
    if view.chain_id != policy.chain_id {
        return Err(Denial::RpcWrongChain { endpoint, have: view.chain_id, want: policy.chain_id });
    }
    let age_seconds = now.abs_diff(view.head.block.timestamp);
    if age_seconds > policy.max_head_age_seconds {
        let limit_seconds = policy.max_head_age_seconds;
        return Err(Denial::HeadStale { endpoint, age_seconds, limit_seconds });
    }
    Ok(view)
}

/// One block, deep enough below every head, the same at all endpoints. No endpoint at all is a denial too.
fn one_confirmed_block(views: &[&EndpointView], policy: &Policy) -> Result<Position, Denial> {
    let (first, rest) = views.split_first().ok_or(Denial::EndpointsDisagree)?;
    let confirmed = first.confirmed.block;
    if rest.iter().any(|view| view.confirmed.block != confirmed) {
        return Err(Denial::EndpointsDisagree);
    }
    let deep = |view: &&EndpointView| {
        view.head
            .block
            .number
            .checked_sub(confirmed.number)
            .is_some_and(|depth| depth >= policy.confirmations)
    };
    if !views.iter().all(deep) {
        return Err(Denial::ChainTooShort { confirmations: policy.confirmations });
    }
    Ok(confirmed)
}

/// Everything that the contracts must say at one block.
fn allow_at(view: &PositionView, question: &Question, policy: &Policy) -> Result<(), Denial> {
    let missing = |contract, address| Denial::ContractMissing { contract, address };
    let no_registry = || missing("DstackKms", policy.registry);
    if !view.app_registered.ok_or_else(no_registry)? {
        return Err(Denial::AppNotRegistered { app: question.app });
    }
    if policy.self_authorisation && !view.kms_allowed.ok_or_else(no_registry)? {
        return Err(Denial::KmsNotAllowed);
    }
    for epoch in question.epochs() {
        root_is_listed(view, epoch, policy)?;
    }
    let pinned = view.kms_root.ok_or_else(|| missing("DstackApp", question.app))?;
    if pinned != question.binding.kms_root {
        return Err(Denial::RootNotPinned { pinned, own: question.binding.kms_root });
    }
    if !view.system_allowed.ok_or_else(no_registry)? {
        return Err(Denial::SystemNotAllowed { mr_system: question.claims.mr_system });
    }
    let os_image_hash = question.claims.os_image_hash;
    if !view.os_image_allowed.ok_or_else(no_registry)? {
        return Err(Denial::OsImageNotAllowed { os_image_hash });
    }
    if let Some(own) = question.claims.gpu_golden_values {
        let announced = view.gpu_golden_values.ok_or_else(no_registry)?;
        if !announced.is_zero() && announced != own {
            return Err(Denial::GpuGoldenNotInForce { own, announced });
        }
    }
    app_allows_the_machine(view, question)?;
    if view.decisions.len() != question.items.len() {
        return Err(Denial::Internal);
    }
    let mut denials = Vec::new();
    for (item, number) in question.items.iter().zip(&view.decisions) {
        let number = number.ok_or_else(|| missing("DstackApp", question.app))?;
        if let Err(denial) = decision_allows(item, number) {
            denials.push((number, denial));
        }
    }
    // Of several owners' reasons the one that stands first in the contract's order: what must be mended first.
    denials.into_iter().min_by_key(|(number, _)| *number).map_or(Ok(()), |(_, denial)| Err(denial))
}

/// The rules that the app gives dstack's boot gate hold for its data too.
fn app_allows_the_machine(view: &PositionView, question: &Question) -> Result<(), Denial> {
    let no_app = || Denial::ContractMissing { contract: "DstackApp", address: question.app };
    let Claims { tcb_status, device_id, .. } = question.claims;
    if view.tcb_must_be_up_to_date.ok_or_else(no_app)? && tcb_status != TcbStatus::UpToDate {
        return Err(Denial::TcbNotUpToDate { status: tcb_status.to_string() });
    }
    let (any, listed) = view.any_device.zip(view.device_listed).ok_or_else(no_app)?;
    if any || listed { Ok(()) } else { Err(Denial::DeviceNotListed { attested: device_id }) }
}

fn root_is_listed(view: &PositionView, epoch: u32, policy: &Policy) -> Result<(), Denial> {
    let not_registered = Denial::RootNotRegistered { epoch };
    let own = policy.roots.iter().find(|root| root.epoch == epoch).ok_or(not_registered.clone())?;
    let listed = view.roots.get(&epoch).ok_or(not_registered.clone())?;
    if listed.address != own.address || listed.sealing_key_hash != own.sealing_key_hash {
        return Err(not_registered);
    }
    if listed.retired {
        return Err(Denial::RootRetired { epoch });
    }
    Ok(())
}

fn decision_allows(item: &Item, number: u64) -> Result<(), Denial> {
    let owner = || item.owner().clone();
    let decision = u8::try_from(number).ok().and_then(|number| Decision::try_from(number).ok());
    match decision {
        Some(Decision::Allow) => Ok(()),
        Some(decision) => Err(Denial::Chain { owner: owner(), decision }),
        None => Err(Denial::DecisionUnknown { owner: owner(), number }),
    }
}

/// Required and never sufficient: the indexer follows this chain, is fresh, and allows at both of its positions.
fn indexer_allows(
    question: &Question,
    views: &Views,
    endpoints: &[&EndpointView],
    policy: &Policy,
    now: u64,
) -> Result<(), Denial> {
    if views.indexer.len() != question.items.len() {
        return Err(Denial::IndexerUnreachable);
    }
    for (item, answer) in question.items.iter().zip(&views.indexer) {
        let answer = answer.as_ref().map_err(|IndexerFault| Denial::IndexerUnreachable)?;
        indexer_is_sound(answer, endpoints, policy, now)?;
        for at in [answer.head, answer.confirmed] {
            if at.decision != Decision::Allow {
                return Err(Denial::IndexerDenies { owner: item.owner().clone(), decision: at.decision });
            }
        }
    }
    Ok(())
}

fn indexer_is_sound(
    answer: &ReleaseDecisions,
    endpoints: &[&EndpointView],
    policy: &Policy,
    now: u64,
) -> Result<(), Denial> {
    let confirmed = Some(answer.confirmed.position.hash);
    if answer.chain_id != policy.chain_id || endpoints.iter().any(|view| view.indexer_block != confirmed) {
        return Err(Denial::IndexerFork);
    }
    let age_seconds = now.abs_diff(answer.head.position.timestamp);
    if age_seconds > policy.max_head_age_seconds {
        return Err(Denial::IndexerStale { age_seconds });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
