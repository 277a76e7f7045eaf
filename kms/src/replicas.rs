//! Several processes with one root and no shared disk: a run's keys go out only once a majority of them has given its
//! vote for that one receipt key. Specification: `docs/spec/replicas.md`.
//!
//! Each replica gives one vote a run, for ever, and keeps it on its own disk ([`votes`]). Two majorities of one set share
//! a replica, so that no two receipt keys can have one each. What is lost with a replica is availability, not the rule.

pub mod message;
pub mod votes;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use alloy::primitives::{Address, B256};
use cohort_protocol::{hpke::SecretBytes, ids::RunId};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde::{Serialize, de::DeserializeOwned};

use crate::denial::Denial;
use message::{Mac, Vote, VoteAnswer, VoteRequest, VotesAnswer, VotesRequest, set_hash};
use votes::{Ballot, VotesError};

/// Longest answer of another replica, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Between two tries of a replica that has lost its votes to learn those of the others.
const RETRY: Duration = Duration::from_secs(1);

/// One of the others.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name in the set.
    pub name: String,
    /// Where it listens.
    pub url: reqwest::Url,
}

/// Which replicas there are.
#[derive(Debug, Clone)]
pub struct ReplicaSet {
    /// This one's name.
    pub own: String,
    /// All others.
    pub peers: Vec<Peer>,
}

impl ReplicaSet {
    /// Names are 1 to 64 characters of a-z, 0-9, . and -, each once: they are what a vote is counted by.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), &'static str> {
        let mut names: Vec<_> =
            self.peers.iter().map(|peer| peer.name.as_str()).chain([self.own.as_str()]).collect();
        let is_character = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
        if !names.iter().all(|name| (1..=64).contains(&name.len()) && name.bytes().all(is_character)) {
            return Err("a name is 1 to 64 characters of a-z, 0-9, . and -");
        }
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err("a name is there twice");
        }
        Ok(())
    }

    /// How many votes are a majority.
    fn majority(&self) -> usize {
        self.peers.len().div_ceil(2) + 1
    }

    /// How many others a replica without its votes must have heard: one of them at least has a vote of each majority.
    fn read_quorum(&self) -> usize {
        self.peers.len() + 2 - self.majority()
    }
}

/// This replica among the others.
pub struct Replicas {
    set: ReplicaSet,
    set_hash: B256,
    mac: Mac,
    http: reqwest::Client,
    ballot: Ballot,
    votes_are_known: AtomicBool,
}

impl Replicas {
    /// `timeout` limits each exchange with another replica. `ballot` has this one's votes.
    pub fn new(
        set: ReplicaSet,
        key: &SecretBytes,
        (chain_id, registry): (u64, Address),
        ballot: Ballot,
        timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        let http = crate::client::client(timeout)?;
        let names = set.peers.iter().map(|peer| peer.name.as_str()).chain([set.own.as_str()]);
        let set_hash = set_hash(chain_id, registry, names);
        let votes_are_known = AtomicBool::new(!ballot.is_new());
        Ok(Self { set, set_hash, mac: Mac::new(key), http, ballot, votes_are_known })
    }

    /// May this replica vote? Not before one that has lost its votes has learnt what it may have voted for.
    pub fn is_ready(&self) -> bool {
        self.votes_are_known.load(Ordering::Acquire)
    }

    /// Could it keep another vote?
    pub fn is_writable(&self) -> bool {
        self.ballot.is_writable()
    }

    /// Whom this replica knows the run's keys to be for.
    pub fn vote(&self, run: RunId) -> Option<Vote> {
        self.ballot.vote(run).filter(|vote| vote.receipt_key != Address::ZERO)
    }

