//! What replicas say to each other, each message with HMAC-SHA256 under a key that only the root secret gives.

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    hpke::SecretBytes,
    ids::RunId,
    json::{push_prefixed, sha256},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Most votes in one answer.
pub const VOTES_MAX: usize = 1024;

/// The key that all replicas of a root have.
#[derive(Clone)]
pub struct Mac(Hmac<Sha256>);

impl Mac {
    /// With the key that `RootKeys` derives for replicas.
    pub fn new(key: &SecretBytes) -> Self {
        Self(Hmac::new_from_slice(key.expose_secret()).expect("HMAC takes keys of any length"))
    }

    fn of(&self, parts: &[&[u8]]) -> B256 {
        B256::from(<[u8; 32]>::from(self.0.clone().chain_update(prefixed(parts)).finalize().into_bytes()))
    }

    fn holds(&self, parts: &[&[u8]], mac: B256) -> bool {
        self.0.clone().chain_update(prefixed(parts)).verify_slice(mac.as_slice()).is_ok()
    }
}

fn prefixed(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    parts.iter().for_each(|part| push_prefixed(&mut bytes, part));
    bytes
}

/// Names a set of replicas: a replica with another list is not of it.
pub fn set_hash<'a>(chain_id: u64, registry: Address, names: impl Iterator<Item = &'a str>) -> B256 {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    let chain_id = chain_id.to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![b"cohort-kms-replicas/1", &chain_id, registry.as_slice()];
    parts.extend(names.iter().map(|name| name.as_bytes()));
    sha256(&prefixed(&parts))
}

/// For whom a run's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// The run.
    pub run_id: RunId,
    /// The consortium.
    pub app: Address,
    /// The root that certifies the agent.
    pub kms_root: Address,
    /// The agent's receipt key; zero: nobody any more.
    pub receipt_key: Address,
}

impl Vote {
    fn parts(&self) -> [&[u8]; 4] {
        let Self { run_id, app, kms_root, receipt_key } = self;
        [run_id.as_bytes(), app.as_slice(), kms_root.as_slice(), receipt_key.as_slice()]
    }
}

/// Body of `POST /v1/replica/vote`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoteRequest {
    /// Of which set.
    pub set: B256,
    /// Who asks.
    pub from: String,
    /// The challenge of the release request: no two requests are alike.
    pub challenge: B256,
    /// What for.
    pub vote: Vote,
    /// Over all of it.
    pub mac: B256,
}

impl VoteRequest {
    /// Of the replica `from`.
    pub fn new(mac: &Mac, set: B256, from: &str, challenge: B256, vote: Vote) -> Self {
        let mut request = Self { set, from: from.to_owned(), challenge, vote, mac: B256::ZERO };
        request.mac = mac.of(&request.parts());
        request
    }

    /// Is it from a replica of this set?
    pub fn is_of(&self, mac: &Mac, set: B256) -> bool {
        self.set == set && mac.holds(&self.parts(), self.mac)
    }

    fn parts(&self) -> [&[u8]; 8] {
        let [run, app, root, key] = self.vote.parts();
        let (set, challenge) = (self.set.as_slice(), self.challenge.as_slice());
        [b"cohort-kms-vote/1", set, self.from.as_bytes(), challenge, run, app, root, key]
    }
}

/// Its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoteAnswer {
    /// Whether the vote is, or now became, the one asked for.
    pub granted: bool,
    /// Over request, name and answer.
    pub mac: B256,
}

impl VoteAnswer {
    /// Of the replica `by`.
    pub fn new(mac: &Mac, request: &VoteRequest, by: &str, granted: bool) -> Self {
        Self { granted, mac: mac.of(&Self::parts(request, by, granted)) }
    }

    /// Is it that replica's, to this request?
    pub fn is_by(&self, mac: &Mac, request: &VoteRequest, by: &str) -> bool {
        mac.holds(&Self::parts(request, by, self.granted), self.mac)
    }

    fn parts<'a>(request: &'a VoteRequest, by: &'a str, granted: bool) -> [&'a [u8]; 4] {
        let granted: &[u8] = if granted { &[1] } else { &[0] };
        [b"cohort-kms-vote-answer/1", request.mac.as_slice(), by.as_bytes(), granted]
    }
}

/// Body of `POST /v1/replica/votes`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VotesRequest {
    /// Of which set.
    pub set: B256,
    /// Who asks.
    pub from: String,
    /// Random.
    pub nonce: B256,
    /// From which run on, exclusive.
    pub after: Option<RunId>,
    /// Over all of it.
    pub mac: B256,
}

