//! Asks the indexer for its release decision. Required, and never sufficient.

use std::time::Duration;

use cohort_protocol::chain::ReleaseDecisions;

use crate::{question::Question, views::IndexerFault};

/// Longest answer in bytes; a proper one has about 500.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Client of the indexer's API.
#[derive(Debug, Clone)]
pub struct Indexer {
    base: reqwest::Url,
    http: reqwest::Client,
}

impl Indexer {
    /// For the indexer at `base`, under a time limit for each answer.
    pub fn new(base: reqwest::Url, timeout: Duration) -> Result<Self, reqwest::Error> {
        let http = crate::client::client(timeout)?;
        Ok(Self { base, http })
    }

    /// The decision for each item of the question, in order.
    pub async fn ask(&self, question: &Question) -> Vec<Result<ReleaseDecisions, IndexerFault>> {
        let fetches = self.urls(question).into_iter().map(async |url| fetch(&self.http, url?).await);
        futures_util::future::join_all(fetches).await
    }

    /// Does it answer at all?
    pub async fn is_up(&self) -> bool {
        let Ok(url) = self.base.join("healthz") else {
            return false;
        };
        self.http.get(url).send().await.is_ok_and(|response| response.status().is_success())
    }

    fn urls(&self, question: &Question) -> Vec<Result<reqwest::Url, IndexerFault>> {
        let path = format!("v1/apps/{}/release-decision", question.app);
        let url = |item: &crate::question::Item| {
            let mut url = self.base.join(&path).map_err(|_| IndexerFault)?;
            url.query_pairs_mut()
                .append_pair("proposal", &question.proposal_id.to_string())
                .append_pair("compose", &question.claims.compose_hash.to_string())
                .append_pair("owner", item.owner().as_str())
                .append_pair("dataset", &item.dataset_id.to_string())
                .append_pair("run", &question.run_id.to_string());
            Ok(url)
        };
        question.items.iter().map(url).collect()
    }
}

async fn fetch(http: &reqwest::Client, url: reqwest::Url) -> Result<ReleaseDecisions, IndexerFault> {
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