    /// Asks all replicas to give their votes for this receipt key. `Ok` once a majority has.
    pub async fn elect(&self, vote: Vote, challenge: B256) -> Result<(), Denial> {
        let run = vote.run_id;
        if !self.cast(vote).await? {
            return Err(Denial::RunReleased { run });
        }
        let request = VoteRequest::new(&self.mac, self.set_hash, &self.set.own, challenge, vote);
        // Tasks of their own: once there is a majority, or nobody waits any more, the others still learn of the vote, so
        // that none of them is free for another key.
        let ask_peer = |peer: Peer| {
            let (http, mac, request) = (self.http.clone(), self.mac.clone(), request.clone());
            tokio::spawn(async move {
                let answer: VoteAnswer = ask(&http, &peer, "v1/replica/vote", &request).await?;
                answer.is_by(&mac, &request, &peer.name).then_some(answer.granted)
            })
        };
        let mut asked: FuturesUnordered<_> = self.set.peers.iter().cloned().map(ask_peer).collect();
        let (mut granted, mut refused) = (1, 0);
        while granted < self.set.majority() {
            match asked.next().await {
                Some(Ok(Some(true))) => granted += 1,
                Some(Ok(Some(false))) => refused += 1,
                Some(_no_answer) => (),
                None if refused > 0 => return Err(Denial::RunReleased { run }),
                None => {
                    return Err(Denial::ReplicasUnreachable { have: granted, need: self.set.majority() });
                }
            }
        }
        Ok(())
    }

    /// This replica's own vote: `true` if it is, or now becomes, this one.
    async fn cast(&self, vote: Vote) -> Result<bool, Denial> {
        if !self.is_ready() {
            return Err(Denial::ReplicaNotReady);
        }
        let ballot = self.ballot.clone();
        let cast =
            tokio::task::spawn_blocking(move || ballot.cast(vote)).await.map_err(|_| Denial::Internal)?;
        cast.map_err(|error| unwritable(&error))
    }

    /// Answers another replica that asks for this one's vote.
    pub async fn answer_vote(&self, request: VoteRequest) -> Result<VoteAnswer, Denial> {
        if !request.is_of(&self.mac, self.set_hash) {
            return Err(Denial::NotAReplica);
        }
        let granted = self.cast(request.vote).await?;
        Ok(VoteAnswer::new(&self.mac, &request, &self.set.own, granted))
    }

    /// Answers another replica that has lost its votes.
    pub fn answer_votes(&self, request: &VotesRequest) -> Result<VotesAnswer, Denial> {
        if !request.is_of(&self.mac, self.set_hash) {
            return Err(Denial::NotAReplica);
        }
        if !self.is_ready() {
            return Err(Denial::ReplicaNotReady);
        }
        Ok(VotesAnswer::new(&self.mac, request, &self.set.own, self.ballot.page(request.after)))
    }

    /// Learns what enough of the others have voted for, where this one's own votes are lost; tries until it has.
    pub async fn recover(&self) {
        while !self.is_ready() {
            let mut heard = 0;
            for peer in &self.set.peers {
                heard += usize::from(self.learn(peer).await.is_some());
            }
            if heard >= self.set.read_quorum() {
                match self.ballot.finish() {
                    Ok(()) => self.votes_are_known.store(true, Ordering::Release),
                    Err(error) => drop(unwritable(&error)),
                }
                continue;
            }
            tracing::warn!(target: "kms", heard, need = self.set.read_quorum(), "this replica's votes are not known yet");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn learn(&self, peer: &Peer) -> Option<()> {
        let mut after = None;
        loop {
            let request = VotesRequest::new(&self.mac, self.set_hash, &self.set.own, after)?;
            let answer: VotesAnswer = ask(&self.http, peer, "v1/replica/votes", &request).await?;
            if !answer.is_by(&self.mac, &request, &peer.name) {
                return None;
            }
            let Some(last) = answer.votes.last().map(|vote| vote.run_id) else { return Some(()) };
            if after.is_some_and(|after| last <= after) {
                return None;
            }
            self.ballot.learn(answer.votes).map_err(|error| unwritable(&error)).ok()?;
            after = Some(last);
        }
    }
}

fn unwritable(error: &VotesError) -> Denial {
    tracing::error!(target: "kms", error = error as &dyn std::error::Error, "the replica's votes cannot be kept");
    Denial::LogUnavailable
}

/// `None` for anything but a proper answer.
async fn ask<Q: Serialize, A: DeserializeOwned>(
    http: &reqwest::Client,
    peer: &Peer,
    path: &str,
    request: &Q,
) -> Option<A> {
    let url = peer.url.join(path).ok()?;
    let mut response = http.post(url).json(request).send().await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return None;
        }
    }
    serde_json::from_slice(&body).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::{Json, Router, routing::post};
    use tokio::{net::TcpListener, sync::Semaphore};