impl VotesRequest {
    /// Of the replica `from`; `None` without randomness.
    pub fn new(mac: &Mac, set: B256, from: &str, after: Option<RunId>) -> Option<Self> {
        let mut nonce = B256::ZERO;
        getrandom::fill(nonce.as_mut_slice()).ok()?;
        let mut request = Self { set, from: from.to_owned(), nonce, after, mac: B256::ZERO };
        request.mac = mac.of(&request.parts());
        Some(request)
    }

    /// Is it from a replica of this set?
    pub fn is_of(&self, mac: &Mac, set: B256) -> bool {
        self.set == set && mac.holds(&self.parts(), self.mac)
    }

    fn parts(&self) -> [&[u8]; 5] {
        let after: &[u8] = self.after.as_ref().map_or(&[], |run| run.as_bytes());
        [b"cohort-kms-votes/1", self.set.as_slice(), self.from.as_bytes(), self.nonce.as_slice(), after]
    }
}

/// Its answer: up to [`VOTES_MAX`] votes, ascending by run; none: there are no more.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VotesAnswer {
    /// The votes.
    pub votes: Vec<Vote>,
    /// Over request, name and votes.
    pub mac: B256,
}

impl VotesAnswer {
    /// Of the replica `by`.
    pub fn new(mac: &Mac, request: &VotesRequest, by: &str, votes: Vec<Vote>) -> Self {
        let signed = mac.of(&Self::parts(request, by, &votes));
        Self { votes, mac: signed }
    }

    /// Is it that replica's, to this request?
    pub fn is_by(&self, mac: &Mac, request: &VotesRequest, by: &str) -> bool {
        mac.holds(&Self::parts(request, by, &self.votes), self.mac)
    }

    fn parts<'a>(request: &'a VotesRequest, by: &'a str, votes: &'a [Vote]) -> Vec<&'a [u8]> {
        let head: [&[u8]; 3] = [b"cohort-kms-votes-answer/1", request.mac.as_slice(), by.as_bytes()];
        head.into_iter().chain(votes.iter().flat_map(Vote::parts)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_for_its_set_sender_key_and_content_only() {
        let mac = Mac::new(&SecretBytes::new([1; 32]));
        let set = set_hash(1, Address::ZERO, ["a", "b"].into_iter());
        assert_eq!(set, set_hash(1, Address::ZERO, ["b", "a"].into_iter()));
        for other in [
            set_hash(2, Address::ZERO, ["a", "b"].into_iter()),
            set_hash(1, Address::repeat_byte(1), ["a", "b"].into_iter()),
            set_hash(1, Address::ZERO, ["a", "b", "c"].into_iter()),
            set_hash(1, Address::ZERO, ["ab"].into_iter()),
        ] {
            assert_ne!(set, other);
        }
        let (word, address) = (B256::ZERO, Address::ZERO);
        let vote = Vote { run_id: RunId(word), app: address, kms_root: address, receipt_key: address };
        let request = VoteRequest::new(&mac, set, "a", word, vote);
        assert!(request.is_of(&mac, set));
        assert!(!request.is_of(&mac, word));
        assert!(!request.is_of(&Mac::new(&SecretBytes::new([2; 32])), set));
        let thief = Vote { receipt_key: Address::repeat_byte(1), ..vote };
        assert!(!VoteRequest { vote: thief, ..request.clone() }.is_of(&mac, set));
        assert!(!VoteRequest { from: "b".to_owned(), ..request.clone() }.is_of(&mac, set));
        let answer = VoteAnswer::new(&mac, &request, "b", false);
        assert!(answer.is_by(&mac, &request, "b"));
        assert!(!answer.is_by(&mac, &request, "c"), "one replica's vote counted as another's");
        assert!(!VoteAnswer { granted: true, ..answer.clone() }.is_by(&mac, &request, "b"));
        let later = VoteRequest::new(&mac, set, "a", B256::repeat_byte(1), vote);
        assert!(!answer.is_by(&mac, &later, "b"), "an old answer was replayed");
        let asked = VotesRequest::new(&mac, set, "a", None).unwrap();
        let votes = VotesAnswer::new(&mac, &asked, "b", vec![vote]);
        assert!(votes.is_by(&mac, &asked, "b") && !votes.is_by(&mac, &asked, "a"));
        assert!(!VotesAnswer { votes: Vec::new(), ..votes }.is_by(&mac, &asked, "b"));
    }
}
