//! Asks the indexer for its release decision. Required, and never sufficient.
//!
//! Questions about one app that arrive while others are being asked share the next call ([`crate::queue`]): each is
//! answered from a state of the mirror that was read after it had arrived.

use std::time::Duration;

use alloy::primitives::Address;
use cohort_protocol::{
    chain::ReleaseDecisions,
    ids::{ComposeHash, DatasetId, OwnerId, ProposalId, RunId},
};
use futures_util::future::join_all;

use crate::{
    question::Question,
    queue::{Queue, Weighed},
    views::IndexerFault,
};

/// Most decisions that one call asks for.
const DECISIONS_MAX: usize = 16;
/// Longest answer in bytes; a decision has about 600.
const ANSWER_BYTES_MAX: usize = 32 << 10;

type Answer = Result<ReleaseDecisions, IndexerFault>;

/// Client of the indexer's API.
#[derive(Debug)]
pub struct Indexer {
    base: reqwest::Url,
    http: reqwest::Client,
    queue: Queue<Address, Asked, Vec<Answer>>,
}

/// The decisions that one release depends on.
#[derive(Debug)]
struct Asked(Vec<Decision>);

/// The arguments of one `releaseDecision`.
#[derive(Debug)]
struct Decision {
    proposal: ProposalId,
    compose: ComposeHash,
    owner: OwnerId,
    dataset: DatasetId,
    run: RunId,
}

impl Weighed for Asked {
    fn weight(&self) -> usize {
        self.0.len()
    }
}

impl Asked {
    fn of(question: &Question) -> Self {
        let decision = |item: &crate::question::Item| Decision {
            proposal: question.proposal_id,
            compose: question.claims.compose_hash,
            owner: item.owner().clone(),
            dataset: item.dataset_id,
            run: question.run_id,
        };
        Self(question.items.iter().map(decision).collect())
    }
}

impl Indexer {
    /// For the indexer at `base`, under a time limit for each answer.
    pub fn new(base: reqwest::Url, timeout: Duration) -> Result<Self, reqwest::Error> {
        let http = crate::client::client(timeout)?;
        Ok(Self { base, http, queue: Queue::default() })
    }

    /// The decision for each item of the question, in order.
    pub async fn ask(&self, question: &Question) -> Vec<Answer> {
        let (app, asked) = (question.app, Asked::of(question));
        let (http, url) = (self.http.clone(), self.base.join(&format!("v1/apps/{app}/release-decisions")));
        let exchange = move |batch: Vec<Asked>| {
            let (http, url) = (http.clone(), url.clone());
            async move {
                let all: Vec<&Decision> = batch.iter().flat_map(|asked| &asked.0).collect();
                let calls = all.chunks(DECISIONS_MAX).map(|part| call(&http, url.clone().ok(), part));
                let mut answers = join_all(calls).await.into_iter().flatten();
                batch.iter().map(|asked| answers.by_ref().take(asked.0.len()).collect()).collect()
            }
        };
        // None at all: it broke, which the decision takes as no answer.
        self.queue.ask(app, asked, exchange).await.unwrap_or_default()
    }

    /// Does it answer at all?
    pub async fn is_up(&self) -> bool {
        let Ok(url) = self.base.join("healthz") else {
            return false;
        };
        self.http.get(url).send().await.is_ok_and(|response| response.status().is_success())
    }
}

/// As many answers as decisions.
async fn call(http: &reqwest::Client, url: Option<reqwest::Url>, decisions: &[&Decision]) -> Vec<Answer> {
    let answers = match url {
        Some(url) => fetch(http, with_query(url, decisions)).await,
        None => Err(IndexerFault),
    };
    match answers {
        Ok(answers) if answers.len() == decisions.len() => answers.into_iter().map(Ok).collect(),
        _ => vec![Err(IndexerFault); decisions.len()],
    }
}

fn with_query(mut url: reqwest::Url, decisions: &[&Decision]) -> reqwest::Url {
    let list = |part: fn(&Decision) -> String| {
        decisions.iter().map(|decision| part(decision)).collect::<Vec<_>>().join(",")
    };
    url.query_pairs_mut()
        .append_pair("proposal", &list(|decision| decision.proposal.to_string()))
        .append_pair("compose", &list(|decision| decision.compose.to_string()))
        .append_pair("owner", &list(|decision| decision.owner.to_string()))
        .append_pair("dataset", &list(|decision| decision.dataset.to_string()))
        .append_pair("run", &list(|decision| decision.run.to_string()));
    url
}

async fn fetch(http: &reqwest::Client, url: reqwest::Url) -> Result<Vec<ReleaseDecisions>, IndexerFault> {
    let mut response = http.get(url).send().await.map_err(|_| IndexerFault)?;
    if !response.status().is_success() {
        return Err(IndexerFault);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| IndexerFault)? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(IndexerFault);
        }
    }
    serde_json::from_slice(&body).map_err(|_| IndexerFault)
}
