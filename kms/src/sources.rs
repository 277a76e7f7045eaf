//! What a decision is read from: the indexer, and then the chain.
//!
//! Questions about one app that arrive while others are being asked share the next exchange ([`crate::queue`]): each is
//! answered from what was read after it had arrived.

use std::sync::Arc;

use alloy::primitives::Address;
use cohort_protocol::abi::boot::AppBootInfo;

use crate::{
    chain::{self, Chain},
    indexer::Indexer,
    question::Question,
    queue::{Queue, Weighed},
    views::{EndpointFault, Views},
};

/// Indexer and chain.
pub struct Sources {
    indexer: Indexer,
    chain: Chain,
    queue: Queue<Address, Asked, Views>,
}

/// One question that waits.
struct Asked {
    question: Arc<Question>,
    own_machine: Option<AppBootInfo>,
}

impl Weighed for Asked {
    fn weight(&self) -> usize {
        self.question.items.len()
    }
}

impl Sources {
    /// These two.
    pub fn new(indexer: Indexer, chain: Chain) -> Self {
        Self { indexer, chain, queue: Queue::default() }
    }

    /// What they answer to a question. `own_machine` is the one that this KMS runs in, if that is to be asked about.
    pub async fn views(&self, question: Arc<Question>, own_machine: Option<AppBootInfo>) -> Views {
        let (indexer, chain) = (self.indexer.clone(), self.chain.clone());
        let exchange = move |batch: Vec<Asked>| {
            let (indexer, chain) = (indexer.clone(), chain.clone());
            async move { ask(&indexer, &chain, &batch).await }
        };
        let app = question.app;
        let answered = self.queue.ask(app, Asked { question, own_machine }, exchange).await;
        answered.unwrap_or_else(|| Views {
            indexer: Vec::new(),
            endpoints: vec![Err(EndpointFault::Malformed); self.chain.endpoints()],
        })
    }
}

async fn ask(indexer: &Indexer, chain: &Chain, batch: &[Asked]) -> Vec<Views> {
    let questions: Vec<&Question> = batch.iter().map(|asked| &*asked.question).collect();
    let decisions = indexer.ask(&questions).await;
    let asked = batch.iter().zip(&decisions).map(|(asked, decisions)| chain::Asked {
        question: &asked.question,
        indexer_block: decisions.iter().flatten().map(|decision| decision.confirmed.position.number).next(),
        own_machine: asked.own_machine.as_ref(),
    });
    let endpoints = chain.read(asked).await;
    decisions.into_iter().zip(endpoints).map(|(indexer, endpoints)| Views { indexer, endpoints }).collect()
}