    use super::*;

    /// One of three with empty votes; the others are at these addresses.
    fn replica(own: &str, urls: &[(&str, reqwest::Url)], dir: &std::path::Path) -> Replicas {
        let peer = |(name, url): &(&str, reqwest::Url)| Peer { name: (*name).to_owned(), url: url.clone() };
        let peers = urls.iter().filter(|(name, _)| *name != own).map(peer).collect();
        let ballot = Ballot::open(&dir.join(own), true).unwrap();
        let set = ReplicaSet { own: own.to_owned(), peers };
        let (of, timeout) = ((1, Address::ZERO), Duration::from_secs(60));
        Replicas::new(set, &SecretBytes::new([1; 32]), of, ballot, timeout).unwrap()
    }

    /// One replica answers late, after there was a majority: it has cast its vote all the same, and has none for
    /// another key.
    #[tokio::test]
    async fn who_is_not_needed_for_a_majority_votes_too() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let (late, mut urls, mut listeners) = (Arc::new(Semaphore::new(0)), Vec::new(), Vec::new());
        for name in ["a", "b", "c"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            urls.push((name, url.parse().unwrap()));
            listeners.push((name, listener));
        }
        let mut replicas = Vec::new();
        for (name, listener) in listeners {
            let replica = Arc::new(replica(name, &urls, dir.path()));
            replicas.push(replica.clone());
            let gate = if name == "c" { late.clone() } else { Arc::new(Semaphore::new(100)) };
            let vote = async move |Json(request): Json<VoteRequest>| {
                gate.acquire().await.unwrap().forget();
                Json(replica.answer_vote(request).await.unwrap())
            };
            let router = Router::new().route("/v1/replica/vote", post(vote));
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        }
        let vote = |key| Vote {
            run_id: RunId(B256::repeat_byte(1)),
            app: Address::repeat_byte(1),
            kms_root: Address::repeat_byte(1),
            receipt_key: Address::repeat_byte(key),
        };
        replicas[0].elect(vote(7), B256::ZERO).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await; // for a request that is given up to be seen as such
        assert_eq!(replicas[2].vote(vote(7).run_id), None, "it was to be late");
        late.add_permits(100);
        for _ in 0..1000 {
            if replicas[2].vote(vote(7).run_id).is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(replicas[2].vote(vote(7).run_id), Some(vote(7)));
        let other = replicas[2].elect(vote(8), B256::ZERO).await;
        assert_eq!(other, Err(Denial::RunReleased { run: vote(8).run_id }));
    }

    /// Any two majorities share a replica, and so do a majority without one replica and what that one must hear.
    #[test]
    fn quorums_intersect() {
        for peers in 1..8 {
            let peer = |n| Peer { name: format!("p{n}"), url: "http://127.0.0.1/".parse().unwrap() };
            let set = ReplicaSet { own: "own".to_owned(), peers: (0..peers).map(peer).collect() };
            let all = peers + 1;
            assert!(2 * set.majority() > all, "{all} replicas");
            assert!(set.majority() - 1 + set.read_quorum() > peers, "{all} replicas");
            assert!(set.majority() <= all && (1..=peers).contains(&set.read_quorum()));
        }
    }
}
