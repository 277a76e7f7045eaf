//! Asks the indexer for its release decision. Required, and never sufficient.

use std::time::Duration;

use cohort_protocol::chain::ReleaseDecisions;
use futures_util::future::join_all;

use crate::{
    question::{Item, Question},
    views::IndexerFault,
};

/// Most decisions that one call asks for.
const DECISIONS_MAX: usize = 16;
/// Longest answer in bytes; a decision has about 600.
const ANSWER_BYTES_MAX: usize = 32 << 10;

type Answer = Result<ReleaseDecisions, IndexerFault>;

/// Client of the indexer's API; cheap to clone.
#[derive(Debug, Clone)]
pub struct Indexer {
    base: reqwest::Url,
    http: reqwest::Client,
}

/// The arguments of one `releaseDecision`.
struct Decision<'a>(&'a Question, &'a Item);

impl Indexer {
    /// For the indexer at `base`, under a time limit for each answer.
    pub fn new(base: reqwest::Url, timeout: Duration) -> Result<Self, reqwest::Error> {
        let http = crate::client::client(timeout)?;
        Ok(Self { base, http })
    }

    /// For each of these questions, which are about one app, the decision on each of its items, in order.
    pub async fn ask(&self, questions: &[&Question]) -> Vec<Vec<Answer>> {
        let mut all = Vec::new();
        for &question in questions {
            all.extend(question.items.iter().map(|item| Decision(question, item)));
        }
        let calls = all.chunks(DECISIONS_MAX).map(|part| self.call(part));
        let mut answers = join_all(calls).await.into_iter().flatten();
        questions.iter().map(|question| answers.by_ref().take(question.items.len()).collect()).collect()
    }

    /// As many answers as decisions.
    async fn call(&self, decisions: &[Decision<'_>]) -> Vec<Answer> {
        let answers = match self.url(decisions) {
            Some(url) => fetch(&self.http, url).await,
            None => Err(IndexerFault),
        };
        match answers {
            Ok(answers) if answers.len() == decisions.len() => answers.into_iter().map(Ok).collect(),
            _ => vec![Err(IndexerFault); decisions.len()],
        }
    }

    fn url(&self, decisions: &[Decision<'_>]) -> Option<reqwest::Url> {
        let Decision(Question { app, .. }, _) = decisions.first()?;
        let mut url = self.base.join(&format!("v1/apps/{app}/release-decisions")).ok()?;
        let list =
            |part: fn(&Decision<'_>) -> String| decisions.iter().map(part).collect::<Vec<_>>().join(",");
        url.query_pairs_mut()
            .append_pair("proposal", &list(|decision| decision.0.proposal_id.to_string()))
            .append_pair("compose", &list(|decision| decision.0.claims.compose_hash.to_string()))
            .append_pair("owner", &list(|decision| decision.1.owner().to_string()))
            .append_pair("dataset", &list(|decision| decision.1.dataset_id().to_string()))
            .append_pair("run", &list(|decision| decision.0.run_id.to_string()));
        Some(url)
    }

    /// Does it answer at all?
    pub async fn is_up(&self) -> bool {
        let Ok(url) = self.base.join("healthz") else {
            return false;
        };
        self.http.get(url).send().await.is_ok_and(|response| response.status().is_success())
    }
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
